"""The result of a search: its pictures in the store, and the record of what they are and what they cost."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from contracts.jobs import Baseline, Image, Result, Seconds, Spent, Usage
from contracts.keys import baseline_path, baseline_url, image_path, image_url, trace_path
from contracts.stops import StopReason, why_unspent
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
    """Where a search stood when it ended, and why it did.

    Args:
        state: after its last whole round.
        stopped_by: why it ended.
        left: evaluations made since, in a round that was left.
    """

    state: State
    stopped_by: StopReason
    left: int = 0


@dataclass(frozen=True)
class Results:
    """Writes what one execution leaves behind.

    Args:
        hold: on the job.
        store: for the files.
        before: seconds that earlier executions took up to what this one goes on from.
        start: of the execution, by the monotonic clock.
        tick: called after each reward and each picture, and while the store keeps it waiting.
    """

    hold: Hold
    store: ArtifactStore
    before: float = 0.0
    start: float = field(default_factory=time.monotonic)
    tick: Callable[[], None] = lambda: None

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
        job_id, kind = self.hold.record.id, search.request.output_format
        places = [(image_path(job_id, n, kind), image_url(job_id, n)) for n in range(len(best))]
        return Result(
            images=self._images(search, best, places),
            first_reward=outcome.state.first_reward,
            levels=[level_record(level) for level in outcome.state.levels],
            stopped_by=outcome.stopped_by,
            provenance=search.provenance,
        )

    def write_baseline(self, search: Search, outcome: Outcome) -> Baseline | None:
        """Store the picture of a baseline; None where nothing was scored yet."""
        best = outcome.state.best[:1]
        if not best:
            return None
        job_id, kind = self.hold.record.id, search.request.output_format
        place = (baseline_path(job_id, kind), baseline_url(job_id))
        [image] = self._images(search, best, [place])
        return Baseline(
            steps=search.request.sampler.steps,
            nfe_spent=outcome.state.ledger.nfe_spent,
            stopped_by=outcome.stopped_by,
            image=image,
        )

    def usage(self, search: Search, outcome: Outcome) -> Usage:
        """What the search has spent until now; what earlier executions told of counts, redone or not.

        So does what was made in a round that was left.
        """
        record = self.hold.record
        waited = self.hold.started_at - record.created_at
        seconds = Seconds(queued=max(waited.total_seconds(), 0.0), total=self.seconds, **search.clock.seconds)
        usage = Usage(**dict(spent(search, outcome, self.hold.nfe_redone, seconds)))
        made = usage.nfe_spent - record.nfe_before + outcome.left
        nfe = max(made, record.progress.nfe_spent)
        left = record.request.budget.nfe - nfe
        counted = {
            "nfe_spent": nfe,
            "nfe_unspent": left,
            "unspent_reason": usage.unspent_reason if left else None,
            "nfe_redone": usage.nfe_redone - (nfe - made),
        }
        return usage.model_copy(update=counted)

    def _write_trace(self) -> None:
        """The candidates as they were published, by whichever execution.

        Where the store refuses it, the stream has them all the same.
        """
        trace = [line for line in self.hold.published() if CANDIDATE in line]
        self.store.offer(trace_path(self.hold.record.id), "".join(f"{line}\n" for line in trace).encode())

    def _images(
        self, search: Search, best: Sequence[Candidate], places: Sequence[tuple[str, str]]
    ) -> list[Image]:
        """Judge the pictures of candidates and store each at its path, to be found at its URL."""
        pictures = [candidate.image for candidate in best if candidate.image is not None]
        held_out = search.judge(torch.stack(pictures), self.tick)
        scores = [{name: row[number] for name, row in held_out.items()} for number in range(len(best))]
        return [self._image(search, *each) for each in zip(best, places, scores, strict=True)]

    def _image(
        self, search: Search, candidate: Candidate, place: tuple[str, str], held_out: dict[str, float]
    ) -> Image:
        assert candidate.image is not None  # noqa: S101 -- a search that decodes keeps the pictures of its best
        path, url = place
        picture = pixels(candidate.image)
        content = encode(picture, search.request.output_format)
        self.store.put(path, content, self.tick)
        self.tick()
        return Image(
            url=url,
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


def spent(search: Search, outcome: Outcome, nfe_redone: int, seconds: Seconds) -> Spent:
    """What a search has spent by its ledger, in the words of the contracts."""
    ledger = outcome.state.ledger
    return Spent(
        nfe_spent=ledger.nfe_spent,
        nfe_unspent=ledger.nfe_left,
        unspent_reason=reason_left(search, outcome) if ledger.nfe_left else None,
        nfe_unused=ledger.nfe_unused,
        nfe_redone=nfe_redone,
        model_forwards=ledger.model_forwards,
        reward_calls=ledger.reward_calls,
        decodes=ledger.decodes,
        gradients=ledger.gradients,
        seconds=seconds,
    )


def reason_left(search: Search, outcome: Outcome) -> str | None:
    """Why NFE were left: what stopped the search or, where it ended by itself, its strategy's own reason."""
    stop = outcome.stopped_by
    if stop == "budget" or stop == "finished":  # noqa: PLR1714 -- a type checker narrows no `in`
        return search.strategy.unspent(search.problem, outcome.state)
    return why_unspent(stop, search.request.budget)
