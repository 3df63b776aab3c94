"""What the rewards that compare a picture with its prompt in one space share: CLIP and SigLIP."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, PreTrainedTokenizerBase, SiglipModel

from models.rewards.pixels import Preprocessing
from models.rewards.repository import load_network, load_preprocessing, load_tokenizer

CLIP_LENGTH = 77
"""Longest text of every CLIP, in tokens."""


class Pairs:
    """Two encoders into one space.

    Args:
        network: frozen, on its device.
        tokenizer: of its text encoder.
        preprocessing: of its image encoder.
        length: longest text, in tokens; the rest is cut off.
        padding: `longest`, or `max_length` for networks that were trained on padded texts.
    """

    def __init__(
        self,
        network: CLIPModel | SiglipModel,
        tokenizer: PreTrainedTokenizerBase,
        preprocessing: Preprocessing,
        *,
        length: int,
        padding: str = "longest",
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.padding = padding
        self.length = length
        self._known: tuple[str, Tensor] | None = None

    def cosine(self, images: Tensor, text: str) -> Tensor:
        """Cosine [b] of each picture [b, 3, h, w] and the text; gradients flow to the pictures."""
        pixels = self.preprocessing(images.to(self.network.device, torch.float32))
        return unit(self.network.get_image_features(pixel_values=pixels)) @ self.direction(text)

    def direction(self, text: str) -> Tensor:
        """The text's unit vector; the last one is kept, since a search has one prompt."""
        if self._known is None or self._known[0] != text:
            self._known = (text, self._encoded(text))
        return self._known[1]

    @property
    def scale(self) -> Tensor:
        """The factor that was learned for the cosine."""
        return self.network.logit_scale.exp()

    # What is kept may later be part of a graph, which a tensor of inference mode cannot be.
    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def _encoded(self, text: str) -> Tensor:
        tokens = self.tokenizer(
            [text], padding=self.padding, truncation=True, max_length=self.length, return_tensors="pt"
        )
        ids = tokens["input_ids"].to(self.network.device)
        return unit(self.network.get_text_features(input_ids=ids))[0]


def unit(features: Any) -> Tensor:  # noqa: ANN401 transformers types it as what it may be after other options
    """Unit vectors [b, d] of what an encoder found."""
    return normalize(features.pooler_output, dim=-1)


def load_clip(folder: Path, device: torch.device) -> Pairs:
    """CLIP from a folder. Raises models.rewards.protocol.RewardLoadError."""
    network = load_network(CLIPModel, folder, device)
    return Pairs(network, load_tokenizer(folder), load_preprocessing(folder), length=CLIP_LENGTH)
