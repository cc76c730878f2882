"""The graph of a lineage as SVG: drawn by hand so that it needs nothing, and follows the reader's light or dark.

Colours are the page's (``report/style.css``), by what an artifact is. All text came from repositories and is escaped.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup, escape

from spro_hf.lineage.graph import BASE, Graph, Node
from spro_hf.lineage.layout import BOX, Layout, arranged

STYLE = Path(__file__).parents[1] / "report" / "style.css"
COLOURS = {  # numbers of the page's colours; a guider, a generator and both have those of the systems that they make
    "guider": 3, "generator": 4, "pipeline": 5, "reward": 6, "references": 6, "rollouts": 2, "pairs": 1, "results": 7,
}  # fmt: skip
OTHER = 0  # models and data sets that were there before
MARGIN = 12
LETTERS = (23, 28)  # that fit the first and the second line of a box
ARROW = 5
RULES = """
.lineage { display: block; max-width: none; font: 12px ui-sans-serif, system-ui, "Segoe UI", Roboto, sans-serif; }
.lineage .box { fill: var(--card); stroke: var(--rule); }
.lineage .asked { stroke: var(--ink); stroke-width: 1.6; }
.lineage .gone { stroke: var(--warn); stroke-dasharray: 4 3; }
.lineage .name { fill: var(--ink); font-weight: 600; }
.lineage .about { fill: var(--soft); font-size: 11px; }
.lineage .way { fill: none; stroke: var(--faint); stroke-width: 1.2; }
.lineage .tip { fill: var(--faint); }
""" + "".join(f".lineage .c{n} {{ fill: var(--s{n}); }}\n" for n in range(8))  # fmt: skip


def svg(graph: Graph) -> Markup:
    """The graph as an ``<svg>`` for a page that has the report's colours; its width is its own, so let it scroll.

    A box is a link to nothing; what has no room in it stands in its title. A line is left out where a longer way says the
    same.
    """
    layout = arranged(graph)
    width, height = (round(size + 2 * MARGIN) for size in layout.size)
    told = escape(f"{len(graph.nodes)} artifacts and models, from what was there to what came of it")
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{told}"><style>{RULES}</style>'
        f'<g transform="translate({MARGIN} {MARGIN})">{_lines(layout)}{_boxes(graph, layout)}</g></svg>'
    )


def document(graph: Graph, suffix: str, title: str) -> str:
    """A file of its own, ".svg" or ".html"."""
    colours = STYLE.read_text(encoding="utf-8").partition("* {")[0]
    drawn = svg(graph)
    if suffix == ".svg":
        opened, tag, rest = drawn.partition("<style>")
        return f"{opened}<title>{escape(title)}</title>{tag}{colours}.lineage {{ background: var(--paper); }}{rest}\n"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        'initial-scale=1"><meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
        f"'unsafe-inline'\"><title>{escape(title)}</title><style>{colours}html {{ color-scheme: light dark; }} body "
        "{ margin: 24px; background: var(--paper); color: var(--ink); font: 16px/1.6 ui-sans-serif, system-ui, sans-serif; } "
        "h1 { font-size: 20px; overflow-wrap: anywhere; } .scroll { overflow-x: auto; }</style></head>"
        f'<body><h1>{escape(title)}</h1><div class="scroll" role="region" tabindex="0" aria-label="{escape(title)}">{drawn}'
        "</div></body></html>\n"
    )


def _lines(layout: Layout) -> str:
    """Each line as a curve that leaves and arrives level, with a tip."""
    parts = []
    for points in layout.lines.values():
        (x, y), (end, level) = points[0], points[-1]
        if end == x:  # straight down, within a column
            parts.append(f'<path class="way" d="M{x:.1f} {y:.1f}V{level - ARROW:.1f}"/>')
            parts.append(f'<path class="tip" d="M{end:.1f} {level:.1f}l-4 -{ARROW}h8z"/>')
            continue
        way = f"M{x:.1f} {y:.1f}"
        for (a, b), (c, d) in zip(points, [*points[1:-1], (end - ARROW, level)], strict=False):
            half = (a + c) / 2
            way += f"L{c:.1f} {d:.1f}" if b == d else f"C{half:.1f} {b:.1f} {half:.1f} {d:.1f} {c:.1f} {d:.1f}"
        parts.append(f'<path class="way" d="{way}"/>')
        parts.append(f'<path class="tip" d="M{end:.1f} {level:.1f}l-{ARROW} -4v8z"/>')
    return "".join(parts)


def _boxes(graph: Graph, layout: Layout) -> str:
    parts = []
    for node in graph.nodes:
        x, y = layout.boxes[node.id]
        marks = (
            "box"
            + (" asked" if len(graph.roots) == 1 and node.id in graph.roots else "")
            + (" gone" if node.gone else "")
        )
        name = node.repo.rpartition("/")[2]
        about = " · ".join(word for word in (node.tag, node.short) if word)
        colour = COLOURS.get(node.what, OTHER)
        parts.append(
            f'<g transform="translate({x:.1f} {y:.1f})"><title>{escape(_told(graph, node))}</title>'
            f'<rect class="{marks}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
            f'<rect class="c{colour}" x="6" y="8" width="4" height="{BOX[1] - 16}" rx="2"/>'
            f'<text class="name" x="18" y="19">{escape(_cut(name, LETTERS[0]))}</text>'
            f'<text class="about" x="18" y="36">{escape(_cut(about, LETTERS[1]))}</text></g>'
        )
    return "".join(parts)


def _told(graph: Graph, node: Node) -> str:
    """All that is known of a node, in lines."""
    seed = "" if node.seed is None else f"seed {node.seed}"
    head = " · ".join(word for word in (node.what, node.stage, node.objective, seed) if word)
    lines = [f"{node.repo} {node.tag}".strip(), node.commit, head, node.gone]
    inputs = [(edge, graph.node(edge.source)) for edge in graph.into(node.id)]
    lines += [f"from {n.repo} {n.tag or n.short} ({edge.what})" for edge, n in inputs if n.what != BASE]
    lines += [f"with {n.repo} {n.short}" for _, n in inputs if n.what == BASE]
    return "\n".join(line for line in lines if line)


def _cut(text: str, letters: int) -> str:
    """A text with some left out where it is too long, most of its end kept: there names differ."""
    if len(text) <= letters:
        return text
    end = letters * 2 // 3
    return f"{text[: letters - end - 1]}…{text[-end:]}"
