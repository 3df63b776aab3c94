"""The one function that RQ jobs name."""

from contextvars import ContextVar

from rq import Retry

from workers.execution import GivenBackError, Runner

current_runner: ContextVar[Runner] = ContextVar("current_runner")
"""The runner of this process; `workers.main` sets it before the first job."""

WITHOUT_LIMIT = 1_000_000
"""How often a job may be given back: being given back is no fault of the job."""


def run_generation(job_id: str) -> Retry | None:
    """Run a generation. One that was given back returns what makes RQ put it at the head of its queue."""
    try:
        current_runner.get().run(job_id)
    except GivenBackError:
        return Retry(max=WITHOUT_LIMIT, enqueue_at_front=True)
    return None
