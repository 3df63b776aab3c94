"""The log of every process: one JSON object a line, with what the work at hand is, to be read as one log."""

import json
import logging
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, object] = MappingProxyType({})
_at_hand: ContextVar[Mapping[str, object]] = ContextVar("at_hand", default=NOTHING)


@contextmanager
def bound(**facts: object) -> Generator[None]:
    """Add facts to every line logged meanwhile by this task or thread; those that are None add nothing.

    A thread started inside knows them only if it runs in a copy of this context.
    """
    given = {name: value for name, value in facts.items() if value is not None}
    token = _at_hand.set({**_at_hand.get(), **given})
    try:
        yield
    finally:
        _at_hand.reset(token)


def fact(name: str) -> str | None:
    """Return a fact of the work at hand, None where there is none of this name."""
    value = _at_hand.get().get(name)
    return None if value is None else str(value)


class JsonFormatter(logging.Formatter):
    """Writes a record with its facts beside the message.

    They are the process's, those of the work at hand (`bound`) and those given as `extra={"facts": {...}}`.
    """

    def __init__(self, facts: Mapping[str, object] = NOTHING) -> None:
        """Begin every line with the facts of this process."""
        super().__init__()
        self.facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "at": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.facts,
            **_at_hand.get(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


JsonFormatter.converter = time.gmtime


def configure(**facts: object) -> None:
    """Send everything that this process logs to stderr as JSON, its libraries' messages included."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(facts))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and any(map(writes, logger.handlers)):
            # A library that has set up a log of its own.
            logger.handlers.clear()
            logger.propagate = True


def writes(handler: logging.Handler) -> bool:
    """Whether a handler writes to a stream of this process, such as stderr, and to no file of its own."""
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
