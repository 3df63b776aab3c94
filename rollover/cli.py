"""The ``rollover`` command."""

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from rollover.client import Client, default_url
from rollover.display import OutputError, document_lines, follow, prepare, quote_lines, save, summary
from rollover.documents import Generation
from rollover.errors import RolloverError
from rollover.serve import (
    Stack,
    StackError,
    StackSettings,
    environment_of,
    module,
    serve,
    stopping_on_signals,
)

app = typer.Typer(
    name="rollover",
    help="Search images under a compute budget: prompt, reward and NFE in, the best image found out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

models = typer.Typer(invoke_without_command=True)
app.add_typer(models, name="models")
keys = typer.Typer(no_args_is_help=True, help="API keys of the server whose store this machine can reach.")
app.add_typer(keys, name="keys")

NEEDS = {"worker": ("pydantic_settings", "huggingface_hub"), "api": ("pydantic_settings", "redis")}
"""By extra, what tells that it is installed."""
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept (ROLLOVER_DATA_DIR).")]
Url = Annotated[
    str, typer.Option("--url", help="The server.", default_factory=default_url, envvar="ROLLOVER_URL")
]
Prompt = Annotated[str, typer.Argument(help="What the image should show.")]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward", "-r", help="What steers the search: NAME or NAME:WEIGHT. Repeat it for several."
    ),
]
RewardParams = Annotated[
    list[str] | None,
    typer.Option(
        help='NAME=JSON: parameters of a reward named, such as grounded_count=\'{"counts": {"dog": 2}}\'.'
    ),
]
HeldOut = Annotated[list[str] | None, typer.Option("--held-out", help="Scored on the final images only.")]
Nfe = Annotated[int | None, typer.Option("--nfe", help="Budget, in function evaluations.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the image and the trace.")]
Priority = Literal["low", "normal", "high"]
Seed = Annotated[int | None, typer.Option("--seed", help="The same seed gives the same image.")]


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on (ROLLOVER_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (ROLLOVER_PORT).")] = None,
    data_dir: DataDir = None,
    model: Annotated[list[str] | None, typer.Option(help="One worker for each (ROLLOVER_MODELS).")] = None,
) -> None:
    """Start Valkey, the workers and the API; Ctrl-C stops them all."""
    with _errors_as_exit():
        settings = StackSettings.from_environment(os.environ)
        given = {"host": host, "port": port, "data_dir": data_dir, "models": model}
        serve(replace(settings, **{name: value for name, value in given.items() if value is not None}), _say)


@app.command()
def generate(  # noqa: PLR0913, PLR0917 -- one argument for each option
    prompt: Prompt,
    url: Url,
    reward: Rewards = None,
    reward_params: RewardParams = None,
    held_out: HeldOut = None,
    nfe: Nfe = None,
    out: Out = Path("out"),
    seed: Seed = None,
    image: Annotated[
        Path | None, typer.Option(help="PNG or JPEG file that the prompt is about, for models that take one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="`rollover models` lists them.")] = None,
    images: Annotated[int | None, typer.Option(help="How many of the best to return.")] = None,
    search: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the search, such as strategy=rbf.")
    ] = None,
    sampler: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the sampler, such as steps=10.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the budget, such as seconds=30.")
    ] = None,
    priority: Annotated[Priority | None, typer.Option(help="Among the jobs that wait.")] = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Also run best-of-n at the same NFE.")] = False,  # noqa: FBT002
    quote: Annotated[bool, typer.Option("--quote", help="Only say what it would take.")] = False,  # noqa: FBT002
) -> None:
    """Search one image, showing the search as it runs; writes the image and its trace."""
    with _errors_as_exit(), Client(url) as client:
        given = {
            "held_out": held_out,
            "seed": seed,
            "model": model,
            "num_images": images,
            "search": _pairs(search),
            "sampler": _pairs(sampler),
            "budget": _pairs(budget),
            "priority": priority,
            "baseline": baseline or None,
        }
        fields = {name: value for name, value in given.items() if value is not None}
        steering = _rewards(reward, reward_params)
        if quote:
            typer.echo(quote_lines(client.quote(prompt, reward=steering, nfe=nfe, image=image, **fields)))
            return
        prepare(out)
        job = client.submit(prompt, reward=steering, nfe=nfe, image=image, **fields)
        with _output_error_names(job, url):
            _finish(client, job, out)


@app.command()
def extend(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="A job that succeeded.")],
    url: Url,
    nfe: Annotated[
        int | None, typer.Option("--nfe", help="What to spend on top, in function evaluations.")
    ] = None,
    out: Out = Path("out"),
    budget: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the new budget, such as seconds=30.")
    ] = None,
) -> None:
    """Go on with a search that has ended; writes the image and the trace of what is new."""
    with _errors_as_exit(), Client(url) as client:
        limits = _pairs(budget) or {}
        prepare(out)
        job = client.extend(job_id, nfe, **limits)
        with _output_error_names(job, url):
            _finish(client, job, out)


