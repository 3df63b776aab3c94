"""Tiny repositories of random weights, of each family's true classes, in the ordinary diffusers layout.

The networks are as small as their classes allow. Tokenizers are made on the spot: one token a byte.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
)
from diffusers.modular_pipelines.flux2.encoders import Flux2TextEncoderStep
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
)

from models.modular import TakesImage
from models.processors import StillsProcessor

WORDS = ["<pad>", "</s>", "<unk>", "a", "and", "two", "red", "blue", "circle", "square"]
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LANGUAGE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def words(length: int) -> PreTrainedTokenizerFast:
    """One token for each word, the end token behind them."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[UNKNOWN])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {WORDS[END]}", special_tokens=[(WORDS[END], END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=WORDS[PAD],
        eos_token=WORDS[END],
        unk_token=WORDS[UNKNOWN],
        model_max_length=length,
    )


def letters() -> Qwen2Tokenizer:
    """Qwen's own, without merges: one token for each byte."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], additional_special_tokens=SPECIAL[1:])
    tokenizer.chat_template = CHAT
    return tokenizer


VOCABULARY = len(letters())


def autoencoder() -> AutoencoderKL:
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


def flux2_autoencoder() -> AutoencoderKLFlux2:
    config: dict[str, Any] = {
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "block_out_channels": [8, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "mid_block_add_attention": False,
    }
    vae = AutoencoderKLFlux2(**config)
    statistics = dict(vae.bn.named_buffers())
    statistics["running_mean"].normal_()
    statistics["running_var"].uniform_(0.5, 2.0)
    return vae


def qwen_autoencoder() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.1, 1.0],
    )


def clip_config(layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=16,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=PAD,
    )


def t5(width: int = 16) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


def flux_parts(*, guidance_embeds: bool) -> dict[str, Any]:
    # Dev and Kontext shift their times by the size, schnell has even ones.
    shift: dict[str, Any] = (
        {"shift": 3.0, "use_dynamic_shifting": True} if guidance_embeds else {"shift": 1.0}
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(**shift),
        "vae": autoencoder(),
        "text_encoder": CLIPTextModel(clip_config(layers=1)),
        "tokenizer": words(16),
        "text_encoder_2": t5(),
        "tokenizer_2": words(16),
        "transformer": FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
    }


def sdxl_parts(prediction: str) -> dict[str, Any]:
    unet: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "sample_size": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
        "cross_attention_dim": 32,
        "norm_num_groups": 4,
    }
    return {
        "scheduler": diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
            prediction_type=prediction,
        ),
        "vae": autoencoder(),
        "text_encoder": CLIPTextModel(clip_config(layers=2)),
        "tokenizer": words(16),
        "text_encoder_2": CLIPTextModelWithProjection(clip_config(layers=2)),
        "tokenizer_2": words(16),
        "unet": diffusers.UNet2DConditionModel(**unet),
    }


def sd3_parts() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": autoencoder(),
        "text_encoder": CLIPTextModelWithProjection(clip_config(layers=2)),
        "tokenizer": words(16),
        "text_encoder_2": CLIPTextModelWithProjection(clip_config(layers=2)),
        "tokenizer_2": words(16),
        "text_encoder_3": t5(32),
        "tokenizer_3": words(16),
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
    }


def vision_language(layers: int) -> dict[str, Any]:
    """Configuration of Qwen's vision-language models."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 16, "intermediate_size": 16}
    text = LANGUAGE | {"num_hidden_layers": layers, "vocab_size": VOCABULARY, "rope_parameters": rope}
    names = ("vision_start", "vision_end", "image", "video")
    tokens = {
        f"{name}_token_id": number for number, name in enumerate(names, SPECIAL.index("<|vision_start|>"))
    }
    return {"text_config": text, "vision_config": vision, **tokens}


def qwen_image_parts() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        "vae": qwen_autoencoder(),
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(**vision_language(layers=2))
        ),
        "tokenizer": letters(),
        "transformer": diffusers.QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        ),
    }


