"""`python -m models.shapes.train`: autoencoder, flow, detector, in that order."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from models.shapes.detector import WEIGHTS
from models.shapes.train import autoencoder, detector, flow
from models.shapes.train.networks import save_repository

SHIPPED = Path(__file__).parent.parent / "weights"


def main() -> None:
    """Command line; what is already in the work folder is not trained again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".train"), help="checkpoints and the autoencoder")
    parser.add_argument("--flow-steps", type=int, default=flow.STEPS)
    parser.add_argument("--publish", action="store_true", help="replace the weights in models/shapes")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    net = _autoencoder(arguments.work / "autoencoder")
    repository = arguments.work / "flow" / "repository"
    trained = flow.train(
        flow.build_pool(net, flow.POOL_SIZE, seed=1),
        net,
        arguments.flow_steps,
        flow.BATCH,
        arguments.work / "flow",
    )
    save_repository(trained, net, repository)
    own = detector.drawn(repository, detector.PICTURES, np.random.default_rng(5))
    weights = arguments.work / "detector.safetensors"
    save_file(detector.train(detector.STEPS, own, seed=0).state_dict(), weights)
    if arguments.publish:
        shutil.copytree(repository, SHIPPED, dirs_exist_ok=True)
        shutil.copy(weights, WEIGHTS)


def _autoencoder(path: Path) -> AutoencoderKL:
    if not path.exists():
        autoencoder.train(autoencoder.STEPS, autoencoder.BATCH, seed=0).save_pretrained(path)
    return AutoencoderKL.from_pretrained(path).eval()


if __name__ == "__main__":
    main()
