"""A worker's hand: writes what a worker would, through the same script and models, without a model."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from redis import Redis

from app.store import keys_of
from contracts.beats import WorkerBeat, WorkerState
from contracts.events import CandidateEvent, Completed, Decision, Event, LevelEvent, Started
from contracts.jobs import (
    Baseline,
    Image,
    LevelRecord,
    Progress,
    Provenance,
    Record,
    Result,
    Seconds,
    Spent,
    Status,
    Usage,
    hash_fields,
    now,
)
from contracts.keys import (
    WORKER_TTL_SECONDS,
    WORKERS_KEY,
    baseline_path,
    baseline_url,
    image_path,
    image_url,
    job_key,
    preview_path,
    preview_url,
    trace_path,
    worker_key,
)
from contracts.transitions import WRITE_SCRIPT, write_args, write_keys
from contracts.turns import LEAVE_SCRIPT, member

PNG = b"\x89PNG\r\n\x1a\n not really a picture"
OTHER_PNG = PNG + b", and another one"


class Hand:
    """Moves one generation along."""

    def __init__(self, redis: Redis, artifacts: Path, generation: str) -> None:
        self.redis: Any = redis  # its types cover the async client too
        self.artifacts = artifacts
        self.id = generation
        self.seq = 0

    @property
    def record(self) -> Record:
        return Record.from_hash(self.redis.hgetall(job_key(self.id)))

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        began = self.record.started_at
        assert began
        return (now() - began).total_seconds()

    def write(
        self,
        *events: Event,
        allowed: Status = Status.RUNNING,
        status: Status | None = None,
        **attributes: object,
    ) -> bool:
        keys = write_keys(self.id)
        args = write_args(allowed=[allowed], status=status, fields=hash_fields(**attributes), events=events)
        applied, _, self.seq = self.redis.eval(WRITE_SCRIPT, len(keys), *keys, *args)
        return bool(applied)

    def take(self) -> None:
        """Take the job off the queue, wherever it waits, as its worker does."""
        keys = keys_of(self.record.request.model)
        assert self.redis.eval(LEAVE_SCRIPT, 4, *keys, "rq:job:none", member(self.record))

    def start(self) -> None:
        began = now() - timedelta(seconds=10)
        started = Started(attempt=1, worker="hand")
        assert self.write(started, allowed=Status.QUEUED, status=Status.RUNNING, attempts=1, started_at=began)

    def candidate(self, nfe: int, reward: float = 0.5) -> CandidateEvent:
        return CandidateEvent(
            nfe=nfe,
            chain=0,
            level=1,
            t=1.0,
            t_next=0.9,
            draw=nfe,
            reward=reward,
            rewards={"scene_match": reward},
            best_reward=reward,
            decision=Decision.IMPROVED,
            quota=8,
        )

    def search(self, first: int, last: int) -> None:
        """Publish the candidates `first` to `last`, each with its progress."""
        for nfe in range(first, last + 1):
            progress = Progress(nfe_spent=nfe, nfe_budget=200, level=1, levels=10, best_reward=0.5)
            assert self.write(self.candidate(nfe), progress=progress)

    def preview(self) -> int:
        """Publish a level with its picture; return its seq."""
        seq = self.seq + 1
        self.file(preview_path(self.id, seq), PNG)
        self.level()
        return seq

    def level(self) -> None:
        """Publish a level whose picture lies there, or will not be found."""
        level = LevelEvent(
            chain=0,
            level=1,
            t=0.9,
            reward=0.5,
            best_reward=0.5,
            draws=3,
            preview_url=preview_url(self.id, self.seq + 1),
        )
        assert self.write(level)

    def finish(self, status: Status = Status.SUCCEEDED) -> None:
        """End the search with one image and a trace of its candidates."""
        self.file(image_path(self.id, 0, self.record.request.output_format), PNG)
        entries = self.redis.xrange(write_keys(self.id)[1])
        texts = [fields["event"] for _, fields in entries]
        candidates = [text for text in texts if '"type":"candidate"' in text]
        self.file(trace_path(self.id), "".join(f"{text}\n" for text in candidates).encode())
        final = Completed(nfe_spent=len(candidates), best_reward=0.5)
        assert self.write(
            final,
            status=status,
            result=self.result(),
            usage=Usage(nfe_spent=1, model_forwards=1, reward_calls=1, decodes=1, seconds=Seconds()),
            completed_at=now(),
        )

    def finish_with_baseline(self) -> None:
        """End the search and its baseline with one image each."""
        self.file(image_path(self.id, 0, "png"), PNG)
        self.file(baseline_path(self.id, "png"), OTHER_PNG)
        result = self.result()
        image = result.images[0].model_copy(update={"url": baseline_url(self.id), "reward": 0.25})
        baseline = Baseline(steps=10, nfe_spent=50, stopped_by="budget", image=image)
        spent = Spent(nfe_spent=50, model_forwards=50, reward_calls=5, decodes=5, seconds=Seconds(total=5.0))
        usage = Usage(
            nfe_spent=60, model_forwards=60, reward_calls=60, decodes=60, seconds=Seconds(total=6.0)
        )
        assert self.write(
            Completed(nfe_spent=60, best_reward=0.5),
            status=Status.SUCCEEDED,
            result=result.model_copy(update={"baseline": baseline}),
            usage=usage.model_copy(update={"baseline": spent}),
            completed_at=now(),
        )

    def result(self) -> Result:
        image = Image(
            url=image_url(self.id, 0),
            width=64,
            height=64,
            sha256="0" * 64,
            reward=0.5,
            rewards={"scene_match": 0.5},
            held_out={"scene_exact": 0.0},
            seed=0,
            chain=0,
            nfe=3,
        )
        level = LevelRecord(chain=0, level=1, t=0.9, reward=0.5, best_reward=0.5, draws=3)
        provenance = Provenance(
            model="shapes", weights_sha256="0" * 64, rewards={}, libraries={}, device="cpu", seed=0
        )
        return Result(
            images=[image], first_reward=0.1, levels=[level], stopped_by="budget", provenance=provenance
        )

    def file(self, path: str, content: bytes) -> None:
        target = self.artifacts / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def beat(redis: Redis, state: WorkerState, model: str = "shapes", name: str = "w1") -> None:
    """Say that a worker lives."""
    text = WorkerBeat(name=name, model=model, state=state, pid=1, host="here").model_dump_json()
    redis.sadd(WORKERS_KEY, name)
    redis.set(worker_key(name), text, ex=WORKER_TTL_SECONDS)
