"""`python -m workers.calibrate MODEL`: measure what a model's one-step predictions foretell.

It prints the correlations level by level, and the line that follows from them for a catalogue; or that
nothing is foretold, and what to search with then.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image, ImageOps

from contracts.errors import InvalidRequestError
from contracts.requests import ResolvedRequest
from contracts.resolution import accept
from contracts.settings import Settings
from models.backend import ModelLoadError
from models.registry import UnknownNameError
from sampling.calibration import Level, Recommendation, foresight, levels, recommend
from workers.engine import Engine, Search
from workers.failures import JobFailedError
from workers.needs import reward_needs
from workers.settings import WorkerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON where asked to."""
    options = _options(arguments)
    try:
        prompts = read_prompts(options.prompts)
        settings = Settings()
        engine = Engine.load(options.model, WorkerSettings(), reward_needs(settings), settings.entries)
        image = read_image(options.image) if options.image else None
        asked = requests(settings, options.model, prompts, options.reward, has_image=image is not None)
        found = levels(list(correlations(engine, asked, options.noises, image)))
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
    recommended = recommend(found, engine.entry.steps)
    sys.stdout.write(report(found, recommended))
    if options.out:
        facts = {
            "model": options.model,
            "reward": options.reward,
            "prompts": len(prompts),
            "image": options.image and str(options.image),
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


def read_image(path: Path) -> Image.Image:
    """A picture as it is meant to be seen; OSError where there is none."""
    with Image.open(path, formats=["PNG", "JPEG"]) as file:
        return ImageOps.exif_transpose(file).convert("RGB")


def requests(
    settings: Settings, model: str, prompts: Sequence[str], reward: str | None, *, has_image: bool
) -> list[ResolvedRequest]:
    """What a submission of each prompt would be, with a seed of its own.

    Raises:
        InvalidRequestError: a prompt or the reward is not one that the model takes, or the model takes no
            image, or needs one.
    """
    models = {model: settings.entries[model].facts(model)}
    steered = {} if reward is None else {"reward": reward}
    if has_image:
        steered["image"] = "given"  # pixels are no part of a resolved request
    return [
        accept({"prompt": prompt, "held_out": [], "seed": seed, **steered}, models, settings.caps)
        for seed, prompt in enumerate(prompts)
    ]


@torch.inference_mode()
def correlations(
    engine: Engine, asked: Sequence[ResolvedRequest], noises: int, image: Image.Image | None = None
) -> Iterator[dict[float, float]]:
    """`sampling.calibration.foresight` of each request, all about the same image where there is one.

    Raises:
        JobFailedError: model or reward failed, or there is no memory for a call of one row.
    """
    for request in asked:
        yield foretold(engine.open(request, image=image), noises)


def foretold(search: Search, noises: int) -> dict[float, float]:
    """The same of one, begun anew with half as many rows in a call where memory runs out."""
    while True:
        try:
            return foresight(search.problem, noises)
        except Exception as error:
            if not search.fewer_may_do(error):
                raise
        search.halve()


def report(found: Sequence[Level], recommended: Recommendation) -> str:
    """The table, and what follows from it."""
    rows = [f"{level.t:5.2f}  {level.shown:>13}  {level.prompts:7d}" for level in found]
    return "\n".join(["    t    correlation  prompts", *rows, advice(recommended), ""])


def advice(recommended: Recommendation) -> str:
    """What to write into the catalogue, where there is something."""
    if recommended.foretold == "nothing":
        return (
            "nothing is foretold where chains could begin: a search by predictions would choose blindly; "
            "the search to use is best_of_n"
        )
    if recommended.foretold == "from_noise":
        return "for the catalogue: few_step = true"
    tables = f"sampler = {inline(recommended.sampler)}, rbf = {inline(recommended.rbf)}"
    return f"for the catalogue: defaults = {{ {tables} }}"


def inline(table: Mapping[str, object]) -> str:
    """A flat table as TOML on one line."""
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) + " }"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.calibrate", description=__doc__)
    parser.add_argument("model", help="id in the registry")
    parser.add_argument("--reward", help="what is foretold; default: the model's")
    parser.add_argument("--prompts", type=Path, required=True, help="file with one prompt a line")
    parser.add_argument("--image", type=Path, help="PNG or JPEG file that the prompts are about")
    parser.add_argument("--noises", type=int, default=16, help="of each prompt, at least 3")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.noises < 3:
        parser.error("--noises: at least 3 are needed for a correlation")
    return options


if __name__ == "__main__":
    sys.exit(main())
