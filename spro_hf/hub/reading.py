"""What the local Hub answers to the clients' reading calls."""

from __future__ import annotations

import mimetypes
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote

from dulwich.objects import Commit
from starlette.responses import FileResponse, JSONResponse, Response

from spro_hf.hub import front_matter
from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError, entry_not_found
from spro_hf.hub.repository import Entry, Repository, author_of


def whoami(call: Call) -> Response:
    user = call.user
    auth = {"type": "access_token", "accessToken": {"displayName": "local", "role": user.role}}
    orgs = [{"type": "org", "id": org, "name": org, "fullname": org, "roleInOrg": user.role} for org in user.orgs]
    me = {"type": "user", "id": user.name, "name": user.name, "fullname": user.name}
    return JSONResponse(me | {"orgs": orgs, "auth": auth})


def auth_check(call: Call) -> Response:
    """Nothing is gated here: who may see a repository may have its files."""
    with call.store.open(call.kind, call.id):
        return JSONResponse({})


def validate_yaml(call: Call) -> Response:
    errors, warnings = front_matter.check(str(call.json().get("content", "")))
    found = {"errors": [{"message": m} for m in errors], "warnings": [{"message": m} for m in warnings]}
    return JSONResponse(found, status_code=400 if errors else 200)


def read_card(repository: Repository, commit: str) -> str:
    """README.md at a commit, or nothing. Its header was checked when it was committed."""
    entry = repository.entry(commit, "README.md")
    return "" if entry is None or entry.folder or entry.sha256 else repository.content(entry).decode()


def tree(call: Call) -> Response:
    with call.open() as repository:
        commit = repository.resolve(call.revision)
        found = repository.listing(commit, call.path, call.asks("recursive"))
        if found is None:
            raise entry_not_found(call.path, call.revision, commit)
        return JSONResponse(_entries(repository, commit, found, call.asks("expand")))


def paths_info(call: Call) -> Response:
    """The body is a form: ``paths`` (repeated) and ``expand``. Paths that are not there are left out."""
    form = parse_qs(call.body.decode(), keep_blank_values=True)
    with call.open() as repository:
        commit = repository.resolve(call.revision)
        found = [e for path in form.get("paths", []) if (e := repository.entry(commit, path))]
        return JSONResponse(_entries(repository, commit, found, form.get("expand", [""])[0].lower() in ("1", "true")))


def refs(call: Call) -> Response:
    with call.open() as repository:
        found = {
            name: [
                {"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": c} for n, c in repository.refs(folder).items()
            ]
            for name, folder in (("branches", "heads"), ("tags", "tags"))
        }
    return JSONResponse(found | {"converts": [], "pullRequests": []})


def commits(call: Call) -> Response:
    with call.open() as repository:
        steps = list(repository.history(repository.resolve(call.revision)))
    return JSONResponse([_commit(step) | {"authors": [{"user": author_of(step)}]} for step in steps])


def resolve(call: Call) -> Response:
    """A file's bytes (GET, with Range) or what is known about them (HEAD)."""
    with call.open() as repository:
        commit = repository.resolve(call.revision)
        entry = repository.entry(commit, call.path)
        if entry is None or entry.folder:
            raise entry_not_found(call.path, call.revision, commit)
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{entry.sha256 or entry.oid}"',
            "Accept-Ranges": "bytes",
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(entry.path.rsplit('/')[-1])}",
            # What a repository holds is shown, never run, in the browser of whoever looks at it.
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "X-Content-Type-Options": "nosniff",
        }
        if entry.sha256 is None:
            return _part(repository.content(entry), call.headers.get("range"), headers, _media_type(entry.path))
    headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    return FileResponse(call.store.lfs_path(entry.sha256), headers=headers, media_type=_media_type(entry.path))


def _part(content: bytes, wanted: str | None, headers: dict[str, str], media_type: str) -> Response:
    """The whole content, or the one range of bytes that was asked for ("bytes=2-5", "bytes=2-", "bytes=-4")."""
    unit, _, span = (wanted or "").partition("=")
    first, dash, last = span.partition("-")
    if unit != "bytes" or not dash or not re.fullmatch("[0-9]+", first + last):
        return Response(content, headers=headers, media_type=media_type)
    start = int(first) if first else max(0, len(content) - int(last))
    end = min(int(last), len(content) - 1) if first and last else len(content) - 1
    if start > end:
        raise HubError(416, "The range lies outside the file.", headers={"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return Response(content[start : end + 1], 206, headers, media_type)


def _media_type(path: str) -> str:
    guess = mimetypes.guess_type(path)[0] or "application/octet-stream"
    text = path.endswith((".md", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".csv", ".py", ".jinja", ".gitattributes"))
    return "text/plain; charset=utf-8" if text else guess if guess.startswith("image/") else "application/octet-stream"


def _entries(repository: Repository, commit: str, entries: list[Entry], expand: bool) -> list[dict[str, Any]]:
    found = []
    for entry in entries:
        data = {
            "type": "directory" if entry.folder else "file",
            "path": entry.path,
            "oid": entry.oid,
            "size": entry.size,
        }
        if entry.sha256:
            data["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
        if expand:
            data["lastCommit"] = _commit(_last_change(repository, commit, entry))
        found.append(data)
    return found


def _last_change(repository: Repository, commit: str, entry: Entry) -> Commit:
    """The oldest commit from which the entry has been what it is."""
    last = None
    for step in repository.history(commit):
        before = repository.entry(step.id.decode(), entry.path)
        if before is None or before.oid != entry.oid:
            break
        last = step
    return last


def _commit(step: Commit) -> dict[str, str]:
    title, _, message = step.message.decode().partition("\n")
    return {"id": step.id.decode(), "title": title, "message": message.strip(), "date": date_of(step)}


def date_of(step: Commit) -> str:
    return datetime.fromtimestamp(step.commit_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
