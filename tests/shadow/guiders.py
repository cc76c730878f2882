"""Tiny checkpoints of the classes behind the guiders that the recipes name, laid out as their repositories are.

Their weights are random but for what makes them write: the embeddings and the head hold a table "token → next tokens",
so that sampling gives replies that parse, each a little different. The layers between add little to what the last token
says, and so have gradients, and a picture moves every probability a little.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

Table = dict[str, tuple[str, ...]]
WIDTH = 64
SURE = 16.0  # the logit of a token that the table allows, above all others: e⁻¹⁶ · 200 ≈ 2 in 100,000 go astray
TEXT = dict(
    hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=4096, tie_word_embeddings=False, rms_norm_eps=1e-6,
)  # fmt: skip
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=1)  # the real ones lie behind this vocabulary
VISION = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
WHAT = (" everything", " subjects", " details")
LOOK = (" warmth", " depth", " contrast", " mist")
FIRST = (" amber", " quiet", " misty", " golden", " silver", " vivid", " gentle", " bold")
THING = (" harbour", " meadow", " street", " garden", " forest", " river", " kitchen", " market")
WHERE = (" at", " under", " in", " beside")
TIME = (" dusk", " dawn", " snow", " rain", " moonlight", " noon", " autumn", " spring")
EXTRA = (" cinematic", " detailed", " painterly", " soft", " crisp", " glowing", " balanced", " ornate")
DIGITS, SPACED = tuple("0123456789"), tuple(f" {digit}" for digit in range(1, 10))
END = ("END",)
REPLY = {
    "Plan:": ("\n1.",), " Plan:": ("\n1.",), "\n1.": (" keep",), " keep": WHAT, **dict.fromkeys(WHAT, ("\n2.",)),
    "\n2.": (" add",), " add": LOOK, **dict.fromkeys(LOOK, ("\nPrompt:",)), "\nPrompt:": FIRST,
    **dict.fromkeys(FIRST, THING), **dict.fromkeys(THING, WHERE), **dict.fromkeys(WHERE, TIME),
    **dict.fromkeys(TIME, (",", *END)), ",": EXTRA, **dict.fromkeys(EXTRA, END),
}  # fmt: skip
NUMBER = {**dict.fromkeys(SPACED, (*DIGITS, *END)), **dict.fromkeys(DIGITS, END)}  # 1 to 99
THOUGHT = {"\n": ("<think>",), "<think>": ("<think>",)}  # without end: who lets it think gets no reply
PIECES = r"\nPrompt:|\n\d\.|\n\n|\n| ?[A-Za-z]+:| ?\d| ?\w+| ?[^\w\s]|\s"
OTHER = ["\n", "\n\n", " ", " 0", *SPACED, *DIGITS, "yes", "no", "Yes", "No", " yes", " no", "assistant", "user", "."]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
VICUNA = (  # writes no end behind a reply, as the template of LLaVA 1.5
    "{% for m in messages %}{{ m['role'].upper() }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n"
    "{% endif %}{% endfor %}{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IDEFICS = (
    "{% for m in messages %}{{ m['role'].capitalize() }}:{% if m['content'][0]['type'] != 'image' %} {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<start_of_image>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def _tokenizer(special: list[str], end: str, start: str | None = None, **extra: str) -> PreTrainedTokenizerFast:
    """Whole words with the space before them; any other word is unknown. ``extra`` names special tokens."""
    words = [*REPLY, *(word for after in REPLY.values() for word in after if word != "END")]
    vocabulary = dict.fromkeys(["<pad>", "<unk>", *special, end, *OTHER, *words])
    table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    table.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    table.decoder = decoders.Fuse()
    table.add_special_tokens(["<pad>", "<unk>", *special, end])
    return PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", unk_token="<unk>", eos_token=end, bos_token=start,
        padding_side="left", extra_special_tokens=extra,
    )  # fmt: skip


def _teach(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, after: Table) -> None:
    """Write the table into the embeddings and the head.

    Tokens that have followers get embeddings that are orthogonal and of root mean square 1, which the last norm leaves
    as they are: e·e = WIDTH. The head's row of a follower is SURE/WIDTH times the sum of those that it follows, and a
    little noise, so that no two followers are told apart by rounding alone and the picture favours some of them.
    """
    ids = tokenizer.convert_tokens_to_ids
    head = model.get_output_embeddings().weight.data
    rows = torch.linalg.qr(torch.randn(WIDTH, len(after)))[0].T * WIDTH**0.5
    table = 0.04 * torch.randn_like(head)  # a logit's deviation is 0.04 · √WIDTH = 0.3
    for row, followers in zip(rows, after.values(), strict=True):
        table[[ids(tokenizer.eos_token if word == "END" else word) for word in followers]] += SURE / WIDTH * row
    inner = model.get_input_embeddings().weight.data
    inner.normal_()
    inner[[ids(word) for word in after]] = rows
    head.copy_(table)


def _save(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, template: str, after: Table,
    folder: Path, processor: dict[str, Any] | None = None, pictures: dict[str, Any] | None = None, **defaults: Any,
) -> None:  # fmt: skip
    """``processor`` and ``pictures`` are the settings of the processor and of its part for pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        _teach(model, tokenizer, after)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if tokenizer.bos_token is not None:
        ids["bos_token_id"] = tokenizer.bos_token_id
    for name, id in ids.items():
        setattr(model.config.get_text_config(), name, id)
    model.generation_config = GenerationConfig(**ids, do_sample=True, **{"temperature": 0.6, "top_p": 0.9, **defaults})
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template)
    if pictures is not None:
        kind = (processor or {})["processor_class"]
        (folder / "preprocessor_config.json").write_text(json.dumps({"processor_class": kind, **pictures}))
        (folder / "processor_config.json").write_text(json.dumps(processor))


