"""Counting by detection: as the authors' program has it, on tiny networks of the true classes."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
)

from contracts.rewards import REWARDS
from models.registry import load_reward
from models.rewards.detection import Found, within
from models.rewards.grounded_count import GroundedCount, confident, count
from models.rewards.protocol import RewardLoadError

Weights = Callable[[str], Path]
WANTED = {"cat": 2, "dog": 1}
CASES: list[tuple[list[tuple[str, str, float]], list[int]]] = [
    ([("cat", "11......", 0.9), ("cat", "...11...", 0.9), ("dog", "......11", 0.9)], [2, 1]),
    ([("cat", "1111....", 0.9), ("cat", ".111....", 0.5)], [1, 0]),
    ([("cat", "111.....", 0.9), ("cat", "...11...", 0.9), ("cat", "11111...", 0.8)], [2, 0]),
    ([("cat", "1111....", 0.9), ("dog", "1111....", 0.5)], [1, 0]),
    ([("cat", "1111....", 0.5), ("dog", "1111....", 0.9)], [0, 1]),
    ([("cat", "1111....", 0.5), ("dog", "..1111..", 0.9)], [0, 1]),
    ([("cat", "1111....", 0.5), ("dog", "...111..", 0.9)], [1, 1]),
    ([("cat", "1111....", 0.9), ("dog", "1111....", 0.9)], [1, 1]),
    ([("cat", "........", 0.9), ("dog", ".......1", 0.9)], [0, 1]),
]


def pictures() -> Tensor:
    """Noise, dark noise and stripes, of 8-bit values, in the size that the networks read: none is resized."""
    noise = torch.randint(256, (6, 3, 72, 72), generator=torch.Generator().manual_seed(0)) / 255
    made = [im ** (k + 1) if k % 2 else im[:, :, [k] * 72] for k, im in enumerate(noise)]
    return (torch.stack(made) * 255).round() / 255


class AsPublished:
    """The authors' rule, stated again in numpy, around transformers' own processors."""

    def __init__(self, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder / "detector")
        images = GroundingDinoImageProcessorPil.from_pretrained(folder / "detector")
        self.texts: Any = GroundingDinoProcessor(images, tokenizer)
        self.detector = GroundingDinoForObjectDetection.from_pretrained(folder / "detector").eval()
        self.boxes: Any = SamProcessor(SamImageProcessorPil.from_pretrained(folder / "segmenter"))
        self.segmenter = SamModel.from_pretrained(folder / "segmenter").eval()

    @torch.no_grad()
    def score(self, image: Image.Image, wanted: Mapping[str, int]) -> float:
        inputs = self.texts(images=image, text=". ".join(wanted) + ".", return_tensors="pt")
        [result] = self.texts.post_process_grounded_object_detection(
            self.detector(**inputs),
            inputs["input_ids"],
            threshold=0.2,
            text_threshold=0.2,
            target_sizes=[image.size[::-1]],
        )
        scores: NDArray[np.float32] = result["scores"].numpy()
        named = {
            name: [i for i, label in enumerate(result["text_labels"]) if label == name] for name in wanted
        }
        kept = {
            name: [i for i in rows if scores[i] > 0.32 or scores[i] > 0.6 * scores[rows].max()]
            for name, rows in named.items()
        }
        rows = [i for some in kept.values() for i in some]
        masks = dict(zip(rows, self.masks(image, result["boxes"][rows]), strict=True)) if rows else {}
        counts = self.counts(kept, masks, scores)
        return -float(sum((counts[name] - number) ** 2 for name, number in wanted.items()))

    def masks(self, image: Image.Image, boxes: Tensor) -> NDArray[np.bool_]:
        inputs = self.boxes(images=image, input_boxes=[boxes.tolist()], return_tensors="pt")
        inputs["input_boxes"] = inputs["input_boxes"].float()
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        out = self.segmenter(**inputs)
        [found] = self.boxes.image_processor.post_process_masks(out.pred_masks, *sizes)
        return found.numpy().any(1)

    @staticmethod
    def counts(
        kept: Mapping[str, list[int]], masks: Mapping[int, NDArray[np.bool_]], scores: NDArray[np.float32]
    ) -> dict[str, int]:
        apart: dict[str, list[int]] = {name: [] for name in kept}
        for name, rows in kept.items():
            seen = np.zeros(1, bool)
            for row in sorted(rows, key=lambda row: masks[row].sum()):
                if (masks[row] & ~seen).sum() / max(masks[row].sum(), 1) > 0.5:
                    apart[name].append(row)
                    seen = seen | masks[row]
        every = [row for rows in apart.values() for row in rows]
        top = np.max([masks[row] * scores[row] for row in every], axis=0) if every else np.zeros(1)
        return {
            name: sum((top[masks[row]] > scores[row]).mean() < 0.5 for row in rows)
            for name, rows in apart.items()
        }


def as_pil(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray((i.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)) for i in images]


def test_grounded_count_is_the_authors_programs(weights: Weights) -> None:
    published = AsPublished(weights("grounded_count"))
    expected = [published.score(image, WANTED) for image in as_pil(pictures())]
    reward = GroundedCount(folder=weights("grounded_count"))
    assert len(set(expected)) > 2
    assert reward.score(pictures(), "", counts=WANTED).tolist() == expected


def boxes_of(things: list[tuple[str, str, float]]) -> tuple[Found, Tensor]:
    """What is found of things in a picture of one row: name, pixels, score."""
    names = torch.tensor([["cat", "dog"].index(name) for name, _, _ in things])
    masks = torch.tensor([[[pixel == "1" for pixel in pixels]] for _, pixels, _ in things])
    return Found(torch.zeros(len(things), 4), torch.tensor([score for *_, score in things]), names), masks


@pytest.mark.parametrize(("things", "counts"), CASES)
def test_nothing_is_counted_twice(things: list[tuple[str, str, float]], counts: list[int]) -> None:
    found, masks = boxes_of(things)
    assert count(found, masks, 2) == counts
    published = {"cat": (found.names == 0).nonzero()[:, 0].tolist()}
    published["dog"] = (found.names == 1).nonzero()[:, 0].tolist()
    rows = dict(enumerate(masks.numpy()))
    assert [*AsPublished.counts(published, rows, found.scores.numpy()).values()] == counts


def test_unsure_boxes_count_beside_unsure_ones_only() -> None:
    found, _ = boxes_of([("cat", "1", 0.25), ("cat", "1", 0.5), ("dog", "1", 0.25), ("dog", "1", 0.14)])
    assert confident(found).tolist() == [1, 2]


@pytest.mark.parametrize(("height", "width"), [(40, 56), (56, 40), (64, 64), (30, 200), (200, 31), (1, 1)])
def test_sizes_are_those_of_the_processor(height: int, width: int) -> None:
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": 72, "longest_edge": 108})
    pixels = processor(Image.new("RGB", (width, height)), return_tensors="pt")["pixel_values"]
    assert within(height, width, 72, 108) == pixels.shape[2:]


def test_counts_come_from_the_prompt_where_none_are_given(weights: Weights) -> None:
    reward = GroundedCount(folder=weights("grounded_count"))
    read = reward.score(pictures(), "two cats and a dog on a red car")
    assert torch.equal(read, reward.score(pictures(), "whatever", counts=WANTED))
    assert torch.equal(read, reward.score(pictures(), "", counts={"CAT": 2, "Dog": 1}))


def test_every_picture_has_one_score_whatever_its_company(weights: Weights) -> None:
    reward = GroundedCount(folder=weights("grounded_count"))
    scores = reward.score(pictures(), "two cats and a dog")
    alone = torch.cat([reward.score(image[None], "two cats and a dog") for image in pictures()])
    assert (scores.shape, scores.dtype) == ((6,), torch.float32)
    assert len(set(scores.tolist())) > 2
    assert torch.equal(scores, alone)
    assert torch.equal(reward.score(pictures().flip(0), "two cats and a dog"), scores.flip(0))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 48), (64, 64)])
def test_any_size_has_a_score_in_range(weights: Weights, height: int, width: int) -> None:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    scores = GroundedCount(folder=weights("grounded_count")).score(noise, "two cats")
    assert torch.isfinite(scores).all()
    assert (scores <= 0).all()


def test_flat_grey_pictures_have_finite_scores_in_range(weights: Weights) -> None:
    grey = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 40, 56)
    scores = GroundedCount(folder=weights("grounded_count")).score(grey, "two cats")
    assert torch.isfinite(scores).all()
    assert (scores <= 0).all()


@pytest.mark.parametrize("prompt", ["", " ", "good morning", "猫 🐈"])
def test_a_prompt_that_counts_nothing_is_told_what_to_give(weights: Weights, prompt: str) -> None:
    reward = load_reward("grounded_count", folder=weights("grounded_count"))
    with pytest.raises(ValueError, match=r'params, such as \{"counts": \{"dog": 2, "red car": 1\}\}'):
        reward.score(pictures()[:1], prompt)


def test_too_many_names_are_refused(weights: Weights) -> None:
    reward = GroundedCount(folder=weights("grounded_count"))
    with pytest.raises(ValueError, match="too long together"):
        reward.score(pictures()[:1], "", counts={f"c a t {letter}": 1 for letter in "abcdefghijklmnop"})


def test_where_nothing_is_found_nothing_is_sure() -> None:
    found = Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert confident(found).tolist() == []


def test_without_a_folder_it_says_how_to_make_one() -> None:
    with pytest.raises(RewardLoadError) as caught:
        load_reward("grounded_count")
    said = str(caught.value)
    assert "`hf download IDEA-Research/grounding-dino-base --local-dir FOLDER/detector`" in said
    assert "`hf download facebook/sam-vit-base --local-dir FOLDER/segmenter`" in said
    assert "ROLLOVER_REWARD_PATHS=grounded_count=FOLDER" in said
    assert len(said) <= 500


@pytest.fixture(params=["detector", "segmenter"])
def spoilt(request: pytest.FixtureRequest, weights: Weights, tmp_path: Path) -> Path:
    """The part of a copy of the weights that a test shall break."""
    return Path(shutil.copytree(weights("grounded_count"), tmp_path / "weights")) / request.param


def test_pickles_are_refused(spoilt: Path) -> None:
    (spoilt / "model.safetensors").rename(spoilt / "pytorch_model.bin")
    with pytest.raises(RewardLoadError, match="only from safetensors, never pickle"):
        load_reward("grounded_count", folder=spoilt.parent)


def test_corrupt_weights_are_refused(spoilt: Path) -> None:
    whole = (spoilt / "model.safetensors").read_bytes()
    (spoilt / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RewardLoadError, match="could not be loaded"):
        load_reward("grounded_count", folder=spoilt.parent)


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(spoilt: Path, missing: str) -> None:
    (spoilt / missing).unlink()
    with pytest.raises(RewardLoadError, match=f"{spoilt.name}.*{missing}"):
        load_reward("grounded_count", folder=spoilt.parent)


def test_the_catalogue_and_the_page_say_where_the_weights_are() -> None:
    told = REWARDS["grounded_count"]
    assert all(str(what).split()[0] in str(told.weights) for what in GroundedCount.facts.fetch)
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")
    assert all(f"`{what}`" in page for what in GroundedCount.facts.fetch)
