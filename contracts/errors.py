"""Every error a client can meet, in one closed table, and the problem document that carries it (RFC 9457)."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class ErrorKind:
    """One row of the table: HTTP status (None: a failed job carries it, no response does), title, meaning."""

    status: int | None
    title: str
    meaning: str


ERRORS = MappingProxyType(
    {
        "malformed_json": ErrorKind(
            400, "Malformed JSON", "The body is not UTF-8 encoded JSON, or has a name twice in one object."
        ),
        "unauthorized": ErrorKind(
            401, "Unauthorized", "The request has no valid API key: `Authorization: Bearer KEY`."
        ),
        "no_keys": ErrorKind(
            403,
            "No API keys",
            "The server can be reached from other machines and has no API key yet: it serves nobody.",
        ),
        "wrong_host": ErrorKind(
            403, "Wrong host", "Without API keys a server answers only what is addressed to its own machine."
        ),
        "not_found": ErrorKind(404, "Not found", "No such route."),
        "generation_not_found": ErrorKind(404, "Generation not found", "No generation has this id."),
        "artifact_not_found": ErrorKind(
            404, "Artifact not found", "The generation has no such image or preview (yet)."
        ),
        "method_not_allowed": ErrorKind(405, "Method not allowed", "The `Allow` header names what is."),
        "wrong_state": ErrorKind(
            409, "Wrong state", "The generation's status does not allow this; `generation_status` holds it."
        ),
        "not_extendable": ErrorKind(
            409, "Not extendable", "The generation succeeded, but its search cannot go on; `detail` says why."
        ),
        "body_too_large": ErrorKind(413, "Body too large", "The body is larger than the server accepts."),
        "unsupported_media_type": ErrorKind(
            415, "Unsupported media type", "Bodies are `application/json`, not compressed."
        ),
        "invalid_request": ErrorKind(
            422,
            "Invalid request",
            "A field, query parameter or header cannot be used; `errors` names each one and what is allowed.",
        ),
        "idempotency_mismatch": ErrorKind(
            422, "Idempotency key reused", "The key belongs to a submission with another body."
        ),
        "generation_failed": ErrorKind(
            422, "Generation failed", "The search behind an OpenAI request ended without a picture."
        ),
        "rate_limited": ErrorKind(
            429, "Too many requests", "The key's requests of this minute are used up; see `Retry-After`."
        ),
        "nfe_exhausted": ErrorKind(
            429, "NFE used up", "The budget is more than the key has left today (UTC); see `Retry-After`."
        ),
        "too_many_generations": ErrorKind(
            429,
            "Too many generations",
            "As many of the key's generations wait or run as it may have at once.",
        ),
        "internal_error": ErrorKind(500, "Internal error", "A defect of the server; see its log."),
        "queue_full": ErrorKind(
            503, "Queue full", "As many generations wait as the server allows; try again after `Retry-After`."
        ),
        "redis_unavailable": ErrorKind(
            503, "Redis unavailable", "The server's store is away; try again after `Retry-After`."
        ),
        "storage_unavailable": ErrorKind(
            503, "Storage unavailable", "The artifact store is away; try again after `Retry-After`."
        ),
        "not_ready": ErrorKind(503, "Not ready", "No generation can run now; `reasons` says why."),
        "out_of_memory": ErrorKind(None, "Out of memory", "The search did not fit the device's memory."),
        "reward_failed": ErrorKind(
            None,
            "Reward failed",
            "A reward raised an error, gave no answer, or not one finite number for each picture.",
        ),
        "model_failed": ErrorKind(None, "Model failed", "The model raised an error."),
        "storage_failed": ErrorKind(
            None, "Storage failed", "The worker could not write the results, or read what it goes on from."
        ),
        "worker_lost": ErrorKind(
            None,
            "Worker lost",
            "The worker vanished and every retry was used up; `result` has the best of its last state.",
        ),
        "deadline": ErrorKind(
            None,
            "Deadline passed",
            "The job ran longer than the server allows; `result` has its best so far.",
        ),
    }
)

ErrorCode = Literal[
    "malformed_json",
    "unauthorized",
    "no_keys",
    "wrong_host",
    "not_found",
    "generation_not_found",
    "artifact_not_found",
    "method_not_allowed",
    "wrong_state",
    "not_extendable",
    "body_too_large",
    "unsupported_media_type",
    "invalid_request",
    "idempotency_mismatch",
    "generation_failed",
    "rate_limited",
    "nfe_exhausted",
    "too_many_generations",
    "internal_error",
    "queue_full",
    "redis_unavailable",
    "storage_unavailable",
    "not_ready",
    "out_of_memory",
    "reward_failed",
    "model_failed",
    "storage_failed",
    "worker_lost",
    "deadline",
]
JobErrorCode = Literal[
    "out_of_memory",
    "reward_failed",
    "model_failed",
    "storage_failed",
    "worker_lost",
    "deadline",
    "internal_error",
]


class FieldProblem(BaseModel):
    """One thing wrong with a request: where, what, and what is allowed there."""

    model_config = ConfigDict(frozen=True)

    detail: str
    pointer: str | None = Field(default=None, description="JSON Pointer into the body")
    parameter: str | None = Field(default=None, description="query parameter, path parameter or header")
    allowed: list[str] | None = Field(default=None, description="the closed set of allowed values or names")


class Problem(BaseModel):
    """A problem document (RFC 9457) with a stable `code` from the table in docs/api.md."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="`urn:rollover:problem:` and the code")
    title: str
    status: int
    detail: str
    code: ErrorCode
    errors: list[FieldProblem] | None = None
    reasons: list[str] | None = Field(default=None, description="`not_ready` only")
    message: str | None = Field(default=None, description="what OpenAI's clients show; on their route only")
    generation_status: str | None = Field(default=None, description="`wrong_state` only")


def in_words(problem: FieldProblem) -> str:
    """Say where a problem is, what it is, and what is allowed, unless the detail names that already."""
    allowed = problem.allowed or []
    told = all(value in problem.detail for value in allowed)
    more = "" if told else f" Allowed: {', '.join(allowed)}."
    return f"{problem.pointer or problem.parameter or '/'}: {problem.detail}{more}"


MOST_PROBLEMS = 20
"""Problems told of one request: a body made of wrong names would take a second and megabytes to answer."""


class InvalidRequestError(Exception):
    """A submission that cannot be accepted, with the problems found in it."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(map(in_words, problems)))
        self.problems = problems
