"""The untrained networks of the flow, and how they are put together as a FLUX.1 repository."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# diffusers annotates configs and outputs more narrowly than they are.

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from models.shapes.world import COLOURS, NUMBERS, SHAPES, Relation

TEXT_LENGTH = 16
TOKENS_PER_SIDE = 8
PAD, END, UNKNOWN = 0, 1, 2
WORDS = [
    "<pad>", "</s>", "<unk>", ",", "a", "an", "and",
    *NUMBERS[1:], *COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES),
    *dict.fromkeys(word for relation in Relation for word in relation.value.split()),
]  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, lower-cased, closed by the end token; unknown words share one token."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[UNKNOWN]))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=f"$A {WORDS[END]}", special_tokens=[(WORDS[END], END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=WORDS[PAD],
        eos_token=WORDS[END],
        unk_token=WORDS[UNKNOWN],
        model_max_length=TEXT_LENGTH,
    )


def text_ids(captions: list[str]) -> Tensor:
    """Token ids, padded: [n, TEXT_LENGTH]."""
    encoded = tokenizer()(
        captions, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
    )
    return encoded["input_ids"]


class Flow(nn.Module):
    """Transformer and text encoders, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=128,
            pooled_projection_dim=64,
            guidance_embeds=False,
            axes_dims_rope=(8, 12, 12),
        )
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(WORDS), d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4,
                feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=PAD, eos_token_id=END,
            )
        )  # fmt: skip
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=TEXT_LENGTH, projection_dim=64,
                bos_token_id=END, eos_token_id=END, pad_token_id=PAD,
            )
        )  # fmt: skip
        _zero_residuals(self.transformer)
        self.register_buffer("positions", positions(), persistent=False)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [b, 64, 16] at packed latents x [b, 64, 16] and times t [b], and features [b, 64, 128].

        The transformer's own forward, but with time embedded in float32 whatever the weights' type, and
        with the image features behind the double blocks, for the auxiliary loss.
        """
        net = self.transformer
        pooled = self.clip(text).pooler_output
        context = net.context_embedder(self.t5(text).last_hidden_state)
        image = net.x_embedder(x.to(context.dtype))
        temb = net.time_text_embed(t * 1000, pooled)
        rotary = tuple(part.to(context.dtype) for part in net.pos_embed(self.positions.float()))
        for block in net.transformer_blocks:
            context, image = block(image, context, temb, rotary)
        features = image
        for block in net.single_transformer_blocks:
            context, image = block(image, context, temb, rotary)
        return net.proj_out(net.norm_out(image, temb)), features


def positions() -> Tensor:
    """Rotary position ids of text then image tokens, as FluxPipeline makes them: [16 + 64, 3]."""
    image = torch.zeros(TOKENS_PER_SIDE, TOKENS_PER_SIDE, 3)
    image[..., 1] = torch.arange(TOKENS_PER_SIDE)[:, None]
    image[..., 2] = torch.arange(TOKENS_PER_SIDE)[None, :]
    return torch.cat([torch.zeros(TEXT_LENGTH, 3), image.view(-1, 3)])


def _zero_residuals(net: FluxTransformer2DModel) -> None:
    """Start every block as the identity and the output at zero (AdaLN-Zero, Peebles and Xie 2023)."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear) and (name.endswith(".linear") or name == "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def pack(latents: Tensor) -> Tensor:
    """FLUX's packing of 2 x 2 patches into tokens: [b, 4, 16, 16] to [b, 64, 16]."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * 4)


def unpack(tokens: Tensor) -> Tensor:
    """The inverse of `pack`: [b, 64, 16] to [b, 4, 16, 16]."""
    b = len(tokens)
    parts = tokens.view(b, TOKENS_PER_SIDE, TOKENS_PER_SIDE, 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(b, 4, 2 * TOKENS_PER_SIDE, 2 * TOKENS_PER_SIDE)


def save_repository(flow: Flow, autoencoder: AutoencoderKL, path: Path) -> None:
    """Write an ordinary FLUX.1 repository in float16 safetensors."""
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0),
        vae=autoencoder,
        text_encoder=flow.clip,
        tokenizer=tokenizer(),
        text_encoder_2=flow.t5,
        tokenizer_2=tokenizer(),
        transformer=flow.transformer,
    )
    pipeline.to(torch.float16).save_pretrained(path, safe_serialization=True)


def load_repository(path: Path) -> tuple[Flow, AutoencoderKL]:
    """Read back what `save_repository` wrote, in float32."""
    pipeline = FluxPipeline.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    flow = Flow()
    flow.transformer, flow.clip, flow.t5 = (
        pipeline.transformer,
        pipeline.text_encoder,
        pipeline.text_encoder_2,
    )
    return flow, pipeline.vae
