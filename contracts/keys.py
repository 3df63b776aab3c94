"""Names in Redis, in the artifact store and in URLs."""

PREFIX = "rollover:"
JOBS_KEY = PREFIX + "jobs"
"""Sorted set of all generation ids, every score 0: ids sort by time, so their lexical order is by age."""
KEYRING_KEY = PREFIX + "keys"
"""Hash: id of each API key -> the key as JSON, revoked ones included; without it the server has no keys."""
WORKERS_KEY = PREFIX + "workers"
"""Set of the names of workers; those without a `worker_key` are gone."""
OUTBOX_KEY = PREFIX + "webhooks"
"""Sorted set: ids of ended generations whose webhook is not delivered yet, by when to try next (Unix ms)."""
OUTCOMES_KEY = PREFIX + "webhooks:outcomes"
"""Hash: how many tries to deliver ended how (`delivered`, `retried`, `failed`)."""
WEBHOOK_SECRET_KEY = PREFIX + "webhooks:secret"
"""String: what webhooks are signed from where the settings have no secret."""
JOB_FUNCTION = "workers.jobs.run_generation"
"""Import path of the only function a worker runs; its one argument is the generation id."""
WORKER_TTL_SECONDS = 10


def job_key(generation: str) -> str:
    """Hash: the job's `Record`."""
    return f"{PREFIX}job:{generation}"


def events_key(generation: str) -> str:
    """Stream: the job's events."""
    return f"{PREFIX}job:{generation}:events"


def jobs_key(owner: str | None) -> str:
    """Sorted set like `JOBS_KEY` of one API key's generations; `JOBS_KEY` itself where there are no keys."""
    return f"{PREFIX}key:{owner}:jobs" if owner else JOBS_KEY


def requests_key(owner: str) -> str:
    """String: requests of an API key in the minute that its time to live ends."""
    return f"{PREFIX}key:{owner}:requests"


def spent_key(owner: str) -> str:
    """Hash: `day` (days since 1970, UTC) and `nfe`, what an API key was charged on that day."""
    return f"{PREFIX}key:{owner}:spent"


def charges_key(owner: str) -> str:
    """Hash: generation -> `day:nfe`, for each whose charge is not settled yet because it may still run."""
    return f"{PREFIX}key:{owner}:charges"


def idempotency_key(key: str, owner: str | None = None) -> str:
    """String: which generation an Idempotency-Key of an API key made, and the hash of its body."""
    return f"{PREFIX}idempotency:{owner or ''}:{key}"


def worker_key(name: str) -> str:
    """String with a time to live: a worker's `WorkerBeat`."""
    return f"{PREFIX}worker:{name}"


def sweep_key(kind: str) -> str:
    """String with a time to live: a sweep of this kind was begun so shortly ago that no other is due."""
    return f"{PREFIX}sweep:{kind}"


def queue_name(model: str) -> str:
    """Name of the RQ queue of a model."""
    return f"rollover:{model}"


def line_key(model: str) -> str:
    """Sorted set: the line before the queue of a model (`contracts.turns`)."""
    return f"{PREFIX}line:{model}"


def turn_key(model: str) -> str:
    """Hash: whose turn it is in the line of a model."""
    return f"{PREFIX}turn:{model}"


def pace_key(model: str, size: tuple[int, int] | None = None) -> str:
    """Hash: `contracts.quotes.Pace` of a model or, with a time to live, of its jobs of a size in pixels."""
    return f"{PREFIX}pace:{model}" + (f"@{size[0]}x{size[1]}" if size else "")


def trouble_key(model: str) -> str:
    """String with a time to live: why no engine of a model could be started, until one has been."""
    return f"{PREFIX}trouble:{model}"


def totals_key(model: str) -> str:
    """Hash: `contracts.totals.Totals` of a model."""
    return f"{PREFIX}totals:{model}"


def image_path(generation: str, index: int, extension: str) -> str:
    """Artifact: final image `index` from 0, best first; `extension` is the request's output_format."""
    return f"{generation}/images/{index}.{extension}"


def input_path(generation: str) -> str:
    """Artifact: the image that the prompt is about."""
    return f"{generation}/input.png"


def baseline_path(generation: str, extension: str) -> str:
    """Artifact: the image of the baseline."""
    return f"{generation}/baseline.{extension}"


def preview_path(generation: str, seq: int) -> str:
    """Artifact: the picture of the level event with this `seq`."""
    return f"{generation}/previews/{seq}.png"


def trace_path(generation: str) -> str:
    """Artifact: every candidate event, one JSON object a line, in the order of `nfe`."""
    return f"{generation}/trace.jsonl"


def checkpoints_path(generation: str) -> str:
    """Folder in the artifact store: states of a search that another execution can go on from."""
    return f"{generation}/checkpoints"


def checkpoint_path(generation: str, attempt: int, nfe: int) -> str:
    """Artifact: the state after `nfe` evaluations, as execution `attempt` had it: a file of its own.

    Attempt 0 has the state that an extension goes on from.
    """
    return f"{checkpoints_path(generation)}/{attempt}-{nfe}.safetensors"


def generation_url(generation: str) -> str:
    """The job document."""
    return f"/v1/generations/{generation}"


def events_url(generation: str) -> str:
    """The job's events as SSE."""
    return f"{generation_url(generation)}/events"


def trace_url(generation: str) -> str:
    """Every candidate evaluated."""
    return f"{generation_url(generation)}/trace"


def cancel_url(generation: str) -> str:
    """Where to POST to cancel."""
    return f"{generation_url(generation)}/cancel"


def extend_url(generation: str) -> str:
    """Where to POST a budget to go on."""
    return f"{generation_url(generation)}/extend"


def image_url(generation: str, index: int) -> str:
    """Final image `index` from 0."""
    return f"{generation_url(generation)}/images/{index}"


def baseline_url(generation: str) -> str:
    """The image of the baseline."""
    return f"{generation_url(generation)}/baseline"


def preview_url(generation: str, seq: int) -> str:
    """The picture of the level event with this `seq`."""
    return f"{generation_url(generation)}/previews/{seq}"
