"""The graph of an artifact: read through the real clients, drawn as a tree, and laid out as a picture."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from spro_hf.errors import UserError
from spro_hf.lineage import graph as graphs
from spro_hf.lineage.layout import BOX, arranged, reduced
from spro_hf.lineage.picture import document, svg
from spro_hf.lineage.place import parse

from . import artifacts_made as made


@pytest.fixture(scope="session")
def chain(do, tmp_path_factory):
    return do(made.chain, tmp_path_factory.mktemp("chain"))


def test_a_name_is_kind_repository_and_revision():
    assert parse("spro/a@v1") == (None, "spro/a", "v1")
    assert parse("datasets/spro/a@round-1") == ("dataset", "spro/a", "round-1")
    assert parse("spro/a") == (None, "spro/a", "main")
    for bad in ("a@v1", "spro/a@", "spro/a b@v1", "../a/b"):
        with pytest.raises(UserError, match="write user/repo@v1"):
            parse(bad)


def test_the_graph_is_read_commit_by_commit(do, chain):
    found = do(made.graph, "spro/guider@round-1")
    ids = {name: f"{kind}:{repo}@{chain[name]}" for name, kind, repo in (
        ("captions", "dataset", "someone/captions"), ("rollouts", "dataset", "spro/rollouts"), ("guider", "model", "spro/guider"),
    )}  # fmt: skip
    ids["gone"] = "model:spro/gone@" + "c" * 40
    generator, clip = (f"model:{name}" for name in made.MODELS.values())
    assert found["roots"] == (ids["guider"],)
    assert {(e["source"], e["target"], e["what"]) for e in found["edges"]} == {
        (ids["captions"], ids["rollouts"], "seeds"), (ids["captions"], ids["guider"], "seeds"),
        (ids["gone"], ids["guider"], "guider adapter"), (ids["rollouts"], ids["guider"], "made before"),
        *((model, ids[to], field) for to in ("rollouts", "guider")
          for model, field in ((generator, "generator.id"), (clip, "scorers.clip.id"))),
    }  # fmt: skip
    nodes = {node["id"]: node for node in found["nodes"]}
    assert set(nodes) == {*ids.values(), generator, clip}
    told = ("what", "tag", "stage", "objective", "seed")
    assert [nodes[ids["rollouts"]][key] for key in told] == ["rollouts", "round-1", "prompt", "aesthetics", 3]
    assert [nodes[ids["captions"]][key] for key in told] == ["data set", "v1", "", "", None]
    assert "no such repository" in nodes[ids["gone"]]["gone"]
    assert nodes[generator]["what"] == "base model" and not nodes[ids["captions"]]["gone"]
    assert "lineage.json" in do(made.files_in_cache, "spro/rollouts")
    assert "big.bin" not in do(made.files_in_cache, "spro/rollouts")


def test_the_tree_draws_what_comes_twice_once(do, chain):
    status, printed = do(made.command, "show", "spro/guider@round-1")
    lines = printed.splitlines()
    assert status == 0
    assert lines[0] == f"spro/guider round-1 {chain['guider'][:12]}  guider · prompt · aesthetics · seed 3"
    assert sum("models 1, 2" in line for line in lines) == 2
    assert any(f"spro/rollouts round-1 {chain['rollouts'][:12]}" in line and "as made before" in line for line in lines)
    assert any("spro/gone v1 cccccccccccc" in line and "no such repository" in line for line in lines)
    assert "  1 spro_hf/tiny/generator aaaaaaaaaaaa  generator.id" in lines
    assert lines[-1] == ("This is the model spro/guider; the data set of that name is datasets/spro/guider@round-1.")


def test_json_and_picture_of_the_command(do, chain, tmp_path):
    file = tmp_path / "a" / "lineage.svg"
    status, printed = do(made.command, "show", "spro/guider@round-1", "--json", "--picture", str(file))
    assert status == 0 and json.loads(printed) == json.loads(json.dumps(do(made.graph, "spro/guider@round-1")))
    assert ElementTree.fromstring(file.read_text()).tag == "{http://www.w3.org/2000/svg}svg"


def test_what_is_not_there_is_one_sentence(do, chain):
    assert "neither a model nor a data set" in do(made.refused, "show", "spro/none@v1")
    assert "there is no revision 'v7'; its tags: v1" in do(made.refused, "show", "datasets/someone/captions@v7")
    told = do(made.refused, "show", "spro/guider@v1")
    assert "no revision 'v1'" in told and told.endswith("the data set of that name is datasets/spro/guider@v1.")
    assert "it is .svg or .html" in do(made.refused, "show", "spro/guider@v1", "--picture", "a.png")


def note(repo, tag, what, commit, inputs, stage="prompt", **more):
    told = made.lineage(stage, {what: repo}, inputs, tag, **more)
    return {
        "repo": repo,
        "type": "model",
        "tag": tag,
        "what": what,
        "revision": commit * 40,
        "load": "",
        "lineage": told,
    }


@pytest.fixture
def run():
    """A round's three artifacts, and a generator of the next stage."""
    of = {
        what: made.given("made before", f"spro/{what}", "model", "round-1", c * 40)
        for what, c in (("rollouts", "1"), ("pairs", "2"))
    }
    return [
        note("spro/rollouts", "round-1", "rollouts", "1", []),
        note("spro/pairs", "round-1", "pairs", "2", [of["rollouts"]]),
        note("spro/guider", "round-1", "guider", "3", [of["rollouts"], of["pairs"]]),
        note("spro/generator-of-a-<name>-that-is-very-long", "v1", "generator", "4",
             [of["rollouts"] | {"what": "rollouts round-1"}], "image"),
    ]  # fmt: skip


