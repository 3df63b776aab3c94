"""What a signal does to a program that is not far enough yet to stop in its own way."""

import signal
import sys
from types import FrameType


def end_when_told() -> None:
    """Have SIGTERM and SIGINT end this process with code 0, until it handles them itself.

    To be called before the imports that take long. Without a handler a process ends by the signal, as if it
    had failed; and the first one of a container ignores it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
