"""The local Hub, asked by plain git and in the words of git-lfs and of Xet."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import git_clients as ask
import pytest

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="there is no git")


def git(*arguments: str | Path) -> subprocess.CompletedProcess:
    alone = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    who = {f"GIT_{role}_{field}": "it@localhost" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    words = ["git", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | alone | who, check=False)


def said(*arguments: str | Path) -> str:
    done = git(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("kind", "site"), [("model", ""), ("dataset", "datasets/"), ("space", "spaces/")])
def test_every_kind_is_cloned_and_fetched_again(do, hub, tmp_path, kind, site):
    first, second = do(ask.two_commits, f"spro/git-{kind}", kind)
    address = f"{hub.url}/{site}spro/git-{kind}"
    said("clone", "-q", address, tmp_path / "whole")
    assert said("-C", tmp_path / "whole", "rev-parse", "HEAD") == second
    said("clone", "-q", "--depth", "1", f"{address}.git", tmp_path / "flat")
    assert said("-C", tmp_path / "flat", "rev-list", "HEAD") == second
    said("-C", tmp_path / "flat", "fetch", "-q", "--unshallow", "--tags")
    assert said("-C", tmp_path / "flat", "rev-parse", "v1^{commit}") == first
    said("clone", "-q", "--filter=blob:none", address, tmp_path / "filtered")  # git comes down to a whole clone
    assert (tmp_path / "filtered" / "a").read_text() == "2"
    third = do(ask.commit_files, f"spro/git-{kind}", {"b": b"3"}, kind)
    said("-C", tmp_path / "whole", "pull", "-q")
    assert said("-C", tmp_path / "whole", "rev-parse", "HEAD") == third
    for clone in ("whole", "flat", "filtered"):
        said("-C", tmp_path / clone, "fsck", "--strict")


def test_a_push_by_git_is_refused_with_the_way_to_go(do, hub, tmp_path):
    do(ask.two_commits, "spro/git-push", "model")
    said("clone", "-q", f"{hub.url}/spro/git-push", tmp_path)
    said("-C", tmp_path, "commit", "-q", "--allow-empty", "-m", "mine")
    said(
        "-C", tmp_path, "remote", "set-url", "origin", hub.url.replace("://", f"://me:{hub.token}@") + "/spro/git-push"
    )
    done = git("-C", tmp_path, "push", "-q")
    assert done.returncode != 0 and "push with huggingface_hub or `hf upload`" in done.stderr
    assert hub.token not in done.stderr


def test_what_is_private_is_cloned_with_a_token_as_password_only(do, hub, tmp_path):
    do(ask.two_commits, "spro/git-private", "model", True)
    place = hub.url.replace("://", "://{}@") + "/spro/git-private"
    assert git("clone", "-q", hub.url + "/spro/git-private", tmp_path / "none").returncode != 0
    assert git("clone", "-q", place.format("spro:hf_wrong"), tmp_path / "wrong").returncode != 0
    said("clone", "-q", place.format(f"anyone:{hub.token}"), tmp_path / "right")
    assert (tmp_path / "right" / "a").read_text() == "2"


def test_a_moved_repository_is_cloned_by_its_old_name(do, hub, tmp_path):
    do(ask.two_commits, "spro/git-old", "model")
    do(ask.move, "spro/git-old", "spro/git-new")
    said("clone", "-q", f"{hub.url}/spro/git-old", tmp_path)
    assert (tmp_path / "a").read_text() == "2"


def _batch(url: str, repo: str, oid: str, size: int, token: str = "", operation: str = "download") -> dict:
    body = json.dumps({"operation": operation, "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]})
    headers = {"Content-Type": "application/vnd.git-lfs+json", "Accept": "application/vnd.git-lfs+json"}
    if token:
        headers["Authorization"] = "Basic " + b64encode(f"me:{token}".encode()).decode()
    request = urllib.request.Request(f"{url}/{repo}.git/info/lfs/objects/batch", body.encode(), headers)
    return json.loads(urllib.request.urlopen(request).read())["objects"][0]


def test_git_lfs_finds_the_bytes_of_the_repositorys_own_files(do, hub):
    oid, size = hashlib.sha256(ask.BIG).hexdigest(), len(ask.BIG)
    do(ask.two_commits, "spro/git-lfs", "model", True)
    do(ask.two_commits, "spro/git-empty", "model")
    do(ask.commit_files, "spro/git-lfs", {"big.bin": ask.BIG})
    action = _batch(hub.url, "spro/git-lfs", oid, size, hub.token)["actions"]["download"]
    assert action["header"] == {} and urllib.request.urlopen(action["href"]).read() == ask.BIG
    part = urllib.request.urlopen(urllib.request.Request(action["href"], headers={"Range": "bytes=250-257"})).read()
    assert part == bytes([250, 251, 252, 253, 254, 255, 0, 1])
    assert _batch(hub.url, "spro/git-empty", oid, size)["error"]["code"] == 404  # another repository's
    with pytest.raises(urllib.error.HTTPError, match="401"):
        _batch(hub.url, "spro/git-lfs", oid, size)
    for changed in (f"size={size}0&", "until=1&"):
        field = changed.partition("=")[0]
        forged = "&".join(changed[:-1] if p.startswith(field) else p for p in action["href"].split("?")[1].split("&"))
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{action['href'].split('?')[0]}?{forged}")
    upload = urllib.request.Request(action["href"], ask.BIG, method="PUT")  # an address to read is none to write
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(upload)


def test_clients_with_xet_push_and_pull(do, hub, tmp_path):
    got = do(ask.push_by_xet, "spro/xet", str(tmp_path))
    assert got["back"] == [True] * 8
    root = Path(hub.process.args[3])
    sent = sum(f.stat().st_size for f in root.glob("xet/spro/*/*"))
    assert 4_000_000 < sent < 7_000_000  # of 8.4 MB, since the zeros are packed and half of b.bin may be known
    assert not list((root / "tmp").iterdir())
    name = hashlib.sha256(got["first"]).hexdigest()
    assert (root / "lfs" / name[:2] / name[2:4] / name).read_bytes() == got["first"]


def test_a_xet_shard_that_lies_is_refused(do):
    assert do(ask.lie_by_xet, "spro/lie") == {
        "no token": 401,
        "no shard": 400,
        "unknown container": 400,
        "bad container": 400,
        "wrong sha256": 400,
        "good": 200,
        "known": 404,
    }
