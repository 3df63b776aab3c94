"""One message to a receiver that a client has named, and what came of it in words for that client."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import httpcore

from contracts.destinations import destination
from outbound.posting import InnerAddressError, Poster

LONGEST_DETAIL = 200
logger = logging.getLogger("rollover.webhooks")


@dataclass(frozen=True)
class Answer:
    """What a try came to: the receiver's status code, or None and why there is none."""

    status_code: int | None = None
    detail: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver has the message."""
        return self.status_code is not None and 200 <= self.status_code < 300


@dataclass(frozen=True)
class Sender(Poster):
    """Sends messages, and reads of an answer no more than its head."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a message."""
        try:
            target = destination(url, self.networks)
        except ValueError as error:
            return Answer(detail=f"The server does not send webhooks there any more: {error}")
        try:
            code, _ = await self.exchange(target, headers, body)
        except Exception as error:  # noqa: BLE001 (whatever a receiver provokes is a try that failed)
            return Answer(detail=self.failed(error))
        answer = Answer(code)
        return answer if answer.accepted else Answer(code, refused(code))

    def failed(self, error: Exception) -> str:
        """Say why there was no answer, in words that tell nothing of what lies behind the address."""
        match error:
            case InnerAddressError():
                return "The host has no address that webhooks may reach."
            case TimeoutError() | httpcore.TimeoutException():
                return f"The receiver did not answer within {self.timeout:g} s."
            case httpcore.ProtocolError():
                # Its text quotes what came.
                return "The receiver hung up, or answered with something other than HTTP."
            case httpcore.NetworkError() | OSError():
                return f"The connection failed: {error}"[:LONGEST_DETAIL]
            case _:
                logger.error("a webhook met a defect", exc_info=error)
                return "The exchange failed."


def refused(code: int) -> str:
    """Say why an answer is none that a message was delivered with."""
    if 300 <= code < 400:
        return f"The receiver answered {code}; redirects are not followed."
    return f"The receiver answered {code}."
