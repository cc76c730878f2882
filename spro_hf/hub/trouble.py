"""What goes wrong between the clients and a Hub: what passes is waited for, all else is told in one sentence.

The clients wait by themselves only at some of their calls: not at a commit, a tag, or the question for a commit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from spro_hf.errors import UserError

Found = TypeVar("Found")

ATTEMPTS = 6  # of one call; between them 1, 2, 4, 8 and 16 seconds
LONGEST = 300.0  # seconds that a Hub may ask us to wait; its limits are counted over five minutes
_BRIEF = 7.0  # the same, where somebody waits
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_FULL = re.compile(r"storage|quota|limit reached|too large|exceed|no space|payment|billing", re.IGNORECASE)
_XET = re.compile(r"HTTP status \w+ error \((\d{3}) ")  # its errors are Python's own, and the status is in their words
_KINDS = ("model", "dataset", "space")
_NETWORK = (httpx2.TransportError, ConnectionError, TimeoutError)


def patiently(call: Callable[[], Found], attempts: int = ATTEMPTS, longest: float = LONGEST) -> Found:
    """What ``call`` gives; called again where that helps: too many requests (429), a server in trouble, a cut connection.

    It must do no harm when it is done twice, since an answer may be lost after the deed.
    """
    for attempt in range(attempts - 1):
        try:
            return call()
        except Exception as error:
            pause = _pause(error, attempt)
            if pause is None or pause > longest:
                raise
        time.sleep(pause)
    return call()


def briefly(call: Callable[[], Found]) -> Found:
    """As ``patiently``, for what somebody may be waiting for: no pause above seven seconds, none where nobody listens."""
    try:
        return call()
    except Exception as error:
        pause = _pause(error, 0)
        if isinstance(cause(error), httpx2.ConnectError) or pause is None or pause > _BRIEF:
            raise
    time.sleep(1.0)
    return patiently(call, 3, _BRIEF)


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds after which it may go better; None if it will not, or if the Hub asks for more than is sensible."""
    below, code = cause(error), status(error)
    if isinstance(below, OfflineModeIsEnabled):
        return None
    if code is None:
        return 2.0**attempt if isinstance(below, _NETWORK) else None
    # the address of an upload is good for a while only, and a new attempt gets a new one
    stale = below is not error and code in (400, 403) and not _FULL.search(str(below))
    if code not in _PASSING and not stale:
        return None
    asked = _asked(below)
    return 2.0**attempt if asked is None else (asked if asked <= LONGEST else None)


def _asked(error: BaseException) -> float | None:
    """The seconds that a Hub asks to wait, by Retry-After or its own header; None if it asks for nothing."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    told = response.headers.get("Retry-After", "")
    if told.isdigit():
        return float(told)
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0
    return None


def cause(error: BaseException) -> BaseException:
    """The error below that of an upload or a download, which the client wraps in one of its own."""
    while isinstance(error, (RuntimeError, LocalEntryNotFoundError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def status(error: BaseException) -> int | None:
    """The HTTP status behind a client's error, None if there is none."""
    below = cause(error)
    response = getattr(below, "response", None)
    if response is not None:
        return response.status_code
    found = _XET.search(str(below))
    return int(found[1]) if found else None


@contextmanager
def explained(repo: str, kind: str, revision: str = "", writes: bool = False) -> Iterator[None]:
    """The clients' errors as one sentence that names the repository and what to do.

    ``writes`` says that it is pushed to, and so that it was there a moment ago.
    """
    try:
        yield
    except UserError:
        raise
    except HFValidationError as error:
        raise UserError(f"{kind} '{repo}': this is not a repository name; write namespace/name.") from error
    except Exception as error:
        told = _repository(error, repo, kind, revision, writes) or _refusal(error, writes)
        if told is None:
            raise
        raise UserError(f"{kind} {repo}: {told}.") from error


