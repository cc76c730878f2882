"""A request to the local Hub, as the answering functions see it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from spro_hf.hub.errors import HubError, repository_not_found
from spro_hf.hub.repository import Repository
from spro_hf.hub.store import Store
from spro_hf.hub.users import User

_HOUR = 3600  # seconds for which a signed address begins to work


@dataclass
class Call:
    """``base`` is the address that the client used; ``user`` is None for who sent no token; ``sign`` signs a text."""

    store: Store
    kind: str
    id: str
    revision: str
    path: str
    query: QueryParams
    headers: Mapping[str, str]
    base: str
    sign: Callable[[str], str]
    user: User | None = None
    body: bytes = b""

    def open(self) -> Repository:
        return self.store.open(self.kind, self.id, self.user.name if self.user else "")

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; anything else is refused (400)."""
        try:
            data = json.loads(self.body or b"{}")
        except (ValueError, RecursionError) as error:
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

    def sees(self, kind: str, id: str) -> bool:
        """Whether a repository is there and the caller may know of it."""
        if not self.store.exists(kind, id):
            return False
        namespace = id.partition("/")[0]
        return not self.store.is_private(kind, id) or bool(self.user and self.user.belongs_to(namespace))

    def check_seen(self, kind: str, id: str) -> None:
        """Refuse what is not there; who sent no token is not told whether it is hidden or missing."""
        if not self.sees(kind, id):
            if self.user is None:
                raise HubError(401, f"The {kind} repository '{id}' is private or does not exist.", "RepoNotFound")
            raise repository_not_found(kind, id)

    def check_writes(self, id: str) -> None:
        """Refuse (403) who may not write to the namespace of ``id``."""
        user, namespace = self.user, id.partition("/")[0]
        if user.role != "write":
            raise HubError(403, f"The token of '{user.name}' may only read; '{id}' needs one that may write.")
        if not user.belongs_to(namespace):
            mine = ", ".join((user.name, *user.orgs))
            raise HubError(403, f"'{user.name}' may not write to '{id}'; the namespaces of this token are: {mine}.")

    def signed(self, action: str, sha256: str, size: int) -> str:
        """An address that needs no token: where to "upload" or "download" an LFS object, for an hour."""
        until = int(time.time()) + _HOUR
        by = self.user.name if self.user else ""
        signature = self.sign(f"{action}:{sha256}:{size}:{until}:{by}")
        return f"{self.base}/lfs/{sha256}?size={size}&until={until}&by={by}&signature={signature}"
