"""Publishing off the search's thread: previews and checkpoints to the store, then what announces them."""

import threading
from collections.abc import Iterable
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Self

from contracts.events import BaselineEvent, CandidateEvent, Event, LevelEvent
from contracts.jobs import Progress, hash_fields
from contracts.keys import preview_path, preview_url
from workers.checkpoints import Checkpoints, Standing
from workers.hold import Hold, HoldLostError
from workers.pictures import Pixels
from workers.pictures import encode as encode_picture
from workers.store import ArtifactStore

AHEAD = 64
"""Rounds that may wait to be published; a search that gets further ahead waits for the store."""


@dataclass(frozen=True)
class Update:
    """What one round has to tell: candidates, levels with their pictures, and how far the job is.

    Args:
        levels: of the last of the candidates, one for each chain at most.
        baseline: the search has ended before this round, and its baseline begins.
        standing: to be saved once all of this is told; None: not after this round.
    """

    progress: Progress
    candidates: tuple[CandidateEvent, ...] = ()
    levels: tuple[tuple[LevelEvent, Pixels | None], ...] = ()
    baseline: BaselineEvent | None = None
    standing: Standing | None = None


@dataclass
class Publisher:
    """A thread that publishes rounds in order while the next ones are computed.

    What an earlier execution has told is not told again. A context manager: leaving it publishes what is
    left, and raises what went wrong on the way.
    """

    hold: Hold
    store: ArtifactStore
    checkpoints: Checkpoints
    _queue: "Queue[Update | None]" = field(default_factory=lambda: Queue(maxsize=AHEAD))
    _error: Exception | None = None
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # In this context, so that what it logs names the job.
        run = copy_context().run
        self._thread = threading.Thread(target=run, args=[self._run], name="publisher", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        if self._thread:
            self._thread.join()
        if self._error:
            raise self._error

    def publish(self, update: Update) -> None:
        """Hand over one round; raises what an earlier round met."""
        if self._error:
            raise self._error
        self._queue.put(update)

    def _run(self) -> None:
        """Publish until told to end. After an error go on emptying the queue: the search must never block."""
        more = True
        while more:
            waiting = [self._queue.get(), *_rest(self._queue)]
            more = None not in waiting
            updates = [update for update in waiting if update]
            if not updates or self._error:
                continue
            try:
                self._write(updates)
            except Exception as error:  # noqa: BLE001 -- raised again on the search's thread
                self._error = error

    def _write(self, updates: list[Update]) -> None:
        events: list[Event] = []
        for update in updates:
            events += [each for each in update.candidates if each.nfe not in self.hold.told.candidates]
            for level, picture in update.levels:
                if (level.chain, update.candidates[-1].nfe) not in self.hold.told.levels:
                    events.append(self._with_preview(level, picture, self.hold.last_seq + len(events) + 1))
            if update.baseline and not self.hold.told.baseline:
                events.append(update.baseline)
        # Work made again is behind what clients have seen already.
        ahead = updates[-1].progress.spent > self.hold.record.progress.spent
        progress = updates[-1].progress if ahead else None
        standing = next((update.standing for update in reversed(updates) if update.standing), None)
        checkpoint = self.checkpoints.write(standing) if standing else None
        try:
            if events or progress or checkpoint:
                self.hold.write(events, fields=hash_fields(progress=progress, checkpoint=checkpoint))
        except HoldLostError:
            # The record may name it: where the write arrived, its reply was lost, and then the job was.
            if checkpoint and not self.hold.names(checkpoint):
                self.checkpoints.discard(checkpoint)
            raise
        if checkpoint:
            self.checkpoints.keep(checkpoint)

    def _with_preview(self, level: LevelEvent, picture: Pixels | None, seq: int) -> LevelEvent:
        if picture is None:
            return level
        job_id = self.hold.record.id
        if not self.store.offer(preview_path(job_id, seq), encode_picture(picture)):
            return level
        return level.model_copy(update={"preview_url": preview_url(job_id, seq)})


def _rest(queue: "Queue[Update | None]") -> Iterable[Update | None]:
    """Whatever else waits already: rounds faster than the store are published together."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
