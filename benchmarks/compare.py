"""Methods at equal NFE on any model of the catalogue, each prompt by itself against the model's default.

python -m benchmarks.compare --nfe 100
python -m benchmarks.compare --model mine --reward pickscore --held-out siglip --prompts prompts.txt

It runs what the service runs: the settings of a submission, resolved with the model's defaults. After every
ten prompts it writes what there is, so that a run that is stopped has a table of the prompts before.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.methods import seed_of
from benchmarks.tables import save, shown, table
from contracts.errors import InvalidRequestError
from contracts.requests import ResolvedRequest
from contracts.resolution import accept
from contracts.search import AUTHORS, SMALL
from contracts.settings import Settings
from models.backend import ModelLoadError
from models.registry import UnknownNameError
from workers.calibrate import own_captions, read_image, read_prompts
from workers.engine import Engine
from workers.failures import JobFailedError
from workers.needs import reward_needs
from workers.settings import WorkerSettings

DEFAULT = "default"
FEW_STEP = {"sampler": {"grid": "quadratic", "kernel": "euler_maruyama"}}
"""The sampler of a model that is not calibrated, with which `rbf` begins at t = 1."""
METHODS: Mapping[str, dict[str, Any]] = {
    DEFAULT: {},
    "rbf, few-step, 1 chain, 12 noises": {"search": {**SMALL}, **FEW_STEP},
    "rbf, few-step, 2 chains, 25 noises": {"search": {**AUTHORS}, **FEW_STEP},
    "rbf, few-step, upstream": {"search": {"mode": "upstream", **AUTHORS}, **FEW_STEP},
    "svdd": {"search": {"strategy": "svdd"}},
    "svdd, few-step": {"search": {"strategy": "svdd"}, **FEW_STEP},
    "smc": {"search": {"strategy": "smc"}},
    "smc, few-step": {"search": {"strategy": "smc"}, **FEW_STEP},
    "best_of_n, the model's steps": {"search": {"strategy": "best_of_n"}},
    "best_of_n, 4 steps": {"search": {"strategy": "best_of_n", "steps": 4}},
    "best_of_n, 1 step": {"search": {"strategy": "best_of_n", "steps": 1}},
    "local search at t = 1": {"search": {"strategy": "zero_order", "steps": 1, "finish_steps": 4}},
}
Ask = Callable[[str, int, str], ResolvedRequest]
"""What the submission of a prompt, a seed and a method comes to."""
Found = dict[str, list[float]]
"""By reward, what a method's searches came to: one number for each prompt, the mean over its seeds."""


@dataclass(frozen=True)
class Field:
    """The methods that are compared.

    Args:
        methods: names, the default first.
        alike: names of others by the method whose settings they come to.
        refused: what each of those says that the budget, or the model, does not allow.
    """

    methods: list[str]
    alike: dict[str, str]
    refused: dict[str, str]


def field_of(ask: Ask, prompt: str, names: Sequence[str]) -> Field:
    """Sort out which methods can be run, each once.

    Raises:
        InvalidRequestError: not even the default can be.
    """
    known, field = [(DEFAULT, ask(prompt, 0, DEFAULT))], Field([DEFAULT], {}, {})
    for name in dict.fromkeys(names):
        if name == DEFAULT:
            continue
        try:
            request = ask(prompt, 0, name)
        except InvalidRequestError as error:
            field.refused[name] = str(error)
            continue
        twin = next((other for other, resolved in known if resolved == request), None)
        if twin is None:
            known.append((name, request))
            field.methods.append(name)
        else:
            field.alike[name] = twin
    return field


def asking(settings: Settings, chosen: argparse.Namespace) -> Ask:
    """How to make submissions of the chosen."""
    models = {chosen.model: settings.entries[chosen.model].facts(chosen.model)}
    named = {
        "reward": chosen.reward,
        "held_out": chosen.held_out,
        "image": chosen.image and "given",  # pixels are no part of a resolved request
    }
    common = {name: value for name, value in named.items() if value is not None}

    def ask(prompt: str, seed: int, method: str) -> ResolvedRequest:
        posted = {"prompt": prompt, "budget": {"nfe": chosen.nfe}, "seed": seed, **common}
        return accept(posted | METHODS[method], models, settings.caps)

    return ask


@torch.inference_mode()
def measure(engine: Engine, request: ResolvedRequest, image: Image.Image | None) -> dict[str, float]:
    """The given reward of one search under "given", and the held-out ones by name.

    Raises:
        ValueError: a held-out reward cannot judge the picture.
    """
    search = engine.open(request, image=image)
    *_, last = search.rounds()
    best = last.state.best[0]
    assert best.image is not None  # noqa: S101 -- a search in one process keeps the pictures of its best
    judged = search.judge(best.image[None])
    if missing := {*request.held_out} - judged.keys():
        raise ValueError(f"{', '.join(missing)} cannot judge {request.prompt!r}: hold out another reward")
    return {"given": best.reward, **{name: score for name, [score] in judged.items()}}


