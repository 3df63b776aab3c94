"""The Python client of Rollover, an HTTP service that searches images under a compute budget."""

from rollover.client import AsyncClient, Client
from rollover.documents import (
    Baseline,
    Event,
    Generation,
    JobError,
    Page,
    Parent,
    Progress,
    Result,
    ResultImage,
)
from rollover.errors import (
    ApiError,
    AuthError,
    ConflictError,
    ConnectionFailedError,
    InvalidArgumentError,
    InvalidField,
    InvalidRequestError,
    NotFoundError,
    RolloverError,
    UnavailableError,
    UnexpectedAnswerError,
    WaitTimeoutError,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "AuthError",
    "Baseline",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "Event",
    "Generation",
    "InvalidArgumentError",
    "InvalidField",
    "InvalidRequestError",
    "JobError",
    "NotFoundError",
    "Page",
    "Parent",
    "Progress",
    "Result",
    "ResultImage",
    "RolloverError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "WaitTimeoutError",
]
