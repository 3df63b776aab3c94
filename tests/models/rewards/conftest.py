"""Tiny reward models of random weights, of the true classes, in the folders that the hub would give."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SwinConfig,
)

from models.rewards.aesthetic import AestheticPredictor
from models.rewards.image_reward import PICKLE, convert
from tests.models.rewards.med_blip import Published
from tests.models.rewards.open_clip import OpenClip

NetworkT = TypeVar("NetworkT", bound=torch.nn.Module)
SIZE, PATCH = 32, 8
START, END = "<|startoftext|>", "<|endoftext|>"
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TOWER | {"image_size": SIZE, "patch_size": PATCH, "hidden_act": "gelu"}


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own, without merges: one token for each byte."""
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), START, END]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def clip_config() -> CLIPConfig:
    tokenizer = clip_tokenizer()
    text = TOWER | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": 12,
    }
    return CLIPConfig(text_config=text, vision_config=VISION | {"projection_dim": 12}, projection_dim=12)


def make_clip(folder: Path) -> None:
    lively(CLIPModel(clip_config())).save_pretrained(folder)
    add_processors(folder)


def add_processors(folder: Path) -> None:
    clip_tokenizer().save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=square).save_pretrained(folder)


def make_aesthetic(folder: Path) -> None:
    config: Any = clip_config().vision_config
    lively(AestheticPredictor(config)).save_pretrained(folder)
    add_processors(folder)


def make_siglip(folder: Path) -> None:
    text = TOWER | {"vocab_size": 300, "max_position_embeddings": 64, "projection_size": 16}
    network = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    network.logit_bias.data.fill_(-0.5)
    lively(network).save_pretrained(folder)
    letters([]).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, resample=2).save_pretrained(folder)


def letters(special: list[str]) -> PreTrainedTokenizerFast:
    """One token for each letter, then the end, then what else there is."""
    made = Tokenizer(models.WordLevel({chr(i): i for i in range(256)} | {"<eos>": 256}, unk_token="?"))  # noqa: S106 no password
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 256)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=chr(0),
        eos_token="<eos>",  # noqa: S106 no password
        additional_special_tokens=special,
    )


def lively(network: NetworkT) -> NetworkT:
    """The network with larger weights: fresh ones give every picture nearly the same score."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape) * (0.5 if "embedding" in name else 0.3))
    return network


def make_hps(folder: Path) -> None:
    """As the two repositories give it: open_clip's weights, and the rest as transformers has it."""
    CLIPModel(clip_config()).save_pretrained(folder)
    add_processors(folder)
    network = lively(OpenClip(clip_config()))
    save_file({f"model.{name}": w for name, w in network.state_dict().items()}, folder / "model.safetensors")


def make_qwen(folder: Path) -> None:
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(
            {letter: i for i, letter in enumerate([*alphabet, "Ye", "Yes"])}, [("Y", "e"), ("Ye", "s")]
        )
    )
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=special)
    fast.save_pretrained(folder)
    ids: dict[str, Any] = {word: fast.convert_tokens_to_ids(word) for word in special}
    text = {
        "vocab_size": len(fast),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "out_hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    lively(Qwen2_5_VLForConditionalGeneration(config)).save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=4, min_pixels=256, max_pixels=4096).save_pretrained(folder)


def make_instructblip(folder: Path) -> None:
    letters(["<image>"]).save_pretrained(folder)
    letters([]).save_pretrained(folder / "qformer_tokenizer")
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    qformer = {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "encoder_hidden_size": 16,
    }
    text = {
        "model_type": "t5",
        "vocab_size": 300,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }
    config = InstructBlipConfig(
        vision_config=vision | {"image_size": SIZE, "patch_size": PATCH},
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=4,
        image_token_index=257,
    )
    lively(InstructBlipForConditionalGeneration(config)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"height": SIZE, "width": SIZE}, do_center_crop=False).save_pretrained(folder)


def make_image_reward(folder: Path) -> None:
    """By our converter, from a pickle as it is published."""
    network = lively(Published(len(clip_tokenizer()), SIZE, PATCH))
    torch.save(network.state_dict(), folder / PICKLE)
    clip_tokenizer().save_pretrained(folder)
    convert(folder)


def make_detectors(folder: Path) -> None:
    """Grounding DINO and SAM, as the authors' program of arXiv 2503.19385 counts with them."""
    torch.manual_seed(178)  # whose counts differ from picture to picture
    make_detector(folder / "detector")
    make_segmenter(folder / "segmenter")


def make_detector(folder: Path) -> None:
    # Grounding DINO tells names apart by the ids that BERT gives these marks.
    known = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    known |= dict(enumerate(["cat", "dog", "red", "car", *"abcdefghijklmnopqrstuvwxyz"], start=1030))
    BertTokenizer(vocab={known.get(i, f"[unused{i}]"): i for i in range(1060)}).save_pretrained(folder)
    backbone: dict[str, Any] = {
        "image_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "out_features": ["stage2", "stage3", "stage4"],
    }
    text = BertConfig(
        vocab_size=1060,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(**backbone),
        text_config=text,
        num_queries=60,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        d_model=32,
        max_text_len=64,
    )
    lively(GroundingDinoForObjectDetection(config)).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 72, "longest_edge": 108}).save_pretrained(folder)


def make_segmenter(folder: Path) -> None:
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 72,
        "patch_size": 8,
        "window_size": 2,
        "global_attn_indexes": [0],
        "mlp_dim": 16,
        "num_pos_feats": 8,
    }
    prompts = {"hidden_size": 16, "image_size": 72, "patch_size": 8, "mask_input_channels": 4}
    masks = {
        "hidden_size": 16,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks)
    lively(SamModel(config)).save_pretrained(folder)
    square = {"height": 72, "width": 72}
    SamImageProcessorPil(size={"longest_edge": 72}, pad_size=square).save_pretrained(folder)


MAKERS: Mapping[str, Callable[[Path], None]] = {
    "clip_score": make_clip,
    "pickscore": make_clip,
    "aesthetic": make_aesthetic,
    "siglip": make_siglip,
    "hps": make_hps,
    "vqa_score": make_qwen,
    "instructblip": make_instructblip,
    "image_reward": make_image_reward,
}
"""Of those that `test_with_weights.py` checks alike."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a reward's tiny weights, by its name; made when first asked for."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                {**MAKERS, "grounded_count": make_detectors}[name](made[name])
        return made[name]

    return folder
