"""What the local Hub does at the clients' writing calls; all of them need a token that may write there."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import JSONResponse, Response

from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError
from spro_hf.hub.repository import LFS_SIZE, LFS_SUFFIXES
from spro_hf.hub.store import KINDS


def _text(data: dict[str, Any], name: str) -> str:
    if not isinstance(data.get(name), str) or not data[name]:
        raise HubError(400, f"The field '{name}' is missing.")
    return data[name]


def _named(call: Call, data: dict[str, Any]) -> tuple[str, str]:
    """Kind and id of the repository that a create or delete call is about."""
    kind = data.get("type") or "model"
    if kind not in KINDS:
        raise HubError(501, f"The local Hub keeps {', '.join(KINDS)} repositories, not '{kind}'.")
    return kind, f"{data.get('organization') or call.user.name}/{_text(data, 'name')}"


def _private(data: dict[str, Any]) -> bool:
    return data["visibility"] == "private" if "visibility" in data else bool(data.get("private"))


def create(call: Call) -> Response:
    """A new repository; a Space has a first card that names its SDK."""
    data = call.json()
    kind, id = _named(call, data)
    call.check_writes(id)
    answer, card = {"url": call.page(kind, id), "name": id}, ""
    if kind == "space":
        sdk = _text(data, "sdk")
        card = f"---\ntitle: {json.dumps(id.partition('/')[2])}\nsdk: {json.dumps(sdk)}\n---\n"
    try:
        call.store.create(kind, id, _private(data), call.user.name, card)
    except HubError as error:
        if error.status != 409:
            raise
        return JSONResponse(answer | {"error": error.message}, status_code=409)  # the clients want the address here
    return JSONResponse(answer)


def delete(call: Call) -> Response:
    kind, id = _named(call, call.json())
    call.check_seen(kind, id)
    call.check_writes(id)
    call.store.delete(kind, id)
    return JSONResponse({})


def move(call: Call) -> Response:
    data = call.json()
    kind, id, to = data.get("type") or "model", _text(data, "fromRepo"), _text(data, "toRepo")
    call.check_seen(kind, id)
    call.check_writes(id)
    call.check_writes(to)
    call.store.move(kind, id, to)
    return JSONResponse({"url": call.page(kind, to)})


def settings(call: Call) -> Response:
    data = call.json()
    if unknown := set(data) - {"private", "visibility"}:
        raise HubError(501, f"The local Hub has no setting '{min(unknown)}'.")
    call.store.set_private(call.kind, call.id, _private(data))
    return JSONResponse({"private": _private(data)})


def preupload(call: Call) -> Response:
    """How each file is to come, and the id of what is there now, by which the client drops unchanged files."""
    if call.asks("create_pr"):
        raise HubError(501, "The local Hub has no pull requests; commit to a branch.")
    with call.open() as repository:
        commit, answers = repository.resolve(call.revision), []
        for file in call.json().get("files", []):
            if not isinstance(file, dict) or not isinstance(file.get("size", 0), int):
                raise HubError(400, "Each of 'files' has a path and a size.")
            path, size = _text(file, "path"), int(file.get("size", 0))
            lfs = size > 0 and (path.lower().endswith(tuple(f".{s}" for s in LFS_SUFFIXES)) or size > LFS_SIZE)
            entry = repository.entry(commit, path)
            answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if entry and not entry.folder and bool(entry.sha256) == lfs:
                answer["oid"] = entry.sha256 or entry.oid
            answers.append(answer)
    return JSONResponse({"files": answers})


def commit(call: Call) -> Response:
    """The body is one JSON object a line: the header, then the operations."""
    if call.asks("create_pr"):
        raise HubError(501, "The local Hub has no pull requests; commit to a branch.")
    try:
        lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    except ValueError as error:
        raise HubError(400, f"A line of the commit is not JSON: {error}.") from None
    if not lines or not all(isinstance(line, dict) for line in lines) or lines[0].get("key") != "header":
        raise HubError(400, "A commit is a header and its operations, one JSON object a line.")
    header = lines[0].get("value")
    if not isinstance(header, dict):
        raise HubError(400, "The header of a commit is an object.")
    _text(header, "summary")
    if not re.fullmatch(r"[0-9a-fA-F]{5,40}", header.get("parentCommit") or "00000"):
        raise HubError(400, "The field 'parentCommit' is not a commit.")
    with call.open() as repository:
        oid = repository.commit(call.revision, header, lines[1:], call.user.name)
    url = f"{call.page(call.kind, call.id)}/commit/{oid}"
    return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def add_branch(call: Call) -> Response:
    with call.open() as repository:
        repository.add_ref("heads", call.revision, call.json().get("startingPoint") or "main")
    return JSONResponse({})


def remove_branch(call: Call) -> Response:
    with call.open() as repository:
        repository.remove_ref("heads", call.revision)
    return JSONResponse({})


def add_tag(call: Call) -> Response:
    data = call.json()
    message = data.get("message") or ""
    if not isinstance(message, str):
        raise HubError(400, "The field 'message' of a tag is text.")
    with call.open() as repository:
        repository.add_ref("tags", _text(data, "tag"), call.revision, message, call.user.name)
    return JSONResponse({})


def remove_tag(call: Call) -> Response:
    with call.open() as repository:
        repository.remove_ref("tags", call.revision)
    return JSONResponse({})
