"""Reward for pictures that people rank higher for the prompt, as learned from ImageRewardDB.

The published weights are a pickle, which no reward reads. `python -m models.rewards.image_reward FOLDER`
makes of `FOLDER/ImageReward.pt` what this module loads.
"""

import argparse
import json
import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BlipConfig, BlipTextModel, BlipVisionModel, PreTrainedModel

from models.rewards.medblip import config_of, transformers_names
from models.rewards.protocol import Facts, RewardLoadError
from models.rewards.repository import load_network, load_preprocessing, load_tokenizer, needed

PICKLE = "ImageReward.pt"
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the network's answers over the authors' pictures: the reward is normalised by them."""
LENGTH = 35
"""Longest text, in tokens."""
HEAD = (1024, 128, 64, 16, 1)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageRewardNetwork(PreTrainedModel):
    """BLIP's text encoder, which looks at the picture, and five linear layers over its first token."""

    config_class = BlipConfig

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        vision: Any = config.vision_config
        self.vision_model = BlipVisionModel(vision)
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)
        widths = (text.hidden_size, *HEAD)
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.post_init()

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Answers [b] for pixels [b, 3, h, w] and the ids [1, n] of their text."""
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        rows = ids.expand(len(pixels), -1)
        x = self.text_encoder(input_ids=rows, encoder_hidden_states=seen).last_hidden_state[:, 0]
        for layer in self.head:
            x = layer(x)
        return x[:, 0]


class ImageReward:
    """ImageReward = (answer - mean) / std, of BLIP ViT-L trained on rankings.

    Xu, Liu, Wu, Tong, Li, Ding, Tang, Dong, "ImageReward", 2023, arXiv 2304.05977, section 2.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=None,
        maximum=None,
        differentiable=True,
        source="arXiv 2304.05977, section 2",
        fetch=(
            "THUDM/ImageReward ImageReward.pt",
            "google-bert/bert-base-uncased tokenizer.json tokenizer_config.json",
        ),
        then="python -m models.rewards.image_reward FOLDER",
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "image_reward", self.facts)
        if (self.folder / PICKLE).is_file() and not (self.folder / "model.safetensors").is_file():
            why = f"weights only from safetensors, never pickle: type `{self.facts.then}`"
            raise RewardLoadError(f"{self.folder}: {PICKLE} is not read ({why})")
        self.network = load_network(ImageRewardNetwork, self.folder, self.device)
        self.preprocessing = load_preprocessing(self.folder)
        self.tokenizer = load_tokenizer(self.folder)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        tokens = self.tokenizer([prompt], truncation=True, max_length=LENGTH, return_tensors="pt")
        pixels = self.preprocessing(images.to(self.device, torch.float32))
        return (self.network(pixels, tokens["input_ids"].to(self.device)) - MEAN) / STD


def convert(folder: Path) -> None:
    """Write weights, configuration and preprocessing beside `ImageReward.pt`.

    torch reads the pickle as weights only: it makes tensors and plain containers, and calls nothing else.

    Raises:
        pickle.UnpicklingError: there is something else in it.
    """
    state: dict[str, Tensor] = torch.load(folder / PICKLE, map_location="cpu", weights_only=True)
    config = config_of(state)
    network = ImageRewardNetwork(config)
    network.load_state_dict(transformers_names(state))
    network.save_pretrained(folder)
    side = int(network.config.vision_config.image_size)
    preprocessing = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the folder that is named; end with a message where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m models.rewards.image_reward", description="Make safetensors of ImageReward.pt."
    )
    parser.add_argument("folder", type=Path, help="where ImageReward.pt is")
    folder = parser.parse_args(arguments).folder
    try:
        convert(folder)
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        parser.exit(1, f"{folder / PICKLE} does not hold ImageReward's weights alone: {error}\n")


if __name__ == "__main__":
    main()
