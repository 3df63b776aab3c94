"""FLUX.1-dev's shape on a GPU: our search, its bare calls, the authors' loop and diffusers' best-of-n.

python -m benchmarks.gpu_throughput --nfe 100 --minutes 8    # needs a GPU of 48 GB, and nothing else
python -m benchmarks.gpu_throughput --smoke                  # the same on a CPU, with tiny networks
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flux import FULL, SMOKE, Flux, Size
from benchmarks.loops import AuthorsLoop
from benchmarks.overhead import Calls, calls_of
from benchmarks.setup import Method, Task, run
from benchmarks.tables import RESULTS, TABLES, save, table
from models.compilation import compile_blocks
from workers.headroom import memory_of, most_rows
from workers.meter import device_wait

CHAINS = 2
STEPS = 10
GIB = 1 << 30
SEARCH, LOOP, BEST = "search", "authors' loop", "diffusers' best-of-n"
FLOOR, DECODES, REWARDS = "bare transformer calls", "bare decodes", "bare rewards"
Arm = Callable[[], int]
"""Does its work once and returns the transformer passes that it made."""


@dataclass(frozen=True)
class Measured:
    """One arm: the transformer's passes in a run, seconds of each run, and the peak of memory in bytes."""

    passes: int
    seconds: list[float]
    peak: int | None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Passes a second; 0 of an arm without."""
        return self.passes / self.median


def arms_of(flux: Flux, task: Task, method: Method, options: argparse.Namespace) -> dict[str, Arm]:
    """What is compared. Our search runs once here, which also warms it up."""
    nfe, noises = options.nfe, method.params["initial_noises"]
    calls = calls_of(task, method, nfe)
    loop = partial(AuthorsLoop, task.problem(nfe, 0, method.moves), CHAINS, noises)
    return {
        FLOOR: partial(predictions, task, calls),
        DECODES: partial(decodes, task, calls),
        REWARDS: partial(rewards, flux, task, calls),
        SEARCH: lambda: run(task, method, nfe, 0).ledger.nfe_spent,
        LOOP: lambda: spent_by(loop()),
        BEST: partial(best_of_n, flux, nfe // STEPS, task.max_batch),
    }


def sizes(calls: Calls, kind: str) -> list[int]:
    """Rows of the calls of one kind."""
    return [rows for called, rows in calls if called == kind]


def latents_for(task: Task, rows: list[int]) -> Tensor:
    """As many as the largest call has."""
    return torch.randn(max(rows), *task.session.latent_shape, device=task.device)


def predictions(task: Task, calls: Calls) -> int:
    """The transformer alone."""
    rows = sizes(calls, "velocity")
    latents = latents_for(task, rows)
    times = torch.full((len(latents),), 0.8, device=task.device)
    for count in rows:
        task.session.velocity(latents[:count], times[:count])
    return sum(rows)


def decodes(task: Task, calls: Calls) -> int:
    """The decoder alone."""
    rows = sizes(calls, "score")
    latents = latents_for(task, rows)
    for count in rows:
        task.session.decode(latents[:count])
    return 0


def rewards(flux: Flux, task: Task, calls: Calls) -> int:
    """The reward alone, fetched to the CPU as a search must."""
    rows, edge = sizes(calls, "score"), flux.size.pixels
    images = torch.rand(max(rows), 3, edge, edge, device=task.device)
    for count in rows:
        flux.reward.score(images[:count], "").tolist()
    return 0


def spent_by(loop: AuthorsLoop) -> int:
    """Run it."""
    loop.search()
    return loop.spent


def best_of_n(flux: Flux, count: int, rows: int | None) -> int:
    """So many pictures by diffusers' pipeline, as many at once as fit, and the best by the reward."""
    pipeline, edge = flux.pipeline(), flux.size.pixels
    scores: list[float] = []
    for first in range(0, count, rows or count):
        images = pipeline(
            **flux.prompt,
            height=edge,
            width=edge,
            num_inference_steps=STEPS,
            num_images_per_prompt=min(rows or count, count - first),
            max_sequence_length=flux.size.tokens,
            output_type="pt",
        ).images
        scores += flux.reward.score(images.float(), "").tolist()
    max(scores)
    return count * STEPS


def measure(
    arms: Mapping[str, Arm], device: torch.device, options: argparse.Namespace
) -> Iterator[dict[str, Measured]]:
    """Every arm by turns, and after each turn what was measured, until repeats or minutes are used up.

    The first turn is cold, and counts only until there is another.
    """
    wait, passes, peaks = device_wait(device), dict.fromkeys(arms, 0), dict.fromkeys(arms, 0)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    on_gpu = device.type == "cuda"
    for turn in range(options.repeats + 1):
        began = time.monotonic()
        if turn == 1:
            seconds = {name: [] for name in arms}
        for name, arm in arms.items():
            passes[name], took, peak = timed(arm, device, wait)
            peaks[name] = max(peaks[name], peak)
            seconds[name].append(took)
        turn_took = time.monotonic() - began
        print(f"turn {turn} of {options.repeats}: {turn_took:.1f} s", flush=True)
        yield {
            name: Measured(passes[name], [*seconds[name]], peaks[name] if on_gpu else None) for name in arms
        }
        if time.monotonic() + turn_took > options.until:
            return


