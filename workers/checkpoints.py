"""A search as a file that another execution, on any worker, goes on from to the same bytes."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from contracts.jobs import Checkpoint, Record
from contracts.keys import checkpoint_path, checkpoints_path
from contracts.stops import StopReason
from sampling.checkpoint import restore, save
from sampling.errors import CheckpointError
from sampling.state import State
from workers.diagnosis import device_fault, out_of_memory
from workers.previews import Seen
from workers.store import ArtifactStore

IMAGE = "image."
"""What the name of a picture begins with; the evaluation that made it follows."""
BASELINE = "baseline."
"""What the names of the baseline's tensors begin with."""
EVERY_NFE = 25
"""A state is saved at every level, and after the first round that ends so many NFE after the last one."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """What an execution knows besides the state of its search.

    Args:
        elapsed: seconds of the search, over all executions so far.
        best: reward of the best candidate that the limits have seen.
        best_at: the evaluation that made it.
        seconds: of the search's usage, by name; `total` among them.
        baseline_seconds: of the baseline's usage, likewise.
        max_batch: the most rows in a call, of the search or of the baseline where that runs: whoever goes on
            makes the same batches, and so the same bits.
    """

    elapsed: float = 0.0
    best: float | None = None
    best_at: int = 0
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    baseline_seconds: dict[str, float] = field(default_factory=dict[str, float])
    max_batch: int | None = None


@dataclass(frozen=True)
class Standing:
    """Where a job stands: all that is needed to go on.

    Args:
        state: of the search; the best candidates have their pictures.
        memory: of the execution.
        seen: pictures that coming previews may show.
        inherited: the state is the last of another job, and this one has not gone on from it yet.
        ended: why the search ended, where its baseline is what is left to run.
        baseline: state of the baseline; None before its first round.
    """

    state: State
    memory: Memory = field(default_factory=Memory)
    seen: tuple[Seen, ...] = ()
    inherited: bool = False
    ended: StopReason | None = None
    baseline: State | None = None

    @property
    def baseline_nfe(self) -> int:
        """Evaluations that the baseline has made."""
        return self.baseline.ledger.nfe_spent if self.baseline else 0

    @property
    def nfe(self) -> int:
        """Evaluations made, by the search and its baseline."""
        return self.state.ledger.nfe_spent + self.baseline_nfe


@dataclass
class Checkpoints:
    """The checkpoints of one job in the artifact store.

    Every execution writes files of its own and the record names the one that counts: an execution that was
    overtaken can neither replace a newer state nor, without the fence, make the record name an older one.

    Args:
        store: for the files.
        job_id: the job.
        attempt: number of this execution.
        latest: the one that the record names.
    """

    store: ArtifactStore
    job_id: str
    attempt: int
    latest: Checkpoint | None = None

    def write(self, standing: Standing) -> Checkpoint | None:
        """Store a state; it counts once the record names what is returned.

        None where the store refuses: the state before goes on to count, and the search goes on.
        """
        written = Checkpoint(attempt=self.attempt, nfe=standing.nfe)
        return written if self.store.offer(self._path(written), dumps(standing)) else None

    def discard(self, written: Checkpoint) -> None:
        """The record will never name this one."""
        self.store.remove(self._path(written))

    def keep(self, written: Checkpoint) -> None:
        """The record names this one now: the one before is not needed any more.

        That of another job, attempt 0, is kept to the end: there is no other way to begin anew.
        """
        if self.latest is not None and self.latest.attempt and self.latest != written:
            self.store.remove(self._path(self.latest))
        self.latest = written

    def sweep(self, keep: Checkpoint | None = None) -> None:
        """The job has ended: remove all but one, those that executions left which were killed included."""
        self.store.sweep(checkpoints_path(self.job_id), [self._path(keep)] if keep else [])

    def _path(self, checkpoint: Checkpoint) -> str:
        return checkpoint_path(self.job_id, checkpoint.attempt, checkpoint.nfe)


def read(
    store: ArtifactStore, record: Record, device: torch.device, tick: Callable[[], None] = lambda: None
) -> Standing | None:
    """What a job can go on from; None where there is nothing, or nothing that can be read.

    An extension that has lost its own state goes on from that of the job it extends. Raises what the device
    does where it has no memory for a state, or is broken.

    Args:
        store: of the job's files.
        record: the job.
        device: for the state.
        tick: called while the store is waited for.

    Raises:
        workers.failures.StorageFailedError: the store refuses; what it has is not thrown away for that.
    """
    for found in _named(record):
        path = checkpoint_path(record.id, found.attempt, found.nfe)
        content = store.need(path, tick)
        if content is None:
            log.warning("%s starts over, its checkpoint is gone: %s", record.id, path)
            continue
        try:
            standing = loads(content, device)
        except Exception as error:  # a broken file may raise anything
            if out_of_memory(error) or device_fault(error):
                raise
            log.warning("%s starts over, its checkpoint cannot be read: %s", record.id, error)
        else:
            return standing if found.attempt else inherited(standing)
    return None


def inherited(standing: Standing) -> Standing:
    """What a job begins with that goes on from another's last state: its time and its limits are new."""
    memory = Memory(best=standing.state.best_reward, best_at=standing.nfe)
    return Standing(standing.state, memory, standing.seen, inherited=True)


