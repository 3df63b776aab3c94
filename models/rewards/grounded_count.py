"""Reward for the right number of each thing asked for, counted by open-vocabulary detection."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from models.rewards.detection import Detector, Found, Segmenter
from models.rewards.numerals import counts_in
from models.rewards.protocol import Facts
from models.rewards.repository import needed

SURE = 0.32
"""A box with a greater score counts whatever the others of its name have."""
SHARE = 0.6
"""A box with a greater share of its name's best score counts, too."""
HALF = 0.5
UNREADABLE = (
    "the prompt names no number of things, such as 'two dogs and a red car': give reward 'grounded_count' "
    'params, such as {"counts": {"dog": 2, "red car": 1}}'
)


class GroundedCount:
    """Minus RSS = sum over the things asked for of (count - wanted)^2, as arXiv 2503.19385, section 5.2.

    Counted as the authors' program does: Grounding DINO's boxes for all names in one text, SAM's mask of each
    box, and then no thing twice (`count`). What to count is given, or read from the prompt.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=None,
        maximum=0.0,
        differentiable=False,
        source="arXiv 2503.19385, section 5.2, and its program",
        fetch=(
            "IDEA-Research/grounding-dino-base --local-dir FOLDER/detector",
            "facebook/sam-vit-base --local-dir FOLDER/segmenter",
        ),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "grounded_count", self.facts)
        self.detect = Detector(self.folder / "detector", self.device)
        self.segment = Segmenter(self.folder / "segmenter", self.device)

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str, counts: Mapping[str, int] | None = None) -> Tensor:
        """See `models.rewards.protocol.Reward.score`.

        Args:
            images: [b, 3, h, w].
            prompt: read where there are no `counts`.
            counts: what to count, in the singular, and how many of each are wanted.

        Raises:
            ValueError: there is nothing to count.
        """
        wanted = {name.lower(): number for name, number in (counts or counts_in(prompt)).items()}
        if not wanted:
            raise ValueError(UNREADABLE)
        pictures = images.to(self.device, torch.float32)
        found = torch.tensor([self._counts(picture, list(wanted)) for picture in pictures])
        asked = torch.tensor(list(wanted.values()))
        return -(found - asked).square().sum(1).to(self.device, torch.float32)

    def _counts(self, image: Tensor, names: list[str]) -> list[int]:
        found = self.detect(image, names)
        found = found[confident(found)]
        if not len(found.scores):
            return [0] * len(names)
        return count(found, self.segment(image, found.boxes), len(names))


def confident(found: Found) -> Tensor:
    """Rows of the boxes that are sure, or nearly as sure as the best of their name."""
    best = torch.zeros(int(found.names.max()) + 1 if len(found.names) else 0, device=found.scores.device)
    best = best.scatter_reduce(0, found.names, found.scores, "amax")
    return ((found.scores > SURE) | (found.scores > SHARE * best[found.names])).nonzero()[:, 0]


def count(found: Found, masks: Tensor, names: int) -> list[int]:
    """Things of each name, each counted once.

    Of one name, smaller masks come first, and one that adds less than half of itself to those before it is
    of the same thing. Of any names, what lies by half or more under surer masks is what those are of.

    Args:
        found: n boxes.
        masks: [n, h, w], bool, their pixels.
        names: how many names there are.
    """
    areas = masks.sum((1, 2))
    apart: list[int] = []
    surest = torch.zeros(masks.shape[1:], device=masks.device)
    for name in range(names):
        covered = torch.zeros_like(masks[0])
        rows = (found.names == name).nonzero()[:, 0]
        for row in rows[areas[rows].argsort(stable=True)].tolist():
            if (masks[row] & ~covered).sum() > HALF * areas[row]:
                apart.append(row)
                covered |= masks[row]
                surest = torch.where(masks[row], surest.maximum(found.scores[row]), surest)
    counts = [0] * names
    for row in apart:
        counts[int(found.names[row])] += bool(
            (surest[masks[row]] > found.scores[row]).sum() < HALF * areas[row]
        )
    return counts
