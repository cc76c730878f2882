"""Steps appear whole or not at all, and only for the recipe that began them."""

import pytest

from spro_hf.errors import UserError
from spro_hf.steps import Steps, derive


def test_a_finished_step_is_not_made_again_and_a_killed_one_is(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "half").write_text("x")
        if len(calls) == 1:
            raise KeyboardInterrupt
        (folder / "whole").write_text("y")

    with pytest.raises(KeyboardInterrupt):
        Steps(tmp_path, {"seed": 0}).do("round-1", make)
    assert not (tmp_path / "round-1").exists()
    done = Steps(tmp_path, {"seed": 0}).do("round-1", make)
    assert sorted(f.name for f in done.iterdir()) == ["half", "whole"]
    Steps(tmp_path, {"seed": 0}).do("round-1", make)
    assert len(calls) == 2


def test_another_recipe_is_refused_and_the_field_named(tmp_path):
    Steps(tmp_path, {"recipe": {"seed": 0, "rounds": 3}})
    with pytest.raises(UserError, match=r"recipe.rounds: 3 before, 2 now"):
        Steps(tmp_path, {"recipe": {"seed": 0, "rounds": 2}})


def test_seeds_depend_on_every_part_and_repeat():
    assert derive(0, "a", 1) == derive(0, "a", 1)
    assert len({derive(0, "a", 1), derive(0, "a", 2), derive(1, "a", 1), derive(0, "a1")}) == 4
    assert 0 <= derive("x") < 2**31
