"""The result of a search: its pictures in the store, and the record of what they are and what they cost."""

import hashlib
import time
from dataclasses import dataclass, field

import torch

from contracts.jobs import Image, Result, Seconds, StopReason, Usage
from contracts.keys import image_path, image_url, trace_path
from sampling.events import Candidate
from sampling.state import State
from workers.engine import Search
from workers.hold import Hold
from workers.pictures import encode, pixels
from workers.store import ArtifactStore
from workers.translate import level_record

CANDIDATE = '"type":"candidate"'
"""What tells a candidate event from others without reading the whole of it."""


@dataclass(frozen=True)
class Outcome:
    """Where a search stood when it ended, and why it did."""

    state: State
    stopped_by: StopReason


@dataclass(frozen=True)
class Results:
    """Writes what one execution leaves behind.

    Args:
        hold: on the job.
        store: for the files.
        before: seconds that earlier executions took up to what this one goes on from.
        start: of the execution, by the monotonic clock.
    """

    hold: Hold
    store: ArtifactStore
    before: float = 0.0
    start: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """What the job took, waiting aside, over all executions."""
        return self.before + time.monotonic() - self.start

    def write(self, search: Search, outcome: Outcome) -> Result | None:
        """Store the pictures and the trace; None where nothing was scored yet."""
        best = outcome.state.best
        self._write_trace()
        if not best or outcome.state.first_reward is None:
            return None
        images = torch.stack([candidate.image for candidate in best if candidate.image is not None])
        held_out = search.judge(images)
        return Result(
            images=[
                self._image(search, number, candidate, {name: row[number] for name, row in held_out.items()})
                for number, candidate in enumerate(best)
            ],
            first_reward=outcome.state.first_reward,
            levels=[level_record(level) for level in outcome.state.levels],
            stopped_by=outcome.stopped_by,
            provenance=search.provenance,
        )

    def usage(self, search: Search, state: State) -> Usage:
        """What the search has spent until now."""
        ledger = state.ledger
        waited = self.hold.started_at - self.hold.record.created_at
        return Usage(
            nfe_spent=ledger.nfe_spent,
            nfe_unused=ledger.nfe_unused,
            nfe_redone=self.hold.nfe_redone,
            model_forwards=ledger.model_forwards,
            reward_calls=ledger.reward_calls,
            decodes=ledger.decodes,
            gradients=ledger.gradients,
            seconds=Seconds(
                queued=max(waited.total_seconds(), 0.0),
                total=self.seconds,
                **search.clock.seconds,
            ),
        )

    def _write_trace(self) -> None:
        """The candidates as they were published, by whichever execution."""
        trace = [line for line in self.hold.published() if CANDIDATE in line]
        self.store.put(trace_path(self.hold.record.id), "".join(f"{line}\n" for line in trace).encode())

    def _image(self, search: Search, number: int, candidate: Candidate, held_out: dict[str, float]) -> Image:
        assert candidate.image is not None  # noqa: S101 -- a search that decodes keeps the pictures of its best
        picture = pixels(candidate.image)
        kind = search.request.output_format
        content = encode(picture, kind)
        self.store.put(image_path(self.hold.record.id, number, kind), content)
        return Image(
            url=image_url(self.hold.record.id, number),
            width=picture.shape[1],
            height=picture.shape[0],
            sha256=hashlib.sha256(content).hexdigest(),
            reward=candidate.reward,
            rewards=candidate.rewards,
            held_out=held_out,
            seed=search.request.seed,
            chain=candidate.chain,
            nfe=candidate.nfe,
        )
