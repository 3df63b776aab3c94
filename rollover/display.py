"""What the commands show: a search as it runs, and what came out of it."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rollover.client import Client
from rollover.documents import Baseline, Event, Generation
from rollover.errors import ConflictError, RolloverError


class OutputError(RolloverError):
    """What a search found cannot be written where it should go."""


class View(Protocol):
    """Something that shows events as they come."""

    def show(self, event: Event) -> None:
        """Show one event."""
        ...


@dataclass
class LiveView:
    """A bar of the NFE spent, with level and best reward beside it.

    Args:
        progress: to show it with.
        task: of that.
        before: NFE spent by the jobs that this one goes on from.
    """

    progress: Progress
    task: TaskID
    before: int = 0

    def show(self, event: Event) -> None:
        """Move the bar."""
        data = event.data
        if event.type == "candidate":
            self.progress.update(
                self.task,
                completed=data["nfe"] - self.before,
                best=_number(data["best_reward"]),
                level=str(data["level"]),
            )
        elif event.type == "started":
            self.progress.update(self.task, state="searching")
        elif event.type == "baseline":
            self.progress.update(self.task, state="best-of-n")
        elif event.final:
            self.progress.update(self.task, state=event.type)


@dataclass
class PlainView:
    """A line for each level: for logs and pipes."""

    console: Console

    def show(self, event: Event) -> None:
        """Print a line where the event is worth one."""
        if event.type == "level":
            data = event.data
            self.console.print(
                f"chain {data['chain']} level {data['level']}: reward {_number(data['reward'])}, "
                f"best {_number(data['best_reward'])}, {data['draws']} draws"
            )
        elif event.type != "candidate":
            self.console.print(event.type)


@contextmanager
def view_of(console: Console, nfe: int, before: int = 0) -> Iterator[View]:
    """The live view on a terminal, the plain one elsewhere; ``before`` as for the live one."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    columns = (
        TextColumn("{task.fields[state]}"),
        BarColumn(),
        TextColumn(
            "{task.completed:.0f}/{task.total:.0f} NFE  level {task.fields[level]}  best {task.fields[best]}"
        ),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("search", total=nfe, state="queued", level="-", best="-")
        yield LiveView(progress, task, before)


def follow(client: Client, job: Generation, console: Console) -> Generation:
    """Show a job to its end; Ctrl-C cancels it and keeps the best so far."""
    before = job.parent.nfe if job.parent else 0
    with view_of(console, job.progress.nfe_budget, before) as view:
        seen = 0
        while True:
            try:
                for event in client.events(job.id, after=seen):
                    seen = event.seq
                    view.show(event)
                return client.get(job.id)
            except KeyboardInterrupt:
                console.print("cancelling; the best so far is kept")
                with suppress(ConflictError):  # it has ended meanwhile
                    client.cancel(job.id)


