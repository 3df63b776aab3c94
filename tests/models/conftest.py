"""A tiny FLUX.1 of random weights, saved in the ordinary diffusers layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = ["<pad>", "</s>", "<unk>", "a", "and", "two", "red", "blue", "circle", "square"]
PAD, END, UNKNOWN = 0, 1, 2


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    """One token for each word, the end token behind them."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[UNKNOWN]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=f"$A {WORDS[END]}", special_tokens=[(WORDS[END], END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=WORDS[PAD],
        eos_token=WORDS[END],
        unk_token=WORDS[UNKNOWN],
        model_max_length=length,
    )


def vae() -> AutoencoderKL:
    config: dict[str, Any] = {
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "block_out_channels": [8, 8, 8],
        "norm_num_groups": 4,
        "latent_channels": 4,
        "mid_block_add_attention": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.9,
        "shift_factor": 0.1,
    }
    return AutoencoderKL(**config)


def transformer(*, guidance_embeds: bool) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )


def clip() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            projection_dim=16,
            bos_token_id=END,
            eos_token_id=END,
            pad_token_id=PAD,
        )
    )


def t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


def make_flux(folder: Path, *, guidance_embeds: bool = False, dtype: torch.dtype = torch.float32) -> Path:
    """Save a tiny FLUX.1 with random weights, the same ones each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts: dict[str, Any] = {
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.0),
            "vae": vae(),
            "text_encoder": clip(),
            "tokenizer": tokenizer(16),
            "text_encoder_2": t5(),
            "tokenizer_2": tokenizer(16),
            "transformer": transformer(guidance_embeds=guidance_embeds),
        }
    pipeline = FluxPipeline(**parts)
    pipeline.to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny FLUX.1 (schnell's kind: no guidance embedding)."""
    return make_flux(tmp_path_factory.mktemp("tiny-flux"))


@pytest.fixture(scope="session")
def flux_maker() -> Callable[..., Path]:
    """The function that saves a tiny FLUX.1 in a folder."""
    return make_flux
