"""The one function that RQ jobs name."""

from contextvars import ContextVar

from workers.messages import Ending
from workers.supervisor import Supervisor

current_supervisor: ContextVar[Supervisor] = ContextVar("current_supervisor")
"""The supervisor of this process; the worker sets it before each job."""


def run_generation(job_id: str) -> Ending:
    """Run a generation; how that ended is the worker's to act on."""
    return current_supervisor.get().run(job_id)
