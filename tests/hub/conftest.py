"""A really started local Hub, and a process of the real clients whose environment points at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from spro_hf.hub.server import Server, client_environment, start

Do = Callable[..., Any]


@contextmanager
def clients(server: Server, home: Path) -> Iterator[Do]:
    """``do(function, *arguments)`` in a process that imports the clients with their environment already set."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in client_environment(server, home).items():
            patch.setenv(name, value)
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        pool.submit(int).result()  # the process is made now, in this environment
    with pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(timeout=100)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="session")
def do(hub: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Do]:
    with clients(hub, tmp_path_factory.mktemp("home")) as run:
        yield run


@pytest.fixture
def own(tmp_path: Path) -> Callable:
    """For tests that stop their server: ``start`` over a folder of their own, and ``clients``."""
    return clients
