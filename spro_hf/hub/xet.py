"""Uploads by Xet, the storage protocol that huggingface_hub takes for big files where ``hf_xet`` is installed.

A client cuts files into chunks, sends them in packed containers ("xorbs"), and then a "shard" that says of which chunks
each file consists. The files are put together here and kept by their sha256 like those that come through LFS, so nothing
else in the Hub knows of Xet. Nothing is read by Xet: no file is announced with a Xet hash, and clients then read by HTTP.

The containers stay under ``ROOT/xet/<user>``, since a client remembers what it has sent and leaves it out the next time:
files that come this way take their place twice. Formats: https://huggingface.co/docs/xet.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import JSONResponse, Response

from spro_hf.hub.call import Call
from spro_hf.hub.errors import HubError
from spro_hf.hub.users import User

_HOUR = 3600  # seconds for which a write token is good
_TAG = bytes.fromhex("48465265706f4d6574614461746100556967456a7b815783a5bdd95ccdd14aa9")  # what a shard begins with
_HEADER, _ROW = 48, 48  # bytes of a shard's header, and of each row after it
_END = b"\xff" * 32  # in place of a hash: the files of a shard end here
_WITH_CHECKS, _WITH_SHA256 = 1 << 31, 1 << 30
_NONE, _LZ4, _GROUPED = range(3)  # how a chunk is packed
_MOST = 1 << 30  # chunks: more than any container has
_LONGEST = 1 << 20  # bytes of a chunk; clients make them of 128 KiB at most


@dataclass(frozen=True)
class _Part:
    """Chunks ``first`` to ``last`` - 1 of a container, ``size`` bytes of a file."""

    xorb: str
    size: int
    first: int
    last: int


def write_token(call: Call) -> Response:
    """Where to send what, and by which token: it says who came, and that they might write when it was made."""
    until = int(time.time()) + _HOUR
    said = f"{call.user.name}.{until}"
    told = {"casUrl": f"{call.base}/xet", "accessToken": f"{said}.{call.sign(f'xet:{said}')}", "exp": until}
    names = {"casUrl": "X-Xet-Cas-Url", "accessToken": "X-Xet-Access-Token", "exp": "X-Xet-Token-Expiration"}
    return JSONResponse(told, headers={names[key]: str(value) for key, value in told.items()})


def check_token(call: Call, given: str) -> None:
    """The user of a call to the storage, by the token of ``write_token``; any other is refused (401)."""
    said, _, signature = given.removeprefix("Bearer ").rpartition(".")
    name, _, until = said.partition(".")
    if not hmac.compare_digest(signature.encode(), call.sign(f"xet:{said}").encode()) or int(until) < time.time():
        raise HubError(401, "This Xet token is not valid any more; ask for a new one.")
    call.user = User(name)


def nothing_known(call: Call) -> Response:
    """No chunk is known to be here already, and there is no other way to send one than the plain one."""
    return JSONResponse({"error": "nothing is known of it"}, status_code=404)


def put_xorb(call: Call) -> Response:
    """Keep a container under its hash, which only its own sender ever names again."""
    path, made = _kept(call, call.path), call.store.temporary("xorb")
    new = not path.exists()
    if new:
        for _ in _chunks(call.body, _MOST, _MOST):
            pass  # what cannot be read is refused now
        with made.open("wb") as out:
            out.write(call.body)
            out.flush()
            os.fsync(out.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(made, path)
    return JSONResponse({"was_inserted": new})


def put_shard(call: Call) -> Response:
    """Put the files of a shard together and keep them by their sha256."""
    for parts, sha256 in _files(call.body):
        _assemble(call, parts, sha256)
    return JSONResponse({"result": 1})


def put_shard_with_progress(call: Call) -> Response:
    """The same; the answer is a line of JSON for each thing that happened, of which the last one would do."""
    put_shard(call)
    return Response('{"type": "result", "result": 1}\n', media_type="application/x-ndjson")


def _files(shard: bytes) -> Iterator[tuple[list[_Part], str | None]]:
    """Of what each file of a shard consists, and its sha256 if it is told."""
    if not shard.startswith(_TAG):
        raise HubError(400, "This is not a shard of Xet's.")
    rows = (shard[at : at + _ROW] for at in range(_HEADER, len(shard) - _ROW + 1, _ROW))
    try:
        while not (head := next(rows)).startswith(_END):
            flags, count = struct.unpack("<II", head[32:40])
            parts = []
            for _ in range(count):
                row = next(rows)
                parts.append(_Part(_hash(row[:32]), *struct.unpack("<III", row[36:48])))
            for _ in range(count if flags & _WITH_CHECKS else 0):
                next(rows)
            yield parts, _hash(next(rows)[:32]) if flags & _WITH_SHA256 else None
    except StopIteration:
        raise HubError(400, "A shard of Xet's ends before its files do.") from None


def _hash(raw: bytes) -> str:
    """A hash as it is written: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def _assemble(call: Call, parts: list[_Part], sha256: str | None) -> None:
    if sha256 and (call.user.name, sha256) in call.store.sent:
        return
    made, digest = call.store.temporary("upload"), hashlib.sha256()
    try:
        with made.open("wb") as out:
            last, content = None, b""
            for part in parts:
                if part.xorb != last:
                    last, content = part.xorb, _read(call, part.xorb)
                size = 0
                for chunk in _chunks(content, part.first, part.last):
                    size += len(chunk)
                    digest.update(chunk)
                    out.write(chunk)
                if size != part.size:
                    raise HubError(400, f"The Xet container {part.xorb} holds other chunks than its shard says.")
            out.flush()
            os.fsync(out.fileno())
        if sha256 not in (None, digest.hexdigest()):
            raise HubError(400, f"What came are not the bytes of sha256 {sha256}; send them again.")
        path = call.store.lfs_path(digest.hexdigest())
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(made, path)
        call.store.sent.add((call.user.name, digest.hexdigest()))
    finally:
        made.unlink(missing_ok=True)


