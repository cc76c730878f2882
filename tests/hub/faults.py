"""A proxy in front of a really started local Hub that fails when it is told to, and what is asked of the clients behind it.

``Proxy.fault(number, method, path)`` says of each request, counted from 1, what becomes of it:

* None: it is passed on, and so is the answer;
* a status, or ``(status, words)``, or ``(status, words, headers)``: the answer, and the Hub never hears of it;
* "half": the Hub gets half of the body and both connections are cut;
* "lost": the Hub does it, and the answer is cut in the middle;
* "kill" and "kill half": as "lost" and "half", and the process whose id is in the file ``victim`` is killed first;
* "hang": nothing is answered until the client gives up.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Fault = Callable[[int, str, str], Any]
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class Proxy:
    """``seen`` and ``answered`` are the requests as (method, path); as a context manager it stops at the end of the block."""

    def __init__(self, hub: str, victim: Path | None = None) -> None:
        self.hub, self.victim, self.fault = urlsplit(hub).netloc, victim, lambda *_: None
        self.seen: list[tuple[str, str]] = []
        self.answered: list[tuple[str, str]] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def begin(self, fault: Fault = lambda *_: None) -> None:
        """Count from 1 again, with another fault."""
        with self._lock:
            self.seen, self.answered, self.fault = [], [], fault

    def count(self, method: str, part: str) -> int:
        """How many requests of a method had this in their path."""
        return sum(verb == method and part in path for verb, path in self.seen)

    def decide(self, method: str, path: str) -> Any:
        with self._lock:
            self.seen.append((method, path))
            number, fault = len(self.seen), self.fault
        return fault(number, method, path)


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer in one piece, or its end waits for the client's acknowledgement

    def do_GET(self) -> None:
        body, verdict = self._body(), self.proxy.decide(self.command, self.path)
        if verdict == "hang":
            self.proxy.over.wait(20)
            self._cut()
        elif verdict in ("half", "kill half"):
            self._send_half(body)
            self._kill(verdict)
            self._cut()
        elif verdict is None or isinstance(verdict, str):
            status, headers, content = self._ask(body)
            self._kill(verdict)
            self._reply(status, headers, content, whole=verdict is None)
        else:
            status, words, headers = (*verdict, {})[:3] if isinstance(verdict, tuple) else (verdict, "not today", {})
            content = json.dumps({"error": words}).encode()
            self._reply(status, {"Content-Type": "application/json", **headers}, content)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forwarded(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() not in _HOP}

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        hub = http.client.HTTPConnection(self.proxy.hub, timeout=30)
        try:
            hub.request(self.command, self.path, body, self._forwarded())
            answer = hub.getresponse()
            content = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if self.command == "HEAD":
                headers["Content-Length"] = answer.getheader("Content-Length", "0")
            return answer.status, headers, content
        finally:
            hub.close()

    def _send_half(self, body: bytes) -> None:
        head = [f"{self.command} {self.path} HTTP/1.1", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in self._forwarded().items()]
        with socket.create_connection(self.proxy.hub.split(":"), timeout=10) as hub:
            hub.sendall("\r\n".join([*head, "", ""]).encode() + body[: len(body) // 2])
            time.sleep(0.02)

    def _reply(self, status: int, headers: dict[str, str], content: bytes, whole: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content) or (0 if whole else 2)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content if whole else content[: len(content) // 2])
        try:
            self.wfile.flush()
        except OSError:  # the client is dead, or gave up
            self.close_connection = True
        if whole:
            self.proxy.answered.append((self.command, self.path))
        else:
            self._cut()

    def _kill(self, verdict: Any) -> None:
        if isinstance(verdict, str) and verdict.startswith("kill"):
            os.kill(int(self.proxy.victim.read_text()), signal.SIGKILL)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass


def every(n: int, verdict: Any) -> Fault:
    """Every n-th request fails, with the next of several verdicts each time if there are several."""
    verdicts = verdict if isinstance(verdict, list) else [verdict]
    return lambda number, *_: verdicts[number // n % len(verdicts)] if number % n == 0 else None


def at(method: str, part: str, verdict: Any, times: int | None = None) -> Fault:
    """Requests of a method with this in their path fail, the first so many of them."""
    left = [times]

    def fault(_: int, verb: str, path: str) -> Any:
        if verb != method or part not in path or left[0] == 0:
            return None
        left[0] = left[0] and left[0] - 1
        return verdict

    return fault


# --- in the clients' process

_slept: list[float] = []


def hurry() -> None:
    """From now on nobody in this process sleeps for long; ``slept`` tells for how long they would have."""
    real = time.sleep

    def sleep(seconds: float) -> None:
        _slept.append(seconds)
        real(min(seconds, 0.01))

    time.sleep = sleep


def slept() -> list[float]:
    """What was slept since this was asked the last time, in seconds."""
    found = list(_slept)
    _slept.clear()
    return found


def push(folder: str, repo: str, tag: str = "v1", kind: str = "model", branch: str = "main") -> str:
    """The commit, or the sentence that was told."""
    from spro_hf.errors import UserError
    from spro_hf.hub.push import push

    try:
        return push(Path(folder), repo, kind, tag, f"version {tag}", branch=branch).revision
    except UserError as error:
        return f"told: {error}"


def push_in_a_child(folder: str, repo: str, tag: str, victim: str) -> str:
    """As ``push``, in a fork of this process whose id is in the file ``victim``: "killed", or "done"."""
    child = os.fork()
    if child == 0:
        try:
            Path(victim).write_text(str(os.getpid()))
            done = not push(folder, repo, tag).startswith("told")
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            done = False
        os._exit(0 if done else 1)
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else {0: "done", 1: "failed"}[os.waitstatus_to_exitcode(status)]


def whole(folder: str, repo: str, tag: str, kind: str = "model") -> bool | None:
    """Whether a tag holds exactly the files of a folder; None if there is no such tag."""
    from spro_hf.hub import push, trouble

    commit = trouble.tags(repo, kind).get(tag)
    return commit and push._difference(push._files(Path(folder)), push._tree(repo, kind, commit)) == ([], [])


def call(module: str, function: str, *arguments: Any) -> Any:
    """A function of spro_hf.hub; what it gives as text, or the sentence that was told."""
    import importlib

    from spro_hf.errors import UserError

    try:
        return str(getattr(importlib.import_module(f"spro_hf.hub.{module}"), function)(*arguments))
    except UserError as error:
        return f"told: {error}"


def refs(repo: str, kind: str = "model") -> dict[str, dict[str, str]]:
    """Branches and tags: name → commit, and how many commits each branch has."""
    from huggingface_hub import HfApi

    found = HfApi().list_repo_refs(repo, repo_type=kind)
    return {
        "branches": {ref.name: ref.target_commit for ref in found.branches},
        "tags": {ref.name: ref.target_commit for ref in found.tags},
        "commits": {ref.name: len(HfApi().list_repo_commits(repo, repo_type=kind, revision=ref.name))
                    for ref in found.branches},
    }  # fmt: skip


def with_token(token: str | None, function: Callable, *arguments: Any) -> Any:
    """``function`` with another token, or with none."""
    kept = os.environ.pop("HF_TOKEN")
    os.environ |= {"HF_TOKEN": token} if token else {}
    try:
        return function(*arguments)
    finally:
        os.environ["HF_TOKEN"] = kept


def patched(module: str, name: str, value: Any, function: Callable, *arguments: Any) -> Any:
    """``function`` with another value of a module of spro_hf.hub."""
    import importlib

    place = importlib.import_module(f"spro_hf.hub.{module}")
    kept = getattr(place, name)
    setattr(place, name, value)
    try:
        return function(*arguments)
    finally:
        setattr(place, name, kept)
