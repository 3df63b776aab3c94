"""The API as a program of its own."""

import sys

import uvicorn

from app.main import create_app
from contracts import tracing
from contracts.logs import configure
from contracts.rewards import tell_of_broken
from contracts.settings import Settings, in_words

DRAIN_SECONDS = 5


def main() -> int:
    """Read the settings from the environment and serve until a signal comes."""
    try:
        settings = Settings()
        app = create_app(settings)
    except ValueError as error:
        sys.stderr.write(f"rollover: {in_words(error)}\n")
        return 2
    configure()
    tracing.configure("rollover-api")
    tell_of_broken()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        log_config=None,
        access_log=False,
    )
    return 0
