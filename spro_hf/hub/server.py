"""A small local Hub-compatible server, so that everything can be tried before owning a token.

It serves the calls by which huggingface_hub, datasets, transformers, diffusers and peft make, fill, tag and read
repositories; what it does not do is listed in ``spro_hf.hub.app`` and answered with 501. This module imports no client,
because they read their endpoint from the environment when they are imported: start the server and set
``client_environment`` first.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from spro_hf.errors import UserError

_PATIENCE = 30.0  # seconds a start may take


@dataclass
class Server:
    """A running server. As a context manager it stops at the end of the block."""

    url: str
    token: str = field(repr=False)
    process: subprocess.Popen = field(repr=False)

    def stop(self) -> None:
        """End the server; requests under way have two seconds."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(root: Path, port: int = 0, token: str | None = None) -> Server:
    """Start a server over ``root`` on 127.0.0.1 and wait until it answers; it ends when this process does.

    ``port`` 0 takes a free one. ``token`` replaces the one kept in ``root/token``; without either, one is made.
    Raises ``UserError`` if the server does not come up; ``root/server.log`` holds its words.
    """
    from spro_hf.hub.store import read_token

    root = Path(root).resolve()
    token_file, log = root / "token", root / "server.log"
    kept = read_token(token_file, token)
    command = [sys.executable, "-m", "spro_hf.hub.server", str(root), "--port", str(port)]
    command += ["--token-file", str(token_file), "--parent", str(os.getpid())]
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    url = process.stdout.readline().strip()
    server = Server(url, kept, process)
    if not url or not _answers(server):
        server.stop()
        said = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"The local Hub at {root} did not start: {said}")
    return server


def _answers(server: Server) -> bool:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and server.process.poll() is None:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
        try:
            connection.request("GET", "/api/whoami-v2", headers={"Authorization": f"Bearer {server.token}"})
            return connection.getresponse().status == 200
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    return False


def client_environment(server: Server, home: Path) -> dict[str, str]:
    """The variables that point the clients at a server. Set them before a client is imported.

    ``home`` becomes HF_HOME: the clients' cache is keyed by repository and not by endpoint, so each Hub needs its own.
    """
    return {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": server.token,
        "HF_HOME": str(Path(home).resolve()),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }


def hub_of(folder: Path) -> Path:
    """The local Hub's own folder in that of a run."""
    found = folder / "hub" if (folder / "hub").is_dir() else folder
    if not (found / "repos").is_dir():
        raise UserError(f"{folder}: holds no local Hub; name a run's folder, e.g. runs/demo.")
    return found


@contextmanager
def at_hub(hub: str | None) -> Iterator[None]:
    """Let the clients ask the Hub that ``--hub`` names: a run's folder, whose local Hub runs for the time, or an address; the
    usual one if it is None."""
    with ExitStack() as stack:
        if hub and "://" not in hub:
            local = hub_of(Path(hub))
            cache = local.parent / "cache"  # a run's own
            if not cache.is_dir():
                cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            os.environ.update(client_environment(stack.enter_context(start(local)), cache))
        elif hub:
            os.environ["HF_ENDPOINT"] = hub
        yield


def port(text: str) -> int:
    """A port of the command line."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port; give a number from 0 to 65535")
    return int(text)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; ``port`` 0 takes a free one."""
    # TCP by name: asyncio sends small answers at once only where it knows that it is TCP, and else each waits for 40 ms
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise UserError(
            f"The local Hub cannot listen on {host}:{port} ({error.strerror}); choose another port."
        ) from None
    listener.listen(128)
    return listener


def serve_forever(root: Path, host: str = "127.0.0.1", port: int = 0, token_file: Path | None = None) -> None:
    """Serve ``root`` in this process until it is told to stop; the address is printed once it is listening."""
    import uvicorn

    from spro_hf.hub.app import App
    from spro_hf.hub.store import Store, read_token

    store = Store(Path(root))
    app = App(store, read_token(token_file or store.root / "token"))
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listener.getsockname()[1]}", flush=True)
    # No access log: addresses of uploads are signed, and a signature is as good as the token for what it covers.
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


def _end_with(parent: int) -> None:
    """End this process when its parent is gone; at once, so that a run started again finds the folder free."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(0)  # what is stored is whole at any moment

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str] | None = None) -> int:
    """``python -m spro_hf.hub.server ROOT [--host H] [--port N] [--token-file FILE]``."""
    parser = argparse.ArgumentParser(prog="spro_hf.hub.server", description="A local Hub-compatible server.")
    parser.add_argument("root", type=Path, help="the folder that holds its repositories")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--token-file", type=Path, help="the file with the token (default: ROOT/token)")
    parser.add_argument("--parent", type=int, help="end when this process, which started the server, is gone")
    given = parser.parse_args(argv)
    if given.parent:
        _end_with(given.parent)
    try:
        serve_forever(given.root, given.host, given.port, given.token_file)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
