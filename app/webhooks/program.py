"""The deliverer of webhooks as a program of its own."""

import asyncio
import signal
import sys

from pydantic import ValidationError

from app.webhooks.deliverer import deliver
from contracts.logs import configure
from contracts.settings import Settings, in_words


def main() -> int:
    """Read the settings from the environment and deliver until a signal comes."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.stderr.write(f"rollover: {in_words(error)}\n")
        return 2
    if settings.redis_url is None:
        sys.stderr.write("rollover: ROLLOVER_REDIS_URL is not set; `rollover serve` sets it\n")
        return 2
    configure()
    asyncio.run(until_signaled(settings, settings.redis_url))
    return 0


async def until_signaled(settings: Settings, redis_url: str) -> None:
    """Deliver until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await deliver(settings, redis_url, stopping)
