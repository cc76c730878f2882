"""EngageNet's interface on tiny models of LLaVA's own classes: what is asked, and the number by hand in both its forms."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from spro_hf.errors import UserError
from spro_hf.rewards import Brief
from spro_hf.rewards.engagenet import EngageNet, Numbers, coverage, question

# "7" and "3" are tokens of their own, and so is the colon that ends the prompt
WORDS = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "<image>",
    "USER",
    ":",
    "ASSISTANT",
    "Acme",
    "blue",
    "cat",
    "dog",
    "Tags",
    "7",
    "3",
)
WIDTH, SIDE, PATCH = 16, 28, 14
PICTURES = [Image.new("RGB", (40, 28), "blue"), Image.new("RGB", (28, 28), "red"), Image.new("RGB", (28, 64), "white")]
BRIEFS = [
    Brief("a cat", context={"company": "Acme", "tags": "cat, dog, blue"}),
    "a dog",
    Brief("cat dog cat dog", prompt="x"),
]
CHAT = (
    "{% for m in messages %}<s>USER: {% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} dog ASSISTANT:{% endif %}"
)


def processor(chat=None):
    """LLaVA-1.5's: a start token before the text, a patch of 14 pixels is a token, the class token is left out."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", WORDS.index("<s>"))])
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        pictures, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat,
    )  # fmt: skip


def llava(seed=0):
    """A LLaVA with random weights, wide enough apart that what is read changes what is said."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(
            LlavaConfig(vision_config=vision, text_config=text, image_token_id=WORDS.index("<image>"))
        )
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The checkpoint with its two layers in a file of their own, and the plain form of asking."""
    path = tmp_path_factory.mktemp("engagenet")
    llava().save_pretrained(path)
    processor().save_pretrained(path)
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.weight": (8, WIDTH), "0.bias": (8,), "2.weight": (1, 8), "2.bias": (1,)}
    save_file(
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, path / "likes.safetensors"
    )
    return path


@pytest.fixture(scope="module")
def headed(folder):
    return EngageNet(str(folder), head="likes.safetensors")