def _made(name: str, config: Any) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, name)(config)


def mllama(folder: Path) -> None:
    """Llama 3.2 Vision: a text model that looks at up to four tiles by cross-attention in every second layer here."""
    from transformers import MllamaConfig

    tokenizer = _tokenizer(
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|image|>", "<|python_tag|>"],
        "<|eot_id|>", "<|begin_of_text|>",
    )  # fmt: skip
    vision = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=28, patch_size=14, max_num_tiles=4, intermediate_layers_indices=[1], vision_output_dim=64,
    )  # fmt: skip
    text = {**TEXT, **IDS, "vocab_size": len(tokenizer), "cross_attention_layers": [1]}
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=image, tie_word_embeddings=False)
    model = _made("MllamaForConditionalGeneration", config)
    for name, parameter in model.named_parameters():
        if name.endswith(("_gate", "gate_attn", "gate_ffn", "gate")):  # zero at first, so that no picture would matter
            parameter.data.fill_(0.5)
    pictures = {
        "image_processor_type": "MllamaImageProcessor",
        "size": {"height": 28, "width": 28},
        "max_image_tiles": 4,
    }
    _save(
        model, tokenizer, LLAMA, {"\n\n": ("Plan:",), **REPLY}, folder, {"processor_class": "MllamaProcessor"}, pictures
    )


def _llava(folder: Path, start: tuple[str, ...], after: Table) -> None:
    """LLaVA 1.5: CLIP's patches go into a Llama by a small network."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    tokenizer = _tokenizer(["<image>"], "</s>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, image_size=28, patch_size=14),
        text_config=LlamaConfig(**TEXT, **IDS, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
    )
    pictures = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28},
        "crop_size": {"height": 28, "width": 28},
    }  # fmt: skip
    processor = {
        "processor_class": "LlavaProcessor", "patch_size": 14, "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default", "image_token": "<image>",
    }  # fmt: skip
    model = _made("LlavaForConditionalGeneration", config)
    _save(model, tokenizer, VICUNA, {"ASSISTANT:": start, **after}, folder, processor, pictures)


def llava(folder: Path) -> None:
    _llava(folder, (" Plan:",), REPLY)


def llava_number(folder: Path) -> None:
    """A LLaVA that answers a number from 1 to 99, as one that is asked for likes does."""
    _llava(folder, SPACED, NUMBER)


def qwen3(folder: Path) -> None:
    """Qwen3: text only, and thinks without end unless it is told not to."""
    from transformers import Qwen3Config

    tokenizer = _tokenizer(["<|im_start|>", "<think>", "</think>"], "<|im_end|>")
    model = _made("Qwen3ForCausalLM", Qwen3Config(**TEXT, **IDS, vocab_size=len(tokenizer), head_dim=16))
    _save(model, tokenizer, THINKING, {"\n\n": ("Plan:",), **THOUGHT, **REPLY}, folder)


def _qwen_vl(folder: Path, kind: str, config: Callable[..., Any], processor: str, pictures: dict[str, Any]) -> None:
    names = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(names, "<|im_end|>")
    start, end, image, video = tokenizer.convert_tokens_to_ids(names[1:])
    model = _made(
        kind,
        config(
            len(tokenizer), image_token_id=image, video_token_id=video, vision_start_token_id=start,
            vision_end_token_id=end, tie_word_embeddings=False,
        ),
    )  # fmt: skip
    defaults = {"repetition_penalty": 1.05, "temperature": 1e-6}
    _save(
        model,
        tokenizer,
        CHATML,
        {"\n": ("Plan:",), **REPLY},
        folder,
        {"processor_class": processor},
        pictures,
        **defaults,
    )


def qwen25_vl(folder: Path) -> None:
    """Qwen2.5-VL: pictures of any shape, in patches of 14 of which four make a token."""
    from transformers import Qwen2_5_VLConfig

    def config(size: int, **tokens: Any) -> Any:
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
        vision = dict(
            depth=2, hidden_size=32, intermediate_size=64, num_heads=2, patch_size=14, window_size=56,
            fullatt_block_indexes=[1], out_hidden_size=WIDTH,
        )  # fmt: skip
        text = {**TEXT, **IDS, "vocab_size": size, "rope_parameters": rope}
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)

    pictures = {
        "image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 28 * 28, "max_pixels": 56 * 56, "patch_size": 14,
    }  # fmt: skip
    _qwen_vl(folder, "Qwen2_5_VLForConditionalGeneration", config, "Qwen2_5_VLProcessor", pictures)


def qwen3_vl(folder: Path) -> None:
    """Qwen3-VL: patches of 16; what the vision tower's first layer sees is added within the language part as well."""
    from transformers import Qwen3VLConfig

    def config(size: int, **tokens: Any) -> Any:
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
        vision = dict(
            depth=2, hidden_size=32, intermediate_size=64, num_heads=2, patch_size=16, out_hidden_size=WIDTH,
            num_position_embeddings=16, deepstack_visual_indexes=[0],
        )  # fmt: skip
        text = {**TEXT, **IDS, "vocab_size": size, "head_dim": 16, "rope_parameters": rope}
        return Qwen3VLConfig(text_config=text, vision_config=vision, **tokens)

    pictures = {
        "image_processor_type": "Qwen2VLImageProcessorFast", "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
        "patch_size": 16,
    }  # fmt: skip
    _qwen_vl(folder, "Qwen3VLForConditionalGeneration", config, "Qwen3VLProcessor", pictures)
    videos = {"processor_class": "Qwen3VLProcessor", "video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 16}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))


def _idefics(folder: Path, kind: str = "Idefics3") -> None:
    """Idefics3, which is SmolVLM-Instruct's class as well: a picture is cut into tiles, and shown once more as a whole."""
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 5) for j in range(1, 5)]
    names = [
        "<image>",
        "<fake_token_around_image>",
        "<global-img>",
        *tiles,
        *(["<video>"] if kind != "Idefics3" else []),
    ]
    tokenizer = _tokenizer(names, "<end_of_utterance>")
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        text_config={**TEXT, **IDS, "model_type": "llama", "vocab_size": len(tokenizer)},
        scale_factor=2, image_token_id=tokenizer.convert_tokens_to_ids("<image>"), pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    pictures = {
        "image_processor_type": f"{kind}ImageProcessor", "size": {"longest_edge": 64},
        "max_image_size": {"longest_edge": 32}, "do_image_splitting": True,
    }  # fmt: skip
    processor = {"processor_class": f"{kind}Processor", "image_seq_len": 4}
    model = _made(f"{kind}ForConditionalGeneration", config)
    _save(model, tokenizer, IDEFICS, {"Assistant:": (" Plan:",), **REPLY}, folder, processor, pictures)


