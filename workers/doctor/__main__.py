"""`python -m workers.doctor`: say what would run on this machine.

The exit code is 1 where something that is served would not.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from contracts.models import Entry
from contracts.settings import Settings, in_words
from workers.doctor.catalogue import Beside, looked_at
from workers.doctor.machine import devices, findings
from workers.doctor.report import Report, as_json, as_text
from workers.doctor.rewards import RewardState, states, weights_in
from workers.settings import WorkerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, print, and judge."""
    parser = argparse.ArgumentParser(prog="python -m workers.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    try:
        report = examine(Settings(), WorkerSettings())
    except ValidationError as error:
        sys.stderr.write(f"doctor: {in_words(error)}\n")
        return 2
    sys.stdout.write(as_json(report) if options.json else as_text(report))
    return 0 if report.ok else 1


def examine(settings: Settings, worker: WorkerSettings) -> Report:
    """Look at everything."""
    present = devices()
    rewards = {state.name: state for state in states(settings)}
    models = [
        looked_at(
            name,
            entry,
            worker,
            present,
            beside(entry, rewards, settings.reward_paths, worker.reward_devices),
            served=name in settings.models,
        )
        for name, entry in settings.entries.items()
    ]
    return Report(findings(settings), present, models, [*rewards.values()])


def beside(
    entry: Entry, rewards: Mapping[str, RewardState], folders: Mapping[str, Path], elsewhere: Container[str]
) -> Beside:
    """What a model's default rewards lack, and need on its device where they have none of their own."""
    names = sorted({entry.reward, *entry.held_out})
    size = sum(weights_in(folders[name]) for name in names if name in folders and name not in elsewhere)
    lack = [f"its default reward {name}: {rewards[name].said}" for name in names if not rewards[name].ok]
    return Beside(size, lack)


if __name__ == "__main__":
    # What libraries say about themselves.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sys.exit(main())
