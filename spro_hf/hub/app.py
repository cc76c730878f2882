"""The routes of the local Hub, as the public clients call them.

Routes are matched on the raw path, since branches, tags and revisions arrive percent-encoded as one segment.
Not there, and answered with 501: Xet, pull requests and discussions, gating, search, likes, collections, git over
HTTP, LFS downloads through the batch call, squashing history, notes on tags, redirects from moved repositories.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from spro_hf.hub import pages, reading, writing
from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError, repository_not_found
from spro_hf.hub.store import Store

_MOST = 256 << 20  # bytes of a request's body; big files come through LFS, which streams
_INVALID = (
    "Invalid credentials in Authorization header"  # by these words the clients tell a bad token from no repository
)
_REPO = r"(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_SITE = r"(?:(?P<kinds>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"
_REV, _PATH = r"(?P<revision>[^/]+)", r"(?P<path>.*)"
_SHORT = (
    r"/api/(?P<kinds>models|datasets|spaces)/(?P<id>[^/]+)(?:/(?:revision|tree|refs|commits|paths-info)(?:/.*)?)?"
    r"|/(?:(?P<site>datasets|spaces)/)?(?P<name>[^/]+)/resolve/[^/]+/.*"
)
# method, path, what answers, and who may ask: "read", "write" (needs the token) or "check" (reads by POST)
_ROUTES: list[tuple[str, str, Callable[[Call], Response], str]] = [
    ("GET", "/api/whoami-v2", reading.whoami, "write"),
    ("POST", "/api/validate-yaml", reading.validate_yaml, "check"),
    ("GET", f"/api/{_REPO}(?:/revision/{_REV})?", reading.info, "read"),
    ("GET", f"/api/{_REPO}/tree/{_REV}(?:/{_PATH})?", reading.tree, "read"),
    ("POST", f"/api/{_REPO}/paths-info/{_REV}", reading.paths_info, "read"),
    ("GET", f"/api/{_REPO}/auth-check", reading.auth_check, "read"),
    ("GET", f"/api/{_REPO}/refs", reading.refs, "read"),
    ("GET", f"/api/{_REPO}/commits/{_REV}", reading.commits, "read"),
    ("GET", f"/{_SITE}/resolve/{_REV}/{_PATH}", reading.resolve, "read"),
    ("POST", "/api/repos/create", writing.create, "write"),
    ("DELETE", "/api/repos/delete", writing.delete, "write"),
    ("POST", "/api/repos/move", writing.move, "write"),
    ("PUT", f"/api/{_REPO}/settings", writing.settings, "write"),
    ("POST", f"/api/{_REPO}/preupload/{_REV}", writing.preupload, "write"),
    ("POST", f"/{_SITE}\\.git/info/lfs/objects/batch", writing.lfs_batch, "write"),
    ("POST", f"/api/{_REPO}/commit/{_REV}", writing.commit, "write"),
    ("POST", f"/api/{_REPO}/branch/{_REV}", writing.add_branch, "write"),
    ("DELETE", f"/api/{_REPO}/branch/{_REV}", writing.remove_branch, "write"),
    ("POST", f"/api/{_REPO}/tag/{_REV}", writing.add_tag, "write"),
    ("DELETE", f"/api/{_REPO}/tag/{_REV}", writing.remove_tag, "write"),
    ("GET", "/", pages.index, "read"),
    ("GET", f"/(?!api/){_SITE}(?:/(?:tree|commit)/{_REV})?/?", pages.repository, "read"),
]
_TABLE = [(method, re.compile(path), answer, access) for method, path, answer, access in _ROUTES]


class App:
    """The ASGI application over one store and one token."""

    def __init__(self, store: Store, token: str) -> None:
        self.store, self._token, self._key = store, token, secrets.token_bytes(32)

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except HubError as error:
            response = _refusal(error)
        except ClientDisconnect:
            return  # nobody is left to answer; an unfinished upload has been removed
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii", "replace").split("?")[0]
        method = "GET" if request.method == "HEAD" else request.method
        if method == "PUT" and (found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path)):
            return await self._lfs_put(request, found[1])
        for verb, pattern, answer, access in _TABLE:
            if verb == method and (found := pattern.fullmatch(path)):
                call = self._call(request, {k: v for k, v in found.groupdict().items() if v is not None})
                self._admit(call, access)
                call.body = await _body(request)
                return await run_in_threadpool(answer, call)
        if found := re.fullmatch(_SHORT, path):
            kinds, name = found["kinds"] or found["site"] or "models", found["id"] or found["name"]
            raise repository_not_found(kinds[:-1], unquote(name))
        raise HubError(501, f"The local Hub does not do {request.method} {path}.")

    def _call(self, request: Request, parts: dict[str, str]) -> Call:
        kind = parts.pop("kinds", "models")[:-1]
        parts = {name: unquote(value) for name, value in parts.items()}
        return Call(
            store=self.store,
            kind=kind,
            id=parts.get("id", ""),
            revision=parts.get("revision", "main"),
            path=parts.get("path", ""),
            query=request.query_params,
            headers=request.headers,
            base=f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}",
            sign=self._sign,
        )

    def _admit(self, call: Call, access: str) -> None:
        given = call.headers.get("authorization")
        trusted = given is not None and hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())
        if given is not None and not trusted:
            raise HubError(401, f"{_INVALID}: the local Hub's token is kept in the file 'token' of its folder.")
        if access == "write" and not trusted:
            raise HubError(401, f"{_INVALID}: this needs the local Hub's token, and none was sent; set HF_TOKEN.")
        if call.id and not trusted and self.store.is_private(call.kind, call.id):
            raise HubError(401, f"'{call.id}' is private or does not exist.", "RepoNotFound")

    def _sign(self, sha256: str, size: int) -> str:
        return hmac.new(self._key, f"{sha256}:{size}".encode(), "sha256").hexdigest()

    async def _lfs_put(self, request: Request, sha256: str) -> Response:
        """Uploads carry no token but an address that this process signed."""
        size, signature = request.query_params.get("size", ""), request.query_params.get("signature", "")
        if not size.isdigit() or not hmac.compare_digest(signature.encode(), self._sign(sha256, int(size)).encode()):
            raise HubError(403, "This upload address is not valid any more; ask for a new one.")
        await self.store.lfs_write(sha256, int(size), request.stream())
        return Response(status_code=200)


async def _body(request: Request) -> bytes:
    parts, total = [], 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > _MOST:
            raise HubError(413, f"The request is larger than {_MOST >> 20} MiB; send big files through LFS.")
        parts.append(chunk)
    return b"".join(parts)


def _refusal(error: HubError) -> Response:
    told = _INVALID if error.message.startswith(_INVALID) else error.message
    headers = {"X-Error-Message": told.encode("ascii", "replace").decode().replace("\n", " "), **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, status_code=error.status, headers=headers)