@app.command()
def demo(
    prompt: Prompt = "two red circles and a blue square",
    reward: Rewards = None,
    held_out: HeldOut = None,
    nfe: Nfe = 200,
    out: Out = Path("out"),
    seed: Seed = 0,
) -> None:
    """Start everything on a free port, search one image over HTTP, and stop everything."""
    with _errors_as_exit(), tempfile.TemporaryDirectory(prefix="rollover-demo-") as data_dir:
        prepare(out)
        settings = StackSettings.from_environment(os.environ)
        settings = replace(
            settings, host="127.0.0.1", port=0, data_dir=Path(data_dir), redis_url=None, artifacts_url=None
        )
        with stopping_on_signals(), Stack(settings, _say) as stack, Client(stack.url) as client:
            fields: dict[str, Any] = {"held_out": held_out} if held_out else {}
            _finish(client, client.submit(prompt, reward=_rewards(reward), nfe=nfe, seed=seed, **fields), out)


@app.command()
def status(job_id: Annotated[str, typer.Argument(metavar="ID", help="The job.")], url: Url) -> None:
    """Show where a job stands."""
    with _errors_as_exit(), Client(url) as client:
        typer.echo(document_lines(client.get(job_id)))


@app.command()
def cancel(job_id: Annotated[str, typer.Argument(metavar="ID", help="The job.")], url: Url) -> None:
    """End a job; the best it has found so far becomes its result."""
    with _errors_as_exit(), Client(url) as client:
        typer.echo(document_lines(client.cancel(job_id)))


@models.callback()
def list_models(context: typer.Context, url: Url) -> None:
    """List the models of the server; `rollover models pull` fetches one to this machine."""
    if context.invoked_subcommand:
        return
    with _errors_as_exit(), Client(url) as client:
        _table(client.models(), ["id", "title", "image", "available", "licence"])


@models.command("pull")
def pull_model(model: Annotated[str, typer.Argument(help="Id in the catalogue.")]) -> None:
    """Fetch what a model needs from the Hugging Face hub; says licence and gating first."""
    _program("workers.pull", "worker", "--", model)


@app.command()
def rewards(url: Url) -> None:
    """List the rewards of the server."""
    with _errors_as_exit(), Client(url) as client:
        entries = [{**entry, "range": _range(entry)} for entry in client.rewards()]
        _table(entries, ["name", "range", "available", "differentiable", "licence"])


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Id of the model.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="File with one prompt a line; a dozen tell enough. Bundled models have some."),
    ] = None,
    reward: Annotated[str | None, typer.Option("--reward", "-r", help="Default: the model's.")] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="PNG or JPEG file that all prompts are about, for models that take one."),
    ] = None,
    noises: Annotated[int, typer.Option(min=3, help="Noises of each prompt.")] = 16,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; default: with the model.")] = None,
) -> None:
    """Measure from which level on one-step predictions foretell the reward, and what settings follow."""
    given = {"prompts": prompts, "reward": reward, "image": image, "out": out}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    arguments = [f"--noises={noises}", *options, "--", model]
    _program("workers.calibrate", "worker", *arguments)


@app.command()
def doctor(
    data_dir: DataDir = None,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002
) -> None:
    """Say what would run on this machine, before anything is downloaded; exit code 1 where not all would."""
    _program("workers.doctor", "api", *(["--json"] if json_output else []), data_dir=data_dir)


def _program(name: str, extra: str, *arguments: str, data_dir: Path | None = None) -> None:
    """Run one of the server's own programs, which needs an extra, and exit as it does."""
    with _errors_as_exit():
        if find_spec("workers") is None:
            raise StackError("This installation has no workers in it: run it where they are.")
        if any(find_spec(package) is None for package in NEEDS[extra]):
            raise StackError(f"This needs pip install 'rollover[{extra}]'")
        settings = StackSettings.from_environment(os.environ)
        settings = replace(settings, data_dir=data_dir or settings.data_dir)
        environment = environment_of(settings, None, 0)
        code = subprocess.run(module(name, *arguments), env=environment, check=False).returncode
    raise typer.Exit(code)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, or what it is for.")],
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Default: no limit.")] = None,
    nfe_per_day: Annotated[int | None, typer.Option(min=1, help="By UTC. Default: no limit.")] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="Jobs that may wait or run at once. Default: no limit.")
    ] = None,
    priority: Annotated[Priority, typer.Option(help="The highest that its jobs may have.")] = "normal",
    data_dir: DataDir = None,
) -> None:
    """Make a key and show it, once. From the first key on, every request needs one."""
    limits = {
        "requests-per-minute": requests_per_minute,
        "nfe-per-day": nfe_per_day,
        "concurrent": concurrent,
        "priority": priority,
    }
    given = [f"--{limit}={value}" for limit, value in limits.items() if value is not None]
    _keys(data_dir, "create", *given, "--", name)


