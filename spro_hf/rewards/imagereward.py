"""ImageReward (Xu et al. 2023, arXiv 2304.05977): how much people would prefer a picture for a caption, told by a BLIP."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from spro_hf.errors import UserError
from spro_hf.models import locate
from spro_hf.rewards import foreign
from spro_hf.rewards.base import Brief, captions_of
from spro_hf.rewards.heads import ImprovedAestheticHead

FIELD = "scorers.imagereward"
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of raw rewards, as in the package image-reward
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LENGTH = 35  # tokens of a caption
# timm's names, and transformers'
VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.": "embeddings.patch_embedding.",
    "norm.": "post_layernorm.",
    "blocks.": "encoder.layers.",
}
INNER = {"norm1.": "layer_norm1.", "norm2.": "layer_norm2.", "attn.qkv.": "self_attn.qkv.",
         "attn.proj.": "self_attn.projection."}  # fmt: skip


class ImageReward:
    """A standardised reward, about −2 to 2: 0 is the mean and 1 the deviation of its authors' pictures.

    The caption's first token, after BERT has read the caption and attended to the picture, goes through five linear maps
    without activations to r, and the score is (r − 0.16717…) / 1.03333…. The real one is ``zai-org/ImageReward``, file
    ``ImageReward.pt`` with ``med_config.json`` beside it, and the tokenizer of ``google-bert/bert-base-uncased``; without
    ``tokenizer`` it lies in the repository itself. The caption is the base caption, cut to 35 tokens; [CLS] stays [CLS],
    since the package's ``score`` does not put BLIP's [ENC] in its place.

    A picture's shorter side becomes 224 pixels by Pillow's bicubic filter, and its middle is cut out. ``of_pixels`` does
    the same in floats, clipped to [0, 1] as Pillow does but not rounded to bytes.
    """

    differentiable = True

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        file: str = "ImageReward.pt",
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 32,
    ):
        self.batch_size = batch_size
        self.tokenizer = load_tokenizer(tokenizer or id, tokenizer_revision if tokenizer else revision)
        folder, state = foreign.read(id, revision, file, f"{FIELD}.file")
        told = load_told(folder, id)
        vision, text, head = parts_of(state)
        try:
            configs = vision_config(vision), text_config(text, told, vision)
            self.head = ImprovedAestheticHead(configs[1].hidden_size)
            self.head.load_state_dict(head)
        except (KeyError, ValueError, RuntimeError) as error:
            raise foreign.wrong(f"{FIELD}.file", id, file, "ImageReward", error) from error
        where = (f"{FIELD}.file", id, file, device, dtype)
        self.vision = foreign.build(BlipVisionModel, configs[0], vision, *where)
        self.text = foreign.build(BlipTextModel, configs[1], text, *where, add_pooling_layer=False)
        self.head.eval().requires_grad_(False).to(self.text.device)
        self.mean, self.std = (
            torch.tensor(numbers, device=self.text.device).view(3, 1, 1) for numbers in (PIXEL_MEAN, PIXEL_STD)
        )

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        size, scores = self.vision.config.image_size, []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            squares = [torch.from_numpy(np.array(square(image, size))).permute(2, 0, 1) for image in images[part]]
            pixels = torch.stack(squares).to(self.text.device) / 255
            scores += self._score(pixels, briefs[part]).tolist()
        return scores

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """Scores (n,) of ``pixels`` (n, 3, h, w) in [0, 1], with gradients to them."""
        return self._score(self._squares(pixels.to(self.text.device, torch.float32)), briefs).to(pixels.device)

    def _squares(self, pixels: Tensor) -> Tensor:
        """The middle of pixels (n, 3, h, w) in [0, 1] whose shorter side became the model's, as ``square`` does it."""
        size = self.vision.config.image_size
        height, width, top, left = frame(*pixels.shape[-2:], size)
        # Pillow resizes rows, then columns, and clips what overshoots each time
        for sides in ((pixels.shape[-2], width), (height, width)):
            pixels = F.interpolate(pixels, sides, mode="bicubic", antialias=True).clamp(0, 1)
        return pixels[..., top : top + size, left : left + size]

    def _score(self, squares: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        tokens = self.tokenizer(
            captions_of(briefs), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        ).to(self.text.device)
        seen = self.vision(((squares - self.mean) / self.std).to(self.vision.dtype)).last_hidden_state
        read = self.text(tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=seen)
        return (self.head(read.last_hidden_state[:, 0].float()) - MEAN) / STD


def frame(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """The sides of a picture whose shorter one became ``size``, and where its middle square begins, as torchvision rounds:
    height, width, top, left."""
    short = min(height, width)
    tall, wide = int(size * height / short), int(size * width / short)
    return tall, wide, round((tall - size) / 2), round((wide - size) / 2)


def square(image: Image.Image, size: int) -> Image.Image:
    """The middle of a picture whose shorter side became ``size``."""
    height, width, top, left = frame(image.height, image.width, size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def load_tokenizer(id: str, revision: str | None) -> Any:
    """BERT's tokenizer behind ``id``."""
    try:
        return AutoTokenizer.from_pretrained(locate(id, revision, weights=False), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{FIELD}.tokenizer: '{id}' has no tokenizer; name BERT's, 'google-bert/bert-base-uncased'."
        ) from error


def load_told(folder: Path, id: str) -> dict[str, Any]:
    """med_config.json, BLIP's configuration of its text tower, which stands beside the weights."""
    file = folder / "med_config.json"
    told = json.loads(file.read_text()) if file.is_file() else {}
    lacking = [
        name for name in ("num_attention_heads", "hidden_act", "layer_norm_eps", "pad_token_id") if name not in told
    ]
    if lacking:
        raise UserError(
            f"{FIELD}.id: '{id}' has no med_config.json with '{lacking[0]}'; name a repository that holds BLIP's, "
            "as zai-org/ImageReward does."
        )
    return told


def parts_of(state: foreign.State) -> tuple[foreign.State, foreign.State, foreign.State]:
    """Vision tower and text tower under transformers' names, and the head. BLIP's projections, which pre-training alone
    used, and BERT's numbered positions, which are no weights, are left out."""

    def under(prefix: str) -> foreign.State:
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    vision = {foreign.rename(key, VISION, INNER): value for key, value in under("blip.visual_encoder.").items()}
    text = under("blip.text_encoder.")
    text.pop("embeddings.position_ids", None)
    return vision, text, under("mlp.")


def vision_config(vision: foreign.State) -> BlipVisionConfig:
    """From the shapes; a head has 64 numbers, as in ViT-B and ViT-L, of which BLIPs are made, and timm's norms have 1e-6."""
    width, _, patch, _ = vision["embeddings.patch_embedding.weight"].shape
    grid = math.isqrt(vision["embeddings.position_embedding"].shape[1] - 1)
    return BlipVisionConfig(
        hidden_size=width, num_attention_heads=max(1, width // 64), patch_size=patch, image_size=grid * patch,
        num_hidden_layers=foreign.depth(vision, "encoder.layers."),
        intermediate_size=len(vision["encoder.layers.0.mlp.fc1.bias"]), hidden_act="gelu", layer_norm_eps=1e-6,
    )  # fmt: skip


def text_config(text: foreign.State, told: Mapping[str, Any], vision: foreign.State) -> BlipTextConfig:
    """From the shapes, and from med_config.json what they do not tell: heads, activation and the norms' epsilon."""
    vocabulary, width = text["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=vocabulary, hidden_size=width, num_attention_heads=told["num_attention_heads"],
        encoder_hidden_size=len(vision["post_layernorm.weight"]),
        max_position_embeddings=len(text["embeddings.position_embeddings.weight"]),
        num_hidden_layers=foreign.depth(text, "encoder.layer."),
        intermediate_size=len(text["encoder.layer.0.intermediate.dense.bias"]),
        hidden_act=told["hidden_act"], layer_norm_eps=told["layer_norm_eps"], pad_token_id=told["pad_token_id"],
        bos_token_id=None, eos_token_id=None, sep_token_id=None, is_decoder=True,
    )  # fmt: skip