def _named(record: Record) -> list[Checkpoint]:
    """The checkpoints that a record names, the latest first."""
    own = record.checkpoint
    first = Checkpoint(attempt=0, nfe=record.parent.nfe) if record.parent else None
    return [each for each in (own, first if first != own else None) if each is not None]


def dumps(standing: Standing) -> bytes:
    """A checkpoint as one file: safetensors, with the JSON in its header."""
    tensors, search = _saved(standing.state)
    tensors |= {f"{IMAGE}{seen.nfe}": _copied(seen.image) for seen in standing.seen}
    seen = [{"chain": s.chain, "level": s.level, "nfe": s.nfe, "reward": s.reward} for s in standing.seen]
    header = {"search": search, "memory": asdict(standing.memory), "seen": seen, "ended": standing.ended}
    if standing.baseline:
        others, header["baseline"] = _saved(standing.baseline)
        tensors |= {f"{BASELINE}{name}": tensor for name, tensor in others.items()}
    return to_safetensors(tensors, {name: json.dumps(value) for name, value in header.items()})


def loads(content: bytes, device: torch.device) -> Standing:
    """Read what `dumps` wrote. Raises `CheckpointError` and whatever its libraries raise for broken files."""
    tensors, header = _unpacked(content)
    try:
        search, memory, seen = (json.loads(header[name]) for name in ("search", "memory", "seen"))
    except KeyError as error:
        raise CheckpointError(f"the file has no {error}") from error
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    others = {name[len(BASELINE) :]: placed[name] for name in placed if name.startswith(BASELINE)}
    baseline = json.loads(header.get("baseline", "null"))
    return Standing(
        state=_restored(placed, search, device),
        memory=Memory(**memory),
        seen=tuple(Seen(**each, image=placed[f"{IMAGE}{each['nfe']}"]) for each in seen),
        ended=json.loads(header.get("ended", "null")),
        baseline=_restored(others, baseline, device) if baseline else None,
    )


def _saved(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A state and the pictures that must be kept."""
    tensors, meta = save(state)
    images = {each.nfe: each.image for each in state.pictured if each.image is not None}
    return tensors | {f"{IMAGE}{nfe}": _copied(image) for nfe, image in images.items()}, meta


def _restored(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], device: torch.device) -> State:
    named = {name: tensor for name, tensor in tensors.items() if name.startswith(IMAGE)}
    pictures = {int(name.removeprefix(IMAGE)): image for name, image in named.items()}
    return restore(tensors, meta, device, pictures)


def _unpacked(content: bytes) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    # The library reads a header's text only from a file.
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return from_safetensors(content), header


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
