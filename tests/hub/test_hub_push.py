"""Pushing while a Hub fails: what passes is waited for, a version is there whole or not at all, all else is one sentence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults
import pytest
from faults import Proxy, at, every

from spro_hf.errors import UserError
from spro_hf.hub import artifacts, unpublished
from spro_hf.hub.server import Server
from tests.hub.conftest import clients

CARD = "---\nlicense: apache-2.0\ntags: [spro]\n---\n# A card\n"


@pytest.fixture(scope="module")
def proxy(hub, tmp_path_factory):
    with Proxy(hub.url, tmp_path_factory.mktemp("victim") / "pid") as made:
        yield made


def _behind(proxy, hub, home):
    return clients(Server(proxy.url, hub.token, hub.process), home)


@pytest.fixture(scope="module")
def ask(proxy, hub, tmp_path_factory):
    with _behind(proxy, hub, tmp_path_factory.mktemp("home")) as run:
        run(faults.hurry)
        yield run
    proxy.begin()


def _folder(path: Path, words: str = "x", card: str = CARD) -> str:
    """A card, a small file, and two that go through LFS."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "README.md").write_text(card)
    (path / "a.json").write_text(f'"{words}"')
    for name in ("one.safetensors", "two.safetensors"):
        (path / name).write_bytes(f"{name} {path.name} {words} ".encode() * 200)
    return str(path)


@pytest.mark.parametrize(
    ("n", "verdict"),
    [(2, [500, 503, 429, 502, 504]), (2, "lost"), (3, "half"), (5, ["half", 503, "lost"])],
)
def test_a_hub_that_fails_at_every_nth_request_gets_the_whole_version(ask, proxy, tmp_path, n, verdict):
    folder, repo = _folder(tmp_path / "m"), f"spro/every-{n}-{verdict[0]}"
    proxy.begin(every(n, verdict))
    commit = ask(faults.push, folder, repo)
    proxy.begin()
    assert len(commit) == 40, commit
    assert ask(faults.whole, folder, repo, "v1") and ask(faults.refs, repo)["tags"] == {"v1": commit}


def test_a_push_that_is_killed_anywhere_leaves_no_tag_or_a_whole_version(ask, proxy, tmp_path):
    repo, folders = "spro/killed", {"v1": _folder(tmp_path / "v1")}
    proxy.begin()
    first = ask(faults.push, folders["v1"], repo, "v1")
    for k in range(1, 40):
        tag = f"k{k}"
        folders[tag] = _folder(tmp_path / tag)
        proxy.begin(lambda number, *_, k=k: "kill" if number == k else None)
        ended = ask(faults.push_in_a_child, folders[tag], repo, tag, str(proxy.victim))
        requests = len(proxy.seen)
        proxy.begin()
        if ended == "done":
            break
        assert ended == "killed" and ask(faults.whole, folders[tag], repo, tag) in (None, True)
        assert len(ask(faults.push, folders[tag], repo, tag)) == 40
    # that many moments: card, create, tags, head, files, how, where, PUT twice, commit, files, tag
    assert requests == k - 1 == 12
    told = ask(faults.refs, repo)
    assert told["tags"]["v1"] == first and all(ask(faults.whole, folder, repo, tag) for tag, folder in folders.items())
    assert told["commits"] == {"main": len(folders) + 1}  # with the Hub's own first: no version was committed twice


def test_an_upload_that_was_cut_off_goes_on_where_it_was(ask, proxy, tmp_path):
    repo, old, new = "spro/cut", _folder(tmp_path / "old"), _folder(tmp_path / "new")
    first = ask(faults.push, old, repo, "v1")

    def fault(_, method, path):
        if method != "PUT" or proxy.count("PUT", "/lfs/") < 2:
            return None
        while ("PUT", "/lfs/") not in [(verb, where[:5]) for verb, where in proxy.answered]:
            proxy.over.wait(0.01)
        return "kill half"

    proxy.begin(fault)
    assert ask(faults.push_in_a_child, new, repo, "v2", str(proxy.victim)) == "killed"
    assert proxy.count("PUT", "/lfs/") == 2
    proxy.begin()
    assert ask(faults.refs, repo)["tags"] == {"v1": first} and ask(faults.whole, old, repo, "v1")
    proxy.begin()
    ask(faults.push, new, repo, "v2")
    assert proxy.count("PUT", "/lfs/") == 1 and ask(faults.whole, new, repo, "v2")


