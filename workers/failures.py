"""What can end a job from inside, and the stable code that each cause gets."""

import torch

from contracts.errors import ERRORS, JobErrorCode
from contracts.jobs import JobError
from models.rewards.protocol import RewardValueError
from sampling.errors import RewardError

LONGEST_DETAIL = 500


class JobFailedError(Exception):
    """The job's own fault, or its request's: running it again would fail again."""

    code: JobErrorCode = "internal_error"


class ModelFailedError(JobFailedError):
    """The model raised an error."""

    code = "model_failed"


class RewardFailedError(JobFailedError):
    """A reward raised an error or gave something that cannot be ranked."""

    code = "reward_failed"


class StorageFailedError(JobFailedError):
    """The artifact store refused a file."""

    code = "storage_failed"


def job_error(error: Exception) -> JobError:
    """What a client is told of a failure: the code, and the cause in one line. Never a stack trace."""
    cause = error.__cause__ if isinstance(error, JobFailedError) and error.__cause__ else error
    code = _code(error, cause)
    # An OSError's own text has a path of this machine in it.
    text = cause.strerror or "" if isinstance(cause, OSError) else str(cause)
    lines = text.strip().splitlines()
    detail = lines[0] if lines else type(cause).__name__
    return JobError(code=code, title=ERRORS[code].title, detail=detail[:LONGEST_DETAIL])


def _code(error: Exception, cause: BaseException) -> JobErrorCode:
    if out_of_memory(cause):
        return "out_of_memory"
    if isinstance(error, RewardError | RewardValueError):
        return "reward_failed"
    return error.code if isinstance(error, JobFailedError) else "internal_error"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has an exception for its GPUs and only words for the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
