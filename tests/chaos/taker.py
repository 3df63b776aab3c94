"""A worker reduced to its taking of jobs, to be killed at any moment: python -m tests.chaos.taker URL."""

import sys
from typing import Any

from redis import Redis

from app.store import keys_of
from contracts.turns import ADVANCE_SCRIPT

ENDED = "ended"


def main(url: str) -> None:
    """Take one job after the other, as `GenerationWorker` does, and end it at once."""
    keys = keys_of("shapes")
    taken = f"{keys[0]}:intermediate"
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    with Redis.from_url(url, decode_responses=True) as redis:
        client: Any = redis
        while True:
            client.eval(ADVANCE_SCRIPT, len(keys), *keys)
            job = client.blmove(keys[0], taken, 1)
            client.eval(ADVANCE_SCRIPT, len(keys), *keys)
            if job:
                with client.pipeline(transaction=True) as pipeline:
                    pipeline.lrem(taken, 1, job).rpush(ENDED, job).execute()


if __name__ == "__main__":
    main(sys.argv[1])
