"""A really started local Hub, and a process of the real clients, for the tests of lineages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spro_hf.hub.server import Server, start
from tests.hub.conftest import Do, clients


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="session")
def do(hub: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Do]:
    with clients(hub, tmp_path_factory.mktemp("home")) as run:
        yield run
