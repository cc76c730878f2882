"""``spro-hf lineage``: what an artifact was made of, as a tree in the terminal, as a picture, or as plain data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spro_hf.errors import UserError
from spro_hf.hub.server import at_hub
from spro_hf.lineage.place import console, find

if TYPE_CHECKING:
    from spro_hf.lineage.graph import Graph, Node

PICTURES = (".svg", ".html")


def add(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("artifact", help="user/repo@v1, or datasets/user/repo@v1 for a data set of that name")
    parser.add_argument("--hub", help="the folder of a run, whose local Hub is started, or the address of a Hub")
    parser.add_argument("--json", action="store_true", help="plain data in place of a tree")
    parser.add_argument("--picture", type=Path, help="also draw it into this file, .svg or .html")


def main(arguments: argparse.Namespace) -> int:
    """Print the graph of one artifact."""
    file = arguments.picture
    if file and file.suffix not in PICTURES:
        raise UserError(f"--picture: '{file}' ends in '{file.suffix}'; it is .svg or .html.")
    with at_hub(arguments.hub):
        from spro_hf.lineage.graph import read

        artifact, remark = find(arguments.artifact)
        graph = read([artifact])
    if file:
        from spro_hf.lineage.picture import document

        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document(graph, file.suffix, f"Lineage of {arguments.artifact}"), encoding="utf-8")
    if arguments.json:
        print(json.dumps(graph.plain(), indent=1, ensure_ascii=False))
        return 0
    print_tree(graph)
    if remark:
        print(remark)
    if file:
        print(file)
    return 0


def print_tree(graph: Graph) -> None:
    """Print a tree of each root: below every artifact what it was made of; what was drawn before is only named again."""
    from rich.text import Text
    from rich.tree import Tree

    from spro_hf.lineage.graph import BASE

    out = console()
    drawn: set[str] = set()
    bases = [node for node in graph.nodes if node.what == BASE]
    numbers = {node.id: str(i) for i, node in enumerate(bases, start=1)}

    def grow(id: str, branch: Tree) -> None:
        edges = graph.into(id)
        used = [numbers[edge.source] for edge in edges if edge.source in numbers]
        if used:
            branch.add(Text(f"models {', '.join(sorted(used, key=int))}", style="dim"))
        for edge in edges:
            if edge.source in numbers:
                continue
            again = edge.source in drawn and bool(graph.into(edge.source))
            drawn.add(edge.source)
            twig = branch.add(_label(graph.node(edge.source), edge.what, again))
            if not again:
                grow(edge.source, twig)

    for root in graph.roots:
        drawn.add(root)
        tree = Tree(_label(graph.node(root)), guide_style="dim")
        grow(root, tree)
        out.print(tree)
    if bases:
        out.print()
        out.print(_models(graph, bases, numbers))


def _label(node: Node, what: str = "", again: bool = False) -> Any:
    """A line of the tree: name, tag and commit, then in what stage it was made and as what it went in."""
    from rich.text import Text

    line = Text.assemble((node.repo, "bold"), f" {node.tag}" if node.tag else "", (f" {node.short}", "cyan"))
    words = [node.what, *(word for word in (node.stage, node.objective) if word)]
    if node.seed is not None:
        words.append(f"seed {node.seed}")
    line.append(f"  {' · '.join(words)}", "dim")
    if what:
        line.append(f"  as {what}", "dim italic")
    if again:
        line.append("  ↑ see above", "dim")
    if node.gone:
        line.append(f"  {node.gone}", "yellow")
    return line


def _models(graph: Graph, bases: list[Node], numbers: dict[str, str]) -> Any:
    """The models that artifacts were made with, by number, and the recipes' fields that name them."""
    from rich.text import Text

    lines = []
    for node in bases:
        named = [name for edge in graph.edges if edge.source == node.id for name in edge.what.split(", ")]
        line = Text.assemble((f"{numbers[node.id]:>3} ", "dim"), (node.repo, "bold"), (f" {node.short}", "cyan"))
        lines.append(line.append(f"  {', '.join(dict.fromkeys(named))}", "dim"))
    return Text("\n").join(lines)
