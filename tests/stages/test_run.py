"""All of SPRO, small: what a run leaves, that it loads as the printed lines say, that a killed run ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import torch
import yaml
from safetensors.torch import load_file

from spro_hf import recipe as recipes_of
from spro_hf import rollouts
from spro_hf.hub import front_matter
from tests.stages.conftest import killed, small, spro

SYSTEMS = ["base", "untrained guider", "best-of-n", "SPRO-Prompt", "SPRO-Image", "SPRO-MM"]


def test_results_hold_every_number(whole):
    told = json.loads((whole / "results.json").read_text())
    assert told["systems"] == SYSTEMS and told["objectives"] == ["engagement"]
    cells = {(row["system"], row["metric"]): row for row in told["table"]}
    metrics = {"total", "aesthetic", "engagement", "pickscore", "clip", "judge", "alignment", "subject", "planted",
               "diversity", "saturation"}  # fmt: skip
    assert set(cells) == {(s, m) for s in SYSTEMS for m in metrics}
    assert all(row["n"] == 6 for row in told["table"])  # captions; each has 2 noise seeds
    for system in SYSTEMS:  # the objective's own reward is its scorer with weight 1
        assert cells[system, "total"]["mean"] == pytest.approx(cells[system, "engagement"]["mean"])
    assert cells["best-of-n", "total"]["mean"] > cells["untrained guider", "total"]["mean"]
    gain = next(g for g in told["gains"] if g["system"] == "best-of-n")
    ratio = cells["best-of-n", "total"]["mean"] / cells["base", "total"]["mean"] - 1
    assert gain["proxy"] == pytest.approx(ratio)
    assert [(r["stage"], r["round"]) for r in told["replies"]] == [
        ("prompt", 1), ("prompt", 2), ("prompt", 3), ("multimodal", 4), ("multimodal", 5), ("multimodal", 6)
    ]  # fmt: skip
    assert all(row["n"] == 12 for row in told["win_rates"])  # pictures
    assert all(r["replies"] == 18 for r in told["replies"])
    assert (whole / "report.html").stat().st_size > 20_000


def test_rollouts_keep_everything_that_was_tried(whole):
    (stage,) = (whole / "stages").glob("*-prompt")
    rows = rollouts.read(stage / "round-2" / "rollouts")
    assert len(rows) == 18 and {r["round"] for r in rows} == {2}
    assert all(r["image"].size == (32, 32) for r in rows if r["parsed"])
    assert all((r["image"] is None) == (not r["parsed"]) and (r["why"] == "") == r["kept"] for r in rows)
    first = {r["seed_id"]: r for r in rollouts.read(stage / "round-1" / "rollouts")}
    assert all(r["caption_in"] == r["base_caption"] for r in first.values())
    assert any(r["caption_in"] != r["base_caption"] for r in rows)  # the last round's prompt goes on
    kept = {r["seed_id"] for r in rows if r["kept"]}
    assert len(rollouts.read(stage / "round-2" / "pairs")) == len(kept)
    assert rows[0]["guider"].startswith("spro/tiny-engagement-guider@")


def test_everything_loads_as_the_printed_lines_say(whole):
    told = json.loads((whole / "results.json").read_text())
    newest = {a["what"]: a["load"] for a in told["artifacts"]}
    assert set(newest) == {"rollouts", "pairs", "guider", "generator", "pipeline", "results"}
    checks = {
        "rollouts": "assert rows.num_rows == 18 and rows[0]['image_base'].size == (32, 32)",
        "pairs": "assert set(rows[0]['chosen'][0]) == {'role', 'content'}",
        "guider": "assert guider.model.peft_config['default'].r == 16",
        "generator": "assert pipe.get_active_adapters()",
        "pipeline": "assert out.prompts[0] and out.images[0].size == (32, 32)",
        "results": "assert told['objective'] == 'engagement'",
    }
    script = "\n".join(line for what, load in newest.items() for line in (load, checks[what]))
    with _served(whole) as environment:
        _python(script, environment, whole)


PASTED = """
import json, pathlib, re, sys
for what, check in json.load(sys.stdin).items():
    stage = "evaluate" if what == "results" else "multimodal"
    (file,) = pathlib.Path("stages").glob(f"*-{stage}/outbox/{what}/README.md")
    found = {}
    for block in re.findall(r"```python\\n(.*?)```", file.read_text(), re.DOTALL)[:2]:
        names = {}  # as in a Python that has just been started
        exec(block, names)
        found |= names
    assert eval(check, found), what