def qwen_edit_parts() -> dict[str, Any]:
    size: dict[str, Any] = {"size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}}
    reader = StillsProcessor(transformers.Qwen2VLImageProcessorPil(**size), letters())
    return qwen_image_parts() | {"processor": reader}


def qwen3(layers: int) -> transformers.Qwen3Config:
    return transformers.Qwen3Config(**LANGUAGE, num_hidden_layers=layers, vocab_size=VOCABULARY)


def z_image_parts() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": autoencoder(),
        "text_encoder": transformers.Qwen3Model(qwen3(layers=2)),
        "tokenizer": letters(),
        "transformer": diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[256, 32, 32],
        ),
    }


def mistral(layers: int) -> transformers.Mistral3Config:
    text = LANGUAGE | {"num_hidden_layers": layers, "vocab_size": VOCABULARY, "model_type": "mistral"}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "model_type": "pixtral",
    }
    return transformers.Mistral3Config(text_config=text, vision_config=vision)


def flux2_transformer(*, guidance_embeds: bool) -> diffusers.Flux2Transformer2DModel:
    return diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def flux2_parts() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": flux2_autoencoder(),
        "text_encoder": transformers.Mistral3ForConditionalGeneration(mistral(layers=31)),
        "tokenizer": letters(),
        "transformer": flux2_transformer(guidance_embeds=True),
    }


def klein_parts(*, is_distilled: bool) -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": flux2_autoencoder(),
        "text_encoder": transformers.Qwen3ForCausalLM(qwen3(layers=28)),
        "tokenizer": letters(),
        "transformer": flux2_transformer(guidance_embeds=False),
        "is_distilled": is_distilled,
    }


def krea2_parts(*, is_distilled: bool) -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": qwen_autoencoder(),
        "text_encoder": transformers.Qwen3VLModel(transformers.Qwen3VLConfig(**vision_language(layers=36))),
        "tokenizer": letters(),
        "transformer": diffusers.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=16,
            timestep_embed_dim=16,
            text_hidden_dim=16,
            num_text_layers=12,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=16,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        ),
        "is_distilled": is_distilled,
    }


def ernie_parts() -> dict[str, Any]:
    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=16,
        rope_axes_dim=(4, 6, 6),
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": flux2_autoencoder(),
        "text_encoder": transformers.Mistral3Model(mistral(layers=2)),
        "tokenizer": letters(),
        "transformer": transformer,
    }


@dataclass(frozen=True)
class Family:
    """How to make a tiny model of a family, and how to ask its own pipeline for the same run.

    Attributes:
        pipeline: name of diffusers' own pipeline, which is not the modular one.
        parts: makes its components.
        scales: guidance scales to try, and the arguments by which its own pipeline means the same.
        off: the scale, of those above, that costs one forward pass a prediction; None: all of them.
        unpacked: whether the pipeline takes latents as [b, channels, height, width] and packs them itself.
        takes: whether the model takes an image.
        image: whether it is given one.
        inputs: values for block inputs, which the pipeline knows by the same names.
        again: whether its networks are those of a family above.
    """

    pipeline: str
    parts: Callable[[], dict[str, Any]]
    scales: Mapping[float | None, Mapping[str, Any]]
    off: float | None = None
    unpacked: bool = False
    takes: TakesImage = "none"
    image: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    again: bool = False

    @property
    def guided(self) -> tuple[float | None, ...]:
        """The scales, of several, that guide: the first."""
        return tuple(self.scales)[:1] if len(self.scales) > 1 else ()


UNGUIDED: Mapping[float | None, Mapping[str, Any]] = {None: {}}


def by_scale(*scales: float, **also: str) -> Mapping[float | None, Mapping[str, Any]]:
    return {scale: {"guidance_scale": scale} | also for scale in scales}


def by_true_scale(away_from: str) -> Mapping[float | None, Mapping[str, Any]]:
    return {4.0: {"true_cfg_scale": 4.0, "negative_prompt": away_from}, 1.0: {"true_cfg_scale": 1.0}}


