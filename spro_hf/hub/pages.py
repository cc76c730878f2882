"""The local Hub in a browser: what is there, and of each repository its card, versions, inputs and files.

Plain HTML and CSS. Everything shown is escaped, and a card's own HTML is shown and not run; the page may load its style
and the repository's pictures and nothing else. What is private shows to who logs in, with a token as the password.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from urllib.parse import quote

from starlette.responses import HTMLResponse, RedirectResponse, Response

from spro_hf.hub import front_matter
from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError
from spro_hf.hub.markdown import rendered
from spro_hf.hub.reading import date_of, read_card
from spro_hf.hub.repository import Entry, Repository, author_of

STYLE_ADDRESS = "/style.css"
_STYLE = Path(__file__).with_name("style.css")
_TITLES = {"model": "Models", "dataset": "Datasets", "space": "Spaces"}
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def style(call: Call) -> Response:
    return Response(_STYLE.read_text(), media_type="text/css", headers={"Cache-Control": "max-age=60"})


def _page(title: str, body: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="{STYLE_ADDRESS}"><link rel="icon" href="data:,">'
    )
    text = f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>"
    sent = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "same-origin", "Cache-Control": "no-cache"}
    return HTMLResponse(text, status, sent | (headers or {}))


def refusal(error: HubError) -> Response:
    """What a browser shows when there is nothing to show."""
    nav = '<nav><a href="/">Local Hub</a><a href="/login">log in</a></nav>'
    body = f"{nav}<main><h1>{error.status}</h1><p>{escape(error.message)}</p></main>"
    return _page(str(error.status), body, error.status, error.headers)


def login(call: Call) -> Response:
    """The browser asks for a token, and sends it with the pages from then on."""
    if call.user is None:
        raise HubError(401, "A token of this Hub is asked for, as the password; the name does not matter.")
    return RedirectResponse("/", 303)


def _address(kind: str, id: str, revision: str = "") -> str:
    place = f"/{'' if kind == 'model' else kind + 's/'}{quote(id)}"
    return f"{place}/tree/{quote(revision, safe='')}" if revision else place


def _newest(repository: Repository) -> list[tuple[str, str, str, str]]:
    """Tags as (name, commit, date, title of the commit), the newest first."""
    found = []
    for name, oid in repository.refs("tags").items():
        step = next(repository.history(oid))
        found.append((step.commit_time, len(name), name, oid, date_of(step), step.message.decode().partition("\n")[0]))
    return [row[2:] for row in sorted(found, reverse=True)]


def index(call: Call) -> Response:
    """All repositories that the caller may see, each with its newest tag and the date of its last change."""
    rows: dict[str, list[str]] = {kind: [] for kind in _TITLES}
    for kind, id in call.store.repositories():
        if not call.sees(kind, id):
            continue
        with call.store.open(kind, id) as repository:
            tags = _newest(repository)
            changed = date_of(next(repository.history(repository.resolve("main"))))
        address = _address(kind, id)
        newest = f'<a class=tag href="{_address(kind, id, tags[0][0])}">{escape(tags[0][0])}</a>' if tags else ""
        more = f" <span class=quiet>of {len(tags)}</span>" if len(tags) > 1 else ""
        rows[kind].append(
            f'<tr><td><a href="{address}">{_name(id)}</a>{_mark(call, kind, id)}</td><td>{newest}{more}</td>'
            f"<td class=date>{_day(changed)}</td></tr>"
        )
    head = "<tr><th>repository</th><th>newest tag</th><th class=date>changed (UTC)</th></tr>"
    body = "".join(
        f"<h2>{title} <span class=quiet>{len(rows[kind])}</span></h2><table class=list>{head}{''.join(rows[kind])}</table>"
        for kind, title in _TITLES.items()
        if rows[kind]
    )
    if not body:
        body = "<p>Nothing to see yet: what is pushed here shows on this page.</p>"
    if call.user is None:
        body += '<p class=quiet>What is private shows when you <a href="/login">log in with a token</a>.</p>'
    return _page("Local Hub", f"<nav>Local Hub{_who(call)}</nav><main><h1>What is here</h1>{body}</main>")


def repository(call: Call) -> Response:
    """One repository at a revision: its card, and beside it how to get it, its versions, inputs and files."""
    with call.open() as opened:
        commit = opened.resolve(call.revision)
        step, tags, branches = next(opened.history(commit)), _newest(opened), list(opened.refs("heads"))
        files = [e for e in opened.listing(commit, recursive=True) or [] if not e.folder]
        header, text = front_matter.split(read_card(opened, commit))
        inputs = _inputs(call, opened, commit)
    here, label = _address(call.kind, call.id), call.revision
    card = rendered(text, f"{here}/resolve/{commit}/") if text.strip() else "<p class=quiet>It has no card.</p>"
    if header.strip():
        card = f"<details><summary>Metadata</summary><pre>{escape(header.strip())}</pre></details>{card}"
    by = f"{_day(date_of(step))} by {escape(author_of(step))}"
    aside = (
        f"<section><h2>Get it</h2><pre>git clone {escape(call.page(call.kind, call.id))}</pre>"
        f"<pre>hf download {escape(call.id)}{'' if call.kind == 'model' else f' --repo-type {call.kind}'}"
        f"{'' if label == 'main' else f' --revision {escape(label)}'}</pre></section>"
        + _versions(call, tags, branches, commit)
        + (f"<section><h2>Made from</h2><ul>{inputs}</ul></section>" if inputs else "")
        + _files(here, commit, files)
    )
    body = (
        f'<nav><a href="/">Local Hub</a>{_who(call)}</nav><main><h1>{_name(call.id)}{_mark(call, call.kind, call.id)}</h1>'
        f"<p class=quiet>{call.kind} at <b>{escape(label)}</b>, commit <code>{commit[:12]}</code>, {by}</p>"
        f"<div class=two><article class=card>{card}</article><aside>{aside}</aside></div></main>"
    )
    return _page(call.id, body)


def _versions(call: Call, tags: list[tuple[str, str, str, str]], branches: list[str], commit: str) -> str:
    rows = "".join(
        f'<li{" class=here" if oid == commit else ""}><a class=tag href="{_address(call.kind, call.id, name)}">{escape(name)}</a>'
        f"<span class=date>{_day(date)}</span><div class=quiet><code>{oid[:12]}</code> {escape(title)}</div></li>"
        for name, oid, date, title in tags
    )
    links = " ".join(f'<a class=tag href="{_address(call.kind, call.id, b)}">{escape(b)}</a>' for b in branches)
    listed = f"<ul class=rows>{rows}</ul>" if rows else "<p class=quiet>It has no tag.</p>"
    return f"<section><h2>Versions</h2>{listed}<p>Branches: {links}</p></section>"


def _files(here: str, commit: str, files: list[Entry]) -> str:
    rows = "".join(
        f'<li><a href="{here}/resolve/{commit}/{quote(e.path)}">{escape(e.path)}</a><span class=size>{_size(e.size)}</span></li>'
        for e in files
    )
    total = _size(sum(e.size for e in files))
    return f"<section><h2>Files <span class=quiet>{len(files)}, {total}</span></h2><ul class='rows files'>{rows}</ul></section>"


def _inputs(call: Call, repository: Repository, commit: str) -> str:
    """The repositories that ``lineage.json`` names, linked at the very commit if they are here."""
    entry = repository.entry(commit, "lineage.json")
    if entry is None or entry.folder or entry.sha256:
        return ""
    try:
        named = json.loads(repository.content(entry))["inputs"]
        rows = [tuple(str(i.get(key) or "") for key in ("repo", "kind", "revision", "commit", "what")) for i in named]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""  # a file of that name that is not ours
    found = ""
    for repo, kind, revision, oid, what in rows:
        shown = escape(f"{repo}@{revision or oid[:12]}")
        if kind in _TITLES and call.sees(kind, repo):
            shown = f'<a href="{_address(kind, repo, oid or revision or "main")}">{shown}</a>'
        found += f"<li>{shown}{f' <span class=quiet>{escape(what)}</span>' if what else ''}</li>"
    return found


def _name(id: str) -> str:
    namespace, _, name = id.partition("/")
    return f"<span class=quiet>{escape(namespace)}/</span><wbr>{escape(name)}"


def _mark(call: Call, kind: str, id: str) -> str:
    return " <span class=private>private</span>" if call.store.is_private(kind, id) else ""


def _who(call: Call) -> str:
    return f"<span class=quiet>{escape(call.user.name)}</span>" if call.user else '<a href="/login">log in</a>'


def _day(date: str) -> str:
    return f'<time datetime="{date}">{date[:10]} {date[11:16]}</time>'


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
