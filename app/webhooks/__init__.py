"""Telling receivers of ended generations: a program of its own, `python -m app.webhooks`.

It alone opens connections to where clients say, so a firewall can hold it without holding the API.
"""
