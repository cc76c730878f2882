"""Human Preference Score v2 (Wu et al. 2023, arXiv 2306.09341): a CLIP fine-tuned on people's choices among pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoProcessor, CLIPConfig, CLIPModel

from spro_hf.errors import UserError
from spro_hf.models import load_model, locate
from spro_hf.rewards import foreign
from spro_hf.rewards.base import Brief, captions_of

FIELD = "scorers.hpsv2"
# open_clip's names, and transformers'
NAMES = {
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.proj": "visual_projection.weight",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "ln_final.": "text_model.final_layer_norm.",
    "text_projection": "text_projection.weight",
}
INNER = {"ln_1.": "layer_norm1.", "ln_2.": "layer_norm2.", "mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2.",
         "attn.out_proj.": "self_attn.out_proj."}  # fmt: skip
TRANSPOSED = ("visual.proj", "text_projection")  # open_clip multiplies by them from the right


class HPSv2:
    """Cosine of picture and caption, in [−1, 1]; about 0.2 to 0.35. Many papers print it times 100.

    The real one is ``xswu/HPSv2``, file ``HPS_v2.1_compressed.pt``, an open_clip state dict, with the processor of
    ``laion/CLIP-ViT-H-14-laion2B-s32B-b79K``. Without ``file``, ``id`` is a transformers ``CLIPModel`` with its processor.

    It is the number that ``score`` of the package hpsv2 returns, and its pictures are prepared as there: the longest side
    becomes the model's by bicubic interpolation of the pixels as floats with antialiasing (what torchvision does since
    0.17), and the rest is black. Of the processor only mean, deviation and tokenizer are used. Two departures: a picture
    that has the model's longest side already is padded too, where the package stops; and captions are tokenized by
    transformers, which mends no broken Unicode and reads no HTML entities. The text is the base caption.
    """

    differentiable = True

    def __init__(
        self,
        id: str,
        revision: str | None = None,
        file: str | None = None,
        processor: str | None = None,
        processor_revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 32,
    ):
        tools = load_processor(processor or id, processor_revision if processor else revision)
        self.tokenizer, self.batch_size = tools.tokenizer, batch_size
        if file is None:
            self.model = load_model(CLIPModel, id, revision, f"{FIELD}.id", device, dtype)
        else:
            _, state = foreign.read(id, revision, file, f"{FIELD}.file")
            try:
                config, weights = config_of(state, self.tokenizer), from_open_clip(state)
            except (KeyError, ValueError) as error:
                raise foreign.wrong(f"{FIELD}.file", id, file, "CLIP of open_clip", error) from error
            self.model = foreign.build(CLIPModel, config, weights, f"{FIELD}.file", id, file, device, dtype)
        self.mean, self.std = (
            torch.tensor(numbers, device=self.model.device).view(3, 1, 1)
            for numbers in (tools.image_processor.image_mean, tools.image_processor.image_std)
        )

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], briefs: Sequence[Brief | str]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            pictures = [torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 for image in images[part]]
            pixels = torch.cat([self._fitted(picture.to(self.model.device)) for picture in pictures])
            scores += self._score(pixels, briefs[part]).tolist()
        return scores

    def of_pixels(self, pixels: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        """Scores (n,) of ``pixels`` (n, 3, h, w) in [0, 1], with gradients to them."""
        return self._score(self._fitted(pixels.to(self.model.device, torch.float32)), briefs).to(pixels.device)

    def _fitted(self, pixels: Tensor) -> Tensor:
        """(n, 3, h, w) in [0, 1] as the model's normalised squares, (n, 3, size, size)."""
        size = self.model.config.vision_config.image_size
        sides = pixels.shape[-2:]
        height, width = (max(1, round(side * size / max(sides))) for side in sides)
        if (height, width) != sides:
            pixels = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
        top, left = (size - height) // 2, (size - width) // 2
        squares = F.pad(pixels, (left, size - width - left, top, size - height - top))
        return ((squares - self.mean) / self.std).to(self.model.dtype)

    def _score(self, squares: Tensor, briefs: Sequence[Brief | str]) -> Tensor:
        captions = captions_of(briefs)
        distinct = list(dict.fromkeys(captions))
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(distinct, padding=True, truncation=True, max_length=length, return_tensors="pt")
        tokens = {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        texts = F.normalize(self.model.get_text_features(**tokens).pooler_output.float(), dim=-1)
        images = F.normalize(self.model.get_image_features(squares).pooler_output.float(), dim=-1)
        return (images * texts[[distinct.index(caption) for caption in captions]]).sum(-1)


def load_processor(id: str, revision: str | None) -> Any:
    """CLIP's processor: its tokenizer, and mean and deviation of its pictures."""
    try:
        tools = AutoProcessor.from_pretrained(locate(id, revision, weights=False), trust_remote_code=False)
        _ = tools.tokenizer, tools.image_processor
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{FIELD}.processor: '{id}' has no CLIP processor; name the CLIP that these weights were tuned from."
        ) from error
    return tools


def config_of(state: foreign.State, tokenizer: Any) -> CLIPConfig:
    """The CLIPConfig of an open_clip state dict, from its shapes.

    Shapes do not tell the number of heads. open_clip's text towers have one for every 64 numbers, and so have its vision
    towers up to 1024; the larger ones (H 1280, g 1408, bigG 1664) have 16 for all that. LAION's use the exact GELU.
    """
    width, channels, patch, _ = state["visual.conv1.weight"].shape
    grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
    vocabulary, text_width = state["token_embedding.weight"].shape
    vision = dict(
        hidden_size=width, num_channels=channels, patch_size=patch, image_size=grid * patch,
        num_attention_heads=max(1, min(16, width // 64)),
        num_hidden_layers=foreign.depth(state, "visual.transformer.resblocks."),
        intermediate_size=len(state["visual.transformer.resblocks.0.mlp.c_fc.bias"]),
    )  # fmt: skip
    text = dict(
        hidden_size=text_width, vocab_size=vocabulary, max_position_embeddings=len(state["positional_embedding"]),
        num_attention_heads=max(1, text_width // 64),
        num_hidden_layers=foreign.depth(state, "transformer.resblocks."),
        intermediate_size=len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    dimension = state["text_projection"].shape[1]
    return CLIPConfig(
        text_config=text | {"hidden_act": "gelu", "projection_dim": dimension},
        vision_config=vision | {"hidden_act": "gelu", "projection_dim": dimension},
        projection_dim=dimension,
    )


def from_open_clip(state: foreign.State) -> foreign.State:
    """open_clip's tensors under the names, and in the layout, of transformers' ``CLIPModel``."""
    found: foreign.State = {}
    for key, value in state.items():
        name = foreign.rename(key, NAMES, INNER)
        if ".attn.in_proj_" in name:  # query, key and value one below the other
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[name.replace("attn.in_proj_", f"self_attn.{letter}_proj.")] = part
        else:
            found[name] = value.T.contiguous() if key in TRANSPOSED else value
    return found
