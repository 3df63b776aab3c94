"""The one function that RQ jobs name."""

from contextvars import ContextVar

from rq import Retry

from workers.messages import Ending
from workers.supervisor import Supervisor

current_supervisor: ContextVar[Supervisor] = ContextVar("current_supervisor")
"""The supervisor of this process; the worker sets it before each job."""

WITHOUT_LIMIT = 1_000_000
"""How often a job may be given back: being given back is no fault of the job."""


def run_generation(job_id: str) -> Retry | Ending:
    """Run a generation. One that was given back returns what makes RQ put it at the head of its queue."""
    ending = current_supervisor.get().run(job_id)
    return Retry(max=WITHOUT_LIMIT, enqueue_at_front=True) if ending is Ending.GIVEN_BACK else ending
