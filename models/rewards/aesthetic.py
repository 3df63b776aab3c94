"""Reward for pictures that people rate as beautiful."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from models.rewards.protocol import Facts
from models.rewards.repository import load_network, load_preprocessing, needed


class AestheticPredictor(CLIPVisionModelWithProjection):
    """CLIP ViT-L/14's image encoder and, over its unit vector, five linear layers with nothing in between."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__(config)
        # Of the dropouts, which do nothing here, only the places count: the weights are named by them.
        self.layers = nn.Sequential(
            nn.Linear(config.projection_dim, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )
        self.post_init()


class Aesthetic:
    """LAION's improved aesthetic predictor (v2): the mean rating from 1 to 10 that people would give.

    github.com/christophschuhmann/improved-aesthetic-predictor, `sac+logos+ava1-l14-linearMSE`; nothing
    keeps its answer between 1 and 10.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=None,
        maximum=None,
        differentiable=True,
        source="github.com/christophschuhmann/improved-aesthetic-predictor",
        fetch=("shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE",),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "aesthetic", self.facts)
        self.network = load_network(AestheticPredictor, self.folder, self.device)
        self.preprocessing = load_preprocessing(self.folder)

    def score(self, images: Tensor, prompt: str) -> Tensor:  # noqa: ARG002 it judges the picture alone
        """See `models.rewards.protocol.Reward.score`."""
        pixels = self.preprocessing(images.to(self.device, torch.float32))
        found = self.network(pixel_values=pixels).image_embeds
        return self.network.layers(normalize(found, dim=-1))[:, 0]
