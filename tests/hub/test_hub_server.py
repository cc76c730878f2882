"""The local Hub, asked by the real clients."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import hub_clients as ask
import pytest

from spro_hf.errors import UserError
from spro_hf.hub.server import start


def test_uploads_small_and_big_files_and_reads_them_at_any_revision(do):
    got = do(ask.upload_and_read)
    assert (got["old"], got["new"], got["big"]) == (b"one", b"two", True)
    assert got["head"] != got["first"] == got["last"]
    assert got["siblings"] == [".gitattributes", "a.txt", "deep/b.png", "deep/big.data"]
    assert got["lfs"] == ["deep/b.png", "deep/big.data"]
    assert got["sizes"]["a.txt"] == 3 and got["sizes"]["deep/big.data"] == 1280000 and got["sizes"]["empty.png"] == 0
    assert "deep/big.data filter=lfs" in got["rules"] and "deep/b.png" not in got["rules"]
    assert got["ranges"] == [b"wo", bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3]), b"o"]
    assert got["beyond"] == 416
    assert got["titles"] == ["2", "first", "initial commit"]


def test_branches_tags_and_stale_parents(do):
    got = do(ask.branch_and_tag)
    assert got["main"] == got["start"]
    assert got["branches"] == {"feature/x": got["there"], "main": got["start"]}
    assert got["tags"] == {"round/1": got["there"]}
    assert got["by_tag"] == got["by_short"] == got["there"]
    assert got["read"] == b"x"
    assert (got["again"], got["bad"], got["main_gone"], got["stale"]) == (409, 400, 403, 412)
    assert got["left"] == (["main"], [])


def test_refusals_carry_the_status_and_code_by_which_clients_know_them(do):
    got = do(ask.errors)
    assert {name: told[:2] for name, told in got.items()} == {
        "repo": ("RepositoryNotFoundError", 404),
        "short": ("RepositoryNotFoundError", 404),
        "kind": ("RepositoryNotFoundError", 404),
        "revision": ("RevisionNotFoundError", 404),
        "entry": ("RemoteEntryNotFoundError", 404),
        "wrong": ("HfHubHTTPError", 401),
        "wrong_reads": ("HfHubHTTPError", 401),
        "absent": ("HfHubHTTPError", 401),
        "card": ("ValueError", None),
        "path": ("ValueError", None),  # the client itself refuses this one
        "clash": ("BadRequestError", 400),
        "search": ("HfHubHTTPError", 501),
        "pull_request": ("HfHubHTTPError", 501),
        "forged": ("", 403),
    }
    assert "the local Hub's token is kept in the file 'token'" in got["wrong"][2]
    assert "set HF_TOKEN" in got["absent"][2]
    assert '"tags" must be a string or a list of strings' in got["card"][2]


def test_private_repositories_moves_and_deletions(do):
    assert do(ask.manage) == {
        "hidden": "RepositoryNotFoundError",
        "private": True,
        "me": "spro",
        "opened": False,
        "moved": b"a",
        "deleted": "RepositoryNotFoundError",
    }


def test_concurrent_commits_lose_nothing_and_git_agrees(do, hub):
    commits, files = do(ask.commit_from_threads, 4, 3)
    assert commits == 1 + 4 * 3
    assert sorted(files) == [f"{n}/{i}.bin" for n in range(4) for i in range(3)]
    if git := shutil.which("git"):
        root = Path(hub.process.args[3])
        for repository in root.glob("repos/*/*/*.git"):
            subprocess.run([git, "-C", str(repository), "fsck", "--strict"], check=True, capture_output=True)


def test_a_killed_server_comes_back_with_every_confirmed_version(tmp_path, own):
    first, again = start(tmp_path / "hub"), []
    port = int(first.url.rsplit(":", 1)[1])

    def accident() -> None:
        first.process.kill()
        first.process.wait()
        # what a kill in the very moment of moving the branch leaves
        (tmp_path / "hub/repos/models/spro/count.git/refs/heads/main.lock").touch()
        again.append(start(tmp_path / "hub", port))

    with own(first, tmp_path / "home") as do:
        do(ask.create, "spro/count")
        accidental = threading.Timer(0.4, accident)
        accidental.start()
        confirmed = do(ask.commit_through_a_kill, "spro/count", 12)
        accidental.join()
        with again[0]:
            commits, files = do(ask.history, "spro/count")
        assert "no connection" in do(ask.told, "resolve", "spro/count", "model", "main")
    # the one commit under way at the kill may have come through without being confirmed
    assert len(confirmed) >= 10 and len(commits) - 1 - len(confirmed) in (0, 1)
    assert [c for c in commits if c in confirmed] == confirmed
    assert all(size == 1000 + int(name.removesuffix(".bin")) for name, size in files.items() if name.endswith(".bin"))
    assert files["count"] == 2  # "11"


def test_one_server_a_folder_one_token_kept_for_its_owner(tmp_path):
    with start(tmp_path) as first:
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
        assert (tmp_path / "token").read_text() == first.token and first.token not in repr(first)
        with pytest.raises(UserError, match="another local Hub serves this folder"):
            start(tmp_path)
    with start(tmp_path) as again:
        assert again.token == first.token
        assert first.token not in (tmp_path / "server.log").read_text()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(again.url, timeout=5)


def test_the_server_ends_with_its_parent(tmp_path):
    code = "import sys, os; from pathlib import Path; from spro_hf.hub.server import start\n"
    code += f"server = start(Path({str(tmp_path)!r})); print(server.process.pid, flush=True)\n"
    code += "assert not {'huggingface_hub', 'datasets', 'torch'} & set(sys.modules); os._exit(9)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 9, done.stderr
    with start(tmp_path) as again:  # refused if the first one still owned the folder
        assert again.process.pid != int(done.stdout)


def test_the_pages_show_repositories_and_escape_what_they_show(do, hub, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# <script>alert(1)</script>\n")
    (tmp_path / "a b.txt").write_text("<b>")
    commit, _ = do(ask.push, str(tmp_path), "spro/page", "round/1")
    index = urllib.request.urlopen(hub.url).read().decode()
    assert '<a href="/spro/page">spro/page</a>' in index and 'href="/spro/page/tree/round%2F1"' in index
    page = urllib.request.urlopen(f"{hub.url}/spro/page/tree/round%2F1").read().decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>" not in page
    assert f"/spro/page/resolve/{commit}/a%20b.txt" in page and "width=device-width" in page
    file = urllib.request.urlopen(f"{hub.url}/spro/page/resolve/{commit}/a%20b.txt")
    assert (file.read(), file.headers["content-type"]) == (b"<b>", "text/plain; charset=utf-8")
