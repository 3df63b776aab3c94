"""The `Prefer` header (RFC 7240)."""

import re

MAX_WAIT_SECONDS = 60
WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def preferred_wait(prefer: str) -> int:
    """Return how many seconds the client would wait for an answer; 0 if it does not say.

    A preference that cannot be understood is ignored, as the RFC asks.
    """
    found = WAIT.search(prefer)
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0
