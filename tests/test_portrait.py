"""What cards say of rows is what is in them: counted and reckoned by hand, with the pictures of the rows that are named."""

import json

import numpy as np
import pytest
from PIL import Image

from spro_hf import portrait, rollouts
from spro_hf.histograms import COLOURS, HEIGHT, SHARPNESS, WIDTH, histograms

SIDE = 40


def shade(value):
    return Image.new("RGB", (SIDE, SIDE), (value, value, value))


def row(seed, candidate, total=None, why="", kept=False, problem=""):
    """One try; its picture is as bright as ten times its reward, and the base picture's reward is 1."""
    parsed = total is not None
    return {
        "seed_id": seed, "objective": "preference", "round": 1, "candidate": candidate, "base_caption": f"a {seed}",
        "context": "{}", "caption_in": f"a {seed}", "image_in": None, "reply": "", "plan": [], "parsed": parsed,
        "problem": problem, "prompt": f"a {seed}, {candidate}" if parsed else "",
        "image": shade(int(total * 10)) if parsed else None, "image_base": None if candidate else shade(200),
        "image_seed": 1, "rewards": json.dumps({"a": total, "b": 2 * total} if parsed else {}),
        "total": 3.0 * total if parsed else None, "base_rewards": json.dumps({"a": 1.0, "b": 2.0}), "base_total": 3.0,
        "similarity": 0.5 if parsed else None, "measures": "{}", "kept": kept, "why": why or problem, "guider": "",
        "generator": "", "scorers": "{}",
    }  # fmt: skip


