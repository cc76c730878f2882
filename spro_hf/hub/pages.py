"""The local Hub in a browser: what is there, its tags, its cards and files. Everything shown is HTML-escaped."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from spro_hf.hub import front_matter
from spro_hf.hub.call import Call
from spro_hf.hub.reading import read_card

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
a { color: light-dark(#0b57a4, #8bc1ff); } ul { list-style: none; padding: 0; }
li { padding: .35rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.tag { background: var(--soft); border-radius: .3rem; padding: .1rem .45rem; margin-right: .3rem; white-space: nowrap; }
.size { float: right; opacity: .7; } .quiet { opacity: .75; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: 1rem; border-radius: .4rem; }
"""
_TITLES = {"model": "Models", "dataset": "Datasets", "space": "Spaces"}


def _page(title: str, body: str) -> Response:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    text = f"<!doctype html><html lang=en><head>{head}<title>{escape(title)}</title><style>{_STYLE}</style></head>"
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return HTMLResponse(f"{text}<body>{body}</body></html>", headers=policy)


def _address(kind: str, id: str) -> str:
    return f"/{'' if kind == 'model' else kind + 's/'}{quote(id)}"


def _refs(address: str, names: list[str]) -> str:
    return " ".join(f'<a class=tag href="{address}/tree/{quote(n, safe="")}">{escape(n)}</a>' for n in names)


def index(call: Call) -> Response:
    """All repositories that may be seen without the token, with their tags."""
    found = call.store.repositories()
    seen = [(kind, id) for kind, id in found if not call.store.is_private(kind, id)]
    body = "<h1>Local Hub</h1>"
    for kind, title in _TITLES.items():
        rows = []
        for id in [i for k, i in seen if k == kind]:
            with call.store.open(kind, id) as repository:
                tags = list(repository.refs("tags"))
            address = _address(kind, id)
            rows.append(f'<li><a href="{address}">{escape(id)}</a> {_refs(address, tags)}</li>')
        body += f"<h2>{title} <span class=quiet>({len(rows)})</span></h2><ul>{''.join(rows)}</ul>" if rows else ""
    if not seen:
        body += "<p>Nothing has been pushed yet.</p>"
    if hidden := len(found) - len(seen):
        body += f"<p class=quiet>{hidden} private, not shown here.</p>"
    return _page("Local Hub", body)


def repository(call: Call) -> Response:
    """One repository at a revision: how to load it, its tags, files and card."""
    with call.open() as opened:
        commit = opened.resolve(call.revision)
        tags, branches = list(opened.refs("tags")), list(opened.refs("heads"))
        files = [e for e in opened.listing(commit, recursive=True) or [] if not e.folder]
        card = read_card(opened, commit)
    address, (header, text) = _address(call.kind, call.id), front_matter.split(card)
    rows = [
        f'<li><span class=size>{_size(e.size)}</span><a href="{address}/resolve/{commit}/{quote(e.path)}">'
        f"{escape(e.path)}</a></li>"
        for e in files
    ]
    body = (
        f'<p><a href="/">Local Hub</a></p><h1>{escape(call.id)}</h1>'
        f"<p class=quiet>{call.kind} at <code>{escape(call.revision)}</code>, commit <code>{commit[:12]}</code></p>"
        f"<p>Tags: {_refs(address, tags) or 'none'}</p><p>Branches: {_refs(address, branches)}</p>"
        + (f"<h2>Card</h2><pre>{escape(text.strip())}</pre>" if text.strip() else "<p>It has no card.</p>")
        + (f"<details><summary>Metadata</summary><pre>{escape(header)}</pre></details>" if header else "")
        + f"<h2>Files <span class=quiet>({len(rows)})</span></h2><ul>{''.join(rows)}</ul>"
    )
    return _page(call.id, body)


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
