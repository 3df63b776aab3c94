"""What an error in the engine means: for the client, for the search, for the engine itself."""

import re

import torch

from contracts.errors import ERRORS, JobErrorCode
from contracts.jobs import JobError
from models.rewards.protocol import RAISED, RewardValueError
from sampling.errors import RewardError
from workers.failures import JobFailedError

LONGEST_DETAIL = 500
FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s/:'\"]+/)+")
"""The folders that lead to a file of this machine: of no use to a client, and not for it to know."""


def job_error(error: Exception) -> JobError:
    """What a client is told of a failure: the code, and the cause in one line. Never a stack trace."""
    cause = cause_of(error)
    code = _code(error)
    # An OSError's own text has a path of this machine in it.
    text = cause.strerror or "" if isinstance(cause, OSError) else str(cause)
    lines = FOLDERS.sub("…/", text).strip().splitlines()
    own = [note for note in getattr(cause, "__notes__", []) if note.startswith(RAISED)]
    notes = "".join(f" ({note})" for note in own[:1])
    detail = (lines[0] if lines else type(cause).__name__)[: LONGEST_DETAIL - len(notes)] + notes
    return JobError(code=code, title=ERRORS[code].title, detail=detail[:LONGEST_DETAIL])


def cause_of(error: BaseException) -> BaseException:
    """What a model or a reward raised, without the name that the meter gave it."""
    return error.__cause__ if isinstance(error, JobFailedError) and error.__cause__ else error


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has an exception for its GPUs and only words for the CPU."""
    cause = cause_of(error)
    if isinstance(cause, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(cause, RuntimeError) and "can't allocate memory" in str(cause)


def device_fault(error: BaseException) -> bool:
    """Whether the device refuses all further work of this process, as CUDA does after an illegal access."""
    cause = cause_of(error)
    return isinstance(cause, torch.AcceleratorError) and not out_of_memory(cause)


def _code(error: Exception) -> JobErrorCode:
    if out_of_memory(error):
        return "out_of_memory"
    if isinstance(error, RewardError | RewardValueError):
        return "reward_failed"
    return error.code if isinstance(error, JobFailedError) else "internal_error"
