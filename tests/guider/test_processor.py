"""Processors without torchvision, which is not needed, and with it; what they lack is told."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor, SmolVLMProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.utils import is_torchvision_available

from spro_hf.errors import UserError
from spro_hf.guider import processor as module
from spro_hf.guider.guider import Guider
from spro_hf.guider.processor import load_processor
from tests.shadow.guiders import smolvlm2

QWEN3, QWEN25, QWEN3_VL = "Qwen/Qwen3-8B", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"
GEMMA, MLLAMA = "google/gemma-3-4b-it", "meta-llama/Llama-3.2-11B-Vision-Instruct"
without = pytest.mark.skipif(is_torchvision_available(), reason="it is about machines without torchvision")


@without
@pytest.mark.parametrize(
    ("id", "kind", "videos"),
    [(QWEN25, Qwen2_5_VLProcessor, "Qwen2VLImageProcessor"), (QWEN3_VL, Qwen3VLProcessor, "Qwen3VLVideoProcessor")],
)
def test_a_processor_that_wants_videos_is_made_without(shadows, scenes, tmp_path, id, kind, videos):
    processor = load_processor(str(shadows[id]))
    assert isinstance(processor, kind) and type(processor).__name__ == kind.__name__
    assert type(processor.image_processor).__name__ == "Qwen2VLImageProcessorPil"
    inputs = processor(text=["<|image_pad|>"], images=[[scenes[0].image]], return_tensors="pt")
    # of a grid of rows and columns of patches, two by two make a token
    assert inputs["input_ids"].shape == (1, inputs["image_grid_thw"].prod() // 4)
    with pytest.raises(UserError, match="torchvision"):
        processor(text=["<|video_pad|>"], videos=[[scenes[0].image]])
    # what is saved can be read by those who have torchvision
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == kind.__name__
    # the settings for videos, or where there are none those for pictures, from which transformers tells the class
    told = {"video_processor_type", "image_processor_type"} & saved["video_processor"].keys()
    assert [saved["video_processor"][name] for name in told] == [videos]
    shutil.copy(shadows[id] / "config.json", tmp_path)
    again = load_processor(str(tmp_path))
    assert again.video_processor == processor.video_processor
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()


def test_with_torchvision_it_is_the_libraries_own(shadows, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "is_torchvision_available", lambda: True)
    own = load_processor(str(shadows[GEMMA]))
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda folder, **more: asked.append((folder, more)) or own)
    assert load_processor(str(shadows[QWEN25])) is own
    assert asked == [(str(shadows[QWEN25]), {"trust_remote_code": False})]


@without
def test_smolvlm_2_wants_a_package(tmp_path, scenes, monkeypatch):
    smolvlm2(tmp_path)
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(UserError, match="pip install num2words"):
        load_processor(str(tmp_path))
    monkeypatch.setattr(processing_smolvlm, "num2words", str)  # only videos have their frames counted in words
    guider = Guider.load(str(tmp_path), max_new_tokens=40)
    assert isinstance(guider.processor, SmolVLMProcessor) and type(guider.model).__name__.startswith("SmolVLM")
    assert all(row[0].prompt for row in guider.reply(scenes, [1.0], 0))


def test_an_mllama_begins_once(shadows, scenes):
    guider = Guider.load(str(shadows[MLLAMA]))
    begin = guider.tokenizer.convert_tokens_to_ids("<|begin_of_text|>")
    assert [(row == begin).sum() for row in guider.encode(scenes)["input_ids"]] == [1] * 4
    assert begin not in guider.processor(text=["Plan:"])["input_ids"][0]


@pytest.mark.parametrize("id", [QWEN3, GEMMA])
def test_without_a_template_it_cannot_chat(shadows, tmp_path, id):
    folder = shutil.copytree(shadows[id], tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(
        UserError, match=r"guider\.id: 'some/model' has no chat template; name a chat \(instruct\) model"
    ):
        load_processor(str(folder), "some/model")


def test_a_template_may_stand_with_the_tokenizer(shadows, tmp_path):
    folder = shutil.copytree(shadows[GEMMA], tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    assert load_processor(str(folder)).chat_template == template


def test_without_a_processor_for_its_pictures_nothing_is_seen(shadows, tmp_path):
    folder = shutil.copytree(shadows[GEMMA], tmp_path / "model")
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"guider\.id: .* has no processor"):
        load_processor(str(folder))
