"""What workers count that belongs to no job."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import redis

from contracts.keys import totals_key

Count = Literal["engine_restarts", "halvings"]
"""Fields of `contracts.totals.Totals`."""
log = logging.getLogger(__name__)


@dataclass
class Counts:
    """Adds to a model's totals. What cannot be added while Redis is away is added with the next."""

    connection: redis.Redis
    model: str
    unsent: Counter[Count] = field(default_factory=Counter)

    def add(self, name: Count) -> None:
        """Count one."""
        self.unsent[name] += 1
        try:
            with self.connection.pipeline(transaction=True) as pipeline:
                for each, number in self.unsent.items():
                    pipeline.hincrby(totals_key(self.model), each, number)
                pipeline.execute()
        except redis.RedisError as error:
            log.warning("not counted yet, Redis is away: %s", error)
        else:
            self.unsent.clear()
