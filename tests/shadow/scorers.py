"""Tiny, untrained checkpoints of the scorers that the recipes name, in the file formats of the real repositories."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BitImageProcessor,
    BlipTextConfig,
    BlipTextModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)

from spro_hf.models import locate
from tests.diffusion.families.words import LETTERS, clip_words, seeded
from tests.shadow import guiders

CONTEXT = 77  # tokens
PIXELS = 32  # a side
SHARED, LIKED = 1.0, 2.0  # of an embedding, beside what is its own
LAION_WIDTH = 768
LAION_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def clip_tokenizer():
    """The embedded world's words with CLIP's own context."""
    words = copy.deepcopy(clip_words())
    words.model_max_length = CONTEXT
    return words


def bare_clip(dimension: int) -> CLIPModel:
    words, size = clip_words(), dict(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    text = size | dict(
        vocab_size=len(words), max_position_embeddings=CONTEXT, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    vision = size | dict(image_size=PIXELS, patch_size=8)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=dimension)).eval()


@torch.no_grad()
def clip_model(dimension: int) -> CLIPModel:
    """A CLIP whose embeddings have ``dimension`` numbers, and whose scores are a little like a trained one's.

    Pictures and texts have something in common, so that cosines are positive; and texts like what LAION's head likes, in
    towers of all dimensions, so that a picture that gains by one scorer mostly gains by another.
    """
    first, made = seeded(lambda: bare_clip(LAION_WIDTH))(), seeded(lambda: bare_clip(dimension))()
    made.vision_model.load_state_dict(first.vision_model.state_dict())
    made.text_projection.weight.copy_(made.visual_projection.weight)
    head = load_file(Path(locate("spro_hf/laion/v1")) / "model.safetensors")["weight"][0]
    projection = made.visual_projection.weight
    liked = torch.linalg.solve(projection.T @ projection, first.visual_projection.weight.T @ head)
    made.vision_model.post_layernorm.bias.fill_(SHARED)
    made.text_model.final_layer_norm.bias.copy_(SHARED + LIKED * liked / liked.std())
    return made


def clip_pictures() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS})


def clip(dimension: int, processor: bool = True) -> Callable[[Path], None]:
    """A repository with a CLIP, and its processor unless it is another repository's; in files of their own, as of old."""

    def build(folder: Path) -> None:
        clip_model(dimension).save_pretrained(folder)
        if processor:
            clip_pictures().save_pretrained(folder)
            clip_tokenizer().save_pretrained(folder)

    return build


def dinov2(folder: Path) -> None:
    """DINOv2, with more patches than are looked at, and the processor that its repositories have."""
    size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=PIXELS, patch_size=2)
    seeded(lambda: Dinov2Model(Dinov2Config(**size)))().save_pretrained(folder)
    colours = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    sizes = {"size": {"shortest_edge": PIXELS}, "crop_size": {"height": PIXELS, "width": PIXELS}}
    BitImageProcessor(**sizes, **colours).save_pretrained(folder)


def aesthetic_head(folder: Path) -> None:
    """LAION's second head: five linear maps with dropouts between them, and no activations."""
    sizes = {0: (768, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    layers = seeded(lambda: nn.ModuleDict({str(i): nn.Linear(*size) for i, size in sizes.items()}))()
    layers["7"].bias.data.fill_(5.0)
    torch.save({f"layers.{name}": value for name, value in layers.state_dict().items()}, folder / "aesthetic-model.pth")


class Block(nn.Module):
    """A layer of a tower under open_clip's names."""

    def __init__(self, width: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 1)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 2 * width), "c_proj": nn.Linear(2 * width, width)})