@keys.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """Show every key with its limits; the secrets are stored nowhere."""
    _keys(data_dir, "list")


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `rollover keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Make a key useless from the next request on."""
    _keys(data_dir, "revoke", "--", key_id)


def _keys(data_dir: Path | None, *arguments: str) -> None:
    """Run the server's own program for its keys, which alone knows how they are stored."""
    with _errors_as_exit():
        settings = StackSettings.from_environment(os.environ)
        settings = replace(settings, data_dir=data_dir or settings.data_dir)
        _say_whose_keys(settings, arguments[0])
        with Stack(settings, lambda _: None).store() as redis_url:
            environment = environment_of(settings, redis_url, settings.port)
            code = subprocess.run(module("app.keys", *arguments), env=environment, check=False).returncode
    raise typer.Exit(code)


def _say_whose_keys(settings: StackSettings, command: str) -> None:
    """Name the embedded store; only the first key of a server may make a new one."""
    if settings.redis_url:
        return
    folder = settings.data_dir.resolve()
    if command != "create" and not (folder / "valkey").exists():
        message = f"No server has its data in {folder}: name it with --data-dir, or set ROLLOVER_REDIS_URL."
        raise StackError(message)
    typer.echo(f"keys of the server with its data in {folder}", err=True)


@contextlib.contextmanager
def _output_error_names(job: Generation, url: str) -> Iterator[None]:
    """Say where an image still is that could not be written."""
    try:
        yield
    except OutputError as error:
        image = f"{job.id}-0.{job.request.get('output_format', 'png')}"
        address = f"{url.rstrip('/')}/v1/generations/{job.id}/images/0"
        kept = f"The server keeps generation {job.id}: curl -o {image} {address}"
        raise OutputError(f"{error}\n{kept}") from error


def _finish(client: Client, job: Generation, out: Path) -> None:
    """Follow a job to its end, write what it left and say how it went; exit code 1 unless it succeeded."""
    _say(f"{'id':<14} {job.id}")
    job = follow(client, job, Console())
    if job.result:
        typer.echo(summary(job, *save(client, job, out)))
    if job.status != "succeeded":
        reason = f": {job.error.detail} ({job.error.code})" if job.error else ""
        typer.echo(f"The generation is {job.status}{reason}", err=True)
        raise typer.Exit(1)


def _rewards(given: Sequence[str] | None, params: Sequence[str] | None = None) -> list[dict[str, Any]] | None:
    """``name`` or ``name:weight``, with the parameters of those that have any, as the API takes them."""
    terms = [_reward(text) for text in given or ()]
    for name, value in (_pairs(params) or {}).items():
        named = [term for term in terms if term["name"] == name]
        if not named:
            raise typer.BadParameter(f"parameters of '{name}': name the reward too, by --reward {name}")
        if not isinstance(value, dict):
            raise typer.BadParameter(f"{value!r}: the parameters of '{name}' are not a JSON object")
        for term in named:
            term["params"] = value
    return terms or None


def _reward(text: str) -> dict[str, Any]:
    name, _, weight = text.partition(":")
    try:
        number = float(weight or 1)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise typer.BadParameter(f"{text!r}: a reward is NAME or NAME:WEIGHT, the weight a finite number")
    return {"name": name, "weight": number} if weight else {"name": name}


def _pairs(given: Sequence[str] | None) -> dict[str, Any] | None:
    """``KEY=VALUE`` texts as a dictionary; a value that is JSON is taken as JSON, any other as text."""
    return dict(_pair(text) for text in given) if given else None


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r}: expected KEY=VALUE")
    try:
        read = json.loads(value)
    except ValueError:
        return key, value
    try:
        json.dumps(read, allow_nan=False)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: numbers must be finite") from error
    return key, read


def _range(entry: dict[str, Any]) -> str:
    """The scores a reward can give."""
    low, high = entry.get("minimum"), entry.get("maximum")
    if low is None:
        return "any number" if high is None else f"up to {high:g}"
    return f"{low:g} and up" if high is None else f"{low:g} to {high:g}"


def _table(entries: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    table = Table(*columns)
    for entry in entries:
        table.add_row(*(str(entry.get(column, "-")) for column in columns))
    Console().print(table)


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


@contextlib.contextmanager
def _errors_as_exit() -> Iterator[None]:
    """What the user can act on is one message and exit code 1, not a stack trace."""
    try:
        yield
    except RolloverError as error:
        typer.echo(f"rollover: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