def test_a_commit_without_its_tag_is_found(ask, proxy, tmp_path):
    folder = _folder(tmp_path / "m")
    proxy.begin(at("POST", "/tag/", (400, "no tags today")))
    assert "refuses it (400: no tags today)" in ask(faults.push, folder, "spro/untagged")
    proxy.begin()
    head = ask(faults.refs, "spro/untagged")
    assert head["tags"] == {} and head["commits"] == {"main": 2}
    assert ask(faults.push, folder, "spro/untagged") == head["branches"]["main"]
    assert proxy.count("POST", "/commit/") == 0


def test_two_who_push_at_once_through_a_failing_hub_lose_nothing(ask, proxy, hub, tmp_path):
    repo, tags = "spro/two", [f"{who}{i}" for i in range(3) for who in "ab"]
    folders = {tag: _folder(tmp_path / tag) for tag in tags}
    with _behind(proxy, hub, tmp_path / "home") as other, ThreadPoolExecutor(2) as pool:
        other(faults.hurry)
        proxy.begin(every(7, [503, "lost"]))
        work = {"a": ask, "b": other}
        done = list(
            pool.map(lambda who: [work[who](faults.push, folders[t], repo, t) for t in tags if t[0] == who], "ab")
        )
        proxy.begin()
        assert all(len(commit) == 40 for part in done for commit in part), done
        assert all(ask(faults.whole, folders[tag], repo, tag) for tag in tags)
        # the same tag: one is published, and the other is told
        told = list(pool.map(lambda who: work[who](faults.push, folders[f"{who}0"], repo, "same"), "ab"))
    lost, won = sorted(told, key=len, reverse=True)
    assert "the tag 'same' exists with other content" in lost and len(won) == 40
    assert ask(faults.refs, repo)["tags"]["same"] == won


def test_a_branch_of_its_own_begins_at_the_first_commit_and_leaves_main_alone(ask, proxy, tmp_path):
    proxy.begin()
    main = ask(faults.push, _folder(tmp_path / "m"), "spro/branch", "v1")
    steps = [
        ask(faults.push, _folder(tmp_path / f"s{i}"), "spro/branch", f"step-{i}", "model", "checkpoints")
        for i in (1, 2)
    ]
    told = ask(faults.refs, "spro/branch")
    assert told["branches"] == {"main": main, "checkpoints": steps[1]}
    assert told["tags"] == {"v1": main, "step-1": steps[0], "step-2": steps[1]}
    assert told["commits"] == {"main": 2, "checkpoints": 3}


def test_a_hub_that_asks_for_a_pause_gets_it_within_reason(ask, proxy, tmp_path):
    folder = _folder(tmp_path / "m")
    ask(faults.slept)
    proxy.begin(at("POST", "/commit/", (429, "slowly", {"Retry-After": "17"}), times=1))
    assert len(ask(faults.push, folder, "spro/slowly")) == 40 and ask(faults.slept) == [17.0]
    proxy.begin(at("POST", "/tag/", (429, "slowly", {"Retry-After": "3600"})))
    told = ask(faults.push, folder, "spro/slowly", "v2")
    assert "was asked too often (429); give the same command again in 3600 seconds" in told and ask(faults.slept) == []
    proxy.begin(at("POST", "/tag/", 503))
    told = ask(faults.push, folder, "spro/slowly", "v2")
    assert "answers 503 time after time" in told and ask(faults.slept) == [1.0, 2.0, 4.0, 8.0, 16.0]
    proxy.begin(at("POST", "/commit/", "hang", times=1))
    new = _folder(tmp_path / "n")
    assert len(ask(faults.patched, "push", "_STALL", 0.5, faults.push, new, "spro/slowly", "v2")) == 40


