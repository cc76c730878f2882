"""Pushing, tagging and pulling artifacts through the real clients; lineage."""

from __future__ import annotations

import json
from pathlib import Path

import faults
import hub_clients as ask
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from spro_hf import __version__
from spro_hf.errors import UserError
from spro_hf.hub import artifacts
from spro_hf.hub.artifacts import Artifact, lineage, write_lineage


def _folder(path: Path, **files: str) -> str:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return str(path)


def test_pinned_cuts_the_commit_to_twelve_digits():
    assert Artifact("spro/a", "model", "v1", "0123456789abcdef0123").pinned == "spro/a@0123456789ab"


def test_push_twice_is_one_version_and_a_tag_never_moves(do, tmp_path):
    one = _folder(tmp_path / "one", a_txt="1", gone_txt="x", weights_safetensors="w")
    commit, pinned = do(ask.push, one, "spro/push", "v1")
    assert pinned == f"spro/push@{commit[:12]}"
    assert do(ask.push, one, "spro/push", "v1") == (commit, pinned)
    two = _folder(tmp_path / "two", a_txt="2", weights_safetensors="w")
    told = do(faults.push, two, "spro/push")
    assert "spro/push" in told and "'v1'" in told and "a.txt, gone.txt" in told and "choose another tag" in told
    newer, _ = do(ask.push, two, "spro/push", "v2")
    assert newer != commit
    assert do(ask.push, two, "spro/push", "v3")[0] == newer  # the same files need no commit of their own
    old, new = do(ask.files_at, "spro/push", "v1"), do(ask.files_at, "spro/push", "v2")
    assert {k: v for k, v in old.items() if k != ".gitattributes"} == {
        "a.txt": "1",
        "gone.txt": "x",
        "weights.safetensors": "w",
    }
    assert sorted(new) == [".gitattributes", "a.txt", "weights.safetensors"] and new["a.txt"] == "2"


def test_pushes_at_the_same_time_each_keep_their_version(do, tmp_path):
    folders = [_folder(tmp_path / f"t{i}", **{f"f{i}_txt": str(i), "same_txt": "s"}) for i in range(4)]
    got = do(ask.push_from_threads, folders, "spro/together")
    assert got == {f"t{i}": [".gitattributes", f"f{i}.txt", "same.txt"] for i in range(4)}


def test_errors_are_one_sentence_that_says_what_to_do(do, tmp_path):
    folder = _folder(tmp_path / "m", a_txt="1")
    do(ask.push, folder, "spro/told", "v1")
    assert "there is no revision 'v9'; its tags: v1." in do(ask.told, "resolve", "spro/told", "model", "v9")
    assert "no such repository" in do(ask.told, "pull", "spro/none", "dataset", "main")
    assert "write namespace/name" in do(ask.told, "resolve", "a/b/c", "model", "main")
    assert "does not accept the token" in do(faults.with_token, "hf_wrong", faults.push, folder, "spro/told", "v2")
    assert "nothing to push" in do(faults.push, str(tmp_path / "void"), "spro/told", "v2")


def test_a_full_commit_is_asked_for_once_and_a_tag_each_time(do, tmp_path):
    commit, _ = do(ask.push, _folder(tmp_path / "m", a_txt="1"), "spro/asked", "v1")
    assert do(ask.requests_of, "spro/asked", "v1", 3) == (3, commit)
    assert do(ask.requests_of, "spro/asked", "main", 3) == (3, commit)
    assert do(ask.requests_of, "spro/asked", commit[:12], 3) == (3, commit)
    assert do(ask.requests_of, "spro/asked", commit, 3) == (1, commit)
    assert do(ask.requests_of, "spro/asked", commit, 3) == (0, commit)
    # that a commit is not there is asked anew each time, since it may come, and of each repository by itself
    do(ask.push, _folder(tmp_path / "n", b_txt="2"), "spro/asked-too", "v1")
    for _ in range(2):
        assert f"there is no revision '{commit}'" in do(ask.told, "resolve", "spro/asked-too", "model", commit)


