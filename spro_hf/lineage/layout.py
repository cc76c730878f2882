"""Where the boxes of a graph stand: columns from what was there at the left to what came of it at the right.

What one moment of a stage left (a round's rollouts, pairs and guider) stands in one column, one below the other. Lines over
several columns run through places of their own, and the order within a column is the mean of what it hangs together with
(the layered layout of Sugiyama, Tagawa and Toda, 1981).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from spro_hf.lineage.graph import Graph
from spro_hf.lineage.place import MADE_BEFORE

BOX = (204, 46)  # width and height
BETWEEN = 56  # columns
GAP = (14, 26)  # boxes that belong together, and others
THIN = 10  # what a line takes that only passes
SWEEPS = 8


@dataclass(frozen=True)
class Layout:
    """``boxes``: id → left upper corner. ``lines``: the points of each line, from box to box; ``size`` is width and height.

    ``lines`` are those that no longer way says already.
    """

    boxes: dict[str, tuple[float, float]]
    lines: dict[tuple[str, str], list[tuple[float, float]]]
    size: tuple[float, float]


def arranged(graph: Graph) -> Layout:
    """Place every node of a graph."""
    ids = [node.id for node in graph.nodes]
    ends = reduced(ids, [(edge.source, edge.target) for edge in graph.edges])
    groups = _grouped(graph, ends)
    of = {id: number for number, members in enumerate(groups) for id in members}
    between = {(of[a], of[b]) for a, b in ends if of[a] != of[b]}
    columns = _columns(len(groups), between)
    slots, chains = _with_passages(columns, between)
    heights: dict[int, float] = defaultdict(lambda: THIN)
    heights |= {n: len(members) * (BOX[1] + GAP[0]) - GAP[0] for n, members in enumerate(groups)}
    _untangle(slots, chains)
    tops = _heights(slots, chains, heights)
    across = {slot: i * (BOX[0] + BETWEEN) for i, column in enumerate(slots) for slot in column}
    boxes = {
        id: (across[number], tops[number] + i * (BOX[1] + GAP[0]))
        for number, members in enumerate(groups)
        for i, id in enumerate(members)
    }
    lines = {}
    for a, b in ends:
        passed = chains[of[a], of[b]][1:-1] if of[a] != of[b] else []
        lines[a, b] = _line(boxes[a], boxes[b], [(across[slot], tops[slot] + THIN / 2) for slot in passed])
    bottom = max((tops[slot] + heights[slot] for column in slots for slot in column), default=0)
    return Layout(boxes, lines, (max(1, len(slots)) * (BOX[0] + BETWEEN) - BETWEEN, bottom))


def reduced(ids: Iterable[str], ends: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges without those that a longer way says too, and without those that would lead back (there are none in truth)."""
    into: dict[str, list[str]] = {id: [] for id in ids}
    for a, b in dict.fromkeys(ends):
        if a != b:
            into[b].append(a)
    above: dict[str, set[str]] = {}
    for start in into:  # without recursion: a lineage may be long
        waiting = [start]
        while waiting:
            id = waiting[-1]
            missing = [a for a in into[id] if a not in above]
            back = set(missing) & set(waiting)
            into[id] = [a for a in into[id] if a not in back]
            missing = [a for a in missing if a not in back]
            if missing:
                waiting.append(missing[0])
                continue
            waiting.pop()
            above.setdefault(id, set().union(*({a} | above[a] for a in into[id])))
    return [(a, b) for b, sources in into.items() for a in sources if not any(a in above[other] for other in sources)]


def _grouped(graph: Graph, ends: list[tuple[str, str]]) -> list[list[str]]:
    """Nodes that one moment of a stage left, in the order in which they were made; all others alone."""
    tags = {node.id: (node.stage, node.tag) for node in graph.nodes if node.stage}
    made = {(e.source, e.target) for e in graph.edges if MADE_BEFORE in e.what.split(", ")}
    follows: dict[str, str] = {}
    for a, b in ends:
        if (a, b) in made and tags.get(a) and tags.get(a) == tags.get(b) and a not in follows:
            follows[a] = b
    taken = {}
    for a, b in follows.items():
        taken.setdefault(b, a)
    groups, seen = [], set()
    for node in graph.nodes:
        first, way = node.id, {node.id}
        while taken.get(first) not in (None, *way):
            first = taken[first]
            way.add(first)
        chain: list[str] = []
        at: str | None = first
        while at is not None and at not in seen:
            chain.append(at)
            seen.add(at)
            following = follows.get(at)
            at = following if following and taken.get(following) == at else None
        if chain:
            groups.append(chain)
    return groups