"""


def test_the_cards_run_as_pasted(whole):
    """Guider by stock transformers and peft, LoRA by stock diffusers, the pipeline, the data sets, the results."""
    checks = {
        "guider": "reply and prompt in reply and out.images[0].size == (32, 32)",
        "generator": "image.size == (32, 32) and pipe.get_active_adapters() == ['default_0']",
        "pipeline": "out.images[0].size == (32, 32) and out.base_images",
        "rollouts": "rows.num_rows == 18 and prompts.column_names == ['filename', 'caption', 'improved_prompt_new', 'score', "
        "'image_path', 'objective']",
        "pairs": "rows.to_list() == pairs.to_list() and len(pairs)",
        "results": "results['objective'] == 'engagement'",
    }
    with _served(whole) as environment:
        _python(PASTED, environment, whole, json.dumps(checks))


def _python(script, environment, folder, given=""):
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        input=given,
        env=environment,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_version_has_a_card_with_pictures_its_recipe_its_machine_and_its_terms(whole):
    for file in (whole / "stages").glob("*/outbox/*/README.md"):
        folder, what = file.parent, file.parent.name
        (recipe,) = recipes_of.load(folder / "recipe.yaml")  # it runs as it is
        lineage = json.loads((folder / "lineage.json").read_text())
        assert recipes_of.dump(recipe) == lineage["recipe"], file
        machine = json.loads((folder / "environment.json").read_text())
        assert machine["threads"] > 0 and machine["versions"]["torch"] == version("torch")
        assert "spro_hf/tiny/generator | apache-2.0" in file.read_text().replace("\\_", "_")
        if what in ("guider", "generator", "pipeline"):
            shown = json.loads((folder / "showcase" / "showcase.json").read_text())
            assert len(shown["rows"]) == 6 and shown["results"][0]["n"] == 6
            assert (folder / "showcase" / "before_after.png").is_file() and "before_after.png" in file.read_text()
            written = yaml.safe_load((folder / ".eval_results" / "spro.yaml").read_text())
            index = front_matter.read(file.read_text())["model-index"][0]["results"][0]["metrics"]
            assert (
                [row["value"] for row in written]
                == [row["value"] for row in index]
                == [r["value"] for r in shown["results"]]
            )


def test_a_version_is_made_again_from_the_hub_alone(whole, tmp_path):
    """The last round's guider and the fine-tuned generator: bit for bit, on a machine that has nothing else."""
    for artifact in ("spro/tiny-engagement-generator@v1", "datasets/spro/tiny-engagement-rollouts@round-1"):
        done = spro("reproduce", artifact, "--hub", whole, "--out", tmp_path / artifact.replace("/", "-"))
        assert "equal bit for bit" in done.stdout, done.stdout


class _served:
    """A run's Hub by `spro-hf hub serve`, and the environment that the summary prints."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "spro_hf", "hub", "serve", str(self.folder), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.1)
        return os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(self.folder / "cache")
        }  # fmt: skip

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


def test_lineage_names_inputs_by_commit(whole):
    (stage,) = (whole / "stages").glob("*-image")
    lineage = json.loads((stage / "outbox" / "generator" / "lineage.json").read_text())
    assert lineage["recipe"]["finetune"]["steps"] == 4 and lineage["versions"]["torch"]
    inputs = {(i["repo"], i["revision"]): i["commit"] for i in lineage["inputs"]}
    assert set(inputs) == {("spro/tiny-engagement-rollouts", "round-2"), ("spro/tiny-engagement-rollouts", "round-3")}
    assert all(len(commit) == 40 for commit in inputs.values())
    assert str(whole) not in json.dumps(lineage)


def test_no_token_and_no_path_of_this_machine_is_published(whole):
    token = (whole / "hub" / "token").read_text().strip()
    files = [f for f in (whole / "stages").glob("*/outbox/*/**/*") if f.suffix in (".json", ".md", ".yaml")]
    assert len(files) > 10
    for file in files:
        text = file.read_text()
        assert token not in text and str(whole) not in text, file


def test_a_killed_run_continues_and_ends_the_same(whole, tmp_path):
    recipe, out = small(tmp_path), tmp_path / "run"
    for mark in ("*-prompt/round-2.partial", "*-image/finished", "*-evaluate/systems/best-of-n.partial"):
        killed("run", recipe, "--out", out, when=lambda mark=mark: list((out / "stages").glob(mark)))
    spro("run", recipe, "--out", out)
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (out, whole))
    for key in ("table", "gains", "win_rates", "strategies", "curves", "replies"):
        assert ours[key] == theirs[key], key
    for what in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        mine, others = (
            {f.relative_to(r / "stages"): load_file(f) for f in (r / "stages").rglob(what)} for r in (out, whole)
        )
        assert mine and mine.keys() == others.keys()
        for file, tensors in mine.items():
            assert all(torch.equal(tensors[name], others[file][name]) for name in tensors), file


def test_a_finished_run_is_not_run_again_and_another_seed_is_refused(whole):
    before = (whole / "results.json").read_text()
    recipe = whole.parent / "small.yaml"
    again = spro("run", recipe, "--out", whole)
    assert "round 1" not in again.stderr
    kept = json.loads(before)
    assert json.loads((whole / "results.json").read_text())["table"] == kept["table"]
    other = spro("run", recipe, "--out", whole, "--seed", 1, check=False)
    assert other.returncode == 2 and "recipe.seed: 0 before, 1 now" in other.stderr and "--out" in other.stderr
