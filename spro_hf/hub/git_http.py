"""Plain git over HTTP: clone and fetch, and the addresses at which git-lfs finds the bytes of big files.

Protocol version 0, to which every git comes down by itself. Nothing is pushed this way: a push would go past the card
check and the rule that a published tag is never moved.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO

from dulwich.errors import GitProtocolError, HangupException
from dulwich.protocol import CAPABILITY_FILTER, ReceivableProtocol
from dulwich.server import DictBackend, UploadPackHandler
from starlette.responses import JSONResponse, Response, StreamingResponse

from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError

_LFS_JSON = "application/vnd.git-lfs+json"
_MEMORY = 8 << 20  # bytes of a pack that are kept in memory; the rest goes to the disk
_MOST = 64 << 20  # bytes of an unpacked request
_NO_CACHE = {"Cache-Control": "no-cache"}


def references(call: Call) -> Response:
    """The branches and tags, with which a clone or a fetch begins."""
    service = call.query.get("service", "")
    if service == "git-receive-pack":
        return receive_pack(call)
    if service != "git-upload-pack":
        raise HubError(403, "This Hub speaks git's smart protocol only; use a git of this century.")
    out = SpooledTemporaryFile(_MEMORY)  # noqa: SIM115 - it is sent after this function
    out.write(b"001e# service=git-upload-pack\n0000")
    return _served(call, b"", out, "advertisement")


def upload_pack(call: Call) -> Response:
    """The objects that a clone or a fetch lacks."""
    body = call.body
    if call.headers.get("content-encoding") in ("gzip", "x-gzip"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            body = unpack.decompress(body, _MOST)
        except zlib.error as error:
            raise HubError(400, f"The request cannot be unpacked: {error}.") from None
        if unpack.unconsumed_tail:
            raise HubError(413, f"The request is larger than {_MOST >> 20} MiB.")
    return _served(call, _all_for_shallow(body), SpooledTemporaryFile(_MEMORY), "result")


def _all_for_shallow(body: bytes) -> bytes:
    """The request; a clone that was cut short says that it has a commit and lacks what the commit comes from, which is
    not understood here, so nothing is taken to be there and all is sent again."""
    lines, at = [], 0
    while at + 4 <= len(body):
        try:
            size = int(body[at : at + 4], 16) or 4
        except ValueError:
            return body  # it is refused where it is read
        lines.append(body[at : at + size])
        at += max(4, size)
    if not any(line[4:].startswith(b"shallow ") for line in lines):
        return body
    return b"".join(line for line in lines if not line[4:].startswith(b"have "))


def receive_pack(call: Call) -> Response:
    raise HubError(403, "A local Hub is not pushed to by git; push with huggingface_hub or `hf upload`.")


def _served(call: Call, body: bytes, out: IO[bytes], what: str) -> Response:
    def write(data: bytes) -> int:
        return out.write(data)

    with call.open() as repository:
        protocol = ReceivableProtocol(BytesIO(body).read, write)
        backend, first = DictBackend({"/": repository.git}), what == "advertisement"
        try:
            handler = UploadPackHandler(backend, ["/"], protocol, stateless_rpc=True, advertise_refs=first)
            if first:  # no clone without the files: git would ask for each of them later, which is not served
                offered = [name for name in handler.capabilities() if name != CAPABILITY_FILTER]
                handler.capabilities = lambda: offered
            handler.handle()
        except (GitProtocolError, HangupException, AssertionError) as error:
            raise HubError(400, f"This is not a request of git's that can be understood: {error}.") from None
    out.seek(0)
    return StreamingResponse(_read(out), media_type=f"application/x-git-upload-pack-{what}", headers=_NO_CACHE)


def _read(out: IO[bytes]) -> Iterator[bytes]:
    with out:
        while chunk := out.read(1 << 16):
            yield chunk


def lfs_batch(call: Call) -> Response:
    """Where LFS objects are to be sent to or got from; the addresses are signed and need no token."""
    data, objects = call.json(), []
    if not isinstance(data.get("objects"), list) or not all(isinstance(item, dict) for item in data["objects"]):
        raise HubError(400, "The field 'objects' of an LFS batch is a list of objects.")
    action = data.get("operation")
    if action not in ("upload", "download"):
        raise HubError(400, "The field 'operation' of an LFS batch is 'upload' or 'download'.")
    if action == "upload":
        if call.user is None or not call.headers.get("authorization", "").lower().startswith("bearer "):
            raise HubError(401, "A local Hub is not pushed to by git-lfs; push with huggingface_hub or `hf upload`.")
        call.check_writes(call.id)
    with call.open() as repository:
        for item in data["objects"]:
            oid, size = item.get("oid"), item.get("size")
            if not isinstance(oid, str) or not isinstance(size, int):
                raise HubError(400, "Each object of an LFS batch has an 'oid' and a 'size'.")
            held = repository.holds(oid) == size
            answer = {"oid": oid, "size": size}
            if action == "download" and not (held and repository.has_big(oid, size)):
                answer["error"] = {"code": 404, "message": "There is no such object in this repository."}
            elif action == "download" or not held:
                answer["actions"] = {action: {"href": call.signed(action, oid, size), "header": {}}}
            objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type=_LFS_JSON)
