"""Whether memory stays flat: many short jobs through the whole service, and the room its processes take.

python -m benchmarks.memory --jobs 1000

Of each job everything is read: its events, its document, its picture and its trace.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.tables import save, table
from rollover import Client
from rollover.serve import Stack, StackSettings
from tests.chaos.processes import engine_of

WARM_UP = 0.3
"""Part of the jobs after which growth counts: before it, caches fill and allocators settle."""
Sample = dict[str, int]


def resident(pid: int) -> int:
    """Memory of a process, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def sample(stack: Stack, done: int) -> Sample:
    """The room that each process takes after so many jobs."""
    pids = dict(stack.pids)
    supervisor = pids["worker-shapes"]
    engine = engine_of(supervisor)
    assert engine  # noqa: S101 -- a worker that has run jobs has one
    watched = {"API": pids["api"], "supervisor": supervisor, "engine": engine, "webhooks": pids["webhooks"]}
    return {"jobs": done} | {name: resident(pid) for name, pid in watched.items()}


def run(client: Client, nfe: int, seed: int) -> None:
    """One job, of which everything is read."""
    prompts = ("two red circles", "a blue square", "three green triangles and a red circle")
    job = client.submit(
        prompts[seed % len(prompts)],
        nfe=nfe,
        seed=seed,
        search={"strategy": "best_of_n"},
        sampler={"steps": 1},
        metadata={"number": str(seed)},
    )
    *_, last = client.events(job.id)
    if last.type != "completed":
        raise RuntimeError(f"{job.id} ended as {last.type}")
    client.get(job.id)
    client.image(job.id, 0)
    client.trace(job.id)


def slope(samples: Sequence[Sample], name: str) -> float:
    """Growth of a process after the warm-up, in KiB a job: the line of least squares."""
    settled = [each for each in samples if each["jobs"] >= WARM_UP * samples[-1]["jobs"]]
    line = statistics.linear_regression([each["jobs"] for each in settled], [each[name] for each in settled])
    return line.slope


def measured(options: argparse.Namespace, folder: Path) -> list[Sample]:
    """Run the jobs; a sample every so many."""
    samples: list[Sample] = []
    with (
        Stack(StackSettings(port=0, data_dir=folder), print) as stack,
        Client(stack.url) as client,
        ThreadPoolExecutor(options.clients) as clients,
    ):
        run(client, options.nfe, 0)
        samples.append(sample(stack, 0))
        for done in range(0, options.jobs, options.every):
            numbers = range(done, done + options.every)
            list(clients.map(partial(run, client, options.nfe), numbers))
            samples.append(sample(stack, done + options.every))
            print(samples[-1], flush=True)
    return samples


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--every", type=int, default=50, help="jobs between two samples")
    parser.add_argument("--nfe", type=int, default=4)
    parser.add_argument("--clients", type=int, default=4, help="at once")
    options = parser.parse_args()
    os.environ |= {"ROLLOVER_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        samples = measured(options, Path(folder))
    names = [name for name in samples[0] if name != "jobs"]
    slopes = {name: slope(samples, name) for name in names}
    data: dict[str, Any] = {
        "settings": vars(options),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "seconds": time.monotonic() - began,
        "samples_kib": samples,
        "slopes_kib_a_job": slopes,
    }
    rows = [
        [str(each["jobs"]), *(f"{each[name] / 1024:.1f}" for name in names)]
        for each in samples[:: max(len(samples) // 10, 1)]
    ]
    rows.append([f"KiB a job, after {WARM_UP:.0%} of them", *(f"{slopes[name]:.2f}" for name in names)])
    save("memory", data, table(["jobs done", *(f"{name}, MiB" for name in names)], rows))


if __name__ == "__main__":
    main()
