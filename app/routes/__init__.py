"""Thin routes: parse, call one service function, answer."""