def open_clip(width: int = 32, dimension: int = 16, patch: int = 8) -> dict[str, Tensor]:
    """A CLIP as open_clip writes it."""
    tower = {"transformer": nn.ModuleDict({"resblocks": nn.ModuleList(Block(width) for _ in range(2))})}
    norms = {"ln_pre": nn.LayerNorm(width), "ln_post": nn.LayerNorm(width)}
    conv = nn.Conv2d(3, width, patch, stride=patch, bias=False)
    visual = nn.ModuleDict(tower | norms | {"conv1": conv}).state_dict()
    visual |= {
        "class_embedding": torch.randn(width) / 8,
        "positional_embedding": torch.randn((PIXELS // patch) ** 2 + 1, width) / 8,
        "proj": torch.randn(width, dimension) / 8,
    }
    embedding = {"token_embedding": nn.Embedding(len(clip_words()), width), "ln_final": nn.LayerNorm(width)}
    text = nn.ModuleDict(copy.deepcopy(tower) | embedding).state_dict()
    text["positional_embedding"] = torch.randn(CONTEXT, width) / 8
    text["text_projection"] = visual["proj"].clone()
    for norm in (visual["ln_post.bias"], text["ln_final.bias"]):
        norm.fill_(SHARED)
    return {f"visual.{name}": value for name, value in visual.items()} | text | {"logit_scale": torch.tensor(4.6)}


def hpsv2(folder: Path) -> None:
    torch.save({"state_dict": seeded(open_clip)()}, folder / "HPS_v2.1_compressed.pt")


def bert_words(folder: Path) -> None:
    """BERT's tokenizer: letters, alone and inside a word."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
    told = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


MED = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 32, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64, "model_type": "bert", "num_attention_heads": 2, "num_hidden_layers": 2,
    "pad_token_id": 0, "add_type_embeddings": False, "vocab_size": 2 * len(LETTERS) + 7, "encoder_width": 32,
    "add_cross_attention": True,
}  # fmt: skip


def blip(width: int = 32, patch: int = 8) -> dict[str, Tensor]:
    """ImageReward's tensors: a ViT under timm's names, a BERT that attends to it, BLIP's unused projections, the head."""
    linear = {
        "attn.qkv": (width, 3 * width),
        "attn.proj": (width, width),
        "mlp.fc1": (width, 64),
        "mlp.fc2": (64, width),
    }
    parts: dict[str, nn.Module] = {
        "blip.visual_encoder.patch_embed.proj": nn.Conv2d(3, width, patch, stride=patch),
        "blip.visual_encoder.norm": nn.LayerNorm(width),
        "blip.vision_proj": nn.Linear(width, 16),
        "blip.text_proj": nn.Linear(width, 16),
        "blip.itm_head": nn.Linear(width, 2),
    }
    for number in range(2):
        layer = f"blip.visual_encoder.blocks.{number}."
        parts |= {layer + name: nn.Linear(*size) for name, size in linear.items()}
        parts |= {layer + name: nn.LayerNorm(width) for name in ("norm1", "norm2")}
    taken = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size",
             "max_position_embeddings")  # fmt: skip
    text = BlipTextConfig(
        **{name: MED[name] for name in taken}, encoder_hidden_size=width, is_decoder=True, bos_token_id=None
    )
    parts["blip.text_encoder"] = BlipTextModel(text, add_pooling_layer=False)
    sizes = {0: (width, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    parts |= {f"mlp.layers.{number}": nn.Linear(*size) for number, size in sizes.items()}
    state = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    return state | {
        "blip.visual_encoder.cls_token": torch.randn(1, 1, width) / 8,
        "blip.visual_encoder.pos_embed": torch.randn(1, (PIXELS // patch) ** 2 + 1, width) / 8,
        "blip.text_encoder.embeddings.position_ids": torch.arange(MED["max_position_embeddings"])[None],
    }


def imagereward(folder: Path) -> None:
    torch.save(seeded(blip)(), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED))


def _unalike() -> Tensor:
    """Rows for the digits in a LLaVA's head, (19, width)."""
    return 4 * torch.randn(len(guiders.SPACED + guiders.DIGITS), guiders.WIDTH)


def engagenet(folder: Path) -> None:
    """The LLaVA that answers a number, which here depends on the picture and on what is told of it.

    The digits' rows of the head get something of their own, away from the tokens after which a digit comes: so what the
    layers add says which digit it is. Sharp attention adds another thing for each share of a colour that is told.
    """
    guiders.llava_number(folder)
    words, state = AutoTokenizer.from_pretrained(folder), load_file(folder / "model.safetensors")
    (head,) = (value for name, value in state.items() if name.endswith("lm_head.weight"))
    (inner,) = (value for name, value in state.items() if name.endswith("embed_tokens.weight"))
    before = inner[words.convert_tokens_to_ids(["ASSISTANT:", *guiders.NUMBER])]
    own = seeded(_unalike)()
    own -= own @ torch.linalg.pinv(before) @ before
    head[words.convert_tokens_to_ids([*guiders.SPACED, *guiders.DIGITS])] += own
    end = guiders.SURE / guiders.WIDTH * inner[words.convert_tokens_to_ids([*guiders.DIGITS])].sum(0)
    head[words.eos_token_id] += end  # surer still, so that a number has two digits at most
    for name, value in state.items():
        if "language_model" in name and "_proj" in name:
            value *= 32 if "q_proj" in name or "k_proj" in name else 4 if "o_proj" in name else 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})


SCORERS: dict[str, Callable[[Path], None]] = {
    "openai/clip-vit-large-patch14": clip(LAION_WIDTH),
    LAION_H: clip(128),
    "yuvalkirstain/PickScore_v1": clip(128, processor=False),
    "trl-lib/ddpo-aesthetic-predictor": aesthetic_head,
    "zai-org/ImageReward": imagereward,
    "google-bert/bert-base-uncased": bert_words,
    "facebook/dinov2-base": dinov2,
    "xswu/HPSv2": hpsv2,
    "llava-hf/llava-1.5-13b-hf": engagenet,
}
