"""Graphs of the pages as SVG: the claims' dependencies, laid out from left to right.

Only what `reports/graph.py` writes is read: nodes `a["label"]:::class`, arrows `a --> b`, classes `classDef c k:v,...`.
A node stands one column to the right of everything that it rests on; within a column, nodes go near the mean height
of their neighbours. A node is a link to its claim.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape

_BLOCK = re.compile(r"^```mermaid\n(graph LR\n.*?)\n```$", re.MULTILINE | re.DOTALL)
_NODE = re.compile(r'(\w+)\["([^"]*)"\](?::::(\w+))?')
_ARROW = re.compile(r"(\w+) --> (\w+)")
_CLASS = re.compile(r"classDef (\w+) (.+)")

LETTER, HEIGHT, ROW, GAP, MARGIN = 7.0, 26, 36, 70, 12
SWEEPS = 8  # of the ordering inside the columns


@dataclass
class Graph:
    """Nodes (label, class), arrows from what is rested on, and the classes' colours."""

    nodes: dict[str, tuple[str, str]] = field(default_factory=dict)
    arrows: list[tuple[str, str]] = field(default_factory=list)
    styles: dict[str, str] = field(default_factory=dict)


def drawn(markdown: str) -> str:
    """Replace each mermaid graph of a page by its drawing."""
    return _BLOCK.sub(lambda found: svg(read(found[1])), markdown)


def read(text: str) -> Graph:
    """The graph of a mermaid text.

    Raises:
        ValueError: a line is none of the three kinds.
    """
    graph = Graph()
    for line in (line.strip() for line in text.splitlines()[1:]):
        if found := _CLASS.fullmatch(line):
            graph.styles[found[1]] = found[2].replace(",", ";")
        elif found := _NODE.fullmatch(line):
            graph.nodes[found[1]] = (found[2], found[3] or "")
        elif found := _ARROW.fullmatch(line):
            graph.arrows.append((found[1], found[2]))
        elif line:
            msg = f"graph: a node, an arrow or a class was expected; got {line!r}"
            raise ValueError(msg)
    return graph


def columns(graph: Graph) -> list[list[str]]:
    """The nodes by column; an arrow never goes to the left, unless it closes a circle."""
    below: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for tail, head in graph.arrows:
        below[head].append(tail)
    depth: dict[str, int] = {}

    def deep(name: str, above: tuple[str, ...] = ()) -> int:
        if name not in depth:
            resting = [b for b in below[name] if b not in above and b != name]
            depth[name] = 1 + max((deep(b, (*above, name)) for b in resting), default=-1)
        return depth[name]

    for name in graph.nodes:
        deep(name)
    layers: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=0))]
    for name in graph.nodes:
        layers[depth[name]].append(name)
    return _ordered(layers, graph.arrows)


def _ordered(layers: list[list[str]], arrows: list[tuple[str, str]]) -> list[list[str]]:
    """The columns with few crossings: every node near the mean height of its neighbours."""
    near: dict[str, list[str]] = {name: [] for layer in layers for name in layer}
    for tail, head in arrows:
        near[tail].append(head)
        near[head].append(tail)
    for sweep in range(SWEEPS):
        at = {name: (i + 0.5) / len(layer) for layer in layers for i, name in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            layer.sort(
                key=lambda name: sum(at[n] for n in near[name]) / len(near[name]) if near[name] else at[name]
            )
            at |= {name: (i + 0.5) / len(layer) for i, name in enumerate(layer)}
    return layers


def svg(graph: Graph) -> str:
    """The drawing, on one line: Markdown must not take a part of it for a paragraph."""
    layers = columns(graph)
    widths = [max(LETTER * len(graph.nodes[name][0]) + 16 for name in layer) for layer in layers]
    height = ROW * max(map(len, layers)) + 2 * MARGIN
    place: dict[str, tuple[float, float, float]] = {}
    left = float(MARGIN)
    for layer, width in zip(layers, widths, strict=True):
        top = (height - ROW * len(layer)) / 2
        for i, name in enumerate(layer):
            own = LETTER * len(graph.nodes[name][0]) + 16
            place[name] = (left + (width - own) / 2, top + ROW * i + (ROW - HEIGHT) / 2, own)
        left += width + GAP
    total = left - GAP + MARGIN
    parts = [_arrow(place[tail], place[head]) for tail, head in graph.arrows]
    for name, (x, y, width) in place.items():
        label, kind = graph.nodes[name]
        style = graph.styles.get(kind, "")
        box = re.sub(r"(^|;)color:[^;]*", "", style)
        text = re.search(r"(?:^|;)color:([^;]*)", style)
        parts.append(
            f'<a href="{_page(label)}"><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{HEIGHT}" rx="4" '
            f'style="{box}"/><text x="{x + width / 2:.1f}" y="{y + 17:.1f}" text-anchor="middle" '
            f'fill="{text[1] if text else "#222"}">{escape(label)}</text></a>'
        )
    head = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#888"/></marker></defs>'
    )
    return (
        f'<div class="graph"><svg role="img" aria-label="What rests on what" viewBox="0 0 {total:.0f} {height:.0f}" '
        f'width="{total:.0f}" height="{height:.0f}">{head}{"".join(parts)}</svg></div>'
    )


def _page(label: str) -> str:
    """Where a claim stands: on this page, or `paper/claim` on the paper's."""
    paper, _, claim = label.rpartition("/")
    return f"{paper}.html#{claim}" if paper else f"#{claim}"


def _arrow(tail: tuple[float, float, float], head: tuple[float, float, float]) -> str:
    x0, y0, x1, y1 = tail[0] + tail[2], tail[1] + HEIGHT / 2, head[0], head[1] + HEIGHT / 2
    bend = max(20.0, abs(x1 - x0) / 2)
    return (
        f'<path d="M{x0:.1f},{y0:.1f} C{x0 + bend:.1f},{y0:.1f} {x1 - bend:.1f},{y1:.1f} {x1:.1f},{y1:.1f}" '
        'fill="none" stroke="#999" marker-end="url(#tip)"/>'
    )
