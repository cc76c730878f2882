"""The local Hub, asked by the real clients."""

from __future__ import annotations

import asyncio
import errno
import json
import os
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
from spro_hf.hub.app import App
from spro_hf.hub.server import start
from spro_hf.hub.store import Store


def test_what_only_the_local_hub_promises(do):
    got = do(ask.only_here)
    assert "deep/big.data filter=lfs" in got["rules"] and "deep/b.png" not in got["rules"]
    assert got["by_short"] and (got["beyond"], got["bad_tag"], got["main_gone"]) == (416, 400, 403)
    assert (got["me"], got["public"], got["opened"]) == ("spro", False, False)
    assert got["hidden"] == ("RepositoryNotFoundError", 401)


def test_refusals_carry_a_status_that_the_clients_do_not_retry_and_say_why(do):
    got = do(ask.errors)
    assert {name: told[:2] for name, told in got.items()} == {
        "wrong": ("HfHubHTTPError", 401),
        "wrong_reads": ("HfHubHTTPError", 401),
        "absent": ("HfHubHTTPError", 401),
        "path": ("ValueError", None),  # the client itself refuses this one
        "clash": ("BadRequestError", 400),
        "listing": ("HfHubHTTPError", 501),
        "likes": ("HfHubHTTPError", 501),
        "secret": ("HfHubHTTPError", 501),
        "squash": ("HfHubHTTPError", 501),
        "pull_request": ("HfHubHTTPError", 501),
        "forged": ("", 403),
        "forged_read": ("", 403),
    }
    assert "its owner's is in the file 'token'" in got["wrong"][2]
    assert "set HF_TOKEN" in got["absent"][2]
    assert "cannot list models by 'gated'" in got["listing"][2]
    assert "does not do POST /api/spaces/spro/errors/secrets" in got["secret"][2]


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


def test_a_full_disk_is_told_and_changes_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    body = b'{"name": "it"}'
    status, told = asyncio.run(asked(App(store, "hf_t"), "POST", "/api/repos/create", body))
    assert status == 507 and "disk is full" in told["error"]  # no status that the clients would ask again
    monkeypatch.undo()
    assert store.repositories() == []
    assert asyncio.run(asked(App(store, "hf_t"), "POST", "/api/repos/create", body))[0] == 200


def test_a_request_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    body = b" " * (17 << 20)
    app = App(Store(tmp_path), "hf_t")
    assert asyncio.run(asked(app, "POST", "/api/repos/create", body))[0] == 413
    assert asyncio.run(asked(app, "POST", "/api/repos/create", body, token="hf_other"))[0] == 401


async def asked(app: App, method: str, path: str, body: bytes, token: str = "hf_t") -> tuple[int, dict]:
    """Status and JSON of the answer to a request, sent in two pieces without a network."""
    pieces = [body[: len(body) // 2], body[len(body) // 2 :]]
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"host", b"hub"), (b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers}
    await app(scope | {"query_string": b"", "scheme": "http", "server": ("hub", 80)}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


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
