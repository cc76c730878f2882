"""What the local Hub answers when it cannot do what it was asked."""

from __future__ import annotations


class HubError(Exception):
    """A refusal: HTTP status, sentence, and the code by which the clients tell refusals apart (X-Error-Code)."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


def repository_not_found(kind: str, id: str) -> HubError:
    return HubError(404, f"There is no {kind} repository '{id}' here.", "RepoNotFound")


def revision_not_found(id: str, revision: str) -> HubError:
    return HubError(404, f"'{id}' has no revision '{revision}'.", "RevisionNotFound")


def entry_not_found(path: str, revision: str, commit: str) -> HubError:
    """The commit travels with the refusal: clients remember that the file is not in it."""
    message = f"There is no file or folder '{path}' at revision '{revision}'."
    return HubError(404, message, "EntryNotFound", {"X-Repo-Commit": commit})
