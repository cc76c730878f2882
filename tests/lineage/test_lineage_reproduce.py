"""Making an artifact again: what its recipe is pinned to, what is asked of this machine, and the verdict."""

from __future__ import annotations

import json

import pytest
import yaml

from spro_hf import recipe as recipes_of
from spro_hf.errors import UserError
from spro_hf.lineage.pinning import check_models, otherwise, pinned
from spro_hf.models import RENDERER, commit

from . import artifacts_made as made

A, B, C, D, E, F = (letter * 40 for letter in "abcdef")


def whole():
    """A recipe that names something in every way there is, and its lineage."""
    recipe = {
        "generator": {"id": "org/pipe", "revision": None, "lora": {"repo": "spro/lora", "revision": "v1"}},
        "guider": {"id": "spro_hf/tiny/guider", "revision": None, "adapter": {"repo": "spro/guider", "revision": "main"}},
        "scorers": {"pick": {"id": "org/pick", "processor": "org/clip"},
                    "learned": {"kind": "trained", "id": "spro/reward", "revision": "v2"}},
        "select": {"similarity": "org/clip", "similarity_revision": None},
        "seeds": {"source": "org/captions", "revision": None, "columns": {"caption": "text"}},
        "rollouts": [{"repo": "spro/rollouts", "revision": "round-1"}, {"repo": "spro/rollouts", "revision": "round-2"}],
        "systems": {"base": {"lora": None}, "one": {"lora": {"repo": "spro/lora", "revision": "v1"}, "adapter": None}},
    }  # fmt: skip
    named = [
        ("generator LoRA", "spro/lora", "model", "v1", A), ("guider adapter", "spro/guider", "model", "main", B),
        ("scorers.learned.id", "spro/reward", "model", "v2", C), ("seeds", "org/captions", "dataset", "main", D),
        ("rollouts round-1", "spro/rollouts", "dataset", "round-1", E),
        ("rollouts round-2", "spro/rollouts", "dataset", "round-2", F),
        ("one LoRA", "spro/lora", "model", "v1", A), ("made before", "spro/pairs", "dataset", "round-1", A),
    ]  # fmt: skip
    inputs = [made.given(*one) for one in named]
    models = {
        "generator.id": f"org/pipe@{B}", "guider.id": "spro_hf/tiny/guider@" + "1" * 64, "scorers.pick.id": f"org/pick@{C}",
        "scorers.pick.processor": f"org/clip@{D}", "select.similarity": f"org/clip@{E}",
    }  # fmt: skip
    return recipe, {"inputs": inputs, "models": models}


def test_every_revision_becomes_the_commit_that_went_in():
    recipe, told = whole()
    found = pinned(recipe, told)
    assert found["generator"] == {"id": "org/pipe", "revision": B, "lora": {"repo": "spro/lora", "revision": A}}
    assert found["guider"] == {
        "id": "spro_hf/tiny/guider",
        "revision": None,
        "adapter": {"repo": "spro/guider", "revision": B},
    }
    assert found["scorers"] == {
        "pick": {"id": "org/pick", "revision": C, "processor": "org/clip", "processor_revision": D},
        "learned": {"kind": "trained", "id": "spro/reward", "revision": C},
    }
    assert found["select"] == {"similarity": "org/clip", "similarity_revision": E}
    assert found["seeds"]["revision"] == D
    assert [place["revision"] for place in found["rollouts"]] == [E, F]
    assert found["systems"]["one"]["lora"]["revision"] == A
    assert (
        recipe == whole()[0] and pinned(found, told) == found
    )  # the recipe is left as it is, and what is pinned stays


def test_a_lineage_of_another_recipe_is_told():
    recipe, told = whole()
    with pytest.raises(UserError, match=r"it went in as 'seeds', but recipe\.yaml names no such input"):
        pinned(recipe | {"seeds": {"source": "world", "revision": None}}, told)
    with pytest.raises(UserError, match=r"generator\.id: lineage.json says that it was org/pipe"):
        pinned(recipe | {"generator": recipe["generator"] | {"id": "org/other"}}, told)


def test_models_of_the_package_must_be_the_same_here():
    check_models({"models": {"generator.id": f"{RENDERER}@{commit(RENDERER)}", "a": f"org/pipe@{A}"}})
    with pytest.raises(UserError, match=rf"{RENDERER} \(made with 111111111111, here {commit(RENDERER)[:12]}\)"):
        check_models({"models": {"generator.id": f"{RENDERER}@{'1' * 64}"}})
    with pytest.raises(UserError, match="my/model: it was a folder on the machine that made this"):
        check_models({"models": {"generator.id": f"my/model@{'1' * 64}"}})


def test_what_is_otherwise_here_is_told():
    from spro_hf import machine

    here = machine.told()
    same = {"python": here["python"], "versions": {"torch": here["versions"]["torch"]}}
    assert otherwise(same, here) == []
    told = otherwise(same | {"versions": {"torch": "0.1", "gone": "2"}}, {"threads": 99})
    assert told == [
        f"torch 0.1, here {here['versions']['torch']}",
        "gone 2, here none",
        f"threads 99, here {here['threads']}",
    ]


