"""Kill the service for real, and count what it costs.

python -m tests.chaos --jobs 200 --seconds 300    something is killed every 2 s; every promise is checked
python -m tests.chaos recovery --kills 20         how soon a job runs again after kill -9
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from contracts.requests import PRIORITIES
from rollover import RolloverError
from tests.chaos.arena import Arena

SEEDS = range(8)
DISK = "full disk"
"""What happens in place of a kill: for half the time until the next the engines can write nothing."""
CLOCK = "clock"
"""Likewise: the wall clock of all processes is set, up to `FAR` seconds from the true one."""
FAR = 3600


def main() -> int:
    """Run what the command line asks for; the exit code is 0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["everything", "recovery"], default="everything")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300.0, help="for so long something is killed")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two kills")
    parser.add_argument("--nfe", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20, help="of each kind, for `recovery`")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of whom to kill")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Arena(Path(folder)) as arena:
        while not {"engine-1", "engine-2"} <= arena.pids().keys():
            time.sleep(0.1)
        run = recovery if options.what == "recovery" else everything
        return run(arena, options)


def everything(arena: Arena, options: argparse.Namespace) -> int:
    """Kill something every so often while jobs run; then check every one of them."""
    chosen = random.Random(options.seed)  # noqa: S311 -- to be repeated, not to be secret
    expected = {seed: arena.expected(seed, options.nfe) for seed in SEEDS}
    print(
        f"{len(expected)} jobs undisturbed; now {options.jobs} with something killed every {options.every} s"
    )
    began = time.monotonic()
    jobs: list[tuple[str, int]] = []
    kills: Counter[str] = Counter()
    next_kill = began
    while len(jobs) < options.jobs or time.monotonic() - began < options.seconds:
        if (
            len(jobs) < options.jobs
            and time.monotonic() - began >= len(jobs) * options.seconds / options.jobs
        ):
            seed = chosen.choice(SEEDS)
            jobs.append((arena.submit(seed, options.nfe, chosen.choice(PRIORITIES)), seed))
        if time.monotonic() >= next_kill:
            name = chosen.choice([*sorted(arena.pids()), DISK, CLOCK])
            kills[name.rstrip("-12")] += happen(arena, name, chosen, options.every)
            next_kill += options.every
        time.sleep(0.05)
    print(f"{sum(kills.values())} kills in {time.monotonic() - began:.0f} s: {dict(kills)}")
    arena.set_clock(2 * FAR)  # webhooks are due by Redis' clock: one set back for good delays them
    for job, _ in jobs:
        arena.ended(job, within=600)
    print(f"all have ended after {time.monotonic() - began:.0f} s")
    faults = [fault for job, seed in jobs for fault in arena.faults(job, expected[seed])]
    faults += arena.receivers.faults(arena.told, within=120)
    if arena.counted().total() != len(expected) + len(jobs):
        faults.append(f"Prometheus is told of {dict(arena.counted())}")
    print(f"webhooks: {arena.receivers.calls} messages for {len(arena.told)} jobs, a third of them to it")
    records = [arena.record(job) for job, _ in jobs]
    print(f"final statuses: {dict(Counter(record.status.value for record in records))}")
    print(f"executions a job: {dict(sorted(Counter(record.attempts for record in records).items()))}")
    redone = sum(record.usage.nfe_redone for record in records if record.usage)
    print(
        f"NFE asked {options.nfe * len(jobs)}, redone {redone}; different ids {len({job for job, _ in jobs})}"
    )
    print(f"faults: {len(faults)}", *faults, sep="\n  ")
    return 1 if faults else 0


def happen(arena: Arena, name: str, chosen: random.Random, every: float) -> bool:
    """Have it happen. Whether it did."""
    if name == DISK:
        return arena.fill_disk(every / 2) > 0
    if name == CLOCK:
        return arena.set_clock(chosen.randrange(-FAR, FAR))
    return arena.kill(name)


def recovery(arena: Arena, options: argparse.Namespace) -> int:
    """Kill what runs a job, again and again; how long until it runs again."""
    for kind in ("engine", "worker"):
        job = arena.submit(0, 5000)
        took: list[float] = []
        while len(took) < options.kills:
            before = arena.record(job)
            if before.status.final:
                job = arena.submit(0, 5000)
                continue
            if before.status != "running" or before.checkpoint is None:
                time.sleep(0.05)
                continue
            if before.checkpoint.attempt != before.attempts:
                time.sleep(0.05)  # the execution has not got anywhere yet
                continue
            number = running(arena)
            if number is None or not arena.kill(f"{kind}-{number}"):
                time.sleep(0.05)
                continue
            took.append(until_taken(arena, job, before.attempts))
            print(f"{kind} {len(took)}: {took[-1]:.2f} s", flush=True)
            while not {"engine-1", "engine-2"} <= arena.pids().keys():
                time.sleep(0.1)
            time.sleep(3.0)  # the other worker must be ready to take over
        middle, longest = statistics.median(took), max(took)
        print(f"{kind}: median {middle:.2f} s, maximum {longest:.2f} s over {len(took)} kills")
        with contextlib.suppress(RolloverError):
            arena.client.cancel(job)
    return 0


def running(arena: Arena) -> int | None:
    """Which worker runs a job: the one whose beat says so."""
    busy = arena.busy()
    for number in (1, 2):
        if arena.pids().get(f"worker-{number}") in busy:
            return number
    return None


def until_taken(arena: Arena, job: str, attempts: int) -> float:
    """Seconds until another execution has begun."""
    began = time.monotonic()
    while arena.record(job).attempts == attempts:
        time.sleep(0.01)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
