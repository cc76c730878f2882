"""The local Hub and the process of the real clients, for the tests of lineages."""

from tests.hub.conftest import do, hub

__all__ = ["do", "hub"]