def timed(arm: Arm, device: torch.device, wait: Callable[[], None]) -> tuple[int, float, int]:
    """Its passes, seconds, and peak of memory in bytes (0 on a CPU)."""
    on_gpu = device.type == "cuda"
    wait()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    with torch.inference_mode():
        passes = arm()
    wait()
    return passes, time.perf_counter() - began, torch.cuda.max_memory_allocated(device) if on_gpu else 0


def flops_of(task: Task) -> int:
    """Floating point operations of one pass of the transformer, counted as it runs."""
    latent, t = torch.randn(1, *task.session.latent_shape), torch.tensor([0.8])
    with FlopCounterMode(display=False) as counter:
        task.session.velocity(latent.to(task.device), t.to(task.device))
    return counter.get_total_flops()


def matmul_rate(edge: int, device: torch.device) -> float:
    """Floating point operations a second of square matrices in bfloat16: the best of five tens."""
    a, b = (torch.randn(edge, edge, device=device, dtype=torch.bfloat16) for _ in range(2))
    wait, rates = device_wait(device), list[float]()
    for _ in range(6):
        wait()
        began = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b)
        wait()
        rates.append(20 * edge**3 / (time.perf_counter() - began))
    return max(rates[1:])


def ratios(measured: Mapping[str, Measured], flops: int, rate: float) -> dict[str, float]:
    """What is claimed of the medians."""
    floor, search = measured[FLOOR].median, measured[SEARCH].median
    bare = floor + measured[DECODES].median + measured[REWARDS].median
    return {
        "search wall / bare transformer calls": search / floor,
        "search wall / bare transformer, decodes and rewards": search / bare,
        "throughput of search / authors' loop": measured[SEARCH].rate / measured[LOOP].rate,
        "throughput of search / diffusers' best-of-n": measured[SEARCH].rate / measured[BEST].rate,
        "FLOP utilisation of bare transformer calls": measured[FLOOR].rate * flops / rate,
        "FLOP utilisation of search": measured[SEARCH].rate * flops / rate,
    }


def report(measured: Mapping[str, Measured], facts: Mapping[str, Any], found: Mapping[str, float]) -> str:
    """The tables."""
    rows = [
        [
            name,
            f"{one.median:.2f}",
            f"{min(one.seconds):.2f} to {max(one.seconds):.2f}",
            str(one.passes or "-"),
            f"{one.rate:.2f}" if one.passes else "-",
            f"{one.peak / GIB:.1f}" if one.peak else "-",
        ]
        for name, one in measured.items()
    ]
    header = [str(facts["device"]), "median, s", "range", "NFE", "NFE/s", "peak, GiB"]
    claims = table(["ratio", "value"], [[name, f"{value:.2f}"] for name, value in found.items()])
    counted = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "device")
    return f"{table(header, rows)}\n\n{claims}\n\n{counted}."


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = options_of(arguments)
    size: Size = SMOKE if options.smoke else FULL
    device = torch.device("cpu" if options.smoke else "cuda")
    torch.manual_seed(0)
    rate = matmul_rate(size.matmul, device)
    flux = Flux.random(size, device)
    if options.compile:
        compile_blocks(flux.transformer)
    task = with_rows(flux.task(), device, options.rows)
    method = Method("rbf", {"chains": CHAINS, "initial_noises": options.noises}, {"steps": STEPS})
    flops = flops_of(task)
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "pixels": size.pixels,
        "rows in a call": task.max_batch or "not limited",
        "TFLOP of a pass": round(flops / 1e12, 4),
        "TFLOP/s of matrix products": round(rate / 1e12, 1),
        "compiled": "yes" if options.compile else "no",
        "torch": torch.__version__,
    }
    for turn, measured in enumerate(measure(arms_of(flux, task, method, options), device, options)):
        found = ratios(measured, flops, rate)
        told = {**facts, "turns": turn or "1, cold"}
        times = {name: vars(one) for name, one in measured.items()}
        data = {**told, "nfe": options.nfe, "arms": times, **found}
        save(
            "gpu_throughput", data, report(measured, told, found), results=options.out, tables=options.tables
        )


def with_rows(task: Task, device: torch.device, rows: int | None) -> Task:
    """The task with at most so many rows in a call; None: as many as fit, measured as the service does."""
    memory = memory_of(device)
    if rows is None and memory is not None:

        def predict(count: int) -> None:
            latents = latents_for(task, [count])
            task.session.velocity(latents, torch.full((count,), 0.8, device=device))

        with torch.inference_mode():
            rows = most_rows(memory, [predict, lambda count: task.score(latents_for(task, [count]))])
    return replace(task, max_batch=rows)


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """The options; `until` is when the minutes are over, by the monotonic clock."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nfe", type=int, default=100, help="of each arm")
    parser.add_argument(
        "--noises", type=int, default=25, help="initial noises: ours, and of each chain of theirs"
    )
    parser.add_argument("--rows", type=int, help="the most in a call; default: as many as fit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--minutes", type=float, default=8, help="no turn but the first begins that would end later"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile, for every arm alike")
    parser.add_argument("--smoke", action="store_true", help="tiny networks on the CPU; shows that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder for the table")
    options = parser.parse_args(arguments)
    options.until = time.monotonic() + 60 * options.minutes
    if not options.smoke and not torch.cuda.is_available():
        parser.error("there is no GPU here; --smoke runs tiny networks on the CPU")
    return options


if __name__ == "__main__":
    main()
