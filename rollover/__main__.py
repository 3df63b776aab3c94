"""``python -m rollover`` is the ``rollover`` command."""

from rollover.cli import app

app()
