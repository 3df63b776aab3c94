"""What the supervisor and its engine tell each other over their pipe."""

from dataclasses import dataclass, field
from enum import StrEnum

from contracts.jobs import JobError
from contracts.settings import Settings
from workers.settings import WorkerSettings

Hashes = dict[tuple[str, int, int, int], str]
"""SHA-256 of files, by path, inode, size in bytes and time of the last change in nanoseconds."""


@dataclass(frozen=True)
class Spec:
    """What an engine is started with.

    Args:
        hashes: of weights that an engine before it has read.
    """

    model: str
    worker: str
    redis_url: str
    settings: Settings
    worker_settings: WorkerSettings
    hashes: Hashes = field(default_factory=Hashes)


class Order(StrEnum):
    """What a running execution is to do at its next step."""

    CANCEL = "cancel"
    """End; the best so far is the result."""
    GIVE_BACK = "give_back"
    """Save the state and give the job back to its queue."""


@dataclass(frozen=True)
class Run:
    """To the engine: run this job.

    Args:
        job_id: the job.
        traceparent: of the span that it is below.
        lost: run it no further, but end it with this error and the best of its last state.
    """

    job_id: str
    traceparent: str | None = None
    lost: JobError | None = None


@dataclass(frozen=True)
class Heed:
    """To the engine: an order for the job that runs. One for a job that has just ended means nothing."""

    job_id: str
    order: Order


@dataclass(frozen=True)
class Loaded:
    """From the engine: the model is loaded, and not warm yet."""


@dataclass(frozen=True)
class Ready:
    """From the engine: jobs can run on this device, of whose memory it takes so many bytes."""

    device: str
    memory: int
    hashes: Hashes = field(default_factory=Hashes)


@dataclass(frozen=True)
class Refused:
    """From the engine: the model cannot be used, and trying again would not help."""

    reason: str


@dataclass(frozen=True)
class Asking:
    """From the engine: it loads or asks this reward; None: it has what it wanted."""

    reward: str | None


@dataclass(frozen=True)
class Tick:
    """From the engine: the job got a step further."""


class Stage(StrEnum):
    """From the engine: what the job has come to. It loads until something else is said."""

    LOADING = "loading"
    """What it needs is made ready, its rewards among it: until then nothing can be shown."""
    SEARCHING = "searching"
    """The search or its baseline runs, and heeds orders at each step."""
    FINISHING = "finishing"
    """What was found is judged and stored: a cancel could ask for nothing else."""


class Ending(StrEnum):
    """How an execution ended. An engine sends the first three."""

    DONE = "done"
    """The job has its final status, or is deleted."""
    GIVEN_BACK = "given_back"
    """The job waits in its queue again."""
    OVERTAKEN = "overtaken"
    """Another execution has taken the job over; it is that one's to end."""
    LOST = "lost"
    """Nothing more will be heard of it."""
    UNREADABLE = "unreadable"
    """It never began: the job is for workers of a version that can read it."""
