"""What workers count that belongs to no job."""

from pathlib import Path
from typing import Any

from redis import Redis

from contracts.keys import totals_key
from contracts.totals import Totals
from tests.chaos.valkey import Valkey
from workers.counts import Counts
from workers.hold import connect


def test_what_cannot_be_counted_while_redis_is_away_is_counted_later(short_dir: Path) -> None:
    with Valkey(short_dir) as valkey, connect(valkey.url) as connection:
        counts = Counts(connection, "shapes")
        counts.add("halvings")
        valkey.kill()
        counts.add("halvings")
        counts.add("engine_restarts")
        valkey.start()
        counts.add("halvings")
        with Redis.from_url(valkey.url, decode_responses=True) as redis:
            fields: Any = redis.hgetall(totals_key("shapes"))
    totals = Totals.from_hash(fields)
    assert (totals.halvings, totals.engine_restarts) == (3, 1)