def _columns(count: int, between: set[tuple[int, int]]) -> list[int]:
    """The column of each group: behind all that it was made of; what was made of nothing, just before where it is used."""
    into, out = defaultdict(set), defaultdict(set)
    for a, b in between:
        into[b].add(a)
        out[a].add(b)
    columns, left = [0] * count, {n: len(into[n]) for n in range(count)}
    ready = [n for n in range(count) if not left[n]]
    while ready:
        n = ready.pop()
        left.pop(n, None)
        for m in out[n]:
            columns[m] = max(columns[m], columns[n] + 1)
            if m in left:
                left[m] -= 1
                if not left[m]:
                    ready.append(m)
    for n in range(count):
        if not into[n] and out[n]:
            columns[n] = max(0, min(columns[m] for m in out[n]) - 1)
    return columns


def _with_passages(columns: list[int], between: set[tuple[int, int]]):
    """The groups of each column, with a place for each line that passes; and of each line the places that it runs through."""
    slots: list[list[int]] = [[] for _ in range(max(columns, default=0) + 1)]
    for number, column in enumerate(columns):
        slots[column].append(number)
    chains, new = {}, len(columns)
    passages: dict[tuple[int, int], int] = {}  # lines from one box share their places
    for a, b in sorted(between, key=lambda ends: (ends[0], columns[ends[1]], ends[1])):
        chain = [a]
        for column in range(columns[a] + 1, columns[b]):
            if (a, column) not in passages:
                passages[a, column] = new
                slots[column].append(new)
                new += 1
            chain.append(passages[a, column])
        chains[a, b] = [*chain, b]
    return slots, chains


def _neighbours(chains: dict[tuple[int, int], list[int]]) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    left, right = defaultdict(set), defaultdict(set)
    for chain in chains.values():
        for a, b in pairwise(chain):
            left[b].add(a)
            right[a].add(b)
    return left, right


def _untangle(slots: list[list[int]], chains: dict[tuple[int, int], list[int]]) -> None:
    """Sort each column by the mean place of what it hangs together with, forth and back."""
    left, right = _neighbours(chains)
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        order = slots if forth else slots[::-1]
        near = left if forth else right
        for before, column in pairwise(order):
            _sort(column, before, near)


def _sort(column: list[int], before: list[int], near: dict[int, set[int]]) -> None:
    """Sort a column by the mean place of its neighbours in the one before; what has none there stays about where it is."""
    place = {slot: i / max(1, len(before) - 1) for i, slot in enumerate(before)}
    now = {slot: i / max(1, len(column) - 1) for i, slot in enumerate(column)}
    column.sort(key=lambda slot: fmean([place[n] for n in near[slot]] or [now[slot]]))


def _heights(
    slots: list[list[int]], chains: dict[tuple[int, int], list[int]], heights: dict[int, float]
) -> dict[int, float]:
    """The top of each place: as near to the middle of its neighbours as those above and below it let it."""
    left, right = _neighbours(chains)
    tops: dict[int, float] = {}
    for column in slots:
        y = 0.0
        for slot in column:
            tops[slot] = y
            y += heights[slot] + GAP[1]

    def middle(slot: int) -> float:
        return tops[slot] + heights[slot] / 2

    for sweep in range(SWEEPS):
        for column in slots if sweep % 2 == 0 else slots[::-1]:
            near = {slot: [middle(n) for n in (*left[slot], *right[slot])] for slot in column}
            wish = {slot: fmean(near[slot]) - heights[slot] / 2 if near[slot] else tops[slot] for slot in column}
            tops |= _apart(column, wish, heights)
    highest = min(tops.values(), default=0.0)
    return {slot: top - highest for slot, top in tops.items()}


def _apart(column: list[int], wish: dict[int, float], heights: dict[int, float]) -> dict[int, float]:
    """The places of a column in their order, none over another, as near to their wishes as blocks of them can be."""
    blocks: list[list] = []  # top wished for, slots, offsets
    for slot in column:
        blocks.append([wish[slot], [slot], [0.0]])
        while len(blocks) > 1:
            upper, lower = blocks[-2], blocks[-1]
            end = upper[0] + upper[2][-1] + heights[upper[1][-1]] + GAP[1]
            if end <= lower[0]:
                break
            shift = end - upper[0]
            slots, offsets = upper[1] + lower[1], upper[2] + [shift + o for o in lower[2]]
            top = fmean(wish[s] - o for s, o in zip(slots, offsets, strict=True))
            blocks[-2:] = [[top, slots, offsets]]
    return {slot: top + offset for top, slots, offsets in blocks for slot, offset in zip(slots, offsets, strict=True)}


def _line(
    a: tuple[float, float], b: tuple[float, float], passed: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    """From the right edge of a box to the left edge of another; within a column from the lower to the upper edge."""
    if a[0] == b[0]:
        below = (a[0] + BOX[0] / 2, a[1] + BOX[1]), (b[0] + BOX[0] / 2, b[1])
        return list(below)
    points = [(a[0] + BOX[0], a[1] + BOX[1] / 2)]
    for x, y in passed:
        points += [(x, y), (x + BOX[0], y)]
    return [*points, (b[0], b[1] + BOX[1] / 2)]
