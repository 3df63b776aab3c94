"""What can end a job from inside, by name. Without torch: `workers.diagnosis` reads causes."""

from contracts.errors import JobErrorCode


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
    """The artifact store refused a file, again and again."""

    code = "storage_failed"
