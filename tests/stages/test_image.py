"""Which pictures SPRO-Image learns from: of rollouts the winners, of published prompts the best of each caption."""

from dataclasses import dataclass

from PIL import Image

from spro_hf import rollouts
from spro_hf.stages.image import DRAWN, _best, winners


@dataclass(frozen=True)
class Prompted:
    """What is looked at of a seed."""

    caption: str
    prompt: str
    score: float | None = None


def write(folder, *rows):
    entries = [
        {"seed_id": seed, "base_caption": f"caption {seed}", "prompt": prompt, "image": Image.new("RGB", (2, 2)),
         "round": number, "image_seed": 0, "total": total, "kept": kept}
        for number, seed, prompt, total, kept in rows
    ]  # fmt: skip
    rollouts.write(entries, {key: rollouts.ROLLOUT[key] for key in DRAWN}, folder)
    return folder


def test_the_winner_of_each_seed_and_round_over_several_folders(tmp_path):
    first = write(
        tmp_path / "1",
        (1, "a", "a low", 1.0, True), (1, "a", "a high", 3.0, True), (1, "a", "a highest, dropped", 9.0, False),
        (1, "b", "b dropped", 5.0, False),
    )  # fmt: skip
    second = write(tmp_path / "2", (2, "a", "a again", 2.0, True), (2, "b", "b", -1.0, True))
    found = [(w.folder.name, w.row, w.caption, w.prompt) for w in winners([first, second])]
    assert found == [
        ("1", 1, "caption a", "a high"), ("2", 0, "caption a", "a again"), ("2", 1, "caption b", "b"),
    ]  # fmt: skip


def test_of_scored_prompts_the_best_of_each_caption_is_drawn():
    found = [Prompted("a", "x", 1.0), Prompted("b", "y", 5.0), Prompted("a", "z", 2.0), Prompted("b", "w", 5.0)]
    assert [seed.prompt for seed in _best(found)] == ["z", "y"]


def test_of_prompts_without_a_score_all_are_drawn():
    found = [Prompted("a", "x"), Prompted("a", "z"), Prompted("b", "y")]
    assert _best(found) == found