@pytest.mark.parametrize(
    ("where", "verdict", "told"),
    [
        (("POST", "/commit/"), (403, "You have exceeded your storage limit"), "there is no room for it"),
        (("POST", "/commit/"), (413, "Payload too large"), "there is no room for it"),
        (("PUT", "/lfs/"), (507, "disk full"), "there is no room for it"),
        (("POST", "/preupload/"), (403, "Forbidden"), "does not let this token write to it (Forbidden); set HF_TOKEN to one"),
        (("POST", "/commit/"), (400, 'Invalid "datasets"'), 'refuses it (400: Invalid "datasets"); mend that'),
        (("POST", "/commit/"), (501, "no commits here"), "refuses it (501: no commits here)"),
        (("POST", "/repos/create"), (402, "Payment required"), "there is no room for it"),
        (("POST", "/commit/"), 503, "answers 503 time after time; give the same command again"),
        (("GET", "/refs"), "lost", "no connection to"),
    ],
)  # fmt: skip
def test_what_waiting_does_not_mend_is_one_sentence(ask, proxy, tmp_path, where, verdict, told):
    status = verdict if isinstance(verdict, int) else verdict[0]
    folder, repo = _folder(tmp_path / "m", words=str(verdict)), f"spro/bad-{where[1].strip('/')[-3:]}-{status}"
    proxy.begin(at(*where, verdict))
    said = ask(faults.push, folder, repo)
    assert said.startswith(f"told: model {repo}: ") and told in said and said.count("\n") == 0, said
    # repeated only where that can help; the two uploads go side by side, so the second may have begun
    assert proxy.count(*where) in ((6,) if status in (503, "l") else (1, 2) if where[0] == "PUT" else (1,))


def test_the_token_and_the_right_to_write_are_told(ask, proxy, tmp_path):
    proxy.begin()
    folder = _folder(tmp_path / "m")
    assert "does not accept the token; set HF_TOKEN" in ask(
        faults.with_token, "hf_wrong", faults.push, folder, "spro/t"
    )
    assert "there is no token; set HF_TOKEN to one of http" in ask(
        faults.with_token, None, faults.push, folder, "spro/t"
    )


def test_a_repository_that_vanishes_under_the_push_is_told(ask, proxy, tmp_path):
    folder, gone = _folder(tmp_path / "m"), (404, "Repository not found", {"X-Error-Code": "RepoNotFound"})
    proxy.begin(at("POST", "/commit/", gone))
    assert "was at http" in (said := ask(faults.push, folder, "spro/gone")) and "and is gone" in said
    proxy.begin()
    assert len(ask(faults.push, folder, "spro/gone")) == 40


def test_a_name_of_another_type_is_told_where_it_is_read(ask, proxy, tmp_path):
    proxy.begin()
    ask(faults.push, _folder(tmp_path / "m"), "spro/model")
    told = ask(faults.call, "artifacts", "resolve", "spro/model", "dataset", "v1")
    assert "no such repository is to be seen" in told and "there is a model of that name, not a dataset" in told
    # it is no obstacle to a push: a model and a data set may have the same name
    assert len(ask(faults.push, _folder(tmp_path / "m"), "spro/model", "v1", "dataset")) == 40


