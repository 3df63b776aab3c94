"""The way to the scoring service behind the reward `http`."""

import asyncio
import logging
import random
import time
from dataclasses import dataclass, replace

import httpcore
from pydantic import SecretStr

from contracts.destinations import Destination
from outbound.posting import InnerAddressError, LongAnswerError, Poster

TRIES = 3
PAUSE = 0.5
"""Seconds after the first try; each further one is twice as long. Chance takes up to half of each."""
LONGEST = 1 << 20
"""Bytes of an answer."""
log = logging.getLogger(__name__)


class ScoringError(Exception):
    """The service gave no answer that could be used; the message says what to look at."""


@dataclass(frozen=True)
class ScoringService:
    """Posts documents to one place, again where that may help.

    Args:
        target: the service.
        poster: with the time limit of all tries together, and the inner networks that may be reached.
        token: what it is authorised with; None: nothing.
    """

    target: Destination
    poster: Poster
    token: SecretStr | None = None

    def __call__(self, body: bytes) -> bytes:
        """Return the answer's body.

        Raises:
            ScoringError: the service refused, or did not answer, each time that it was tried.
        """
        why = ""
        deadline = time.monotonic() + self.poster.timeout
        for number in range(TRIES):
            if number:
                # Jitter, not secrecy: workers that failed together shall not come back together.
                time.sleep(PAUSE * 2 ** (number - 1) * random.uniform(0.5, 1))  # noqa: S311
            left = deadline - time.monotonic()
            if left <= 0:
                break
            code, answer = self._tried(body, left)
            if code == 200 and isinstance(answer, bytes):
                return answer
            why = f"it answered {code}" if isinstance(answer, bytes) else answer
            log.warning("the scoring service failed, try %d of %d: %s", number + 1, TRIES, why)
            if code is not None and not worth_another(code):
                break
        raise ScoringError(f"the service at ROLLOVER_REWARD_URL gave no scores: {why}; see its log")

    def _tried(self, body: bytes, seconds: float) -> tuple[int | None, bytes | str]:
        """The status code and the body, or None and why there is none."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        try:
            return asyncio.run(replace(self.poster, timeout=seconds).exchange(self.target, headers, body))
        except InnerAddressError:
            return None, "its host has no address that ROLLOVER_REWARD_NETWORKS allows"
        except LongAnswerError:
            return None, f"its answer is longer than {LONGEST} bytes"
        except (TimeoutError, httpcore.TimeoutException):
            return (
                None,
                f"it did not answer within {self.poster.timeout:g} s (ROLLOVER_REWARD_TIMEOUT_SECONDS)",
            )
        except httpcore.ProtocolError:
            return None, "it hung up, or answered with something other than HTTP"
        except (httpcore.NetworkError, OSError) as error:
            return None, f"the connection failed: {error}"


def worth_another(code: int) -> bool:
    """Whether a service that answered so may answer otherwise a moment later."""
    return code == 429 or code >= 500
