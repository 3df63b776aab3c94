"""`python -m workers.calibrate MODEL`: measure what a model's one-step predictions foretell.

It prints the correlations level by level and the settings that follow from them, or that nothing is foretold
and what to search with then; and writes all that to the file from which a catalogue takes the settings.
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
from contracts.models import ENTRIES, Entry
from contracts.requests import ResolvedRequest
from contracts.resolution import accept
from contracts.settings import Settings, in_words
from models.backend import ModelLoadError
from models.registry import UnknownNameError, lookup
from models.shapes.captions import CALIBRATION, captions
from sampling.calibration import Level, Recommendation, foresight, levels, recommend
from workers.engine import Engine, Search
from workers.failures import JobFailedError
from workers.loading import source_of
from workers.needs import reward_needs
from workers.provenance import library_versions
from workers.settings import WorkerSettings

FILE = "calibration.json"
"""Of a measurement that lies with its weights."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write."""
    options = _options(arguments)
    try:
        measure(options)
    except (
        OSError,
        ValueError,
        InvalidRequestError,
        ModelLoadError,
        UnknownNameError,
        JobFailedError,
    ) as error:
        sys.stderr.write(f"calibrate: {in_words(error)}\n")
        return 1
    return 0


def measure(options: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        OSError, ValueError, InvalidRequestError, ModelLoadError, UnknownNameError, JobFailedError: why not.
    """
    settings, own = Settings(), WorkerSettings()
    out = options.out or default_place(options, settings.entries, own)
    given = read_prompts(options.prompts) if options.prompts else None
    prompts = given or own_captions(options.model, settings.entries, CALIBRATION)
    engine = Engine.load(options.model, own, reward_needs(settings), settings.entries)
    image = read_image(options.image) if options.image else None
    asked = requests(settings, options.model, prompts, options.reward, has_image=image is not None)
    found = levels(list(correlations(engine, asked, options.noises, image)))
    recommended = recommend(found, engine.entry.steps)
    facts = {
        "model": options.model,
        "weights": engine.weights,
        "versions": library_versions(("rollover", "torch")),
        "reward": asked[0].reward[0].name,
        "image": options.image and str(options.image),
        "noises": options.noises,
        "steps": engine.entry.steps,
        "levels": [asdict(level) for level in found],
        "recommended": asdict(recommended),
        "prompts": prompts,
    }
    out = out or source_of(options.model, engine.entry, own.model_paths.get(options.model)).folder / FILE
    sys.stdout.write(report(found, recommended, out, named=out == engine.entry.calibration))
    write(out, facts)


def own_captions(model: str, entries: Mapping[str, Entry], numbers: range) -> list[str]:
    """Captions of the hard set, by number, for a bundled model.

    Raises:
        UnknownNameError: no such model.
        ValueError: the model is another, or there are not so many.
    """
    if lookup("model", model, entries) != ENTRIES.get(model):
        raise ValueError(f"'{model}' is not bundled: name a file with one prompt a line by --prompts")
    return captions(numbers)


def default_place(
    options: argparse.Namespace, entries: Mapping[str, Entry], settings: WorkerSettings
) -> Path | None:
    """Where the measurement of a model's weights lies: where its entry says; None: with them.

    Raises:
        UnknownNameError: no such model.
        ValueError: the place is the bundled file, which is of the model's own reward and captions.
    """
    entry = lookup("model", options.model, entries)
    if entry.calibration is None or options.model in settings.model_paths:
        return None
    if entry == ENTRIES.get(options.model) and (options.reward or options.prompts):
        raise ValueError(
            f"what is bundled with '{options.model}' is of its own reward and prompts: "
            "with --reward or --prompts name a file to write by --out"
        )
    return entry.calibration


def write(out: Path, facts: Mapping[str, object]) -> None:
    """Write a measurement. Raises OSError where that cannot be, and says what to do."""
    try:
        out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OSError(f"{out} cannot be written ({error.strerror}): name another file by --out") from error


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


def report(found: Sequence[Level], recommended: Recommendation, out: Path, *, named: bool) -> str:
    """The table, what follows from it, and how that gets into the catalogue."""
    rows = [f"{level.t:5.2f}  {level.shown:>13}  {level.prompts:7d}" for level in found]
    return "\n".join(
        ["    t    correlation  prompts", *rows, advice(recommended), line(out, named=named), ""]
    )


def advice(recommended: Recommendation) -> str:
    """The settings that follow, where there are some."""
    if recommended.foretold == "nothing":
        return (
            "nothing is foretold where chains could begin: a search by predictions would choose blindly; "
            "the search to use is best_of_n"
        )
    if recommended.foretold == "from_noise":
        return "foretold from t = 1 on: the defaults of searches fit, and few_step = true is true of it"
    return f"settings: sampler = {inline(recommended.sampler)}, rbf = {inline(recommended.rbf)}"


def line(out: Path, *, named: bool) -> str:
    """What makes the API take the settings from the file."""
    if named:
        return f"{out} is what the catalogue names: the API takes the settings from there when it starts"
    return f"for the catalogue: calibration = {json.dumps(str(out.resolve()))}"


def inline(table: Mapping[str, object]) -> str:
    """A flat table as TOML on one line."""
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) + " }"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.calibrate", description=__doc__)
    parser.add_argument("model", help="id in the registry")
    parser.add_argument("--reward", help="what is foretold; default: the model's")
    parser.add_argument("--prompts", type=Path, help="file with one prompt a line; bundled models have some")
    parser.add_argument("--image", type=Path, help="PNG or JPEG file that the prompts are about")
    parser.add_argument("--noises", type=int, default=16, help="of each prompt, at least 3")
    parser.add_argument("--out", type=Path, help="JSON file to write; default: with the model")
    options = parser.parse_args(arguments)
    if options.noises < 3:
        parser.error("--noises: at least 3 are needed for a correlation")
    return options


if __name__ == "__main__":
    sys.exit(main())
