"""A stage loads what it first saw: the commits of the Hub's models and seeds stand in its folder and rule after a kill."""

import json

import pytest

from spro_hf import recipe as recipes_of
from spro_hf.errors import UserError
from spro_hf.report.progress import Progress
from spro_hf.stages import room
from spro_hf.stages.room import Room

from .conftest import RECIPES

HUB = {
    "generator.id": "org/pipe", "scorers.pickscore.id": "org/pick", "scorers.pickscore.processor": "org/clip",
    "reward": {"pickscore": 1.0}, "select.similarity": "org/clip",
    "seeds": {"source": "org/captions", "columns": {"caption": "text"}, "split": "train"},
}  # fmt: skip


@pytest.fixture
def heads(monkeypatch):
    """What ``main`` of each repository is now."""
    found = dict.fromkeys(("org/pipe", "org/pick", "org/clip", "org/captions"), "a" * 40)

    def resolve(repo, kind, revision):
        assert revision == "main"
        return found[repo]

    monkeypatch.setattr(room, "commit", lambda id, revision=None: found.get(id, "local"))
    monkeypatch.setattr(room, "resolve", resolve)
    return found


def opened(folder, **changes):
    (recipe,) = recipes_of.load(RECIPES / "1_prompt.yaml", HUB | changes)
    return Room(recipe, folder, Progress(silent=True))


def test_what_moved_meanwhile_is_read_where_it_was(tmp_path, heads):
    first = opened(tmp_path)
    heads.update(dict.fromkeys(heads, "b" * 40))
    again = opened(tmp_path)
    for one in (first, again):
        recipe = one.recipe
        assert recipe.generator.revision == recipe.select.similarity_revision == recipe.seeds.revision == "a" * 40
        assert recipe.scorers["pickscore"]["revision"] == recipe.scorers["pickscore"]["processor_revision"] == "a" * 40
        assert "revision" not in recipe.scorers["aesthetic"] and recipe.guider.revision is None  # in the package
        assert one.models["generator.id"] == f"org/pipe@{'a' * 40}" and one.models["guider.id"].endswith("@local")
        assert {i["what"]: i["commit"] for i in one.inputs} == {"seeds": "a" * 40}
        assert one.resolved["generator"]["revision"] is None  # the recipe as it was written
    assert opened(tmp_path / "new").recipe.generator.revision == "b" * 40


def test_another_recipe_is_still_refused(tmp_path, heads):
    opened(tmp_path)
    with pytest.raises(
        UserError, match=r"was begun with another recipe \(recipe\.generator\.revision: None before, 'v2' now\)"
    ):
        opened(tmp_path, **{"generator.revision": "v2"})
    assert set(json.loads((tmp_path / "pins.json").read_text())) == {
        "generator.id", "scorers.pickscore.id", "scorers.pickscore.processor", "select.similarity", "seeds",
    }  # fmt: skip