def test_colours_and_tones_by_hand():
    # 10 × 10: 40 blue, 30 red, 20 white, 7 black, 3 green pixels; green is below 5 %
    image = Image.new("RGB", (10, 10))
    colours = ["blue"] * 40 + ["red"] * 30 + ["white"] * 20 + ["black"] * 7 + [(0, 255, 0)] * 3
    for i, colour in enumerate(colours):
        image.paste(colour, (i % 10, i // 10, i % 10 + 1, i // 10 + 1))
    told, tones = coverage(image)
    assert told == {"blue": 0.4, "red": 0.3, "white": 0.2, "black": 0.07}
    # cool: blue and green; neutral: white and black
    assert tones == pytest.approx({"cool": 0.43, "warm": 0.3, "neutral": 0.27}) and list(tones) == [
        "cool",
        "warm",
        "neutral",
    ]


@pytest.mark.parametrize(
    "rgb, name",
    [
        ((255, 0, 0), "red"), ((255, 0, 30), "red"), ((255, 128, 0), "orange"), ((255, 255, 0), "yellow"),
        ((0, 255, 0), "green"), ((0, 255, 255), "cyan"), ((0, 0, 255), "blue"), ((160, 0, 255), "purple"),
        ((255, 0, 128), "pink"), ((0, 0, 0), "black"), ((40, 0, 0), "black"), ((128, 128, 128), "grey"),
        ((255, 255, 255), "white"), ((250, 245, 240), "white"),
    ],
)  # fmt: skip
def test_a_colours_name(rgb, name):
    assert list(coverage(Image.new("RGB", (3, 2), rgb))[0].items()) == [(name, 1.0)]


def test_the_question_says_what_is_known_and_nothing_else():
    context = {"company": "Acme", "date": "1 May 2023", "tags": "cat, sofa", "tweet": "Meet Tom", "likes": "12"}
    picture = Image.new("RGB", (64, 32), "blue")
    picture.paste("white", (0, 0, 16, 32))
    assert question(picture, Brief("a cat on a sofa", prompt="a grand cat", context=context)).splitlines()[1:-1] == [
        "Company: Acme",
        "Tweet: Meet Tom",
        "Date: 1 May 2023",
        "Resolution: 64 x 32",
        "Colours: blue 75%, white 25%",
        "Tones: cool 75%, neutral 25%",
        "Intended description: a cat on a sofa",
        "Tags: cat, sofa",
    ]
    plain = ["Resolution: 64 x 32", "Colours: blue 75%, white 25%", "Tones: cool 75%, neutral 25%"]
    for brief in ("a cat", Brief("a cat"), Brief("a cat", context={"company": "", "tags": ""})):
        assert question(picture, brief).splitlines()[1:-1] == [*plain, "Intended description: a cat"]
    asked = question(picture, "a cat").splitlines()
    assert "0 (fewest) to 100 (most)" in asked[0] and asked[-1] == "Answer with the number alone."


def test_the_heads_score_is_two_layers_on_the_prompts_last_hidden_state(headed, folder):
    """2.weight · max(0, 0.weight · h + 0.bias) + 2.bias, with h of each picture alone, without any padding."""
    layers = {name: value.double() for name, value in load_file(folder / "likes.safetensors").items()}
    model, words = llava(), processor()
    by_hand = []
    for image, brief in zip(PICTURES, BRIEFS, strict=True):
        text = f"USER: <image>\n{question(image, brief)} ASSISTANT:"
        inputs = words(text=[text], images=[image], return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1].double()
        inner = (layers["0.weight"] @ hidden + layers["0.bias"]).clamp(min=0)
        by_hand.append((layers["2.weight"] @ inner + layers["2.bias"]).item())
    assert headed(PICTURES, BRIEFS) == pytest.approx(by_hand, abs=1e-4)
    assert max(by_hand) - min(by_hand) > 0.1  # the three are not alike


def test_a_score_depends_on_picture_and_context_and_not_on_the_batch(headed, folder):
    together = headed(PICTURES, BRIEFS)
    assert headed.encode(PICTURES, BRIEFS, "right")["attention_mask"].sum(-1).unique().numel() > 1  # there is padding
    alone = [headed([image], [brief])[0] for image, brief in zip(PICTURES, BRIEFS, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert EngageNet(str(folder), head="likes.safetensors", batch_size=2)(PICTURES, BRIEFS) == pytest.approx(
        alone, abs=1e-5
    )
    assert abs(headed(PICTURES[1:2], BRIEFS[:1])[0] - together[0]) > 1e-3
    assert abs(headed(PICTURES[:1], ["a cat"])[0] - together[0]) > 1e-3


def test_the_text_goes_through_the_chat_template_or_llavas_plain_form(headed, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "chat")
    processor(CHAT).save_pretrained(tmp_path / "chat")
    chatting = EngageNet(str(tmp_path / "chat"), head="likes.safetensors")
    for reward, ending in ((headed, ["ASSISTANT", ":"]), (chatting, ["dog", "ASSISTANT", ":"])):
        ids = reward.encode(PICTURES[:1], BRIEFS[:1], "right")["input_ids"][0].tolist()
        tokens = [WORDS[i] for i in ids]
        # (28 / 14)² patches; one start token, be it the tokenizer's or the template's
        assert tokens.count("<image>") == 4 and tokens.count("<s>") == 1
        assert tokens[:8] == ["<s>", "USER", ":", "<image>", "<image>", "<image>", "<image>", "<unk>"]
        assert tokens[-len(ending) :] == ending
    said = [token for token in tokens if token not in ("<unk>", "<image>")]
    assert said[:4] == ["<s>", "USER", ":", ":"] and re.search(r"Acme.*blue.*cat.*Tags.*cat.*dog.*blue", " ".join(said))
    assert chatting(PICTURES, BRIEFS)[1] != pytest.approx(headed(PICTURES, BRIEFS)[1], abs=1e-3)


class Marks:
    """A tokenizer of one mark a token."""

    marks = (*"0123456789", ".", "cat")
    unk_token_id = None

    def __len__(self):
        return len(self.marks)

    def batch_decode(self, rows):
        return [self.marks[i] for (i,) in rows]

    def convert_tokens_to_ids(self, words):
        return [None for _ in words]


@pytest.mark.parametrize(
    ("said", "fit"),
    [("", "0123456789"), ("7", "0123456789."), ("10", "0."), ("11", "."), ("0", "."), ("100", ".")],
)
def test_of_each_steps_tokens_those_are_left_that_go_on_to_a_number(said, fit):
    """Where the number may end, that is a full stop here."""
    ids = [Marks.marks.index(mark) for mark in ("cat", *said)]
    left = Numbers(Marks(), [Marks.marks.index(".")])(1, torch.tensor([ids]), torch.zeros(1, len(Marks.marks)))
    assert [Marks.marks[i] for i in left[0].isfinite().nonzero().flatten().tolist()] == list(fit)


def parrot(follows):
    """A LLaVA whose next token hangs on the last one alone: layers add nothing, an embedding is a token's own axis, and
    the last matrix sends each axis to the token that follows."""
    model = llava()
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.get_input_embeddings().weight.copy_(torch.eye(len(WORDS), WIDTH))
        model.lm_head.weight.zero_()
        for last, following in follows.items():
            model.lm_head.weight[WORDS.index(following), WORDS.index(last)] = 1.0
    return model


@pytest.mark.parametrize("follows, said", [({":": "7", "7": "3", "3": "</s>"}, "73"), ({":": "3", "3": "</s>"}, "3")])
def test_without_a_head_the_score_is_the_number_that_the_model_writes(tmp_path, follows, said):
    parrot(follows).save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    reward = EngageNet(str(tmp_path))
    assert reward(PICTURES, BRIEFS) == [float(said)] * 3  # prompts of three lengths, padded


def test_a_model_that_would_write_words_answers_with_a_number_all_the_same(tmp_path):
    model = parrot({":": "cat", "cat": "dog", "dog": "</s>"})
    with (
        torch.no_grad()
    ):  # after the colon 7 is likelier than other numbers, and after it the end, though "cat" is before both
        model.lm_head.weight[WORDS.index("7"), WORDS.index(":")] = 0.5
        model.lm_head.weight[WORDS.index("</s>"), WORDS.index("7")] = 0.5
    model.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    assert EngageNet(str(tmp_path))(PICTURES, BRIEFS) == [7.0] * 3


def test_a_head_that_is_not_this_models_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(UserError, match=r"scorers\.engagenet\.head: there is no file 'none.safetensors'"):
        EngageNet(str(folder), head="none.safetensors")
    other = {
        "0.weight": torch.zeros(8, 7),
        "0.bias": torch.zeros(8),
        "2.weight": torch.zeros(1, 8),
        "2.bias": torch.zeros(1),
    }
    for state in (other, {"weight": torch.zeros(1, WIDTH)}):
        save_file(state, tmp_path / "copy" / "other.safetensors")
        with pytest.raises(
            UserError, match=r"scorers\.engagenet\.head: 'other.safetensors' holds .*not two layers on 16 numbers"
        ):
            EngageNet(str(tmp_path / "copy"), head="other.safetensors")
    with pytest.raises(
        UserError, match=r"scorers\.engagenet\.id: 'spro_hf/tiny/clip' is no checkpoint of AutoModelForImageTextToText"
    ):
        EngageNet("spro_hf/tiny/clip")


def test_a_model_without_digits_is_named():
    """The embedded world's guider, another architecture, is asked all the same: its template, its picture tokens."""
    with pytest.raises(UserError, match=r"scorers\.engagenet\.id: the model's tokenizer has no digits"):
        EngageNet("spro_hf/tiny/guider")([Image.new("RGB", (32, 32))], ["a red circle"])
