"""The graph of what an artifact was made of, read from the ``lineage.json`` of each artifact at the commit that is named.

It runs from what was there to what came of it: an edge leads from an input to what was made with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from spro_hf.errors import UserError
from spro_hf.lineage.place import checked, clean, lineage_of

BASE = "base model"
REFUSED = (401, 403, 404, 410)  # answers of a Hub over a repository that is gone, private or gated
FOREIGN = {"model": "model", "dataset": "data set"}  # what nobody has told more of is called


@dataclass(frozen=True)
class Node:
    """An artifact at a commit, or a leaf: a data set or a model that tells nothing of how it was made.

    ``what`` is its name in the recipe's ``push`` ("guider", "rollouts" ...), "base model", "model" or "data set". ``commit``
    is the Hub's, or the sha256 of a model's files where it is part of the package. ``gone`` says why it could not be read.
    """

    id: str
    repo: str
    kind: str
    what: str
    commit: str
    tag: str = ""
    stage: str = ""
    objective: str = ""
    seed: int | None = None
    gone: str = ""

    @property
    def short(self) -> str:
        """The commit cut to twelve digits."""
        return self.commit[:12]


@dataclass(frozen=True)
class Edge:
    """From an input to what was made with it, by their ids; ``what`` says as what it went in."""

    source: str
    target: str
    what: str


@dataclass(frozen=True)
class Graph:
    """``roots`` are the ids that were asked for; nodes stand in the order in which they were met."""

    roots: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def node(self, id: str) -> Node:
        """The node of an id."""
        return next(node for node in self.nodes if node.id == id)

    def into(self, id: str) -> list[Edge]:
        """The edges of what a node was made of."""
        return [edge for edge in self.edges if edge.target == id]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def identity(kind: str, repo: str, commit: str) -> str:
    """The id of a node."""
    return f"{kind}:{repo}@{commit}"


def read(starts: Iterable[Any]) -> Graph:
    """The graph of ``starts`` (``Artifact``), by the Hub: only each artifact's ``lineage.json`` is downloaded, and once.

    What is gone or private by now is a leaf that says so.

    Raises:
        UserError: if one of ``starts`` cannot be read, or the Hub cannot be reached.
    """
    starts = list(starts)
    known: dict[str, tuple[Node, dict[str, Any] | None]] = {}
    waiting = deque(Node(identity(a.kind, a.repo, a.revision), a.repo, a.kind, FOREIGN[a.kind], a.revision, a.tag)
                    for a in starts)  # fmt: skip
    roots = tuple(dict.fromkeys(node.id for node in waiting))
    while waiting:
        node = waiting.popleft()
        if node.id in known:
            continue
        try:
            told = lineage_of(node.repo, node.kind, node.commit)
        except UserError as error:
            if node.id in roots or not _is_of_the_repository(error):
                raise
            known[node.id] = replace(node, gone=str(error)), None
            continue
        known[node.id] = (_described(node, told) if told else node), told
        for given in told["inputs"] if told else []:
            waiting.append(_input(given))
    return _joined(roots, known)


def of_run(notes: list[dict[str, Any]]) -> Graph:
    """The graph of a run's own artifacts, without a network.

    ``notes`` are those of results.json's ``artifacts``: repo, type, tag, revision, what, and ``lineage`` with inputs, models,
    seed, and recipe (of which stage, objective and push are read). What has no ``lineage`` stands alone.
    """
    known: dict[str, tuple[Node, dict[str, Any] | None]] = {}
    for note in notes:
        id = identity(note["type"], note["repo"], note["revision"])
        node = Node(id, note["repo"], note["type"], note["what"], note["revision"], note["tag"])
        told = checked(note.get("lineage"))
        known[id] = (_described(node, told | {"tag": note["tag"]}) if told else node), told
    roots = tuple(known)
    for _, told in list(known.values()):
        for given in told["inputs"] if told else []:
            node = _input(given)
            known.setdefault(node.id, (node, None))
    return _joined(roots, known)


def _is_of_the_repository(error: UserError) -> bool:
    """Whether a repository cannot be read, and not the Hub reached."""
    from huggingface_hub.errors import HFValidationError

    from spro_hf.hub.trouble import status

    below = error.__cause__
    return isinstance(below, HFValidationError) or (below is not None and status(below) in REFUSED)


def _input(given: dict[str, Any]) -> Node:
    kind, repo, commit = given["kind"], given["repo"], given["commit"]
    revision = clean(given.get("revision") or "")
    tag = "" if revision == commit else revision
    return Node(identity(kind, repo, commit), clean(repo), kind, FOREIGN[kind], commit, tag)


def _described(node: Node, told: dict[str, Any]) -> Node:
    """The node with what its lineage says of it."""
    recipe, seed = told["recipe"], told.get("seed")
    push = recipe.get("push") if isinstance(recipe.get("push"), dict) else {}
    what = next((name for name, repo in push.items() if repo == node.repo), node.what)
    return replace(
        node, what=clean(what), tag=clean(told.get("tag") or node.tag), stage=clean(recipe.get("stage") or ""),
        objective=clean(recipe.get("objective") or ""), seed=seed if isinstance(seed, int) else None,
    )  # fmt: skip


def _joined(roots: tuple[str, ...], known: dict[str, tuple[Node, dict[str, Any] | None]]) -> Graph:
    """Nodes and edges, a model that several name once; an input that goes in twice is one edge."""
    nodes = {id: node for id, (node, _) in known.items()}
    as_what: dict[tuple[str, str], list[str]] = {}
    for id, (_, told) in known.items():
        for given in told["inputs"] if told else []:
            source = identity(given["kind"], given["repo"], given["commit"])
            as_what.setdefault((source, id), []).append(clean(given.get("what", "")))
        for field, name in told["models"].items() if told else []:
            repo, _, commit = name.rpartition("@")
            source = identity("model", repo, commit)
            nodes.setdefault(source, Node(source, clean(repo), "model", BASE, clean(commit)))
            as_what.setdefault((source, id), []).append(clean(field))
    edges = tuple(Edge(*ends, ", ".join(dict.fromkeys(names))) for ends, names in as_what.items())
    return Graph(roots, tuple(nodes.values()), edges)
