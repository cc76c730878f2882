"""The shadow Hub: the local Hub, which makes the repositories that the recipes name when they are first asked for.

Served are the ids that a recipe on disk names, each as a tiny checkpoint of the real one's classes or a few rows of its
columns, at ``main`` and at the revisions that a recipe names for it, all of which show the same; and whatever stages push.
Any other id is not found, so that a slip in a recipe's id fails. What the real Hub gates is listed for everybody and
handed out to who has the token.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool

from spro_hf import recipe as recipes_of
from spro_hf.errors import UserError
from spro_hf.hub.app import App, _refusal
from spro_hf.hub.errors import HubError
from spro_hf.hub.repository import LFS_SIZE, LFS_SUFFIXES
from spro_hf.hub.server import Server, _end_with, listen
from spro_hf.hub.store import Store, read_token
from spro_hf.run import outputs

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
GATED = (
    "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "black-forest-labs/FLUX.1-dev",
    "stabilityai/stable-diffusion-3.5-medium",
    "google/gemma-3-4b-it",
)
_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info|commits|refs|auth-check)(?:/([^/]+))?.*)?"
)
_FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/(resolve)/([^/]+)/.+")
Key = tuple[str, str]  # "model" or "dataset", and the id
Builders = Mapping[Key, Callable[[Path], None]]


def named(folder: Path = RECIPES) -> dict[Key, set[str]]:
    """Every repository that is not made by a stage and that a recipe under ``folder`` names, with the revisions it names."""
    found: dict[Key, set[str]] = {}
    made: set[Key] = set()
    for file in recipes_of.find(folder):
        try:
            recipes = recipes_of.load(file)
        except UserError:  # told by the test that runs this recipe
            continue
        for recipe in recipes:
            made |= {(kind, repo) for repo, kind, _ in outputs(recipe)}
            wanted = [("model", id, revision) for _, id, revision in recipe.models]
            wanted += [("dataset", s.source, s.revision) for s in recipe.seed_sets.values() if s.hub]
            for kind, id, revision in wanted:
                if not id.startswith("spro_hf/") and not (ROOT / id).exists():
                    found.setdefault((kind, id), set()).update({"main", revision} - {None})
    return {key: revisions for key, revisions in found.items() if key not in made}


def builders() -> Builders:
    """Everything that the shadow knows to make; imports the libraries that make it."""
    from tests.shadow.datasets import DATASETS
    from tests.shadow.generators import GENERATORS
    from tests.shadow.guiders import GUIDERS
    from tests.shadow.scorers import SCORERS

    models = GENERATORS | GUIDERS | SCORERS
    return {("model", id): build for id, build in models.items()} | {
        ("dataset", id): build for id, build in DATASETS.items()
    }


def quiet_builders() -> Builders:
    """``builders``, for a process that makes them and does nothing else."""
    import datasets
    import diffusers
    import torch
    import transformers

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    return builders()


class Shadow:
    """The ASGI application: it makes what is asked for and named, and lets the local Hub's ``App`` answer.

    Args:
        known: the repositories that may be made, each with the revisions that show its content (see ``named``).
        make: gives the builders; called at the first request for one of them.
    """

    def __init__(self, store: Store, token: str, known: dict[Key, set[str]], make: Callable[[], Builders]):
        self.app, self.store, self.known = App(store, token), store, known
        self._token, self._make, self._builders = token, make, None
        self._one = threading.Lock()  # at a time: builders seed torch's global generator

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        path = scope["raw_path"].decode("ascii", "replace")
        if (found := _API.fullmatch(path) or _FILE.fullmatch(path)) and scope["method"] in ("GET", "HEAD", "POST"):
            kinds, id, what, revision = found.groups()
            key = ((kinds or "models")[:-1], unquote(id))
            if key in self.known:
                try:
                    scope = self._admitted(scope, key, what)
                    await run_in_threadpool(self.build, key)
                except HubError as error:
                    return await _refusal(error)(scope, receive, send)
                if revision and (asked := unquote(revision)) in self.known[key]:
                    at = found.start(4), found.end(4)
                    scope = scope | {"raw_path": f"{path[: at[0]]}main{path[at[1] :]}".encode()}
                    send = self._under(asked, key, what, send)
        await self.app(scope, receive, send)

    def _under(self, revision: str, key: Key, what: str, send: Callable) -> Callable:
        """Clients take a full commit at its word: what is asked for by one is answered as that very commit."""
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            return send
        with self.store.open(*key) as repository:
            own, pinned = repository.resolve("main").encode(), revision.encode()

        async def sent(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value.replace(own, pinned)) for name, value in message["headers"]]
                message = message | {"headers": headers}
            elif what != "resolve":  # JSON, in one piece; a file's bytes stay as they are
                message = message | {"body": message["body"].replace(own, pinned)}
            await send(message)

        return sent

    def _admitted(self, scope: dict[str, Any], key: Key, what: str | None) -> dict[str, Any]:
        """As the real Hub does: a gated repository's files are listed for all, but not handed out to all.

        A token that is not this server's is somebody else's, who has accepted no terms.
        """
        given = dict(scope["headers"]).get(b"authorization", b"").decode()
        if given == f"Bearer {self._token}":
            return scope
        if key[1] in GATED and what in ("resolve", "auth-check"):
            told = f"Access to {key[0]} {key[1]} is restricted; accept its terms."
            raise HubError(403 if given else 401, told, "GatedRepo")
        return scope | {"headers": [(name, value) for name, value in scope["headers"] if name != b"authorization"]}

    def build(self, key: Key) -> None:
        """Make a repository, once. One that no builder makes is left to be not found."""
        with self._one:
            if self.store.exists(*key):
                return
            if self._builders is None:
                self._builders = self._make()
            if key not in self._builders:
                raise HubError(
                    404, f"tests/shadow has no builder for the {key[0]} '{key[1]}'; add one.", "RepoNotFound"
                )
            try:
                with TemporaryDirectory() as folder:
                    self._builders[key](Path(folder))
                    put(self.store, key, Path(folder))
            except Exception as error:  # 424, since the clients would try again after a 5xx
                traceback.print_exc()
                raise HubError(424, f"The builder of '{key[1]}' failed: {type(error).__name__}: {error}") from error


def put(store: Store, key: Key, folder: Path) -> None:
    """A folder's files as one commit of a new repository."""
    operations = []
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        content, path = file.read_bytes(), file.relative_to(folder).as_posix()
        if path.lower().endswith(tuple(f".{s}" for s in LFS_SUFFIXES)) or len(content) > LFS_SIZE:
            oid = hashlib.sha256(content).hexdigest()
            store.lfs_path(oid).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, store.lfs_path(oid))
            store.sent.add(("", oid))
            operations.append({"key": "lfsFile", "value": {"path": path, "oid": oid}})
        else:
            value = {"path": path, "content": base64.b64encode(content).decode()}
            operations.append({"key": "file", "value": value})
    store.create(*key, private=False)
    with store.open(*key) as repository:
        repository.commit("main", {"summary": "a shadow"}, operations)


def start(root: Path, recipes: Path = RECIPES) -> Server:
    """Start the shadow Hub over ``root`` in a process of its own, which ends with this one."""
    root.mkdir(parents=True, exist_ok=True)
    kept = read_token(root / "token")
    command = [sys.executable, "-m", "tests.shadow.server", str(root), "--recipes", str(recipes)]
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=log, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    url = process.stdout.readline().strip()
    assert url, (root / "server.log").read_text()
    return Server(url, kept, process)


def main() -> None:
    """``python -m tests.shadow.server ROOT [--port N] [--recipes FOLDER] [--parent PID]``; prints its address."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="tests.shadow.server", description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder that holds its repositories")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--recipes", type=Path, default=RECIPES, help="whose ids are served")
    parser.add_argument("--parent", type=int, help="end when this process, which started the server, is gone")
    given = parser.parse_args()
    if given.parent:
        _end_with(given.parent)
    store = Store(given.root)
    shadow = Shadow(store, read_token(store.root / "token"), named(given.recipes), quiet_builders)
    listener = listen("127.0.0.1", given.port)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(shadow, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
