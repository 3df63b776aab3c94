"""Rollover Budget Forcing and its rivals as a library: interpolants, kernels, a ledger, search strategies.

Torch and numpy only. The paper is arXiv 2503.19385; its symbols are in docs/maths.md, with where each
equation lives. Time runs from 1 (noise) to 0 (data) on every path.
"""
