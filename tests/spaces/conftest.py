"""The Space's modules as it imports them, and the Space itself, laid out as it is published and really started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from spro_hf import space
from spro_hf.hub.server import Server, client_environment, start

FOLDER = space.home()
sys.path.append(str(FOLDER))  # app.py imports its neighbours by their names


def chrome() -> str | None:
    """A Chromium of this machine: $CHROME, or one on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that is published."""
    folder = tmp_path_factory.mktemp("space")
    space.lay_out(folder, {})
    return folder


@pytest.fixture(scope="session", autouse=True)
def server(
    published: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen, str, Path] | None]:
    """The published Space, started at once, so that it comes up while the other tests run; None without a browser."""
    if chrome() is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("served")),
    }
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("SPRO_", "PYTHONPATH"))
    } | told
    log = tmp_path_factory.mktemp("log") / "app.log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=published, env=environment, stdout=file, stderr=file)
    yield process, f"http://127.0.0.1:{port}/", log
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="session")
def address(server: tuple[subprocess.Popen, str, Path] | None) -> str:
    """Where the Space answers."""
    if server is None:
        pytest.skip("there is no Chromium on the PATH and no $CHROME, so nothing was clicked")
    process, url, log = server
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return url
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def do(hub: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """``do(function, *arguments)`` in a process whose clients ask the local Hub."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in client_environment(hub, tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        pool.submit(int).result()
    with pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(timeout=100)
