"""Seeds from data sets of the Hub: read by the real clients from a local Hub, and equal to what was written there."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spro_hf import seeds
from spro_hf.errors import UserError
from spro_hf.hub.server import start
from spro_hf.parts import Bands, Seeds
from spro_hf.strict import build, parse_yaml
from tests.hub.conftest import Do, clients
from tests.seed_sets import checked, file_of, fill, opened, pictured, red, taken, told, without_network

DATA = Path(__file__).parents[1] / "recipes" / "_data"
TEXT = {"caption": "caption"}


@pytest.fixture(scope="module")
def do(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Do]:
    with start(tmp_path_factory.mktemp("hub")) as server, clients(server, tmp_path_factory.mktemp("home")) as run:
        yield run


@pytest.fixture(scope="module")
def commits(do: Do, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return do(fill, str(tmp_path_factory.mktemp("sets")))


@pytest.fixture(scope="module")
def made(commits: dict[str, str]) -> Callable[..., Seeds]:
    """Seeds of spro/made at its first commit."""
    return lambda **fields: Seeds(**{"source": "spro/made", "revision": commits["first"], "columns": TEXT} | fields)


def ids(found: list[dict[str, Any]]) -> list[int]:
    return [int(row["id"].removeprefix("train-")) for row in found]


def test_captions_are_taken_in_order_once_and_never_blank(do, made):
    found = do(taken, made(count=6))
    assert [(row["id"], row["caption"]) for row in found] == [
        ("train-000000", "one"), ("train-000002", "two"), ("train-000004", "three"), ("train-000006", "four"),
        ("train-000007", "five"), ("train-000009", "six"),
    ]  # fmt: skip
    assert do(taken, made(count=6, columns={"caption": "captions"})) == found  # of a list the first
    assert {row["prompt"] for row in found} == {""} and {row["score"] for row in found} == {None}


def test_where_keeps_the_rows_that_have_the_value(do, made):
    assert ids(do(taken, made(count=3, where={"kind": "a"}))) == [0, 4, 8]  # of 0, 1, 4, 5, 8 two have no caption
    assert ids(do(taken, made(count=5, where={"kind": ["a", "c"]}))) == [0, 4, 6, 8, 9]
    assert ids(do(taken, made(count=1, where={"kind": ["a", "c"], "year": 2009}))) == [9]


def test_a_caption_has_as_many_prompts_as_are_different(do, made):
    columns = {"caption": "caption", "prompt": "prompt", "score": "score"}
    found = do(taken, made(count=5, columns=columns))
    # 4 has no prompt, 6 no score, and 8 says what 2 said
    assert ids(found) == [0, 2, 3, 7, 9]
    assert [row["caption"] for row in found] == ["one", "two", "one", "five", "six"]
    assert [row["prompt"] for row in found] == ["one A", "two A", "one B", "five A", "six A"]
    assert [row["score"] for row in found] == [1.0, 2.0, 3.0, 0.5, 1.5]


def test_other_columns_are_context_as_text(do, made):
    columns = {"caption": "caption", "tags": "tags", "date": "year", "company": "kind", "tweet": "prompt"}
    found = do(taken, made(count=3, columns=columns))
    assert [row["context"] for row in found] == [
        {"date": "2000", "company": "a", "tweet": "one A"},  # without tags
        {"tags": "x, y2", "date": "2002", "company": "b", "tweet": "two A"},
        {"tags": "x, y4", "date": "2004", "company": "a"},
    ]


def test_bands_give_equal_parts(do, made):
    # In the order of their likes the rows are 7 1 2 3 4 0 5 6 9, and 8 has none: thirds are 7 1 2 · 3 4 0 · 5 6 9.
    outer = Bands("likes", ((0.0, 1 / 3), (2 / 3, 1.0)))
    assert ids(do(taken, made(count=4, bands=outer))) == [2, 6, 7, 9]  # 1 and 5 have no caption
    assert ids(do(taken, made(count=3, bands=outer))) == [2, 6, 7]  # the first band gives one more
    # Kept are 2 3 6 7 9, in order 7 2 3 6 9: two fifths are 7 2 and 6 9.
    fifths = Bands("likes", ((0.0, 0.4), (0.6, 1.0)))
    assert ids(do(taken, made(count=4, bands=fifths, where={"kind": ["b", "c"]}))) == [2, 6, 7, 9]
    assert do(told, made(count=5, bands=outer)) == (
        "seeds.count: the split 'train' of 'spro/made' holds 4 captions that fit in equal parts; give at most 4."
    )


@pytest.mark.parametrize(
    ("values", "shares", "rows"),
    [
        ([0, 0, 0, 0, 5], [(0.0, 0.4), (0.4, 1.0)], {0: 0, 1: 0, 2: 1, 3: 1, 4: 1}),  # equal ones in their own order
        ([3, None, 1, float("nan"), 2], [(0.0, 0.5)], {2: 0, 4: 0}),  # ranks below 1.5 of 1 2 3
        ([3, 1, 2], [(0.0, 0.5), (0.3, 1.0)], {1: 0, 2: 0, 0: 1}),  # a row in two bands is the first one's
        (list(range(50)), [(0.14, 0.16)], {7: 0}),  # 0.14 · 50 = 7 and 0.16 · 50 = 8, whatever a float says
    ],
)
def test_ranks_of_bands_by_hand(values, shares, rows):
    what = Seeds("spro/x", columns=TEXT, bands=Bands("n", tuple(shares)))
    assert seeds._bands(what, enumerate({"n": value} for value in values), "seeds") == rows


def test_pictures_are_what_was_written(do, made):
    columns = {"caption": "caption", "image": "image"}
    found = do(taken, made(count=2, columns=columns, where={"year": [2000, 2009]}), True)
    assert all((row["image"] == np.asarray(red(i))).all() for row, i in zip(found, (0, 9), strict=True))
    whole = made(count=8, columns=columns)  # every row that has a caption: a picture makes it a pair of its own
    assert ids(do(taken, whole)) == [0, 2, 3, 4, 6, 7, 8, 9]  # and none of them is decoded yet
    # Half red on white is 255·(255−128)/255 = 127 in green and blue; what is wholly transparent is white.
    assert do(pictured, whole, 2) == ("RGB", [[[255, 127, 127], [255, 255, 255]]])
    assert do(pictured, whole, 3) == ("RGB", [[[255, 0, 0]]])  # all magenta and yellow
    assert do(pictured, whole, 4) == ("RGB", [[[10, 20, 30], [255, 255, 255]]])  # the second colour is transparent
    place = "seeds.columns.image: row {} of the split 'train' of 'spro/made' holds no picture"
    for streaming in (False, True):
        assert do(pictured, replace(whole, streaming=streaming), 6)[1].startswith(f"{place.format(6)} that can be read")
        assert do(pictured, replace(whole, streaming=streaming), 7)[1] == (
            f"{place.format(7)}; leave such rows out with 'where', or map no pictures."
        )


def test_pictures_may_be_the_bytes_of_files(do, made):
    found = do(taken, made(count=8, columns={"caption": "caption", "image": "jpg"}), True)
    for row, i in zip(found, (0, 2, 3, 4, 6, 7, 8, 9), strict=True):
        assert (row["image"] == np.asarray(Image.open(io.BytesIO(file_of(red(i), "JPEG"))))).all()


def test_streaming_gives_the_same_and_reads_no_further_than_it_must(do, made):
    columns = {"caption": "captions", "image": "image", "prompt": "prompt", "date": "year"}
    where = {"kind": ["a", "b"], "year": [2000, 2002, 2003, 2008]}
    still = made(count=4, columns=columns, where=where)
    found, streamed = do(taken, still, True), do(taken, replace(still, streaming=True), True)
    assert ids(found) == [0, 2, 3, 8]
    for one, other in zip(found, streamed, strict=True):
        assert (one.pop("image") == other.pop("image")).all() and one == other
    # the second file is not even one
    long = Seeds("spro/long", count=2, columns={"caption": "text"}, streaming=True)
    assert [row["caption"] for row in do(taken, long)] == ["a", "b"]


def test_only_the_split_is_downloaded_and_only_the_columns_are_read(do, made, commits):
    what = made(count=1, split="test", revision=commits["second"], columns={"caption": "prompt", "date": "year"})
    columns, files = do(opened, what)
    assert columns == ["prompt", "year"]
    assert files == [".gitattributes", "data/test-00000-of-00001.parquet"]  # and not the other split's


def test_a_revision_stays_what_it_was(do, made, commits):
    assert do(taken, made(count=1))[0]["caption"] == "one"
    for revision in (None, "main", commits["second"]):
        assert do(taken, made(count=1, revision=revision))[0]["caption"] == "new one"
        assert do(checked, made(revision=revision)) == (f"spro/made@{commits['second'][:12]}", None)
    assert do(checked, made()) == (f"spro/made@{commits['first'][:12]}", None)
    assert do(taken, made(count=1))[0]["caption"] == "one"


def test_without_a_network_a_commit_is_read_from_the_cache(do, made):
    for streaming in (False, True):
        what = made(count=6, streaming=streaming)
        assert do(without_network, what) == do(taken, what)


def test_configs(do, commits):
    what = Seeds("spro/configs", count=1, config="b", columns={"caption": "text"})
    assert do(taken, what)[0]["caption"] == "from b"
    assert do(told, replace(what, config=None)) == (
        "seeds.config: 'spro/configs' has the configs a, b; name one of them."
    )
    assert do(told, replace(what, config="c"), "preflight", "prompts") == (
        "prompts.config: 'spro/configs' has no config 'c' among a, b; name one of them."
    )


COLUMNS = "caption, captions, kind, likes, prompt, score, image, jpg, tags, year"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"columns": {"caption": "captoin"}},
         f"columns.caption: 'spro/made' has no column 'captoin' among {COLUMNS}; did you mean 'caption'?"),
        ({"columns": TEXT | {"tweet": "zzz"}},
         f"columns.tweet: 'spro/made' has no column 'zzz' among {COLUMNS}; name one of them."),
        ({"where": {"kinds": "a"}},
         f"where.kinds: 'spro/made' has no column 'kinds' among {COLUMNS}; did you mean 'kind'?"),
        ({"bands": Bands("like", ((0.0, 1.0),))},
         f"bands.column: 'spro/made' has no column 'like' among {COLUMNS}; did you mean 'likes'?"),
        ({"split": "tset"}, "split: 'spro/made' has no split 'tset' among train, test; did you mean 'test'?"),
        ({"config": "big"}, "config: 'spro/made' has no config 'big' among default; name one of them."),
        ({"columns": TEXT | {"image": "tags"}},
         "columns.image: the column 'tags' of 'spro/made' holds no pictures; name one that does, or leave it out and the "
         "base pictures are rendered."),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_before_anything_is_downloaded(do, made, fields, sentence):
    assert do(told, made(**fields), "preflight", "prompts") == f"prompts.{sentence}"
    assert do(told, made(**fields)) == f"seeds.{sentence}"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"count": 7}, "count: the split 'train' of 'spro/made' holds 6 captions that fit; give at most 6."),
        ({"where": {"kind": "z"}},
         "count: the split 'train' of 'spro/made' holds 0 captions that fit; check 'columns', 'where' and 'bands'."),
        ({"columns": {"caption": "likes"}},
         "columns.caption: the column 'likes' of 'spro/made' holds something else than text; name a column of text."),
        ({"columns": TEXT | {"prompt": "image"}},
         "columns.prompt: the column 'image' of 'spro/made' holds something else than text; name a column of text."),
        ({"columns": TEXT | {"score": "kind"}},
         "columns.score: the column 'kind' of 'spro/made' holds something else than numbers; name a column of numbers."),
        ({"bands": Bands("kind", ((0.0, 1.0),))},
         "bands.column: the column 'kind' of 'spro/made' holds something else than numbers; name a column of numbers."),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_told(do, made, fields, sentence):
    assert do(told, made(**fields)) == f"seeds.{sentence}"


def test_a_set_that_cannot_be_read_is_told(do, commits):
    def of(source: str, **fields: Any) -> Seeds:
        return Seeds(source, columns={"caption": "text"}, **fields)

    assert "dataset spro/none: no such repository is to be seen at" in do(told, of("spro/none"))
    assert do(told, of("spro/made", revision="v9")) == "dataset spro/made: there is no revision 'v9'; its tags: none."
    gone = "0" * 40
    assert f"dataset spro/made: there is no revision '{gone}'" in do(told, of("spro/made", revision=gone))
    private = do(told, of("spro/private"), "load", "seeds", "")
    assert private.startswith("dataset spro/private: no such repository is to be seen at")
    assert private.endswith("set HF_TOKEN if it is private, check its name, or run the stage that makes it.")
    assert do(told, of("spro/script")) == (
        "seeds.source: 'spro/script' is a script, and none is run; set 'revision' to refs/convert/parquet, where the Hub "
        "may hold its rows, or name another."
    )
    assert do(told, of("spro/nothing")).startswith("seeds.source: 'spro/nothing' holds no rows at ")


def test_shape_and_files_are_checked_without_a_network(tmp_path):
    seeds.check(Seeds("spro/made", columns=TEXT))
    with pytest.raises(UserError) as error:
        seeds.check(Seeds("my prompts.txt", columns=TEXT))
    assert str(error.value) == (
        "seeds.source: 'my prompts.txt' is no name of a data set; write namespace/name, or leave 'columns' out if it is a "
        "file of captions."
    )
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"prompt {i}, " + "very " * 400 + "detailed" for i in range(3)) + "\n\n")
    what = Seeds(str(file), count=5)
    seeds.check(what)
    found = seeds.load(what, 0)
    assert [seed.seed_id for seed in found] == ["line-0001", "line-0002", "line-0003", "line-0001-1", "line-0002-1"]
    assert found[1].caption == "prompt 1, " + "very " * 400 + "detailed" and found[1].image is None
    assert seeds.pinned(what) is None and len(seeds.digest(what)) == 64
    seeds.preflight(what)  # asks nobody


def shipped(name: str) -> Seeds:
    data = parse_yaml((DATA / name).read_text())
    assert list(data) == ["prompts" if name == "spro_prompts.yaml" else "seeds"]
    return build(Seeds, *data.values(), name)


def test_every_shipped_data_set_names_columns_that_its_shadow_has(do, commits):
    from tests.shadow.datasets import CAPTIONS, DATASETS

    names = sorted(file.name for file in DATA.glob("*.yaml"))
    assert names and {shipped(name).source for name in names} == set(DATASETS)
    found = {name.removesuffix(".yaml"): do(taken, replace(shipped(name), revision=None, count=2)) for name in names}
    rows = {name: [int(row["id"].rpartition("-")[2]) for row in value] for name, value in found.items()}
    assert rows == {
        "flickr30k_train": [0, 1], "flickr30k_test": [3, 7],  # of four rows the last is for validation
        "pickapic_train": [0, 1], "pickapic_test": [0, 1], "parti": [0, 1], "lexica": [0, 1], "spro_prompts": [0, 1],
        "pickapic_captions": [0, 3],  # three rows share a caption
        # Likes are 7i mod 60: 0 7 14 21 28 35 42 49 56 3 ...; the bands of 60, 30 and 10 % begin at 0, 36 and 54.
        "engaging_imagenet_low": [0, 1], "engaging_imagenet_mid": [6, 7], "engaging_imagenet_high": [8, 17],
        "engaging_imagenet_train": [0, 7],  # 0 and 49 likes: below 12, and of 48 and more
    }  # fmt: skip
    captions = {name: [row["caption"] for row in value] for name, value in found.items()}
    assert captions["parti"] == captions["flickr30k_train"] == captions["pickapic_test"] == CAPTIONS[:2]
    assert captions["pickapic_train"] == captions["spro_prompts"] == [CAPTIONS[0]] * 2
    assert found["spro_prompts"][1]["prompt"] == f"{CAPTIONS[0]} in soft light"
    assert found["spro_prompts"][1]["score"] == pytest.approx(6.4)
    assert set(found["engaging_imagenet_high"][0]["context"]) == {"tweet", "company", "date", "tags"}
    for name in ("flickr30k_train", "pickapic_train", "engaging_imagenet_train"):
        (row,) = do(taken, replace(shipped(f"{name}.yaml"), revision=None, count=1), True)
        assert row["image"].shape == (24, 32, 3)
