"""The judge against probabilities worked from one plain forward pass of the embedded world's guider, an Idefics3."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from foreign_weights import pictures
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedTokenizerFast

from spro_hf.errors import UserError
from spro_hf.rewards.base import Brief
from spro_hf.rewards.vlm import VLMJudge, lead, readings
from spro_hf.tiny import home

GUIDER = "spro_hf/tiny/guider"
# The guider's own words are few; some of them are called so here, twice where a tokenizer would have two of them.
CALLED = {"circle": "1", "square": "2", "triangle": "3", "diamond": "4", "star": "5", "heart": "first", "cross": "First",
          "ring": "second", "moon": "Yes", "arrow": " NO "}  # fmt: skip
CAPTIONS = ["a red yellow", "a green cyan and a blue purple in the center", "black"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm") / "guider"
    shutil.copytree(home.path("guider"), folder)
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["vocab"] = {CALLED.get(word, word): token for word, token in told["model"]["vocab"].items()}
    file.write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def tokens(folder):
    return json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]


@pytest.fixture(scope="module")
def by_hand(folder):
    """Probabilities of all tokens after a question: one row, no padding, one forward pass."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def probabilities(images, question):
        text = "User: " + "<image>" * len(images) + question + "<end_of_utterance>Assistant: "
        inputs = processor(text=[text], images=[images], add_special_tokens=False, return_tensors="pt")
        return model(**inputs).logits[0, -1].softmax(-1).tolist()

    return probabilities


def judge(folder, mode, **more):
    return VLMJudge(str(folder), mode=mode, device="cpu", **more)


def test_yes_is_the_share_of_yes_over_all_tokens_that_read_so(folder, tokens, by_hand):
    images = pictures(5)[:3]
    scores = judge(folder, "yes")(images, [Brief(caption) for caption in CAPTIONS])
    for image, caption, score in zip(images, CAPTIONS, scores, strict=True):
        p = by_hand([image], f'Does this figure show "{caption}"? Please answer yes or no.')
        yes, no = p[tokens["yes"]] + p[tokens["Yes"]], p[tokens["no"]] + p[tokens[" NO "]]
        assert score == pytest.approx(yes / (yes + no), abs=1e-5)
    assert len({round(score, 4) for score in scores}) == 3


def test_a_rubric_s_score_is_the_expected_grade(folder, tokens, by_hand):
    image = pictures(5)[1]
    reward = judge(folder, "rubric", question="red {caption} and {caption} ?")
    p = by_hand([image], "red blue and blue ? Please answer with a single digit from 1 to 5.")
    grades = [p[tokens[str(k)]] for k in range(1, 6)]
    expected = sum(k * grade for k, grade in enumerate(grades, 1)) / sum(grades)
    assert reward([image], ["blue"]) == pytest.approx([expected], abs=1e-4)
    assert 1 <= expected <= 5
    # its own rubric asks something else
    assert judge(folder, "rubric")([image], ["blue"])[0] != pytest.approx(expected, abs=1e-4)


def test_a_pair_is_judged_in_both_orders(folder, tokens, by_hand):
    images = pictures(5)
    reward = judge(folder, "pairwise")
    score = reward([images[0]], [Brief("a red star", base=images[1])])[0]
    asked = (
        'Which of these two pictures is better as an illustration of "a red star", the first or the second? '
        "Please answer first or second."
    )
    shares = []
    for order in (images[:2], images[1::-1]):
        p = by_hand(order, asked)
        first, second = p[tokens["first"]] + p[tokens["First"]], p[tokens["second"]]
        shares.append(first / (first + second))
    assert shares[0] != pytest.approx(shares[1], abs=1e-4)
    assert score == pytest.approx((shares[0] + 1 - shares[1]) / 2, abs=1e-5)
    # the other picture has the rest, and a picture against itself a half
    assert reward([images[1]], [Brief("a red star", base=images[0])]) == pytest.approx([1 - score], abs=1e-5)
    assert reward([images[2]], [Brief("a red star", base=images[2])]) == pytest.approx([0.5], abs=1e-6)


@pytest.mark.parametrize("mode", ["yes", "rubric", "pairwise"])
def test_a_score_does_not_depend_on_its_batch(folder, mode):
    images = pictures(5)
    briefs = [Brief(caption, base=images[3]) for caption in CAPTIONS]  # of different lengths, so that rows are padded
    alone = judge(folder, mode, batch_size=1)(images[:3], briefs)
    for size in (2, 8):
        assert judge(folder, mode, batch_size=size)(images[:3], briefs) == pytest.approx(alone, abs=1e-4)
    assert judge(folder, mode)([], []) == []


def test_a_missing_base_picture_an_unknown_mode_and_a_missing_answer_are_refused(folder):
    image = pictures(5)[0]
    for brief in ("a red star", Brief("a red star")):
        with pytest.raises(UserError, match=r"scorers\.vlm\.mode: 'pairwise' .* of 'a red star' is not given"):
            judge(folder, "pairwise")([image], [brief])
    with pytest.raises(UserError, match=r"scorers\.vlm\.mode: there is no mode 'pair'; did you mean 'pairwise'"):
        judge(folder, "pair")
    with pytest.raises(UserError, match=r"no token of 'spro_hf/tiny/guider' reads '1', which 'rubric' needs"):
        judge(GUIDER, "rubric")
    with pytest.raises(UserError, match=r"scorers\.vlm\.id: "):
        judge("spro_hf/tiny/clip", "yes")


def test_a_blank_that_is_a_token_of_its_own_ends_the_prompt():
    """LLaMA's first tokenizer writes "1" as the tokens "▁" and "1", and "yes" as the one token "▁yes"."""

    def words(metaspace):
        vocabulary = ["<unk>", "▁", "1", "2", "▁yes", "▁Yes", "▁no", "yes", "no", "▁yesterday"]
        tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in vocabulary], unk_id=0))
        if metaspace:
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")

    llama = words(metaspace=True)
    assert llama("1", add_special_tokens=False).input_ids == [1, 2]
    assert lead(llama, ("1", "2")) == " " and lead(llama, ("yes", "no")) == ""
    assert lead(words(metaspace=False), ("1", "2")) == ""
    assert readings(llama, "yes") == [4, 5, 7] and readings(llama, "1") == [2]


def test_the_lead_ends_the_prompt_unless_a_blank_does(folder, monkeypatch):
    reward, asked = judge(folder, "yes"), []
    monkeypatch.setattr(
        type(reward.processor), "__call__", lambda self, text, **_: asked.extend(text) or BatchFeature()
    )
    reward.lead = "▁"
    for ending in ("Assistant: ", "Assistant:"):
        reward.processor.chat_template = reward.processor.chat_template.replace("Assistant: ", ending)
        reward._inputs([(pictures(5)[0],)], ["red"])
    assert asked[0].endswith("Assistant: ") and asked[1] == asked[0].removesuffix(" ") + "▁"
