"""The local Hub's pages: what they show, to whom, and what they never run or load."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from base64 import b64encode

import git_clients as ask
import pytest

from spro_hf.hub.markdown import rendered

CARD = """---
license: mit
---
# The <b>card</b>

<script>alert(1)</script> [bad](javascript:alert(1)) [file](notes/a%20b.txt) [web](https://example.org/x)

![grid](showcase/grid.png) ![far](https://example.org/far.png) ![own](./own.png)

| a | b |
|---|---|
| 1 | 2 |
"""
PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")


def get(address: str, token: str = "") -> tuple[int, str, dict[str, str]]:
    headers = {"Authorization": "Basic " + b64encode(f"me:{token}".encode()).decode()} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), dict(answer.headers.items())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers.items())


@pytest.fixture(scope="module")
def pushed(do):
    """The commits of an input and of what was made from it, and a private repository."""
    start = do(ask.two_commits, "spro/page-input", "dataset")[0]
    do(ask.two_commits, "spro/page-hidden", "model", True)
    inputs = [
        {"what": "pairs", "repo": "spro/page-input", "kind": "dataset", "revision": "v1", "commit": start},
        {"what": "base <i>", "repo": "else/where", "kind": "model", "revision": None, "commit": "ab" * 20},
        {"what": "secret", "repo": "spro/page-hidden", "kind": "model", "revision": "v1", "commit": start},
    ]
    do(ask.two_commits, "spro/page", "model")
    files = {"README.md": CARD.encode(), "lineage.json": json.dumps({"inputs": inputs}).encode()}
    files |= {"showcase/grid.png": PIXEL, "notes/a b.txt": b"<b>"}
    made = do(ask.commit_files, "spro/page", files)
    do(ask.tag, "spro/page", "round/1", made)
    return start, made


def test_the_first_page_lists_what_may_be_seen_with_newest_tag_and_date(hub, pushed):
    status, text, headers = get(hub.url)
    assert status == 200 and "width=device-width" in text
    assert '<a href="/spro/page"><span class=quiet>spro/</span><wbr>page</a>' in text
    row = text.split('href="/spro/page">')[1].split("</tr>")[0]
    assert '<a class=tag href="/spro/page/tree/round%2F1">round/1</a> <span class=quiet>of 2</span>' in row
    assert "<time datetime=" in row
    assert "page-hidden" not in text and "log in with a token" in text
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "img-src 'self'" in policy and "script" not in policy
    style = get(hub.url + "/style.css")
    assert style[2]["content-type"].startswith("text/css") and "prefers-color-scheme" not in text
    assert "color-scheme: light dark" in style[1]


def test_what_is_private_shows_to_who_logs_in(hub, pushed):
    assert get(hub.url + "/spro/page-hidden")[0] == 404
    assert get(hub.url + "/spro/page-hidden")[1].replace("page-hidden", "x") == get(hub.url + "/spro/x")[1]
    status, _, headers = get(hub.url + "/login")
    assert status == 401 and headers["www-authenticate"].startswith("Basic realm=")
    assert get(hub.url + "/login", "hf_wrong")[0] == 401
    status, text, _ = get(hub.url + "/login", hub.token)  # is sent on to the first page
    assert status == 200 and "page-hidden</a> <span class=private>private</span>" in text
    assert get(hub.url + "/spro/page-hidden", hub.token)[0] == 200
    # a browser sends its login with everything that a page is made of
    assert get(hub.url + "/style.css", hub.token)[0] == 200
    file = "/spro/page-hidden/resolve/main/.gitattributes"
    assert get(hub.url + file, hub.token)[0] == 200 and get(hub.url + file)[0] in (401, 404)
    create = urllib.request.Request(hub.url + "/api/repos/create", b'{"name": "by-page"}')
    create.add_header("Authorization", "Basic " + b64encode(f"me:{hub.token}".encode()).decode())
    with pytest.raises(urllib.error.HTTPError, match="401"):  # else any page in that browser could write here
        urllib.request.urlopen(create)


def test_a_repositorys_page_shows_card_versions_inputs_and_files(hub, pushed):
    start, made = pushed
    status, text, _ = get(hub.url + "/spro/page/tree/round%2F1")
    assert status == 200 and f"<code>{made[:12]}</code>" in text and "by spro" in text
    assert "The &lt;b&gt;card&lt;/b&gt;" in text and "&lt;script&gt;alert(1)" in text and "<script" not in text
    assert f'src="/spro/page/resolve/{made}/showcase/grid.png"' in text
    assert "<summary>Metadata</summary><pre>license: mit</pre>" in text
    versions = text.split("<h2>Versions</h2>")[1].split("</section>")[0]
    assert versions.index("round/1") < versions.index(">v1<") and versions.count("<li class=here>") == 1
    inputs = text.split("<h2>Made from</h2>")[1].split("</section>")[0]
    assert f'<a href="/datasets/spro/page-input/tree/{start}">spro/page-input@v1</a>' in inputs
    assert f"<li>else/where@{'ab' * 6} <span class=quiet>base &lt;i&gt;</span>" in inputs
    assert "<li>spro/page-hidden@v1" in inputs  # is named by the file, and not linked
    assert f'href="/spro/page/resolve/{made}/notes/a%20b.txt">notes/a b.txt</a><span class=size>3 B' in text
    assert f"git clone {hub.url}/spro/page" in text and "hf download spro/page --revision round/1" in text
    assert get(f"{hub.url}/datasets/spro/page-input/tree/{start}")[0] == 200
    assert get(hub.url + "/spro/page/tree/v9")[0] == 404


def test_files_are_shown_and_never_run(hub, pushed):
    _, body, headers = get(f"{hub.url}/spro/page/resolve/{pushed[1]}/notes/a%20b.txt")
    assert (body, headers["content-type"]) == ("<b>", "text/plain; charset=utf-8")
    picture = get(f"{hub.url}/spro/page/resolve/{pushed[1]}/showcase/grid.png")[2]
    assert picture["content-type"] == "image/png"
    for sent in (headers, picture):
        assert sent["content-security-policy"] == "sandbox; default-src 'none'"
        assert sent["x-content-type-options"] == "nosniff"


def test_a_card_loads_nothing_from_outside_and_its_own_files_from_one_commit():
    text = rendered(CARD.split("---\n")[2], "/spro/page/resolve/c0ffee/")
    assert "<h2>The &lt;b&gt;card&lt;/b&gt;</h2>" in text
    assert '<a href="/spro/page/resolve/c0ffee/notes/a%20b.txt">file</a>' in text
    assert '<img src="/spro/page/resolve/c0ffee/own.png" alt="own" />' in text
    assert '<a href="https://example.org/x">web</a>' in text
    assert "far.png" not in text and "[picture: far]" in text
    assert "javascript:alert(1)" in text and 'href="javascript' not in text
    assert text.count("<div class=wide><table>") == text.count("</table></div>") == 1
