"""Objects in a picture: Grounding DINO finds boxes for names, SAM the pixels inside a box."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GroundingDinoForObjectDetection, PreTrainedTokenizerBase, SamModel

from models.rewards.pixels import Preprocessing
from models.rewards.protocol import RewardLoadError
from models.rewards.repository import load_network, load_tokenizer, preprocessor_config, unloadable

THRESHOLD = 0.2
"""Least probability of a box, and of a word to be of its name."""
BOXES = 16
"""Boxes whose masks are made at once: each takes some megabytes."""


@dataclass(frozen=True)
class Found:
    """Boxes of one picture.

    Attributes:
        boxes: [n, 4], left, top, right and bottom, in pixels.
        scores: [n], probabilities.
        names: [n], which of the names that were looked for.
    """

    boxes: Tensor
    scores: Tensor
    names: Tensor

    def __getitem__(self, rows: Tensor) -> "Found":
        """Some of the boxes."""
        return Found(self.boxes[rows], self.scores[rows], self.names[rows])


class Detector:
    """Grounding DINO (Liu et al. 2023, arXiv 2303.05499).

    Raises:
        models.rewards.protocol.RewardLoadError: the folder has no weights of it.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.network = load_network(GroundingDinoForObjectDetection, folder, device)
        self.tokenizer = load_tokenizer(folder)
        self.config, (self.shortest, self.longest) = sized(folder, "shortest_edge", "longest_edge")

    def __call__(self, image: Tensor, names: list[str]) -> Found:
        """The boxes in a picture [3, h, w] in [0, 1] that are of one of the names, and of no other words.

        Raises:
            ValueError: the names together are too long.
        """
        text = self.tokenizer(". ".join(names) + ".", return_tensors="pt").to(self.network.device)
        if text["input_ids"].shape[1] > self.network.config.max_text_len:
            raise ValueError("the names of the things to count are too long together")
        out = self.network(pixel_values=self._pixels(image), **text)
        words = out.logits[0].sigmoid()
        scores = words.amax(-1)
        likely = (scores > THRESHOLD).nonzero()[:, 0]
        labels = [self._label(text["input_ids"][0], words[row] > THRESHOLD) for row in likely.tolist()]
        known = [ids_of(self.tokenizer, name) for name in names]
        named = [(row, known.index(label)) for row, label in enumerate(labels) if label in known]
        rows = likely[torch.tensor([row for row, _ in named], dtype=torch.long, device=likely.device)]
        indices = torch.tensor([index for _, index in named], dtype=torch.long, device=likely.device)
        high, wide = image.shape[1:]
        return Found(corners(out.pred_boxes[0, rows], high, wide), scores[rows], indices)

    def _pixels(self, image: Tensor) -> Tensor:
        high, wide = image.shape[1:]
        return resized(self.config, image, *within(high, wide, self.shortest, self.longest))

    @staticmethod
    def _label(ids: Tensor, likely: Tensor) -> list[int]:
        """Ids of the words of a box, without the first, which stands for the whole text."""
        return ids[1:][likely[1 : len(ids)]].tolist()


class Segmenter:
    """Segment Anything (Kirillov et al. 2023, arXiv 2304.02643).

    Raises:
        models.rewards.protocol.RewardLoadError: the folder has no weights of it.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.network = load_network(SamModel, folder, device)
        self.config, (self.longest,) = sized(folder, "longest_edge")

    def __call__(self, image: Tensor, boxes: Tensor) -> Tensor:
        """The pixels [n, h, w], bool, of what is in each box [n, 4] of a picture [3, h, w] in [0, 1].

        A pixel is in where any of the network's three masks has it.
        """
        scale = self.longest / max(image.shape[1:])
        high, wide = (int(edge * scale + 0.5) for edge in image.shape[1:])
        pixels = resized(self.config, image, high, wide)
        pixels = functional.pad(pixels, (0, self.longest - wide, 0, self.longest - high))
        embedding: Any = self.network.get_image_embeddings(pixels)
        steps = [edge / old for edge, old in zip((wide, high), image.shape[:0:-1], strict=True)]
        scaled = boxes * torch.tensor(steps * 2, device=boxes.device)
        masks: list[Tensor] = []
        for some in scaled.split(BOXES):
            out = self.network(image_embeddings=embedding, input_boxes=some[None])
            whole = functional.interpolate(out.pred_masks[0], (self.longest, self.longest), mode="bilinear")
            own = functional.interpolate(whole[..., :high, :wide], image.shape[1:], mode="bilinear")
            masks.append((own > 0).any(1))
        return torch.cat(masks)


def corners(boxes: Tensor, height: int, width: int) -> Tensor:
    """Left, top, right and bottom in pixels, of centres and sizes relative to the picture."""
    middle, size = boxes[:, :2], boxes[:, 2:]
    edges = torch.cat([middle - size / 2, middle + size / 2], 1)
    return edges * torch.tensor([width, height, width, height], device=boxes.device)


def within(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Size whose shorter edge is `shortest`, or less, where the longer one would exceed `longest`."""
    short, long = min(height, width), max(height, width)
    edge = min(float(shortest), longest * short / long)
    less, more = max(1, round(edge)), max(1, int(edge * long / short))
    return (less, more) if height <= width else (more, less)


def resized(config: dict[str, Any], image: Tensor, height: int, width: int) -> Tensor:
    """Pixels [1, 3, height, width] of a picture, as the network's own preprocessing makes them."""
    size = {"height": height, "width": width}
    return Preprocessing.of({"resample": 2} | config | {"size": size, "crop_size": size})(image[None])


def sized(folder: Path, *edges: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The content of `preprocessor_config.json`, and these edges of its size. Raises RewardLoadError."""
    try:
        config = preprocessor_config(folder)
        return config, tuple(int(config["size"][edge]) for edge in edges)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RewardLoadError(unloadable(folder, "preprocessor_config.json", str(error))) from error


def ids_of(tokenizer: PreTrainedTokenizerBase, name: str) -> list[int]:
    """Ids of a name's words."""
    tokens: Any = tokenizer(name, add_special_tokens=False)
    return list(tokens["input_ids"])