def test_datasets_loads_a_pushed_version_by_its_tag(do, tmp_path):
    def version(number: int) -> str:
        data = tmp_path / str(number) / "data"
        data.mkdir(parents=True)
        pq.write_table(pa.table({"n": [number, 10 * number]}), data / "train-00000-of-00001.parquet")
        (tmp_path / str(number) / "lineage.json").write_text("{}")
        card = 'configs:\n- config_name: default\n  data_files:\n  - {split: train, path: "data/train-*.parquet"}\n'
        (tmp_path / str(number) / "README.md").write_text(f"---\n{card}---\n")
        return str(tmp_path / str(number))

    do(ask.push, version(1), "spro/rows", "round-1", "dataset")
    do(ask.push, version(2), "spro/rows", "round-2", "dataset")
    assert do(ask.load_rows, "spro/rows", "round-1") == ([{"n": 1}, {"n": 10}],) * 2
    assert do(ask.load_rows, "spro/rows", "round-2") == ([{"n": 2}, {"n": 20}],) * 2
    assert do(ask.push_rows, "spro/own") == 3


def test_lineage_is_the_same_for_the_same_run(tmp_path):
    inputs = [{"repo": "spro/a", "commit": "0" * 40}]
    written = [write_lineage(tmp_path, {"stage": "image", "seed": 3}, inputs, 3, {"tag": "v1"}) for _ in range(2)]
    told = json.loads(written[0].read_text())
    assert written[0] == tmp_path / "lineage.json" and str(tmp_path) not in written[0].read_text()
    assert told == lineage({"stage": "image", "seed": 3}, inputs, 3, {"tag": "v1"})
    assert told["inputs"] == inputs and told["seed"] == 3 and told["tag"] == "v1"
    assert told["versions"]["huggingface_hub"][0].isdigit() and told["versions"]["spro_hf"] == __version__
    with pytest.raises(UserError, match="'seed' is a field of every lineage"):
        lineage({}, [], 0, {"seed": 1})


def models_by_tag(folder: str) -> dict[str, float]:
    """How far a tiny transformers model, a peft adapter and a diffusers pipeline come back from a tag unchanged."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ids, noise = torch.tensor([[1, 2, 3]]), torch.randn(1, 3, 8, 8)
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    base = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1, num_key_value_heads=1)).eval()
    base.save_pretrained(f"{folder}/base")
    plain = base(ids).logits
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    adapted.save_pretrained(f"{folder}/adapter")
    blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "block_out_channels": [4]}
    unet = UNet2DModel(8, layers_per_block=1, norm_num_groups=2, attention_head_dim=4, **blocks)
    pipe = DDPMPipeline(unet, DDPMScheduler())
    pipe.save_pretrained(f"{folder}/pipe")
    Path(folder, "adapter/README.md").unlink()  # peft's own names no base model, as a card must
    for name, file in (("base", "config.json"), ("adapter", "adapter_config.json"), ("pipe", "model_index.json")):
        faults.push(f"{folder}/{name}", f"spro/{name}")
        HfApi().delete_file(file, f"spro/{name}")  # main moves on; the tag does not
    back = AutoModelForCausalLM.from_pretrained("spro/base", revision="v1")
    back = PeftModel.from_pretrained(back, "spro/adapter", revision="v1")
    drawn = DiffusionPipeline.from_pretrained("spro/pipe", revision="v1")
    return {
        "adapter": (back(ids).logits - adapted(ids).logits).abs().max().item(),
        "plain": (back(ids).logits - plain).abs().max().item(),
        "pipe": (drawn.unet(noise, 1).sample - pipe.unet(noise, 1).sample).abs().max().item(),
    }


def test_transformers_peft_and_diffusers_load_a_tag(do, tmp_path):
    apart = do(models_by_tag, str(tmp_path))
    # the same numbers, but for the rounding of a CPU whose products depend on where in memory they lie
    assert max(apart["adapter"], apart["pipe"]) < 1e-5 and apart["plain"] > 1e-3


def test_a_namespace_of_somebody_else_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr(artifacts.HfApi, "whoami", lambda self: {"name": "me", "orgs": [{"name": "lab"}]})
    artifacts.check_token(["me/rollouts", "lab/guider"])
    with pytest.raises(
        UserError, match=r"push: spro/guider is not in a namespace .* \(me, lab\); .* --set namespace=me"
    ):
        artifacts.check_token(["me/rollouts", "spro/guider"])
