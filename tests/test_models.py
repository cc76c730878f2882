"""Which files of a repository are wanted, and that a checkpoint of another class is refused."""

import pytest
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from spro_hf.errors import UserError
from spro_hf.models import load_model, wanted

SDXL = [
    "model_index.json", "README.md", "01.png", "sd_xl_base_1.0.safetensors", "sd_xl_offset_example-lora_1.0.safetensors",
    "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.fp16.safetensors",
    "text_encoder/model.onnx", "text_encoder/model.safetensors", "text_encoder/flax_model.msgpack",
    "text_encoder/openvino_model.bin", "tokenizer/merges.txt", "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors", "unet/model.onnx_data",
]  # fmt: skip


def test_of_a_pipeline_one_copy_of_each_component():
    assert wanted(SDXL) == [
        "model_index.json", "README.md", "scheduler/scheduler_config.json", "text_encoder/config.json",
        "text_encoder/model.safetensors", "tokenizer/merges.txt", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip


def test_of_a_model_its_shards_and_tokenizer():
    files = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.model",
             "model.safetensors.index.json", "original/consolidated.00.pth", "onnx/model.onnx", "pytorch_model.bin"]  # fmt: skip
    assert wanted(files) == files[:5]
    assert wanted(files, weights=False) == ["config.json", "tokenizer.model", "model.safetensors.index.json"]


def test_a_named_file_is_kept_whatever_it_is():
    files = ["ImageReward.pt", "med_config.json", "HPS_v2_compressed.pt"]
    assert wanted(files, keep="ImageReward.pt") == ["ImageReward.pt", "med_config.json"]


def test_weights_of_before_safetensors_are_taken_where_there_are_no_others():
    files = [
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin", "vae/config.json",
        "vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.safetensors", "text_encoders/clip_g.safetensors",
    ]  # fmt: skip
    assert wanted(files) == [*files[:4], files[5]]  # the last is a copy for other programs, in a folder of no component
    assert wanted(["config.json", "pytorch_model.bin"]) == ["config.json", "pytorch_model.bin"]


def test_a_checkpoint_of_another_class_is_refused(tmp_path):
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**size, image_size=8, patch_size=4, projection_dim=8)
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^scorers\.clip\.id: '.*' is no checkpoint of CLIPModel"):
        load_model(CLIPModel, str(tmp_path), None, "scorers.clip.id", device="cpu")
    kept = load_model(CLIPVisionModelWithProjection, str(tmp_path), None, "x", device="cpu")
    assert not kept.training and not any(p.requires_grad for p in kept.parameters())
