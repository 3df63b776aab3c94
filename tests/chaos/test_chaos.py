"""The short form of `python -m tests.chaos`: jobs while everything that serves them is killed."""

import time
from collections import Counter
from pathlib import Path

import pytest

from contracts.requests import PRIORITIES
from tests.chaos.arena import Arena
from tests.models.conftest import make_flux

NFE = 80
KILLED = ("engine-1", "worker-2", "valkey", "api", "engine-2", "webhooks", "worker-1")
LATEST = 7200
"""Where the clock is set in the end: webhooks are due by Redis' clock, and one set back delays them."""


@pytest.mark.timeout(600)
def test_no_job_is_lost_whatever_is_killed(short_dir: Path, tmp_path: Path) -> None:
    with Arena(short_dir / "d", make_flux(tmp_path)) as arena:
        while not {"engine-1", "engine-2"} <= arena.pids().keys():
            time.sleep(0.1)
        expected = {seed: arena.expected(seed, NFE) for seed in range(3)}
        jobs = [(arena.submit(n % 3, NFE, PRIORITIES[n // 4]), n % 3) for n in range(12)]
        for number, name in enumerate(KILLED):
            time.sleep(1.0)
            arena.set_clock((3600, -3600, 0)[number % 3])
            arena.kill(name)
        while not arena.fill_disk(2.0):
            time.sleep(0.1)  # none of the killed engines is back yet
        assert arena.set_clock(LATEST) == (arena.ahead() > LATEST / 2)
        for job, _ in jobs:
            arena.ended(job, within=300)
        assert [fault for job, seed in jobs for fault in arena.faults(job, expected[seed])] == []
        assert arena.receivers.faults(arena.told, within=120) == []
        assert arena.counted() == Counter(succeeded=len(expected) + len(jobs))