def test_reading_waits_too(ask, proxy, tmp_path):
    proxy.begin()
    commit = ask(faults.push, _folder(tmp_path / "m"), "spro/read")
    proxy.begin(every(2, [503, 500, "lost"]))
    assert ask(faults.call, "artifacts", "resolve", "spro/read", "model", "v1") == commit
    folder = Path(ask(faults.call, "artifacts", "pull", "spro/read", "model", "v1"))
    assert (folder / "one.safetensors").read_bytes() == (tmp_path / "m" / "one.safetensors").read_bytes()
    proxy.begin(at("GET", "/api/", 503))
    assert "answers 503 time after time" in ask(faults.call, "artifacts", "resolve", "spro/read", "model", "v1")


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("# No header\n", "it has no YAML header"),
        ("---\nlicense: [apache-2.0\n---\n", "the YAML header cannot be read"),
        ("---\nlicense: apache-3\n---\n", '"license"'),
        ("---\nlicense: mit\ndatasets: 3\n---\n", '"datasets" must be'),
    ],
)
def test_a_bad_card_is_told_before_anything_is_asked(ask, proxy, tmp_path, card, told):
    proxy.begin()
    said = ask(faults.push, _folder(tmp_path / "m", card=card), "spro/card")
    assert said.startswith("told: model spro/card: the card README.md is not accepted") and told in said
    assert proxy.seen == []


def test_a_card_that_only_the_hub_refuses_is_told_before_anything_is_made(ask, proxy, tmp_path):
    answer = (400, "bad", {"X-Error-Message": "bad"})
    proxy.begin(at("POST", "/api/validate-yaml", answer))
    said = ask(faults.push, _folder(tmp_path / "m"), "spro/refused")
    assert "the card README.md is not accepted by http" in said and "bad" in said
    assert proxy.seen == [("POST", "/api/validate-yaml")]


@pytest.mark.parametrize("has", [True, False])
def test_a_client_with_xet_pushes_and_pulls_whether_or_not_the_hub_has_it(hub, tmp_path, monkeypatch, has):
    """The client sends big files to Xet wherever hf_xet is installed, and gives up if the Hub has none."""
    with Proxy(hub.url) as proxy:
        monkeypatch.setattr(
            "tests.hub.conftest.client_environment", lambda *_: _with_xet(proxy.url, hub.token, tmp_path)
        )
        with clients(Server(proxy.url, hub.token, hub.process), tmp_path / "home") as ask:
            folder, repo = _folder(tmp_path / "m", words=str(has)), f"spro/xet-{has}"
            lost = at("POST", "/commit/", "lost", times=1)
            proxy.begin(lost if has else at("GET", "xet-write-token", (501, "no Xet here")))
            commit = ask(faults.push, folder, repo)
            assert len(commit) == 40, commit
            assert (proxy.count("PUT", "/lfs/") == 0) == has and proxy.count("GET", "xet-write-token") >= 1
            assert ask(faults.whole, folder, repo, "v1")
            pulled = Path(ask(faults.call, "artifacts", "pull", repo, "model", "v1"))
    assert (pulled / "two.safetensors").read_bytes() == (tmp_path / "m" / "two.safetensors").read_bytes()