def _repository(error: Exception, repo: str, kind: str, revision: str, writes: bool) -> str | None:
    """What is the matter with the repository itself, and what to do; None if it is something else."""
    endpoint = HfApi().endpoint
    if isinstance(error, RevisionNotFoundError):
        return (
            f"there is no revision '{revision}'; its tags: {', '.join(patiently(lambda: tags(repo, kind))) or 'none'}"
        )
    if isinstance(error, GatedRepoError):
        return f"it is gated; accept its terms at {endpoint}/{repo} and set HF_TOKEN to a token of that account"
    if not isinstance(error, RepositoryNotFoundError):
        return None
    if writes and error.response.status_code == 401:
        return _no_right(endpoint)
    if writes:
        gone = f"it was at {endpoint} a moment ago and is gone, deleted, renamed or no longer this account's"
        return f"{gone}; the same command makes it again, and runs what it needs from it"
    others = [other for other in _KINDS if other != kind and _exists(repo, other)]
    if others:
        found = f"there is a {others[0]} of that name, not a {kind}"
        return f"no such repository is to be seen at {endpoint}; {found}, so name another"
    token = "" if get_token() else "set HF_TOKEN if it is private, "
    return f"no such repository is to be seen at {endpoint}; {token}check its name, or run the stage that makes it"


def _exists(repo: str, kind: str) -> bool:
    try:
        return HfApi().repo_exists(repo, repo_type=kind)
    except (HfHubHTTPError, *_NETWORK):
        return False


def _refusal(error: Exception, writes: bool) -> str | None:
    """What a Hub, or the way to it, has against a request, and what to do; None if the error is neither's."""
    endpoint, below, code, said = HfApi().endpoint, cause(error), status(error), words(error)
    full = _FULL.search(str(below))
    if code is None and isinstance(below, (*_NETWORK, LocalEntryNotFoundError)):
        left = "" if writes else ", and it is not in the cache"
        return f"no connection to {endpoint}{left}; check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    batch = writes and isinstance(below, ValueError) and "LFS batch API" in str(below)
    if code is None and not batch:
        return None
    if code in (402, 413, 507) or (full and (batch or code == 403)):
        advice = "free or buy storage there, and the same command continues"
        return f"there is no room for it at {endpoint} ({said}); {advice}"
    if code in (401, 403):
        if writes and (code == 403 or not get_token()):
            return _no_right(endpoint, said)
        advice = "set HF_TOKEN to one that may read it, and write to it if it is pushed to"
        return f"{endpoint} does not accept the token; {advice}"
    if code == 429:
        asked = _asked(below)
        until = f"in {asked:.0f} seconds" if asked else "in a few minutes"
        return f"{endpoint} was asked too often (429); give the same command again {until}, and it continues"
    if code in _PASSING:
        advice = "give the same command again when it is well, and it continues"
        return f"{endpoint} answers {code} time after time; {advice}"
    if code == 404:
        return None
    return f"{endpoint} refuses it ({code or 'LFS'}: {said}); mend that, and the same command continues"


def _no_right(endpoint: str, said: str = "") -> str:
    if not get_token():
        return f"there is no token; set HF_TOKEN to one of {endpoint}/settings/tokens that may write"
    told = f" ({said})" if said else ""
    advice = "set HF_TOKEN to one with the role 'write' of an account that may, or name another namespace"
    return f"{endpoint} does not let this token write to it{told}; {advice}"


def words(error: BaseException) -> str:
    """A Hub's own words in an error, on one line and without the full stop."""
    below = cause(error)
    said = getattr(below, "server_message", None) or str(below).partition("API returned errors:")[2] or str(below)
    return " ".join(said.split())[:200].rstrip(". ")


def tags(repo: str, kind: str) -> dict[str, str]:
    """The tags of a repository and the commits behind them."""
    return {ref.name: ref.target_commit for ref in HfApi().list_repo_refs(repo, repo_type=kind).tags}
