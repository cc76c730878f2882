"""Text in pictures: distances by hand, and what tiny chat models read, worked token by token from plain forward passes."""

from __future__ import annotations

import pytest
import torch
from foreign_weights import pictures
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from spro_hf.errors import UserError
from spro_hf.guider.processor import load_processor
from spro_hf.rewards import ocr
from spro_hf.rewards.base import Brief
from spro_hf.rewards.ocr import OCR, QUESTION, closeness, levenshtein, wanted
from spro_hf.rewards.vlm import asked
from spro_hf.tiny import home
from tests.shadow import guiders

QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"
LIMIT = 24  # of tokens, which random models reach


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setattr(ocr, "NEW_TOKENS", LIMIT)


@pytest.fixture(scope="module", params=["guider", QWEN])
def folder(request, tmp_path_factory):
    """The embedded world's guider, an Idefics3, and the tiny stand-in of the model that the recipes name."""
    if request.param == "guider":
        return str(home.path("guider"))
    folder = tmp_path_factory.mktemp("qwen")
    guiders.build(QWEN, folder)
    state = load_file(folder / "model.safetensors")
    for name, value in state.items():  # pay so much attention to the picture that each is read differently
        if "visual" not in name and name.endswith(("o_proj.weight", "v_proj.weight")):
            value *= 16
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


@pytest.fixture(scope="module")
def by_hand(folder):
    """What a model reads in one picture: the most probable token again and again, without padding and without a cache."""
    processor = load_processor(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)

    @torch.no_grad()
    def read(image):
        inputs = processor(text=[prompt], images=[[image]], add_special_tokens=False, return_tensors="pt")
        said = []
        while len(said) < LIMIT:
            token = int(model(**inputs).logits[0, -1].argmax())
            if token == processor.tokenizer.eos_token_id:
                break
            said.append(token)
            for name, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
                if name in inputs:
                    inputs[name] = torch.cat([inputs[name], torch.tensor([[value]])], 1)
        return processor.decode(said, skip_special_tokens=True).strip()

    return read


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0), ("", "abc", 3), ("abc", "", 3), ("open", "open", 0),
        ("open", "oven", 1),  # replace p
        ("open", "opens", 1),  # put in s
        ("open", "pen", 1),  # take out o
        ("open", "poen", 2),  # two letters changed places: two replaced
        ("kitten", "sitting", 3),  # k → s, e → i, and a g at the end
        ("flaw", "lawn", 2),  # take out f, put in n
    ],
)  # fmt: skip
def test_distances_by_hand(one, other, distance):
    assert levenshtein(one, other) == levenshtein(other, one) == distance


@pytest.mark.parametrize(
    ("text", "read", "reward"),
    [
        ("OPEN", "open", 1),
        ("Open Late", "O p E n\nlAtE", 1),  # blanks and lines count as little as case
        ("OPEN", "the shop is Open today", 1),  # part of what was read
        ("op en", "xxo penxx", 1),
        ("OPEN", "OVEN", 0.75),  # 1 − 1/4
        ("OPEN", "", 0),  # 1 − 4/4
        ("OPEN", "closed for today", 0),  # more to change than four letters, which is all that counts
        ("hello world", "hallo word", 0.8),  # helloworld: a for e, no l: 1 − 2/10
        ("a", "b", 0),
    ],
)
def test_rewards_by_hand(text, read, reward):
    assert closeness(text, read) == pytest.approx(reward, abs=1e-12)


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ('a sign that says "Open Late"', "Open Late"),
        ('" Hi " on a wall, and "bye" on a door', "Hi"),  # the first
        ("“Ça va” on a mug", "Ça va"),
        ("„Zu“ an einer Tür", "Zu"),
        ("une porte « Fermé »", "Fermé"),
        ('a blank "" card beside a "full" one', "full"),
        ('it\'s "don’t" on a shirt', "don’t"),  # an apostrophe is no quote
        ('“mixed" marks', "mixed"),
    ],
)
def test_the_wanted_text_stands_in_quotes(caption, text):
    assert wanted(caption) == text


@pytest.mark.parametrize("caption", ["a red star", "", 'a 5" nail', '" "', "it's 'this'"])
def test_a_caption_without_quotes_is_named(caption):
    with pytest.raises(
        UserError, match=r"^scorers\.ocr: the caption .* quotes no text .*; write it in quotes"
    ) as error:
        wanted(caption)
    assert repr(caption) in str(error.value)


def test_what_is_read_and_scored(folder, by_hand):
    reward, images = OCR(folder, device="cpu"), pictures(5)
    assert reward.differentiable is False
    read = [by_hand(image) for image in images]
    assert reward.read(images) == read and len(set(read)) > 2 and all(read)
    bare = "".join(read[1].lower().split())
    captions = [
        f'a sign "{read[0].upper()}"',
        f'a sign "{bare[: len(bare) // 2]}"',
        Brief(f"a sign “{read[2]}~”", prompt='another "text"'),  # "~" is in no reply
        f'a sign "{"~" * 7}"',
    ]
    n = len("".join(read[2].split())) + 1
    assert reward(images, captions) == pytest.approx([1, 1, 1 - 1 / n, 0], abs=1e-12)


def test_a_score_does_not_depend_on_its_batch(folder):
    images = pictures(5)
    captions = [f'a sign "{word}"' for word in ("plan", "keep", "a red circle", "prompt: 2.")]
    alone = OCR(folder, device="cpu", batch_size=1)
    together = OCR(folder, device="cpu", batch_size=8)
    assert together.read(images) == alone.read(images)
    assert together(images, captions) == alone(images, captions)
    assert together([], []) == []


def test_pictures_of_different_sizes_are_padded(tmp_path):
    """So that the test above is one of padding: Qwen2.5-VL has more tokens for larger pictures."""
    guiders.build(QWEN, tmp_path)
    reward = OCR(str(tmp_path), device="cpu")
    mask = asked(reward.processor, reward.model, [(image,) for image in pictures(5)], [QUESTION] * 4)["attention_mask"]
    assert len(set(mask.sum(1).tolist())) > 1 and mask[:, -1].all() and not mask[:, 0].all()


def test_a_checkpoint_s_own_manner_of_sampling_is_not_used(folder):
    reward, images = OCR(folder, device="cpu"), pictures(5)[:2]
    read = reward.read(images)
    for name, value in {"repetition_penalty": 50.0, "temperature": 9.0, "do_sample": True}.items():
        setattr(reward.model.generation_config, name, value)
    assert reward.read(images) == read


def test_no_text_is_answered_by_a_sign(folder, monkeypatch):
    reward = OCR(folder, device="cpu")
    monkeypatch.setattr(type(reward.processor.tokenizer), "batch_decode", lambda self, rows, **_: [" -\n", "a-b"])
    assert reward.read(pictures(5)[:2]) == ["", "a-b"]
    assert reward(pictures(5)[:2], ['"a-"', '"a-"']) == [0, 1]


def test_a_model_that_sees_nothing_and_a_caption_without_text_are_refused(folder, tmp_path):
    reward = OCR(folder, device="cpu")
    with pytest.raises(UserError, match=r"the caption 'a red star' quotes no text"):
        reward(pictures(5)[:2], ['a "sign"', Brief("a red star")])
    with pytest.raises(UserError, match=r"scorers\.ocr\.id: 'spro_hf/tiny/clip'"):
        OCR("spro_hf/tiny/clip")
    guiders.build("Qwen/Qwen3-8B", tmp_path)
    with pytest.raises(UserError, match=r"scorers\.ocr\.id: .* sees no pictures; name a chat model that does"):
        OCR(str(tmp_path))
