"""Two versions side by side: recipe, inputs, models, results and the same seeds, in the terminal and as a page."""

from __future__ import annotations

import json
import re

import pytest

from . import artifacts_made as made

COMMIT = ("1" * 40, "2" * 40)


@pytest.fixture(scope="session")
def rounds(do, tmp_path_factory):
    """Two versions of rollouts."""
    home = tmp_path_factory.mktemp("rounds")
    rows = [
        [made.rollout("dog", 0, 2.0, "a bad dog"), made.rollout("dog", 1, 3.0, "a dog, glowing"),
         made.rollout("cat", 0, 1.5, "a cat"), made.rollout("cow", 0, 9.0, "x", parsed=False, kept=False)],
        [made.rollout("dog", 0, 4.0, "a dog <script>", kept=False), made.rollout("bird", 0, 1.0, "a bird")],
    ]  # fmt: skip
    for i, some in enumerate(rows):
        folder = made.write_rollouts(home / str(i), some)
        told = made.lineage(
            "prompt", {"rollouts": "spro/rounds"}, [made.given("seeds", "x/y", "dataset", f"v{i}", COMMIT[i])], f"round-{i + 1}",
            recipe={"rounds": 2 + i, "learn": {"beta": 0.1, "lora": None if i else {"r": 8}}},
            models=made.MODELS | ({"guider.id": "org/g@" + COMMIT[1]} if i else {}),
            versions={"torch": f"2.1{i}.0"},
        )  # fmt: skip
        do(made.push, made.lay(folder, told), "spro/rounds", "dataset", f"round-{i + 1}")


def test_rollouts_in_plain_data(do, rounds):
    status, printed = do(made.command, "diff", "spro/rounds@round-1", "spro/rounds@round-2", "--json")
    view = json.loads(printed)
    assert status == 0 and (view["old"], view["new"], view["kind"]) == (
        "spro/rounds@round-1",
        "spro/rounds@round-2",
        "rollouts",
    )
    told = {
        name: [(c["name"], c["old"], c["new"]) for c in view[name]]
        for name in ("recipe", "inputs", "models", "versions", "seed")
    }
    assert told == {
        "recipe": [("rounds", 2, 3), ("learn.lora.r", 8, None)],
        "inputs": [("seeds", "x/y v0 (111111111111)", "x/y v1 (222222222222)")],
        "models": [("guider.id", None, "org/g 222222222222")], "versions": [("torch", "2.10.0", "2.11.0")], "seed": [],
    }  # fmt: skip
    results = {row["name"]: (row["old"]["value"], row["new"]["value"]) for row in view["results"]}
    assert results == {
        "rows": (4, 2), "seeds": (3, 2), "parsed, share": (0.75, 1.0), "kept, share": (0.75, 0.5), "base reward, mean": (1.0, 1.0),
        "reward, mean": (6.5 / 3, 2.5), "gain, mean": (pytest.approx(3.5 / 3), 1.5),
    }  # fmt: skip
    assert view["seeds"] == [
        {
            "caption": "a dog",
            "old": {"prompt": "a dog, glowing", "total": 3.0},
            "new": {"prompt": "a dog <script>", "total": 4.0},
        }
    ]


def test_the_terminal_and_the_page(do, rounds, tmp_path):
    file = tmp_path / "pages" / "diff.html"
    _, printed = do(made.command, "diff", "spro/rounds@round-1", "spro/rounds@round-2", "--out", str(file))
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "rounds 2 3" in lines and "The same in both: seed." in lines and "kept, share 0.750 0.500 −0.25" in lines
    assert "a dog 3.00 4.00 +1 a dog <script>" in lines and lines[-1] == str(file)
    page = file.read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in re.sub(r"http-equiv", "", page)
    assert (
        page.count("data:image/png;base64,") == 2 and "prefers-color-scheme: dark" in page and 'href="#seeds"' in page
    )