def idefics3(folder: Path) -> None:
    _idefics(folder)


def smolvlm2(folder: Path) -> None:
    """SmolVLM 2, the class of that name; no recipe uses it, and its processor wants the package num2words."""
    _idefics(folder, "SmolVLM")


def gemma3(folder: Path) -> None:
    """Gemma 3: SigLIP's patches, pooled; norms behind attention and feed-forward too, which are turned down here."""
    from transformers import Gemma3Config

    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _tokenizer(["<bos>", "<start_of_turn>", *names.values()], "<end_of_turn>", "<bos>", **names)
    index = {f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    config = Gemma3Config(
        text_config={**TEXT, **IDS, "vocab_size": len(tokenizer), "head_dim": 16,
                     "query_pre_attn_scalar": 16, "sliding_window": 512},
        vision_config={**VISION, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4, tie_word_embeddings=False, **index,
    )  # fmt: skip
    model = _made("Gemma3ForConditionalGeneration", config)
    for name, parameter in model.named_parameters():
        if "language_model" in name and "post_" in name:
            parameter.data.fill_(-0.85)  # the norm's scale is 1 + weight
        elif name.endswith("mm_input_projection_weight"):  # zero at first, so that no picture would matter
            parameter.data.copy_(torch.eye(*parameter.shape))
    pictures = {
        "image_processor_type": "Gemma3ImageProcessor", "size": {"height": 28, "width": 28}, "image_seq_length": 4,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    processor = {"processor_class": "Gemma3Processor", "image_seq_length": 4}
    _save(model, tokenizer, GEMMA, {"\n": ("Plan:",), **REPLY}, folder, processor, pictures)


GUIDERS: dict[str, Callable[[Path], None]] = {
    "meta-llama/Llama-3.2-11B-Vision-Instruct": mllama,
    "llava-hf/llava-1.5-7b-hf": llava,
    "llava-hf/llava-1.5-13b-hf": llava_number,
    "Qwen/Qwen3-8B": qwen3,
    "Qwen/Qwen3-VL-8B-Instruct": qwen3_vl,
    "Qwen/Qwen2.5-VL-3B-Instruct": qwen25_vl,
    "HuggingFaceTB/SmolVLM-Instruct": idefics3,
    "google/gemma-3-4b-it": gemma3,
    "HuggingFaceM4/Idefics3-8B-Llama3": idefics3,
}
# One id of each class, of those that write a plan: Idefics3 is SmolVLM-Instruct's class too, the large LLaVA counts.
CHATS = [id for id in GUIDERS if id not in ("HuggingFaceM4/Idefics3-8B-Llama3", "llava-hf/llava-1.5-13b-hf")]


def build(id: str, folder: Path) -> None:
    """Write the tiny checkpoint of a repository into a folder."""
    GUIDERS[id](folder)
