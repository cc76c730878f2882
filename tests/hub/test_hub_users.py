"""Several users on one local Hub: who sees what, who writes where, and whose name is on it."""

from __future__ import annotations

import argparse
import json
import stat
from pathlib import Path

import pytest
import users_clients as ask

from spro_hf.errors import UserError
from spro_hf.hub import users
from spro_hf.hub.errors import HubError
from spro_hf.hub.users import User, Users, add_user


@pytest.fixture(scope="module")
def got(hub, do):
    """Users are added while the server runs."""
    root = Path(hub.process.args[3])
    tokens = {name: add_user(root, name, ["lab"]) for name in ("anna", "ben")}
    tokens |= {"carl": add_user(root, "carl", []), "dora": add_user(root, "dora", ["lab"], "read"), "spro": hub.token}
    return do(ask.two_users, tokens)


def test_a_running_server_knows_a_user_who_was_added_and_their_organisations(got):
    assert got["me"] == {
        "anna": ("anna", ["lab"], "write"),
        "ben": ("ben", ["lab"], "write"),
        "carl": ("carl", [], "write"),
        "dora": ("dora", ["lab"], "read"),
        "spro": ("spro", ["lab"], "write"),
    }
    assert got["named"] == "ben/mine"


def test_commits_carry_the_name_of_who_made_them(got):
    assert got["authors"] == [["ben"], ["anna"], ["anna"]]  # the last is the one that made the repository


def test_private_repositories_are_seen_by_those_of_their_namespace_only(got):
    every = ["anna/open", "anna/closed", "lab/shared"]
    assert got["sees"] == {
        "anna": every, "ben": ["anna/open", "lab/shared"], "carl": ["anna/open"], "dora": ["anna/open", "lab/shared"],
        "spro": every, "nobody": ["anna/open"],
    }  # fmt: skip
    assert got["own"] == [("lab/shared", "model", "private", True)]
    assert got["lists"] == {name: sorted(seen) for name, seen in got["sees"].items()}


def test_who_knows_the_sha256_of_anothers_file_is_not_given_its_bytes(got):
    assert got["theft"] == (True, 400)  # asked to send it, as if nobody had, and a commit of it is refused


def test_who_may_not_write_is_told_why(got):
    told = got["refused"]
    assert {name: (kind, status) for name, (kind, status, _) in told.items()} == {
        "foreign": ("HfHubHTTPError", 403),
        "hidden": ("RepositoryNotFoundError", 404),
        "create": ("HfHubHTTPError", 403),
        "delete": ("HfHubHTTPError", 403),
        "delete_hidden": ("RepositoryNotFoundError", 404),
        "take": ("HfHubHTTPError", 403),
        "give": ("HfHubHTTPError", 403),
        "tag": ("HfHubHTTPError", 403),
        "settings": ("HfHubHTTPError", 403),
        "own": ("HfHubHTTPError", 403),
        "reader": ("HfHubHTTPError", 403),
        "reader_creates": ("HfHubHTTPError", 403),
    }
    assert "'ben' may not write to 'anna/open'; the namespaces of this token are: ben, lab." in told["foreign"][2]
    assert "The token of 'dora' may only read" in told["reader"][2]
    assert got["batch"] == [403, 401, 401]  # a token as password writes nothing, and nor does none


def test_a_new_token_ends_the_old_one_and_tokens_are_kept_as_digests(tmp_path, capsys):
    (tmp_path / "repos").mkdir()
    known = Users(tmp_path, "hf_owner")
    assert known.owner_of("hf_owner") == User("spro", (), everywhere=True)
    parser = argparse.ArgumentParser()
    users.add(parser)
    assert users.main(parser.parse_args(["eva", str(tmp_path), "--org", "lab", "--read-only"])) == 0
    first = capsys.readouterr().out.strip()
    assert known.owner_of(first) == User("eva", ("lab",), "read")
    second = add_user(tmp_path, "eva", [])
    assert known.owner_of(first) is None and known.owner_of(second) == User("eva")
    file = tmp_path / "users.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and second not in file.read_text()
    assert json.loads(file.read_text())["eva"].keys() == {"token", "orgs", "role"}
    file.write_text("{")
    with pytest.raises(HubError, match="cannot be read"):
        known.owner_of(second)
    file.unlink()
    assert known.owner_of(second) is None


@pytest.mark.parametrize(
    ("name", "orgs", "message"),
    [
        ("spro", [], "'spro' is already the name of the owner of the folder; choose another"),
        ("lab", [], "'lab' is already the name of an organisation"),
        ("eva", ["anna"], "--org anna: this is a user's name"),
        ("eva", ["eva"], "--org eva: this is a user's name"),
        ("../eva", [], "'../eva' is no name for a user or an organisation"),
        ("eva", ["a.b"], "'a.b' is no name for a user or an organisation"),
        ("datasets", [], "'datasets' is no name for a user or an organisation"),
    ],
)
def test_a_bad_name_is_told_and_changes_nothing(tmp_path, name, orgs, message):
    add_user(tmp_path, "anna", ["lab"])
    before = (tmp_path / "users.json").read_text()
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("?", r"\?")):
        add_user(tmp_path, name, orgs)
    assert (tmp_path / "users.json").read_text() == before


def test_a_user_is_added_to_a_folder_that_holds_a_hub(tmp_path):
    with pytest.raises(UserError, match="holds no local Hub"):
        users.main(argparse.Namespace(name="eva", folder=tmp_path, orgs=[], read_only=False))