def test_a_runs_own_notes_make_its_graph(run):
    found = graphs.of_run(run)
    assert [node.repo for node in found.nodes[:4]] == [one["repo"] for one in run]
    assert [(e.source[-1], e.target[-1]) for e in found.edges if "spro_hf" not in e.source] == [
        ("1", "2"), ("1", "3"), ("2", "3"), ("1", "4"),
    ]  # fmt: skip
    assert len(found.nodes) == 6 and len(found.roots) == 4
    bare = graphs.of_run([{k: v for k, v in one.items() if k != "lineage"} for one in run])
    assert len(bare.nodes) == 4 and bare.edges == ()


def test_a_line_is_left_out_where_a_longer_way_says_it():
    assert reduced("abcd", [("a", "b"), ("b", "c"), ("a", "c"), ("a", "d"), ("c", "d")]) == [
        ("a", "b"), ("b", "c"), ("c", "d"),
    ]  # fmt: skip
    assert reduced("ab", [("a", "b"), ("b", "a"), ("a", "a")]) in ([("a", "b")], [("b", "a")])  # none leads back


def test_a_round_stands_in_one_column_and_what_follows_to_its_right(run):
    found = graphs.of_run(run)
    layout = arranged(found)
    place = {node.repo: layout.boxes[node.id] for node in found.nodes}
    xs = [place[f"spro/{what}"][0] for what in ("rollouts", "pairs", "guider")]
    ys = [place[f"spro/{what}"][1] for what in ("rollouts", "pairs", "guider")]
    assert len(set(xs)) == 1 and ys == [ys[0], ys[0] + BOX[1] + 14, ys[0] + 2 * (BOX[1] + 14)]
    assert place[run[3]["repo"]][0] > xs[0] > place["spro_hf/tiny/clip"][0] == 0
    boxes = list(layout.boxes.values())
    for i, (x, y) in enumerate(boxes):
        assert all(abs(x - a) >= BOX[0] or abs(y - b) >= BOX[1] for a, b in boxes[:i])
        assert 0 <= x <= layout.size[0] - BOX[0] and 0 <= y <= layout.size[1] - BOX[1]


def test_the_picture_escapes_and_cuts_names(run):
    drawn = svg(graphs.of_run(run))
    root = ElementTree.fromstring(drawn)
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    titles = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "genera…e>-that-is-very-long"[-15:] in next(t for t in texts if t.startswith("genera"))
    assert max(map(len, texts)) <= 28
    assert titles[3].splitlines() == [
        "spro/generator-of-a-<name>-that-is-very-long v1", "4" * 40, "generator · image · aesthetics · seed 3",
        "from spro/rollouts round-1 (rollouts round-1)", f"with spro_hf/tiny/generator {'a' * 12}",
        f"with spro_hf/tiny/clip {'b' * 12}",
    ]  # fmt: skip
    assert drawn.count('class="way"') == 5  # two models to the rollouts, two in the round, one to the generator
    colours = re.findall(r'class="(c\d)"', drawn)
    assert colours == ["c2", "c1", "c3", "c4", "c0", "c0"]


def test_a_file_of_its_own_has_colours_for_light_and_dark(run):
    for suffix in (".svg", ".html"):
        file = document(graphs.of_run(run), suffix, "A <b>")
        assert "prefers-color-scheme: dark" in file and "--s3" in file and "A &lt;b&gt;" in file and "A <b>" not in file