ROWS = [
    row("cat", 0, 1.0, kept=True), row("cat", 1, 4.0, kept=True), row("cat", 2, problem="two prompts"),
    row("dog", 0, 2.0, "similarity below 0.75"), row("dog", 1, 3.0, "similarity below 0.75"),
    row("elk", 0, problem="two prompts"), row("elk", 1, 5.0, "neither best nor worst of its seed"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rollouts.write_in_parts(ROWS, rollouts.ROLLOUT, tmp_path, size=3, count=len(ROWS))
    return tmp_path


def test_rollouts_are_counted_and_their_rewards_described(folder):
    told = portrait.of_rollouts(folder)
    counts = {name: told[name] for name in ("rows", "seeds", "parsed", "pairs", "size")}
    assert counts == {"rows": 7, "seeds": 3, "parsed": 5, "pairs": 1, "size": "n<1K"}
    assert told["why"] == [
        {"what": "the reply could not be read", "rows": 2}, {"what": "similarity below 0.75", "rows": 2},
        {"what": "neither best nor worst of its seed", "rows": 1},
    ]  # fmt: skip
    assert told["problems"] == [{"what": "two prompts", "rows": 2}]
    found = {(s["name"], s["of"]): s for s in told["statistics"]}
    assert list(found) == [(name, of) for name in ("total", "a", "b") for of in ("candidates", "base pictures")] + [
        ("similarity", "candidates")
    ]
    a = found["a", "candidates"]  # 1, 4, 2, 3, 5: squares of the distances from 3 are 10 in all, over 4 is 2.5
    assert (a["n"], a["mean"], a["min"], a["q1"], a["median"], a["q3"], a["max"]) == (5, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert a["std"] == pytest.approx(2.5**0.5) and found["total", "candidates"]["mean"] == 9.0
    assert found["b", "base pictures"] | {"shape": ""} == {
        "name": "b", "of": "base pictures", "n": 3, "mean": 2.0, "std": 0.0, "min": 2.0, "q1": 2.0, "median": 2.0,
        "q3": 2.0, "max": 2.0, "shape": "",
    }  # fmt: skip


def test_a_total_that_is_its_only_reward_is_told_once(tmp_path):
    rows = [r | {"rewards": json.dumps({"a": r["total"]}), "base_rewards": '{"a": 3.0}'} for r in ROWS if r["parsed"]]
    rollouts.write(rows, rollouts.ROLLOUT, tmp_path)
    assert [s["name"] for s in portrait.of_rollouts(tmp_path)["statistics"]] == ["a", "a", "similarity"]


def test_the_sheet_shows_base_best_and_worst_of_seeds_that_have_both(folder):
    told = portrait.of_rollouts(folder)
    assert [(s["caption"], s["base"], s["best"]["total"], s["worst"]["total"]) for s in told["samples"]] == [
        ("a cat", 3.0, 12.0, 3.0), ("a dog", 3.0, 9.0, 6.0)
    ]  # fmt: skip
    assert told["samples"][0]["best"]["prompt"] == "a cat, 1" and told["samples"][0]["best"]["row"] == 1
    sheet = np.asarray(Image.open(folder / told["sheet"]).convert("L")).astype(int)
    side = SIDE * 3  # enlarged as often as fits into CELL, 128
    middles = [(40 + y * (side + 8) + 60, 206 + x * (side + 8) + 60) for y in range(2) for x in range(3)]
    assert [round(sheet[at] / 10) for at in middles] == [20, 4, 1, 20, 3, 2]


def test_without_a_picture_there_is_none_in_the_card(tmp_path):
    rollouts.write([ROWS[5]], rollouts.ROLLOUT, tmp_path)
    told = portrait.of_rollouts(tmp_path)
    assert told["samples"] == [] and told["sheet"] == ""
    assert [s["of"] for s in told["statistics"]] == ["base pictures"] * 3
    rollouts.write([], rollouts.PAIR, tmp_path / "pairs")
    told = portrait.of_pairs(tmp_path / "pairs")
    assert (told["rows"], told["statistics"], told["scores"], told["sheet"]) == (0, [], "", "")


def test_large_pictures_make_a_small_sheet(tmp_path):
    noise = np.random.default_rng(0)
    drawn = [r | {k: Image.fromarray(noise.integers(0, 256, (200, 270, 3), np.uint8)) for k in ("image", "image_base")}
             for r in (row(f"seed {i // 2}", i % 2, 1.0 + i) for i in range(12))]  # fmt: skip
    rollouts.write(drawn, rollouts.ROLLOUT, tmp_path)
    told = portrait.of_rollouts(tmp_path)
    assert [s["caption"] for s in told["samples"]] == ["a seed 0", "a seed 1", "a seed 3", "a seed 4"]  # 4 of 6
    file = tmp_path / told["sheet"]
    assert file.stat().st_size < 1_000_000 and Image.open(file).width == 16 + 190 + 3 * 256 + 2 * 8 + 16


def test_pairs_tell_by_how_much_the_winner_won(tmp_path):
    chat = [{"role": "user", "content": "x"}]
    rows = [{"seed_id": f"s{i}", "objective": "o", "prompt": chat, "images": [shade(1)], "chosen": chat, "rejected": chat,
             "image_chosen": shade(150), "image_rejected": shade(50), "score_chosen": 4.0 + i, "score_rejected": 1.0,
             "base_caption": f"caption {i}", "image_seed": 1} for i in range(2)]  # fmt: skip
    rollouts.write(rows, rollouts.PAIR, tmp_path)
    told = portrait.of_pairs(tmp_path)
    means = {s["of"]: s["mean"] for s in told["statistics"]}
    assert means == {"chosen": 4.5, "rejected": 1.0, "chosen − rejected": 3.5}
    sheet = np.asarray(Image.open(tmp_path / told["sheet"]).convert("L")).astype(int)
    assert [round(sheet[100, x] / 10) for x in (266, 394)] == [15, 5]


def test_references_show_all_pictures_of_some_captions(tmp_path):
    rows = [{"seed_id": s, "caption": f"a {s}", "prompt": "", "image": shade(v), "image_seed": 0, "generator": ""}
            for s, v in (("cat", 10), ("dog", 90), ("cat", 170), ("dog", 250))]  # fmt: skip
    rollouts.write(rows, rollouts.REFERENCE, tmp_path)
    told = portrait.of_references(tmp_path)
    assert (told["rows"], told["captions"]) == (4, 2)
    sheet = np.asarray(Image.open(tmp_path / told["sheet"]).convert("L")).astype(int)
    middles = [(100, 266), (100, 394), (228, 266), (228, 394)]
    assert [round(sheet[at] / 10) for at in middles] == [1, 17, 9, 25]


def test_results_show_every_system(tmp_path):
    (tmp_path / "samples").mkdir()
    shade(20).save(tmp_path / "samples" / "a.png")
    shade(180).save(tmp_path / "samples" / "b.png")
    systems = {"base": {"image": "samples/a.png"}, "SPRO-MM": {"image": "samples/b.png"}}
    told = {"systems": list(systems), "samples": [{"caption": "a cat", "systems": systems}], "seed_ids": ["s/0", "s/1"],
            "unparsed": {"base": 0, "SPRO-MM": 2}}  # fmt: skip
    (tmp_path / "told.json").write_text(json.dumps(told))
    found = portrait.of_results(tmp_path)
    assert found["unparsed"] == [{"what": "SPRO-MM", "rows": 2}] and found["pictures"] == 2
    sheet = np.asarray(Image.open(tmp_path / found["sheet"]).convert("L")).astype(int)
    assert [round(sheet[100, x] / 10) for x in (266, 394)] == [2, 18]


def test_a_description_of_one_number_and_its_shape():
    assert portrait.describe([2.0])["std"] == 0.0
    shape = portrait.describe([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 12.0])["shape"]
    assert shape == "█" + "▁" * 10 + "▂"  # one of seven, of seven steps


@pytest.mark.parametrize(
    ("rows", "word"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (548_000, "100K<n<1M"), (10**9, "1B<n<10B")]
)
def test_the_hubs_words_for_sizes(rows, word):
    assert portrait.size_category(rows) == word


def test_histograms_draw_shares_of_each_over_common_bins():
    picture = histograms([("reward", {"one": [0.0] * 3 + [1.0], "other": [1.0] * 40})], bins=2)
    assert picture.size == (WIDTH * SHARPNESS, HEIGHT * SHARPNESS)
    found = np.asarray(picture)
    bottom, top = (HEIGHT - 30) * SHARPNESS, 46 * SHARPNESS
    height = bottom - top
    left, right = 130 * SHARPNESS, 280 * SHARPNESS  # a column in each bin: 75 % and 0 % there, 25 % and 100 % here

    def painted(column):
        """The shares of the axis at which a bar's outline stands."""
        return {
            round((bottom - y) / height, 2)
            for y in range(top, bottom - 4)
            if tuple(found[y, column]) in (COLOURS[0], COLOURS[1])
        }

    assert any(abs(share - 0.75) < 0.02 for share in painted(left)) and max(painted(left)) < 0.78
    assert max(painted(right)) > 0.97 and any(abs(share - 0.25) < 0.02 for share in painted(right))
    with pytest.raises(ValueError, match="values in every panel"):
        histograms([("reward", {"one": []})])
