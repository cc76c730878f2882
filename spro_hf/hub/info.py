"""What the local Hub tells about repositories: one of them, or those that a search finds."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from spro_hf.hub import front_matter
from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError
from spro_hf.hub.reading import date_of, read_card
from spro_hf.hub.repository import Entry, Repository

_MOST = 1000  # repositories in one answer
_PREFIXED = {
    "license": "license", "datasets": "dataset", "language": "language", "task_categories": "task_categories",
    "size_categories": "size_categories",
}  # fmt: skip
_KNOWN = {"author", "search", "filter", "pipeline_tag", "sort", "direction", "limit", "full", "cardData", "expand"}
_SORTS = {"lastModified", "createdAt", "likes", "downloads", "trendingScore", ""}  # nothing is counted here


def info(call: Call) -> Response:
    with call.open() as repository:
        found, files = _about(call, call.kind, call.id, repository, call.revision)
    siblings = [{"rfilename": e.path} | (_details(e) if call.asks("blobs") else {}) for e in files]
    return JSONResponse(found | {"siblings": siblings})


def found(call: Call) -> Response:
    """The repositories of a kind that the caller may see, the last changed first."""
    query = call.query
    if unknown := sorted({name.removesuffix("[]") for name in query} - _KNOWN):
        raise HubError(501, f"The local Hub cannot list {call.kind}s by '{unknown[0]}'.")
    if query.get("sort", "") not in _SORTS:
        raise HubError(501, f"The local Hub cannot sort {call.kind}s by '{query['sort']}'.")
    wanted = [w.lower() for w in query.getlist("filter") + query.getlist("pipeline_tag")]
    rows = []
    for kind, id in call.store.repositories():
        named = query.get("author") in (None, id.partition("/")[0]) and query.get("search", "").lower() in id.lower()
        if kind != call.kind or not named or not call.sees(kind, id):
            continue
        with call.store.open(kind, id) as repository:
            row, files = _about(call, kind, id, repository, "main")
        if {tag.lower() for tag in row["tags"]} >= set(wanted):
            rows.append(row | {"siblings": [{"rfilename": e.path} for e in files]})
    by = "createdAt" if query.get("sort") == "createdAt" else "lastModified"
    rows.sort(key=lambda row: (row[by], row["id"]), reverse=query.get("direction") != "1")
    more = {"siblings", "cardData"}
    kept = more if call.asks("full") else more & {*query.getlist("expand"), "cardData" if call.asks("cardData") else ""}
    limit = query.get("limit", "")
    rows = rows[: min(_MOST, int(limit) if limit.isdigit() else _MOST)]
    return JSONResponse([{k: v for k, v in row.items() if k not in more - kept} for row in rows])


def own(call: Call) -> Response:
    """The repositories of the caller, or of an organisation of theirs, and the bytes of their files at ``main``."""
    namespace, rows = call.path or call.user.name, []
    if not call.user.belongs_to(namespace):
        raise HubError(403, f"'{call.user.name}' does not belong to '{namespace}'.")
    for kind, id in call.store.repositories():
        if id.partition("/")[0] == namespace:
            with call.store.open(kind, id) as repository:
                told, files = _about(call, kind, id, repository, "main")
            seen = "private" if told["private"] else "public"
            row = {"id": id, "type": kind, "visibility": seen, "storage": sum(e.size for e in files)}
            rows.append(row | {"updatedAt": told["lastModified"]})
    total = sum(row["storage"] for row in rows)
    return JSONResponse([row | {"storagePercent": 100 * row["storage"] / max(1, total)} for row in rows])


def runtime(call: Call) -> Response:
    with call.open() as repository:
        return JSONResponse(_runtime(repository, repository.resolve("main")))


def _about(call: Call, kind: str, id: str, repository: Repository, revision: str) -> tuple[dict, list[Entry]]:
    """What is told of a repository, and its files."""
    commit = repository.resolve(revision)
    steps = list(repository.history(commit))
    files = [e for e in repository.listing(commit, recursive=True) or [] if not e.folder]
    data = front_matter.read(read_card(repository, commit))
    told: dict[str, Any] = {
        "_id": commit[:24],
        "id": id,
        "author": id.split("/")[0],
        "sha": commit,
        "createdAt": date_of(steps[-1]),
        "lastModified": date_of(steps[0]),
        "private": call.store.is_private(kind, id),
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(data),
        "cardData": data,
    }
    if kind == "space":
        told |= {"sdk": data.get("sdk"), "runtime": _runtime(repository, commit)}
    return told | {key: data[key] for key in ("library_name", "pipeline_tag") if key in data}, files


def _runtime(repository: Repository, commit: str) -> dict[str, Any]:
    """Spaces are kept here and not run: what is there is paused."""
    stage = "PAUSED" if repository.entry(commit, "app.py") else "NO_APP_FILE"
    return {"stage": stage, "hardware": {"current": None, "requested": None}, "storage": None, "gcTimeout": None}


def _tags(data: dict[str, Any]) -> list[str]:
    """What one can filter by: the card's own tags, and those that the Hub makes of its other fields."""
    tags = [data[key] for key in ("library_name", "pipeline_tag") if key in data] + _list(data.get("tags"))
    for field, prefix in _PREFIXED.items():
        tags += [f"{prefix}:{value}" for value in _list(data.get(field))]
    for base in _list(data.get("base_model")):
        relation = data.get("base_model_relation")
        tags += [f"base_model:{base}", *([f"base_model:{relation}:{base}"] if relation else [])]
    return list(dict.fromkeys(tags))


def _list(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _details(entry: Entry) -> dict[str, Any]:
    lfs = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return {"blobId": entry.oid, "size": entry.size} | ({"lfs": lfs} if entry.sha256 else {})