KONTEXT = Family(
    "FluxKontextPipeline",
    partial(flux_parts, guidance_embeds=True),
    by_scale(3.5, 1.0),
    takes="optional",
    # Else it would make a million pixels of each image.
    inputs={"_auto_resize": False},
)
FLUX2 = Family("Flux2Pipeline", flux2_parts, by_scale(4.0, 1.0), unpacked=True, takes="optional")
KLEIN = Family(
    "Flux2KleinPipeline", partial(klein_parts, is_distilled=True), UNGUIDED, unpacked=True, takes="optional"
)
KLEIN_BASE = Family(
    "Flux2KleinPipeline",
    partial(klein_parts, is_distilled=False),
    by_scale(4.0, 1.0),
    off=1.0,
    unpacked=True,
    takes="optional",
)
# Its blocks make a space of an empty negative prompt.
QWEN_EDIT = Family(
    "QwenImageEditPipeline", qwen_edit_parts, by_true_scale(" "), off=1.0, takes="required", image=True
)

SDXL = Family(
    "StableDiffusionXLPipeline", partial(sdxl_parts, prediction="epsilon"), by_scale(7.5, 1.0), off=1.0
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "FLUX.1 schnell": Family("FluxPipeline", partial(flux_parts, guidance_embeds=False), UNGUIDED),
        "FLUX.1 dev": Family("FluxPipeline", partial(flux_parts, guidance_embeds=True), by_scale(3.5, 1.0)),
        "FLUX.1 Kontext": KONTEXT,
        "FLUX.1 Kontext, image": replace(KONTEXT, image=True, again=True),
        "FLUX.2 dev": FLUX2,
        "FLUX.2 dev, image": replace(FLUX2, image=True, again=True),
        "FLUX.2 klein": KLEIN,
        "FLUX.2 klein, image": replace(KLEIN, image=True, again=True),
        "FLUX.2 klein base": KLEIN_BASE,
        "FLUX.2 klein base, image": replace(KLEIN_BASE, image=True, again=True),
        "Stable Diffusion XL": SDXL,
        "Stable Diffusion XL, v-prediction": replace(
            SDXL, parts=partial(sdxl_parts, prediction="v_prediction"), again=True
        ),
        "Stable Diffusion 3 and 3.5": Family(
            "StableDiffusion3Pipeline", sd3_parts, by_scale(5.0, 1.0), off=1.0
        ),
        "Qwen-Image": Family("QwenImagePipeline", qwen_image_parts, by_true_scale(""), off=1.0),
        "Qwen-Image-Edit, image": QWEN_EDIT,
        "Qwen-Image-Edit-Plus, image": replace(QWEN_EDIT, pipeline="QwenImageEditPlusPipeline"),
        # Its own pipeline counts the scale from 0, its modular one from 1.
        "Z-Image": Family(
            "ZImagePipeline",
            z_image_parts,
            {5.0: {"guidance_scale": 4.0}, 1.0: {"guidance_scale": 0.0}},
            off=1.0,
        ),
        # Both count from 0.
        "Krea 2": Family(
            "Krea2Pipeline", partial(krea2_parts, is_distilled=False), by_scale(4.5, 0.0), off=0.0
        ),
        "Krea 2 Turbo": Family(
            "Krea2Pipeline", partial(krea2_parts, is_distilled=True), {None: {"guidance_scale": 0.0}}
        ),
        "ERNIE-Image": Family("ErnieImagePipeline", ernie_parts, by_scale(4.0, 1.0), off=1.0),
    }
)


def make(family: Family, folder: Path, dtype: torch.dtype = torch.float32) -> diffusers.DiffusionPipeline:
    """Save a tiny model of a family, the same one each time, and return its own pipeline."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = family.parts()
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                liven(part)
    pipeline = getattr(diffusers, family.pipeline)(**parts).to(dtype)
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(pipeline, diffusers.Flux2Pipeline):
        # In the pipeline this sentence has a line break which it has not in the modular blocks.
        pipeline.system_message = Flux2TextEncoderStep.DEFAULT_SYSTEM_MESSAGE
    pipeline.save_pretrained(folder)
    if "processor" in parts:
        lay_out_processor(parts["processor"], folder)
    return pipeline


def lay_out_processor(reader: StillsProcessor, folder: Path) -> None:
    """Lay a processor out as the repositories have it: the class with videos named, its halves in files."""
    index = json.loads((folder / "model_index.json").read_text())
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(folder / "processor")
    reader.image_processor.save_pretrained(folder / "processor")
    reader.tokenizer.save_pretrained(folder / "processor")


def liven(network: torch.nn.Module) -> None:
    """Give every weight some noise: fresh networks are zero where training begins as the identity."""
    network.eval()
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
