"""How much room a job takes, in Redis and in the artifact store.

python -m benchmarks.sizing --jobs 5
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from contracts.keys import events_key, job_key
from rollover import Client
from rollover.serve import ADDRESS_FILE, Stack, StackSettings

PROMPT = "two red circles and a blue square"
HEAD = (
    "NFE",
    "record",
    "events",
    "Redis' file",
    "pictures",
    "previews",
    "trace",
    "checkpoint",
)


def main() -> None:
    """Run jobs on the bundled model and print, for each budget, bytes a job."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--jobs", type=int, default=5, help="of each budget")
    parser.add_argument("--nfe", type=int, nargs="+", default=[60, 200, 500])
    options = parser.parse_args()
    os.environ |= {"ROLLOVER_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="sizing-") as folder:
        data = Path(folder)
        with (
            Stack(StackSettings(port=0, data_dir=data), lambda _: None) as stack,
            Client(stack.url) as client,
        ):
            print(row(HEAD), row(["---:"] * len(HEAD)), sep="\n")
            with Redis.from_url((data / ADDRESS_FILE).read_text(encoding="utf-8")) as redis:
                for nfe in options.nfe:
                    print(row([nfe, *measured(client, redis, data, nfe, options.jobs)]), flush=True)


def measured(client: Client, redis: Any, data: Path, nfe: int, jobs: int) -> list[int]:  # noqa: ANN401
    """Mean bytes of a job: record and events in memory, Redis' file, then each kind of artifact."""
    before = size(data / "valkey")
    ids = [client.submit(PROMPT, nfe=nfe, seed=seed).id for seed in range(jobs)]
    for job in ids:
        client.wait(job, within=3600)
    record, events = (
        sum(redis.memory_usage(key(job), samples=0) for job in ids) for key in (job_key, events_key)
    )
    sums = [record, events, size(data / "valkey") - before]
    kinds: Counter[str] = Counter()
    for job in ids:
        for path in (data / "artifacts" / job).iterdir():
            kinds[path.name] += size(path)
    sums += [kinds[name] for name in ("images", "previews", "trace.jsonl", "checkpoints")]
    return [round(each / jobs) for each in sums]


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def row(cells: Sequence[object]) -> str:
    """A line of a table."""
    return f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in cells)} |"


if __name__ == "__main__":
    main()
