"""The Python client of Rollover, an HTTP service that searches images under a compute budget."""

from rollover.client import AsyncClient, Client
from rollover.documents import Event, Generation, JobError, Page, Progress, Result, ResultImage
from rollover.errors import (
    ApiError,
    AuthError,
    ConflictError,
    ConnectionFailedError,
    InvalidField,
    InvalidRequestError,
    NotFoundError,
    RolloverError,
    UnavailableError,
    WaitTimeoutError,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "AuthError",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "Event",
    "Generation",
    "InvalidField",
    "InvalidRequestError",
    "JobError",
    "NotFoundError",
    "Page",
    "Progress",
    "Result",
    "ResultImage",
    "RolloverError",
    "UnavailableError",
    "WaitTimeoutError",
]