def test_a_model_by_its_showcase_and_its_training(do, tmp_path):
    for i in range(2):
        rows = [
            {"caption": "a dog", "image_seed": 7, "prompt": f"a dog {i}", "total": 0.5 + i, "image": "showcase/00.png"},
            {"caption": "a cat", "image_seed": 7 + i, "prompt": "a cat", "total": 0.0, "image": "showcase/00.png"},
        ]
        show = {"rows": rows, "results": [{"name": "total", "value": 0.5 + i, "se": 0.125, "base": 0.25, "n": 2}]}
        training = {
            "rows": [
                {"kl": 9.0},
                {"step": 2, "kl": 0.5, "seconds": 3.0, "scores": {"judge": {"mean": 1.5 + i, "se": 0.1}}},
            ]
        }
        told = made.lineage("reinforce", {"generator": "spro/lora"}, [], f"v{i + 1}")
        folder = made.lay(
            tmp_path / str(i), told, training_dot_json=json.dumps(training), showcase__showcase_dot_json=json.dumps(show),
            pytorch_lora_weights_dot_safetensors=str(i), showcase__00_dot_png=made.png(made.picture(9)),
        )  # fmt: skip
        do(made.push, folder, "spro/lora", "model", f"v{i + 1}")
    _, printed = do(made.command, "diff", "spro/lora@v1", "spro/lora@v2", "--json")
    view = json.loads(printed)
    assert view["kind"] == "generator" and [s["caption"] for s in view["seeds"]] == ["a dog"]
    assert {row["name"]: (row["old"], row["new"]) for row in view["results"]} == {
        "total": ({"value": 0.5, "se": 0.125}, {"value": 1.5, "se": 0.125}),
        "last step: step": ({"value": 2, "se": None}, {"value": 2, "se": None}),
        "last step: kl": ({"value": 0.5, "se": None}, {"value": 0.5, "se": None}),
        "last step: judge": ({"value": 1.5, "se": 0.1}, {"value": 2.5, "se": 0.1}),
    }
    told = do(made.refused, "diff", "spro/lora@v1", "spro/rounds@round-1")
    assert told == (
        "spro/lora@v1 is of the kind generator, and spro/rounds@round-1 of the kind rollouts; name two artifacts of the same kind."
    )


def test_results_by_their_table_and_samples(do, tmp_path):
    for i in range(2):
        sample = {"caption": "a dog", "image_seed": 3, "systems": {
            "base": {"prompt": "a dog", "image": "samples/0.png", "scores": {"total": 0.25}},
            f"only in {i}": {"prompt": "x", "image": "samples/0.png", "scores": {"total": 0.0}},
        }}  # fmt: skip
        told = {"table": [{"system": "base", "metric": "total", "mean": 0.25 + i, "se": 0.5}], "samples": [sample]}
        folder = made.lay(tmp_path / str(i), made.lineage("evaluate", {"results": "spro/told"}, [], f"v{i}"),
                          told_dot_json=json.dumps(told), samples__0_dot_png=made.png(made.picture(1)))  # fmt: skip
        do(made.push, folder, "spro/told", "dataset", f"v{i}")
    _, printed = do(made.command, "diff", "spro/told@v0", "spro/told@v1", "--json")
    view = json.loads(printed)
    assert view["results"] == [
        {"name": "base: total", "old": {"value": 0.25, "se": 0.5}, "new": {"value": 1.25, "se": 0.5}}
    ]
    assert [seed["caption"] for seed in view["seeds"]] == ["a dog · base"]


def test_a_picture_outside_of_the_artifact_is_refused(do, tmp_path):
    show = {"rows": [{"caption": "a", "image_seed": 1, "prompt": "a", "total": 0.0, "image": "../../secret.png"}]}
    folder = made.lay(tmp_path / "a", made.lineage("image", {}, [], "v1"), showcase__showcase_dot_json=json.dumps(show),
                      pytorch_lora_weights_dot_safetensors="x")  # fmt: skip
    do(made.push, folder, "spro/outside", "model", "v1")
    assert "lies outside of the artifact" in do(made.refused, "diff", "spro/outside@v1", "spro/outside@v1")
    folder = made.lay(tmp_path / "b", pytorch_lora_weights_dot_safetensors="x")
    do(made.push, folder, "spro/bare", "model", "v1")
    assert "it holds no lineage.json" in do(made.refused, "diff", "spro/bare@v1", "spro/bare@v1")
