"""A request to the local Hub, as the answering functions see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spro_hf.hub.errors import HubError
from spro_hf.hub.repository import Repository
from spro_hf.hub.store import Store


@dataclass
class Call:
    """``base`` is the address that the client used; ``sign(sha256, size)`` signs an upload address."""

    store: Store
    kind: str
    id: str
    revision: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    base: str
    sign: Callable[[str, int], str]
    body: bytes = b""

    def open(self) -> Repository:
        return self.store.open(self.kind, self.id)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; anything else is refused (400)."""
        try:
            data = json.loads(self.body or b"{}")
        except ValueError as error:
            raise HubError(400, f"The body is not JSON: {error}.") from None
        if not isinstance(data, dict):
            raise HubError(400, "The body must be a JSON object.")
        return data

    def asks(self, name: str) -> bool:
        """Whether a yes/no parameter of the address is set."""
        return self.query.get(name, "").lower() in ("1", "true")

    def page(self, kind: str, id: str) -> str:
        """The address of a repository's page."""
        return f"{self.base}/{'' if kind == 'model' else kind + 's/'}{id}"
