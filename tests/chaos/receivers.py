"""Receivers of webhooks as they are: one that works, one that never answers, one that is not there."""

import contextlib
import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from types import TracebackType
from typing import Self

from tests.app.webhooks.receiver import receiving
from tests.ports import nobody

SETTINGS = {
    "ROLLOVER_WEBHOOK_NETWORKS": "127.0.0.0/8",
    "ROLLOVER_WEBHOOK_RETRY_SECONDS": "1",
    "ROLLOVER_WEBHOOK_TIMEOUT_SECONDS": "5",
}


@dataclass
class Receivers:
    """The three of them; a context manager."""

    def __enter__(self) -> Self:
        self._open = contextlib.ExitStack()
        self._good = self._open.enter_context(receiving())
        slow = self._open.enter_context(receiving())
        slow.answers = [slow.hang]
        dead = f"http://127.0.0.1:{self._open.enter_context(nobody())}/"
        self.urls: Iterator[str] = cycle([self._good.url, slow.url, dead])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def faults(self, told: Mapping[str, str], within: float) -> list[str]:
        """What is wrong once there was time to deliver; `told`: where each ended job was to post to."""
        wanted = {job for job, url in told.items() if url == self._good.url}
        end = time.monotonic() + within
        while wanted - self._heard().keys() and time.monotonic() < end:
            time.sleep(0.2)
        heard = self._heard()
        missing = [f"{job}: its receiver was not told" for job in sorted(wanted - heard.keys())]
        strange = [f"{job}: its receiver was told, which nobody asked for" for job in heard.keys() - wanted]
        varied = [f"{job}: told in {len(texts)} ways" for job, texts in heard.items() if len(texts) > 1]
        return [*missing, *strange, *varied]

    @property
    def calls(self) -> int:
        """How many messages came to the one that works."""
        return len(self._good.calls)

    def _heard(self) -> dict[str, Collection[tuple[str, str]]]:
        """The jobs that the one that works was told of, each with the different ids and bodies that came."""
        heard: dict[str, set[tuple[str, str]]] = {}
        for call in list(self._good.calls):
            job = json.loads(call.body)["data"]["id"]
            heard.setdefault(job, set()).add((call.headers["webhook-id"], call.body))
        return dict(heard)