def prepare(out: Path) -> None:
    """Make the folder for a result and try it. Raises :class:`OutputError` where nothing can be written."""
    with _writing_into(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


def save(client: Client, job: Generation, out: Path) -> tuple[list[Path], Path]:
    """Write every image, the baseline's last, and the trace of an ended job into ``out``; their paths.

    Raises :class:`OutputError` where one cannot be written.
    """
    images: list[Path] = []
    with _writing_into(out):
        for number, content in enumerate(client.images(job.id)):
            images.append(out / f"{job.id}-{number}.{job.request.get('output_format', 'png')}")
            images[-1].write_bytes(content)
        if job.result and job.result.baseline:
            images.append(out / f"{job.id}-baseline.{job.request.get('output_format', 'png')}")
            images[-1].write_bytes(client.baseline(job.id))
        trace = out / f"{job.id}.trace.jsonl"
        trace.write_bytes(client.trace(job.id))
    return images, trace


@contextmanager
def _writing_into(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot write into {out}: {error.strerror}. --out is a folder that can be made and written."
        ) from error


def summary(job: Generation, images: list[Path], trace: Path) -> str:
    """What came out, for a person."""
    lines = [("image", str(path)) for path in images] + [("trace", str(trace))]
    if job.result and job.result.images:
        lines += [
            ("first reward", _number(job.result.first_reward)),
            ("final reward", _number(job.result.images[0].reward)),
        ]
        lines += [
            (f"held out: {name}", _number(value)) for name, value in job.result.images[0].held_out.items()
        ]
        if baseline := job.result.baseline:
            lines += _baseline_lines(baseline, job.usage.get("baseline") or {})
    lines += [("NFE spent", _nfe(job)), ("search", _seconds(job.usage.get("seconds") or {}))]
    return "\n".join(f"{name:<14} {value}" for name, value in lines)


def _baseline_lines(baseline: Baseline, usage: Mapping[str, Any]) -> list[tuple[str, str]]:
    left = _unspent(usage.get("nfe_unspent") or 0, usage.get("unspent_reason"))
    runs = f"{baseline.nfe_spent} NFE{left}, {baseline.steps} a run"
    lines = [("best-of-n", f"{_number(baseline.image.reward)} ({runs})")]
    return lines + [
        (f"  held out: {name}", _number(value)) for name, value in baseline.image.held_out.items()
    ]


def quote_lines(quote: dict[str, Any]) -> str:
    """A quote, for a person."""
    plan, queue = quote["plan"], quote["queue"]
    lines = [("NFE", f"{plan['nfe']} of {quote['request']['budget']['nfe']}"), ("plan", _layout(plan))]
    if baseline := quote.get("baseline"):
        lines.append(("best-of-n", f"{baseline['runs']} runs of {baseline['steps']} steps on top"))
    lines += [
        ("expected", _estimate(quote["expected_seconds"])),
        ("ahead of it", f"{queue['position']} waiting, workers: {queue['workers']}"),
        ("queue wait", _estimate(queue["wait_seconds"])),
    ]
    return "\n".join(f"{name:<14} {value}" for name, value in lines)


def _layout(plan: dict[str, Any]) -> str:
    if plan["runs"] is not None:
        return f"{plan['runs']} runs of {plan['steps']} steps"
    # A server from before this field laid out only runs and levels of rbf.
    if (draws := plan.get("draws")) is not None:
        rounds = f"{sum(draws)} draws in {len(draws)} rounds"
        return f"{rounds}, {plan['finish_steps']} to finish" if plan["finish_steps"] else rounds
    if plan["levels"] is None:
        return "as the search goes"
    chains = "1 chain" if plan["chains"] == 1 else f"{plan['chains']} chains"
    return (
        f"{plan['initial_noises']} initial noises, {plan['levels']} levels x {chains} "
        f"x {plan['quota']} draws, {plan['finish_steps']} to finish"
    )


def _estimate(seconds: float | None) -> str:
    return "not measured yet" if seconds is None else f"{seconds:g} s"


def document_lines(job: Generation) -> str:
    """A job document, for a person."""
    progress = job.progress
    lines = [("id", job.id), ("status", job.status), ("prompt", str(job.request.get("prompt", "")))]
    if image := job.request.get("image"):
        lines.append(("image", f"{image['width']} x {image['height']}, SHA-256 {image['sha256']}"))
    lines += [
        ("NFE spent", _nfe(job) if job.ended else f"{progress.nfe_spent} of {progress.nfe_budget}"),
        ("best reward", _number(progress.best_reward)),
    ]
    if job.parent:
        lines.append(("extends", f"{job.parent.id}, after {job.parent.nfe} NFE"))
    if progress.queue_position is not None:
        lines.append(("in the queue", str(progress.queue_position)))
    if job.error:
        lines.append(("error", f"{job.error.code}: {job.error.detail}"))
    if webhook := job.request.get("webhook"):
        lines.append(("webhook", _webhook(webhook["url"], job.raw.get("webhook"))))
    return "\n".join(f"{name:<14} {value}" for name, value in lines)


def _webhook(url: str, delivery: dict[str, Any] | None) -> str:
    if delivery is None:
        return f"{url}, once it has ended"
    detail = f" ({delivery['detail']})" if delivery.get("detail") else ""
    return f"{url}, {delivery['status']}, tries: {delivery['attempts']}{detail}"


def _nfe(job: Generation) -> str:
    spent, budget = job.usage.get("nfe_spent", 0), job.progress.nfe_budget
    stop = (job.result.raw.get("stopped_by") if job.result else None) or job.status
    return f"{spent} of {budget}" + _unspent(budget - spent, job.usage.get("unspent_reason") or stop)


def _unspent(nfe: int, reason: str | None) -> str:
    return f" ({nfe} unspent: {reason})" if nfe else ""


def _seconds(seconds: dict[str, Any]) -> str:
    parts = [f"{name} {seconds[name]:.1f}" for name in ("model", "decode", "reward") if name in seconds]
    return f"{seconds.get('total', 0.0):.1f} s ({', '.join(parts)})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
