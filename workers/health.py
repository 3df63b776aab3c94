"""`python -m workers.health`: whether a worker of this host shows signs of life, for its container to ask."""

import socket
import sys
from typing import cast

import redis
from pydantic import ValidationError

from contracts.beats import WorkerBeat
from contracts.keys import WORKERS_KEY, worker_key
from contracts.settings import Settings, in_words
from workers.hold import away, connect


def main() -> int:
    """The exit code: 0 where a worker of this host lives, or where Redis is away and so nobody can tell."""
    try:
        redis_url = Settings().redis_url
    except ValidationError as error:
        sys.stderr.write(f"{in_words(error)}\n")
        return 1
    if redis_url is None:
        sys.stderr.write("ROLLOVER_REDIS_URL is not set\n")
        return 1
    host = socket.gethostname()
    try:
        with connect(redis_url) as connection:
            found = [beat for beat in beats(connection) if beat.host == host]
    except redis.RedisError as error:
        if not away(error):
            raise
        # A worker waits for Redis to come back: to restart it meanwhile would only lose what it has in hand.
        sys.stdout.write(f"Redis is away: {error}\n")
        return 0
    for beat in found:
        sys.stdout.write(f"{beat.name} is {beat.state}\n")
    if not found:
        sys.stderr.write(f"no worker of {host} shows signs of life\n")
    return 0 if found else 1


def beats(connection: redis.Redis) -> list[WorkerBeat]:
    """The last signs of life of all workers."""
    names = sorted(cast("set[str]", connection.smembers(WORKERS_KEY)))
    texts = [cast("str | None", connection.get(worker_key(name))) for name in names]
    return [WorkerBeat.model_validate_json(text) for text in texts if text]


if __name__ == "__main__":
    sys.exit(main())
