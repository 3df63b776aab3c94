"""The one function that RQ jobs name."""

import logging
from contextvars import ContextVar

from pydantic import ValidationError

from contracts.jobs import FINAL_STATUSES
from workers.messages import Ending
from workers.supervisor import Supervisor

log = logging.getLogger(__name__)
current_supervisor: ContextVar[Supervisor] = ContextVar("current_supervisor")
"""The supervisor of this process; the worker sets it before each job."""


def run_generation(job_id: str) -> Ending:
    """Run a generation; how that ended is the worker's to act on."""
    supervisor = current_supervisor.get()
    try:
        return supervisor.run(job_id)
    except ValidationError as error:
        if supervisor.fields(job_id).get("status") in FINAL_STATUSES:
            return Ending.DONE
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        log.warning("%s waits for a worker of another version, this one cannot read it: %s", job_id, told)
        return Ending.UNREADABLE