RECIPE = {
    "stage": "references", "objective": "preference", "oracle": True, "namespace": "spro",
    "generator": {"id": RENDERER, "lora": {"repo": "spro/style", "revision": "v1"}},
    "seeds": {"source": "seeds.txt", "count": 2}, "push": {"references": "spro/again"},
}  # fmt: skip


@pytest.fixture(scope="session")
def published(do, tmp_path_factory):
    """An artifact that names what it was made of, and the commits of both."""
    home = tmp_path_factory.mktemp("published")
    style = do(made.push, made.lay(home / "style", a_dot_txt="a"), "spro/style", "model", "v1")
    (home / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (recipe,) = recipes_of.load(home / "recipe.yaml")
    resolved = recipes_of.dump(recipe)
    told = made.lineage("references", {}, [made.given("generator LoRA", "spro/style", "model", "v1", style)], "v1",
                        models={"generator.id": f"{RENDERER}@{commit(RENDERER)}"}) | {"recipe": resolved}  # fmt: skip
    files = {
        "recipe_dot_yaml": yaml.safe_dump(resolved),
        "seeds_dot_txt": "a dog\na cat\n",
        "README_dot_md": "---\nlicense: mit\n---\n",
    }
    folder = made.lay(
        home / "made", told, **files, environment_dot_json=json.dumps({"threads": 3}), told_dot_json='{"a": 0.5}'
    )
    return style, do(made.push, folder, "spro/again", "dataset", "v1")


LEFT = [("spro/again", "dataset", "v1"), ("spro/more", "model", "v1")]


def test_an_artifact_is_made_again_from_its_commits(do, published, tmp_path):
    style, at = published
    folder = made.lay(tmp_path / "made", {}, seeds_dot_txt="a dog\na cat\n", told_dot_json='{"a": 0.5}')
    status, printed, called = do(
        made.rehearsed, "reproduce", folder, LEFT, "spro/again@v1", "--out", str(tmp_path / "out")
    )
    assert status == 0
    assert called["recipe"]["generator"]["lora"] == {"repo": "spro/style", "revision": style}
    seeds = tmp_path / "out" / "seeds.txt"
    assert called["recipe"]["seeds"]["source"] == str(seeds) and seeds.read_text() == "a dog\na cat\n"
    assert recipes_of.load(tmp_path / "out" / "recipe.yaml")[0].generator.lora.revision == style
    assert called["out"] == str(tmp_path / "out" / "run") and called["hub"].startswith("http://127.0.0.1:")
    lines = printed.splitlines()
    assert lines[0] == f"spro/again v1 ({at[:12]}): stage references, seed 3, 1 inputs, 1 models"
    assert (
        any(line.startswith("warning: it was made with torch 2.13.0, here ") for line in lines) or "+cpu" not in printed
    )
    assert "spro/again v1: equal bit for bit (2 files)" in lines
    assert not any("threads" in line for line in lines)  # as many as were recorded


def test_what_differs_is_told_and_the_exit_says_so(do, published, tmp_path):
    folder = made.lay(tmp_path / "made", {}, seeds_dot_txt="a dog\na cat\n", told_dot_json='{"a": 0.5001}')
    arguments = ("reproduce", folder, LEFT[:1], "datasets/spro/again@v1", "--out", str(tmp_path / "out"))
    status, printed, _ = do(made.rehearsed, *arguments)
    assert (
        status == 1 and "spro/again v1: different (2 files)" in printed and "  told.json: a: 0.5001 and 0.5" in printed
    )
    status, printed, _ = do(made.rehearsed, *arguments, "--atol", "1e-3")
    assert status == 0 and "spro/again v1: equal within bounds (2 files), atol 0.001, rtol 0" in printed


def test_what_else_the_stage_leaves_has_a_line(do, published, tmp_path):
    folder = made.lay(tmp_path / "made", {}, seeds_dot_txt="a dog\na cat\n", told_dot_json='{"a": 0.5}')
    other = made.lay(tmp_path / "other", {}, x_dot_txt="x")
    _, printed, _ = do(
        made.rehearsed,
        "reproduce",
        {LEFT[0]: folder, LEFT[1]: other},
        LEFT,
        "spro/again@v1",
        "--out",
        str(tmp_path / "out"),
    )
    assert "spro/more v1: not published by this recipe" in printed


def test_what_cannot_be_made_again_is_one_sentence(do, published, tmp_path):
    do(
        made.push,
        made.lay(tmp_path / "old", made.lineage("image", {}, [], "v1"), a_dot_txt="a"),
        "spro/old",
        "model",
        "v1",
    )
    assert do(made.refused, "reproduce", "spro/old@v1") == (
        "model spro/old@v1: it holds no recipe.yaml, so it cannot be made again; it is older, or of another hand."
    )
    with pytest.raises(UserError, match=r"its recipe does not leave v1, but spro/more v1"):
        do(made.rehearsed, "reproduce", str(tmp_path), LEFT[1:], "spro/again@v1", "--out", str(tmp_path / "out"))