def compared(
    engine: Engine, ask: Ask, prompts: Sequence[str], field: Field, chosen: argparse.Namespace
) -> Iterator[dict[str, Found]]:
    """Run all methods on all prompts, by the same seeds; what there is after every ten, and at the end."""
    image = read_image(chosen.image) if chosen.image else None
    rows: dict[str, Found] = {name: {} for name in field.methods}
    for index, prompt in enumerate(prompts):
        seeds = [seed_of(index, draw) for draw in range(chosen.seeds)]
        for name, found in rows.items():
            runs = [measure(engine, ask(prompt, seed, name), image) for seed in seeds]
            for reward in runs[0]:
                found.setdefault(reward, []).append(statistics.fmean(run[reward] for run in runs))
        if (index + 1) % 10 == 0 or index + 1 == len(prompts):
            yield rows


def summary(rows: Mapping[str, Found], field: Field, titles: Mapping[str, str]) -> str:
    """The table: means with standard errors over prompts, and what the default has over each, by pairs."""
    header = ["method", *(cell for title in titles.values() for cell in (title, "default over it"))]
    lines = [[name, *cells(found, rows[DEFAULT], titles)] for name, found in rows.items()]
    notes = [f"`{name}` comes to the settings of `{twin}`." for name, twin in field.alike.items()]
    notes += [f"`{name}` cannot be run so: {why}" for name, why in field.refused.items()]
    return "\n\n".join([table(header, lines), *notes])


def cells(own: Found, default: Found, rewards: Mapping[str, str]) -> list[str]:
    """Each reward of a method, with what the default has over it."""
    return [
        cell
        for reward in rewards
        for cell in (shown(own[reward]), "" if own is default else shown(over(default, own, reward)))
    ]


def over(default: Found, other: Found, reward: str) -> list[float]:
    """What the default has over another method, prompt by prompt."""
    return [a - b for a, b in zip(default[reward], other[reward], strict=True)]


def chosen_prompts(model: str, settings: Settings, file: Path | None, count: int | None) -> list[str]:
    """Those of a file, or the first 100 of the hard set for a bundled model; at most `count`.

    Raises:
        UnknownNameError: no such model.
        ValueError: there are fewer than two, or none to choose from.
    """
    own = range(count or 100)
    found = read_prompts(file)[:count] if file else own_captions(model, settings.entries, own)
    if len(found) < 2:
        raise ValueError("at least two prompts are needed for an error")
    return found


def run(chosen: argparse.Namespace) -> None:
    """Compare, and write the results."""
    settings = Settings()
    prompts = chosen_prompts(chosen.model, settings, chosen.prompts, chosen.count)
    engine = Engine.load(chosen.model, WorkerSettings(), reward_needs(settings), settings.entries)
    ask = asking(settings, chosen)
    field = field_of(ask, prompts[0], chosen.methods)
    resolved = {name: ask(prompts[0], 0, name) for name in field.methods}
    titles = {
        "given": f"{resolved[DEFAULT].reward[0].name} (given)",
        **{name: f"{name} (held out)" for name in resolved[DEFAULT].held_out},
    }
    facts = {
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in vars(chosen).items()},
        "weights": engine.weights,
        "device": str(engine.device),
        "methods": {
            name: request.model_dump(include={"search", "sampler"}) for name, request in resolved.items()
        },
        "alike": field.alike,
        "refused": field.refused,
    }
    for rows in compared(engine, ask, prompts, field, chosen):
        done = prompts[: len(rows[DEFAULT]["given"])]
        told = f"{len(done)} prompts of {len(prompts)}, seeds of each: {chosen.seeds}, NFE: {chosen.nfe}."
        save(
            f"compare_{chosen.model}",
            {**facts, "prompts": done, "rows": rows},
            f"{told}\n\n{summary(rows, field, titles)}",
        )


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="shapes-base", help="id in the catalogue")
    parser.add_argument("--reward", help="what is searched by; default: the model's")
    parser.add_argument("--held-out", nargs="*", help="what never steers; default: the model's")
    parser.add_argument("--prompts", type=Path, help="file with one prompt a line; default: the hard set")
    parser.add_argument("--count", type=int, help="at most so many prompts; default 100 of the hard set")
    parser.add_argument("--image", type=Path, help="PNG or JPEG file that the prompts are about")
    parser.add_argument("--nfe", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1, help="of each prompt")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="beside the default"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; what cannot be compared is told without a traceback."""
    try:
        run(options(arguments))
    except (
        OSError,
        ValueError,
        InvalidRequestError,
        ModelLoadError,
        UnknownNameError,
        JobFailedError,
    ) as error:
        sys.exit(f"compare: {error}")


if __name__ == "__main__":
    main()
