"""`python -m workers.calibrate MODEL`: measure what a model's one-step predictions foretell.

It prints the correlations level by level and the lines of the search settings that follow from them.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from contracts.errors import InvalidRequestError
from contracts.parsing import parse
from contracts.resolution import resolve
from models.backend import ModelLoadError
from models.registry import UnknownNameError
from sampling.calibration import Level, Recommendation, foresight, levels, recommend
from workers.engine import Engine
from workers.failures import JobFailedError
from workers.settings import WorkerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON where asked to."""
    options = _options(arguments)
    try:
        prompts = read_prompts(options.prompts)
        engine = Engine.load(options.model, WorkerSettings())
        found = levels(list(correlations(engine, prompts, options.reward, options.noises)))
    except (
        OSError,
        ValueError,
        InvalidRequestError,
        ModelLoadError,
        UnknownNameError,
        JobFailedError,
    ) as error:
        sys.stderr.write(f"calibrate: {error}\n")
        return 1
    recommended = recommend(found)
    sys.stdout.write(report(found, recommended))
    if options.out:
        facts = {
            "model": options.model,
            "reward": options.reward,
            "prompts": len(prompts),
            "noises": options.noises,
        }
        measured = {"levels": [asdict(level) for level in found], "recommended": asdict(recommended)}
        options.out.write_text(json.dumps(facts | measured, indent=1) + "\n", encoding="utf-8")
    return 0


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; ValueError where there is none."""
    prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path} has no prompt in it: one a line is wanted")
    return prompts


@torch.inference_mode()
def correlations(
    engine: Engine, prompts: Sequence[str], reward: str | None, noises: int
) -> Iterator[list[float]]:
    """`sampling.calibration.foresight` of each prompt, with noises of its own.

    Raises:
        InvalidRequestError: a prompt or the reward is not one that the model takes.
        JobFailedError: model or reward failed.
    """
    for seed, prompt in enumerate(prompts):
        posted = {"prompt": prompt, "model": engine.model, "held_out": [], "seed": seed, "reward": reward}
        request = resolve(
            parse({key: value for key, value in posted.items() if value is not None}), [engine.model]
        )
        yield foresight(engine.open(request).problem, noises)


def report(found: Sequence[Level], recommended: Recommendation) -> str:
    """The table, and what follows from it."""
    rows = [
        f"{level.t:5.2f}  {level.correlation:6.2f} ± {level.error:.2f}  {level.prompts:7d}" for level in found
    ]
    given = {"sampler": recommended.sampler, "search": recommended.rbf}
    advice = (
        json.dumps(given) if any(given.values()) else "the defaults: predictions tell something from t = 1 on"
    )
    return "\n".join(["    t  correlation    prompts", *rows, f"recommended: {advice}", ""])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.calibrate", description=__doc__)
    parser.add_argument("model", help="id in the registry")
    parser.add_argument("--reward", help="what is foretold; default: the model's")
    parser.add_argument("--prompts", type=Path, required=True, help="file with one prompt a line")
    parser.add_argument("--noises", type=int, default=16, help="of each prompt, at least 3")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.noises < 3:
        parser.error("--noises: at least 3 are needed for a correlation")
    return options


if __name__ == "__main__":
    sys.exit(main())
