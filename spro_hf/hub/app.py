"""The local Hub as the public clients call it: who asks, whether they may, and what is answered when it cannot be done.

Not there, and answered with 501: pull requests and discussions, gating, likes, collections, duplicates, squashing
history, webhooks, jobs, running Spaces and their secrets, reading by Xet (clients then read by HTTP). Pushing by git is
refused (403).
"""

from __future__ import annotations

import base64
import binascii
import errno
import hmac
import re
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from spro_hf.hub import pages, xet
from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError, repository_not_found
from spro_hf.hub.routes import LARGE, SHORT, TABLE
from spro_hf.hub.store import Store
from spro_hf.hub.users import User, Users

_LARGE, _SMALL = 256 << 20, 16 << 20  # bytes of a request's body; big files come through LFS, which streams
_INVALID = (
    "Invalid credentials in Authorization header"  # by these words the clients tell a bad token from no repository
)
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="local Hub: any name, and a token as password"'}
_FULL = (errno.ENOSPC, errno.EDQUOT)


class App:
    """The ASGI application over one store. ``token`` is that of the first user, to whom the folder belongs."""

    def __init__(self, store: Store, token: str) -> None:
        self.store, self._users, self._key = store, Users(store.root, token), secrets.token_bytes(32)

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except HubError as error:
            response = _refusal(error)
        except ClientDisconnect:
            return  # nobody is left to answer; an unfinished upload has been removed
        except OSError as error:
            if error.errno not in _FULL:
                raise
            response = _refusal(HubError(507, "The local Hub's disk is full and nothing was changed; make room there."))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii", "replace").split("?")[0]
        method = "GET" if request.method == "HEAD" else request.method
        if method in ("PUT", "GET") and (found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path)):
            return await self._lfs(request, method, found[1])
        for verb, pattern, answer, access in TABLE:
            if verb == method and (found := pattern.fullmatch(path)):
                try:
                    return await self._routed(request, found, answer, access)
                except HubError as error:
                    if access not in ("git", "page"):
                        raise
                    return _shown(error, access, path)
        if found := SHORT.fullmatch(path):
            kinds, name = found["kinds"] or found["site"] or "models", found["id"] or found["name"]
            raise repository_not_found(kinds[:-1], unquote(name))
        raise HubError(501, f"The local Hub does not do {request.method} {path}.")

    async def _routed(self, request: Request, found: re.Match[str], answer: Callable, access: str) -> Response:
        call = self._call(request, {k: v for k, v in found.groupdict().items() if v is not None})
        if access == "xet":
            xet.check_token(call, request.headers.get("authorization", ""))
        else:
            call.user = self._user(request, basic=access in ("git", "page", "file"))
        if call.id and (now := self.store.moved(call.kind, call.id)) and call.sees(call.kind, now):
            place = f"{found.string[: found.start('id')]}{quote(now)}{found.string[found.end('id') :]}"
            return RedirectResponse(place + (f"?{request.url.query}" if request.url.query else ""), 307)
        if access in ("user", "write") and call.user is None:
            raise HubError(401, f"{_INVALID}: this needs a token of the local Hub, and none was sent; set HF_TOKEN.")
        if call.id:
            call.check_seen(call.kind, call.id)
        if access == "write":
            call.check_writes(call.id)
        call.body = await _body(request, _LARGE if answer in LARGE else _SMALL)
        return await run_in_threadpool(answer, call)

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

    def _user(self, request: Request, basic: bool) -> User | None:
        """Whose token came along. As a password it counts only where nothing can be changed by it: a browser sends one
        that it knows wherever another page tells it to."""
        given = request.headers.get("authorization")
        if given is None:
            return None
        scheme, _, token = given.partition(" ")
        if scheme.lower() == "basic" and basic:
            try:
                token = base64.b64decode(token, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                token = ""
        elif scheme.lower() != "bearer":
            token = ""
        if user := self._users.owner_of(token) if token else None:
            return user
        raise HubError(
            401, f"{_INVALID}: this Hub does not know the token; its owner's is in the file 'token' of its folder."
        )

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    async def _lfs(self, request: Request, method: str, sha256: str) -> Response:
        """Bytes of LFS files come and go without a token, by an address that this process signed a while ago."""
        action = "upload" if method == "PUT" else "download"
        size, until, by, signature = (
            request.query_params.get(name, "") for name in ("size", "until", "by", "signature")
        )
        signed = self._sign(f"{action}:{sha256}:{size}:{until}:{by}")
        if not hmac.compare_digest(signature.encode(), signed.encode()) or int(until) < time.time():
            raise HubError(403, f"This {action} address is not valid any more; ask for a new one.")
        if action == "upload":
            await self.store.lfs_write(sha256, int(size), request.stream())
            self.store.sent.add((by, sha256))
            return Response(status_code=200)
        return FileResponse(self.store.lfs_path(sha256), media_type="application/octet-stream")


async def _body(request: Request, most: int) -> bytes:
    parts, total = [], 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most:
            raise HubError(413, f"The request is larger than {most >> 20} MiB; send big files through LFS.")
        parts.append(chunk)
    return b"".join(parts)


def _shown(error: HubError, access: str, path: str) -> Response:
    """A refusal for git, which shows plain text, or for a browser; both ask their user for a token when told to."""
    if access == "page" and error.code == "RepoNotFound":
        return pages.refusal(HubError(404, f"{error.message} Log in to see what is private."))
    challenge = _CHALLENGE if error.status == 401 and (access == "git" or path == "/login") else {}
    told = HubError(error.status, error.message, error.code, error.headers | challenge)
    return PlainTextResponse(f"{told.message}\n", told.status, told.headers) if access == "git" else pages.refusal(told)


def _refusal(error: HubError) -> Response:
    told = _INVALID if error.message.startswith(_INVALID) else error.message
    headers = {"X-Error-Message": re.sub(r"[^ -~]", "?", told.replace("\n", " ")), **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, status_code=error.status, headers=headers)