def _with_xet(url: str, token: str, home: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": str(home / "home"), "HF_HUB_DISABLE_XET": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip


def test_a_dry_run_pushes_nothing_and_later_stages_find_what_it_made(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts.HfApi, "__init__", None)  # who asks the Hub fails
    monkeypatch.setenv("SPRO_HF_UNPUBLISHED", "")
    from spro_hf.hub.push import push

    unpublished.begin(tmp_path / "dry")
    folder = Path(_folder(tmp_path / "m"))
    made = push(folder, "me/guider", "model", "round/1", "m")
    assert len(made.revision) == 40 and unpublished.on()
    assert push(folder, "me/guider", "model", "round/1", "m") == made  # a run that goes on
    (folder / "a.json").write_text("other")
    with pytest.raises(UserError, match="the tag 'round/1' exists with other content in this dry run"):
        push(folder, "me/guider", "model", "round/1", "m")
    other = push(folder, "me/guider", "model", "v2", "m")
    assert other.revision != made.revision
    found = [artifacts.resolve("me/guider", "model", name) for name in ("round/1", "main", made.revision)]
    assert found == [made.revision, other.revision, made.revision]
    assert (artifacts.pull("me/guider", "model", "round/1") / "a.json").read_text() == '"x"'
    size = sum(f.stat().st_size for f in folder.iterdir())
    assert unpublished.listed() == [
        {"repo": "me/guider", "kind": "model", "tag": "round/1", "files": 4, "bytes": size - len("other") + len('"x"')},
        {"repo": "me/guider", "kind": "model", "tag": "v2", "files": 4, "bytes": size},
    ]
    with pytest.raises(UserError, match="has the tag 'v2' already"):
        artifacts.free([("me/guider", "model", "v2"), ("me/guider", "model", "v3")])
    (folder / "README.md").write_text("# none")
    with pytest.raises(UserError, match="it has no YAML header"):
        push(folder, "me/guider", "model", "v3", "m")
    with pytest.raises(UserError, match="write namespace/name"):
        unpublished.keep(folder, "../out", "model", "v1")
    assert sorted(p.name for p in (tmp_path / "dry").rglob("*.partial")) == []
    unpublished.end()
    assert not unpublished.on() and unpublished.find("me/guider", "model", "v2") is None


def test_seeds_are_read_from_what_a_dry_run_made(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from spro_hf.hub.push import push
    from spro_hf.hub.rows import open_rows
    from spro_hf.parts import Seeds

    monkeypatch.setenv("SPRO_HF_UNPUBLISHED", "")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    unpublished.begin(tmp_path / "dry")
    (tmp_path / "rows/data").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "rows/data/train-00000-of-00001.parquet")
    (tmp_path / "rows/README.md").write_text(CARD)
    push(tmp_path / "rows", "me/rows", "dataset", "v1", "m")
    for streaming in (False, True):
        seeds = Seeds(source="me/rows", count=2, revision="v1", columns={"caption": "text"}, streaming=streaming)
        assert [row["text"] for row in open_rows(seeds, "seeds")] == ["a", "b"]


def test_a_tag_that_is_taken_is_told_before_anything_runs(ask, proxy, tmp_path):
    proxy.begin()
    ask(faults.push, _folder(tmp_path / "m"), "spro/taken")
    wanted = [("spro/taken", "model", "v2"), ("spro/taken", "dataset", "v1"), ("spro/never", "model", "v1")]
    assert ask(faults.call, "artifacts", "free", wanted) == "None"
    told = ask(faults.call, "artifacts", "free", [*wanted, ("spro/taken", "model", "v1")])
    assert "push: model spro/taken has the tag 'v1' already, and a published one is never moved" in told


def _token(role: str, *scopes: tuple[str, str]) -> dict:
    scoped = [{"entity": {"name": name}, "permissions": ["repo.content.read", right]} for name, right in scopes]
    return {"accessToken": {"role": role, **({"fineGrained": {"scoped": scoped}} if scopes else {})}}


@pytest.mark.parametrize(
    ("auth", "told"),
    [
        (_token("write"), None),
        (_token("fineGrained", ("me", "repo.write")), None),
        (_token("fineGrained", ("me/x", "repo.write")), None),
        (_token("fineGrained", ("me", "inference.serverless.write")), "may read but not write me/x"),
        (_token("read"), "may read but not write me/x; set HF_TOKEN"),
    ],
)
def test_a_token_that_only_reads_is_told_before_anything_runs(monkeypatch, auth, told):
    orgs = [{"name": "lab", "roleInOrg": "read"}, {"name": "team", "roleInOrg": "contributor"}]
    monkeypatch.setattr(artifacts.HfApi, "whoami", lambda self: {"name": "me", "orgs": orgs, "auth": auth})
    if told is None:
        artifacts.check_token(["me/x"])
    else:
        with pytest.raises(UserError, match=told):
            artifacts.check_token(["me/x"])
    with pytest.raises(UserError, match="me may only read in lab"):
        artifacts.check_token(["lab/x"])