def _kept(call: Call, xorb: str) -> Path:
    return call.store.root / "xet" / call.user.name / xorb[:2] / xorb


def _read(call: Call, xorb: str) -> bytes:
    path = _kept(call, xorb)
    if not path.exists():
        advice = "it was sent to another Hub, so set HF_XET_CACHE to an empty folder and push again"
        raise HubError(400, f"The Xet container {xorb} has never been sent here; {advice}.")
    return path.read_bytes()


def _chunks(container: bytes, first: int, last: int) -> Iterator[bytes]:
    """Chunks ``first`` to ``last`` - 1 of a container, or those of them that it has; the others are passed over."""
    at = number = 0
    while number < last and at + 8 <= len(container) and container[at] == 0:
        packed, how = int.from_bytes(container[at + 1 : at + 4], "little"), container[at + 4]
        size = int.from_bytes(container[at + 5 : at + 8], "little")
        body, at = container[at + 8 : at + 8 + packed], at + 8 + packed
        if len(body) < packed or how > _GROUPED or size > _LONGEST:
            raise HubError(400, "A chunk of a Xet container cannot be read.")
        if number >= first:
            yield _unpacked(body, how, size)
        number += 1


def _unpacked(body: bytes, how: int, size: int) -> bytes:
    """A chunk of ``size`` bytes as it was: plain, by LZ4, or by LZ4 with every fourth byte set together."""
    if how == _NONE:
        return body
    import pyarrow as pa  # here, since most servers never need it

    try:
        plain = pa.Codec("lz4").decompress(body, decompressed_size=size, asbytes=True)
    except OSError as error:
        raise HubError(400, f"A chunk of a Xet container cannot be unpacked: {error}.") from None
    if how == _LZ4:
        return plain
    chunk, at = bytearray(size), 0
    for lane in range(4):
        count = len(range(lane, size, 4))
        chunk[lane::4] = plain[at : at + count]
        at += count
    return bytes(chunk)
