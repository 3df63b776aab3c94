"""Who may send a request, and how many: API keys, and their requests a minute."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from app.gathered import Shared
from app.keyring import ApiKey, digest_of, id_of
from app.problems import ProblemError
from contracts.errors import ErrorCode
from contracts.keys import KEYRING_KEY, requests_key
from contracts.requests import Caps
from contracts.settings import is_loopback

WINDOW_SECONDS = 60
OPEN_SECONDS = 1.0
"""How long a server without keys goes on before it looks for one again."""

CHECK_SCRIPT = """
-- KEYS: keyring, counter of this key's requests; ARGV: the key's id, digest of its secret, window in ms
if redis.call('EXISTS', KEYS[1]) == 0 then return {'no_keys'} end
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return {'unknown'} end
local key = cjson.decode(text)
if key.digest ~= ARGV[2] then return {'unknown'} end
if type(key.revoked_at) == 'string' then return {'revoked'} end
if type(key.requests_per_minute) ~= 'number' then return {'known', text, 0, 0} end
local used = redis.call('INCR', KEYS[2])
if used == 1 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return {'known', text, key.requests_per_minute - used, redis.call('PTTL', KEYS[2])}
"""
"""Returns what the key is; for a known one also its JSON, the requests left in this window (negative: this is
one too many) and the milliseconds to the next."""


@dataclass(frozen=True)
class Allowance:
    """What is left of one limit (RateLimit header fields for HTTP, draft-ietf-httpapi-ratelimit-headers).

    `window` and `reset` are in seconds; None for a limit on what there is at once, which no time renews.
    """

    name: str
    quota: int
    left: int
    window: int | None = None
    reset: int | None = None

    @property
    def policy(self) -> str:
        """An item of `RateLimit-Policy`."""
        window = "" if self.window is None else f";w={self.window}"
        return f'"{self.name}";q={self.quota}{window}'

    @property
    def state(self) -> str:
        """An item of `RateLimit`."""
        reset = "" if self.reset is None else f";t={self.reset}"
        return f'"{self.name}";r={max(self.left, 0)}{reset}'


@dataclass(frozen=True)
class Caller:
    """Who sends a request; `key` is None on a server without keys, which only its own machine can reach."""

    key: ApiKey | None = None
    requests: Allowance | None = None

    @property
    def owner(self) -> str | None:
        """What this caller's generations are marked with: it sees these and no others."""
        return self.key.id if self.key else None

    def caps(self, server: Caps) -> Caps:
        """What one submission may ask for: never more than the key has in a whole day."""
        if self.key is None:
            return server
        caps = replace(server, priority=self.key.priority)
        daily = self.key.nfe_per_day
        if daily is None or daily >= server.max_nfe:
            return caps
        return replace(caps, max_nfe=daily, whose="a day with this API key")


ANYBODY = Caller()
"""The caller on a server without keys."""


class Access:
    """Tells callers by their keys; `local` says that only this machine can reach the server."""

    def __init__(self, redis: Any, *, local: bool) -> None:  # noqa: ANN401 (its types cover both clients)
        """Use an asyncio client that returns text."""
        self.redis = redis
        self.local = local
        self.open_until: float | None = None
        self.looks = Shared()

    async def caller(self, secret: str | None, host: str | None) -> Caller:
        """Return who sends a request with this secret to this host, and count the request.

        Raises:
            ProblemError: 401 without a valid key, 403 where the server has none but needs one.
        """
        if await self.still_open():
            return self.without_keys(host)
        digest = digest_of(secret or "")
        keys = [KEYRING_KEY, requests_key(id_of(digest))]
        args = [id_of(digest), digest, WINDOW_SECONDS * 1000]
        what, *facts = await self.redis.eval(CHECK_SCRIPT, len(keys), *keys, *args)
        if what == "no_keys":
            self.open_until = time.monotonic() + OPEN_SECONDS
            return self.without_keys(host)
        if what != "known":
            raise unauthorized(secret, what)
        return known(*facts)

    async def still_open(self) -> bool:
        """Whether the server had no key when it was last looked at, which is not long ago."""
        if self.open_until is None:
            return False
        return time.monotonic() < self.open_until or await self.looks.get("keyring", self.look)

    async def look(self) -> bool:
        """Look again whether there is no key: once for all requests that come together."""
        is_open = not await self.redis.exists(KEYRING_KEY)
        self.open_until = time.monotonic() + OPEN_SECONDS if is_open else None
        return is_open

    def without_keys(self, host: str | None) -> Caller:
        """Let everybody in where everybody is on this machine, and meant it.

        A web page can name its own host and have that name point at this machine (DNS rebinding): what a
        browser then sends comes from here, but is not addressed to a name of this machine.
        """
        if not self.local:
            detail = (
                "This server listens beyond its own machine and has no API key yet. Create one there "
                "with `rollover keys create NAME`, and send it as `Authorization: Bearer KEY`."
            )
            raise ProblemError("no_keys", detail)
        if not is_loopback(host or ""):
            detail = f"Without API keys the host must be localhost, 127.0.0.1 or [::1], not '{host}'."
            raise ProblemError("wrong_host", detail)
        return ANYBODY


def known(text: str, left: int, milliseconds: int) -> Caller:
    """Build the caller with a valid key."""
    key = ApiKey.model_validate_json(text)
    if key.requests_per_minute is None:
        return Caller(key)
    reset = math.ceil(milliseconds / 1000)
    return Caller(key, Allowance("requests", key.requests_per_minute, left, WINDOW_SECONDS, reset))


def exhausted(code: ErrorCode, allowance: Allowance, unit: str, *others: Allowance) -> ProblemError:
    """Build the error for a limit that is used up until its window ends; it tells of the others too."""
    detail = f"This API key may use {allowance.quota} {unit}; {max(allowance.left, 0)} are left."
    headers = {"Retry-After": str(allowance.reset), **limits_told(allowance, *others)}
    return ProblemError(code, detail, headers=headers)


def limits_told(*allowances: Allowance) -> dict[str, str]:
    """Return the headers that tell what is left of limits."""
    return {
        "RateLimit-Policy": ", ".join(allowance.policy for allowance in allowances),
        "RateLimit": ", ".join(allowance.state for allowance in allowances),
    }


def unauthorized(secret: str | None, what: str) -> ProblemError:
    """Build the error for a request without a valid key (RFC 6750, section 3)."""
    if secret is None:
        detail = "This server needs an API key: send `Authorization: Bearer KEY`."
        return ProblemError("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
    detail = "This API key was revoked." if what == "revoked" else "This API key is not one of this server's."
    return ProblemError("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
