"""Licences carried through: what a repository's own card says, asked for once."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from spro_hf.errors import UserError
from spro_hf.hub import terms
from spro_hf.parts import Seeds

OTHER = "license: other\nlicense_name: flux-1-dev\nlicense_link: LICENSE"


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Writes the header of the only card there is; gives how often it was asked for."""
    asked = []

    def write(header: str) -> list[str]:
        (tmp_path / "README.md").write_text(f"---\n{header}\n---\ntext\n")
        return asked

    monkeypatch.setattr(terms, "pull", lambda repo, *_: (asked.append(repo), tmp_path)[1])
    terms.of.cache_clear()
    yield write
    terms.of.cache_clear()


def test_a_card_is_asked_once_for_its_licence(card):
    asked = card("license: cc-by-4.0")
    assert terms.of_model("org/model", "a" * 40) == terms.of("org/model", "model", "a" * 40) == {"license": "cc-by-4.0"}
    card(OTHER)
    assert terms.of("org/flux", "model", "b" * 40) == {
        "license": "flux-1-dev",
        "link": "https://huggingface.co/org/flux/blob/main/LICENSE",
    }
    card("license: [mit, apache-2.0]")
    assert terms.of("org/both", "dataset", "c" * 40)["license"] == "mit, apache-2.0"
    card("tags: [x]")
    assert terms.of("org/silent", "dataset", "d" * 40) == {"license": "unknown"}
    assert asked == ["org/model", "org/flux", "org/both", "org/silent"]


def test_what_is_no_repository_has_the_packages_licence_or_none(tmp_path):
    assert terms.of_model("spro_hf/tiny/clip", "") == {"license": "apache-2.0"}
    assert terms.of_model("spro_hf/laion/v1", "") == {"license": "mit"}
    assert terms.of_model(str(tmp_path), "") == {"license": "unknown"}
    assert terms.of_captions(Seeds())["license"] == "apache-2.0"
    assert terms.of_captions(Seeds(source="/home/me/mine.txt")) == {"id": "mine.txt", "license": "unknown"}


@pytest.mark.parametrize(
    ("cause", "told"), [(OfflineModeIsEnabled("offline"), "unknown"), (ConnectionError("cut"), None)]
)
def test_a_network_that_fails_is_no_unknown_licence(monkeypatch, cause, told):
    def fails(*_):
        raise UserError("dataset org/set: it cannot be read.") from cause

    monkeypatch.setattr(terms, "pull", fails)
    terms.of.cache_clear()
    if told:
        assert terms.of("org/set", "dataset", "e" * 40) == {"license": told}
    else:
        with pytest.raises(UserError, match="cannot be read"):
            terms.of("org/set", "dataset", "e" * 40)
