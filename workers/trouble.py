"""What `readyz` says of a model whose engines do not start, also once their worker has given up."""

import logging

import redis

from contracts.keys import trouble_key

REMEMBERED_SECONDS = 3600
LONGEST = 300
log = logging.getLogger(__name__)


def tell(connection: redis.Redis, model: str, error: Exception | None) -> None:
    """Say why an engine could not be started, or that one was."""
    try:
        if error is None:
            connection.delete(trouble_key(model))
        else:
            connection.set(trouble_key(model), str(error)[:LONGEST].rstrip("."), ex=REMEMBERED_SECONDS)
    except redis.RedisError as away:
        log.warning("Redis is away: %s", away)
