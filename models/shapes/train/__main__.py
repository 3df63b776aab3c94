"""`python -m models.shapes.train`: autoencoder, flow, reflow, undistilled flow, detector, in that order."""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from models.shapes.detector import WEIGHTS
from models.shapes.train import autoencoder, detector, flow, reflow, undistil
from models.shapes.train.networks import save_repository

SHIPPED = Path(__file__).parent.parent / "weights"
SHIPPED_BASE = Path(__file__).parent.parent / "base"


@dataclass(frozen=True)
class Recipe:
    """How much of everything; the defaults made the shipped weights."""

    autoencoder_steps: int = autoencoder.STEPS
    scenes: int = flow.POOL_SIZE
    flow_steps: int = flow.STEPS
    reflow_rounds: tuple[reflow.Round, ...] = reflow.ROUNDS
    undistil_steps: int = undistil.STEPS
    undistil_scenes: int = undistil.SCENES
    pictures: int = detector.PICTURES
    detector_steps: int = detector.STEPS


@dataclass(frozen=True)
class Trained:
    """What a run has made: the repositories of `shapes` and `shapes-base`, and the detector's weights."""

    repository: Path
    base: Path
    detector: Path


def train(recipe: Recipe, work: Path) -> Trained:
    """Run every stage that `work` has no result of."""
    torch.manual_seed(0)
    net = _autoencoder(work / "autoencoder", recipe.autoencoder_steps)
    latest = flow.train(net, work / "flow", steps=recipe.flow_steps, pool_size=recipe.scenes)
    for number, size in enumerate(recipe.reflow_rounds, start=1):
        latest = reflow.straighten(latest, net, work / f"reflow-{number}", size, seed=20 + number)
    repository, weights = work / "repository", work / "detector.safetensors"
    base = undistil.undistil(
        latest, net, work / "undistil", steps=recipe.undistil_steps, scenes=recipe.undistil_scenes
    )
    # Saving leaves the networks in float16, so nothing is trained after it.
    save_repository(latest, net, repository)
    save_repository(base, net, work / "base")
    if not weights.exists():
        own = detector.drawn(repository, recipe.pictures, np.random.default_rng(5))
        save_file(detector.train(recipe.detector_steps, own, seed=0).state_dict(), weights)
    return Trained(repository, work / "base", weights)


def _autoencoder(path: Path, steps: int) -> AutoencoderKL:
    if not path.exists():
        autoencoder.train(steps, seed=0).save_pretrained(path)
    return AutoencoderKL.from_pretrained(path).eval()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".train"), help="checkpoints; resumed from")
    parser.add_argument("--publish", action="store_true", help="replace the weights in models/shapes")
    options = parser.parse_args(arguments)
    trained = train(Recipe(), options.work)
    if options.publish:
        shutil.copytree(trained.repository, SHIPPED, dirs_exist_ok=True)
        shutil.copytree(trained.base, SHIPPED_BASE, dirs_exist_ok=True)
        shutil.copy(trained.detector, WEIGHTS)


if __name__ == "__main__":
    main()
