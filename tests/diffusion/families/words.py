"""Tokenizers and text encoders of the real classes, taught on a few captions here and now, and tiny."""

from functools import cache

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from spro_hf.tiny.make.common import clip_tokenizer
from spro_hf.tiny.world import caption, sample_truth

WIDTH = 32
# what the pipelines of Qwen-Image and FLUX.2 write around a prompt; a word that was seen is one token, as in the real ones
AROUND = (
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of"
    " the objects and background:\nuser\nassistant\n You are an AI that reasons about image descriptions. You give"
    " structured responses focusing on object relationships, object\nattribution and actions without speculation."
)
LETTERS = [chr(code) for code in range(33, 127)]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
clip_words = cache(clip_tokenizer)


@cache
def _corpus():
    rng = np.random.default_rng(0)
    return [*[AROUND] * 9, *(caption(sample_truth(rng), rng) for _ in range(200))]


@cache
def t5_words():
    return T5Tokenizer(extra_ids=0).train_new_from_iterator(
        _corpus(), 300, initial_alphabet=LETTERS, show_progress=False
    )


@cache
def gemma_words():
    words = GemmaTokenizer().train_new_from_iterator(_corpus(), 300, initial_alphabet=LETTERS, show_progress=False)
    words.add_bos_token = True  # so that the empty prompt is a token, not none
    return words


@cache
def qwen_words():
    words = Qwen2Tokenizer().train_new_from_iterator(
        _corpus(), 900, new_special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    words.chat_template = CHAT
    return words


def clip_text(projected=False):
    words = clip_words()
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2,
        projection_dim=WIDTH, max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_text(width=WIDTH, many=False):
    """T5, or its relative UMT5, which Wan reads."""
    size = dict(vocab_size=len(t5_words()), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return (UMT5EncoderModel(UMT5Config(**size)) if many else T5EncoderModel(T5Config(**size))).eval()


def _language_model(words, layers=2):
    """The weights start wide, or one prompt would hardly differ from another before the last norm."""
    return dict(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        initializer_range=0.3, bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip


def gemma_text():
    return Gemma2Model(Gemma2Config(**_language_model(gemma_words()), attn_implementation="eager")).eval()


def qwen3_text(layers=2):
    return Qwen3ForCausalLM(Qwen3Config(**_language_model(qwen_words(), layers))).eval()


def qwen_vl_text():
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=WIDTH)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    text = {**_language_model(qwen_words()), "rope_parameters": rope}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


def mistral_text(layers=3):
    vision = dict(
        model_type="pixtral", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=28, patch_size=14,
    )  # fmt: skip
    text = {"model_type": "mistral", **_language_model(qwen_words(), layers)}
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)).eval()


def seeded(build):
    """``build`` from the same random weights each time, the global generator left as it was."""

    def built():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build()

    return built
