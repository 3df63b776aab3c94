"""Reward for pictures of which InstructBLIP says that they show what the prompt says."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration

from models.rewards.protocol import Facts, RewardLoadError
from models.rewards.repository import load_network, load_preprocessing, load_tokenizer, needed, unloadable

QUESTION = 'Question: Does this figure show "{}"? Please answer yes or no.'
ANSWER = "yes"
LONGEST = 128
"""Tokens of a question; the rest is cut off."""


class InstructBlip:
    """VQAScore of InstructBLIP: the geometric mean of the probabilities of the answer's tokens and its end.

    Lin et al., "Evaluating text-to-visual generation with image-to-text generation", 2024, arXiv 2404.01291,
    section 3, and its program for InstructBLIP on FLAN-T5, whose words these are. A held-out reward of
    arXiv 2503.19385.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=0.0,
        maximum=1.0,
        differentiable=True,
        source="arXiv 2404.01291, section 3, and its program",
        fetch=("Salesforce/instructblip-flan-t5-xl",),
    )

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self.device = torch.device(device)
        self.folder = needed(folder, "instructblip", self.facts)
        dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self.network = load_network(InstructBlipForConditionalGeneration, self.folder, self.device, dtype)
        self.preprocessing = load_preprocessing(self.folder, fit="shortest")
        self.asking = load_tokenizer(self.folder / "qformer_tokenizer")
        self.tokenizer = load_tokenizer(self.folder)
        config: Any = self.network.config
        if config.image_token_index is None or config.use_decoder_only_language_model:
            why = "its config.json must name an image_token_index and a language model of FLAN-T5"
            raise RewardLoadError(unloadable(self.folder, "InstructBLIP", why))
        self.picture = [config.image_token_index] * config.num_query_tokens
        self.answer = self._ids(self.tokenizer, ANSWER)
        start = torch.full((1, 1), config.text_config.decoder_start_token_id, device=self.device)
        self.given = torch.cat([start, self.answer[:, :-1]], 1)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`."""
        question, rows = QUESTION.format(prompt), len(images)
        pixels = self.preprocessing(images.to(self.device, torch.float32)).to(self.network.dtype)
        out = self.network(
            pixel_values=pixels,
            qformer_input_ids=self._ids(self.asking, question).expand(rows, -1),
            input_ids=self._ids(self.tokenizer, question, before=self.picture).expand(rows, -1),
            decoder_input_ids=self.given.expand(rows, -1),
        )
        answers = self.answer.expand(rows, -1)[:, :, None]
        likely = out.logits.float().log_softmax(-1).gather(2, answers)
        return likely.mean((1, 2)).exp()

    # A prompt's own "<image>" is text: what a client writes must not stand for the picture.
    def _ids(self, tokenizer: Any, text: str, before: list[int] | None = None) -> Tensor:  # noqa: ANN401 of two kinds
        tokens = tokenizer(text, truncation=True, max_length=LONGEST, split_special_tokens=True)
        return torch.tensor([[*(before or []), *tokens["input_ids"]]], device=self.device)
