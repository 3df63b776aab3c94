"""API keys: what one is, and how Redis holds them. The secret itself is shown once and stored nowhere."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from contracts.jobs import now
from contracts.keys import KEYRING_KEY
from contracts.requests import Priority

SECRET_PREFIX = "rk_"  # noqa: S105 (by which people and scanners know a key when they see one)
Limit = int | None


class Limits(BaseModel):
    """What a key may do; null: no limit of its own. `priority` is the highest it may ask for."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: Limit = Field(default=None, ge=1)
    nfe_per_day: Limit = Field(default=None, ge=1)
    concurrent: Limit = Field(default=None, ge=1)
    priority: Priority = "normal"


class ApiKey(Limits):
    """One key as stored: `digest` is the SHA-256 of a secret of 256 random bits, which needs no salt."""

    id: str
    name: str
    digest: str
    created_at: datetime
    revoked_at: datetime | None = None


def digest_of(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def id_of(digest: str) -> str:
    """Return the id of the key with a secret of this digest: a request's own key is found in one step."""
    return f"key_{digest[:16]}"


def new_key(name: str, limits: Limits) -> tuple[ApiKey, str]:
    """Make a key; return it with its secret."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    digest = digest_of(secret)
    key = ApiKey(id=id_of(digest), name=name, digest=digest, created_at=now(), **limits.model_dump())
    return key, secret


@dataclass(frozen=True)
class Keyring:
    """The keys in Redis; `redis` is a blocking client that returns text."""

    redis: Any  # its types cover the async client too

    def add(self, key: ApiKey) -> None:
        """Store a key."""
        self.redis.hset(KEYRING_KEY, key.id, key.model_dump_json())

    def all(self) -> list[ApiKey]:
        """Return every key, revoked ones included, oldest first."""
        texts = self.redis.hvals(KEYRING_KEY)
        return sorted(map(ApiKey.model_validate_json, texts), key=lambda key: key.created_at)

    def revoke(self, key: ApiKey) -> None:
        """Make a key useless from the next request on; it stays, since an empty ring opens a server."""
        self.add(key.model_copy(update={"revoked_at": now()}))
