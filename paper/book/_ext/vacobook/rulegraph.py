"""``{rule-graph}``: the workflow's rules and what each waits for, as Snakemake itself sees them, drawn in the build.

The drawing is layered: a rule stands above all that need what it makes, as low as it can. Within a layer, rules are
ordered by where their neighbours stand (Sugiyama's barycentre sweeps), so that few lines cross. An edge that follows
from others is left out. Equal graphs give equal bytes. Lines and letters take the page's own colour, light or dark.
"""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

Edge = tuple[str, str]
LETTER, HIGH, GAP, LEVEL = 7.25, 28.0, 12.0, 66.0
"""Pixels: width of a letter of the font, height of a box, least gap between boxes, distance of layers."""
SWEEPS = 8


def parse(dot: str) -> tuple[list[str], list[Edge]]:
    """Rules and edges of what ``snakemake --rulegraph`` prints, an edge from a rule to one that waits for it."""
    names = dict(re.findall(r'^\s*(\d+)\[label = "([^"]+)"', dot, re.MULTILINE))
    edges = re.findall(r"^\s*(\d+) -> (\d+)$", dot, re.MULTILINE)
    return sorted(names.values()), sorted((names[before], names[after]) for before, after in edges)


def reduced(edges: Sequence[Edge]) -> list[Edge]:
    """The edges that do not follow from others: none from a rule to one that also waits for it through a third."""
    after: dict[str, set[str]] = {}
    for start, end in edges:
        after.setdefault(start, set()).add(end)

    @functools.cache
    def reached(name: str) -> frozenset[str]:
        return frozenset(after.get(name, ())).union(*(reached(end) for end in after.get(name, ())))

    return [(start, end) for start, end in edges if not any(end in reached(other) for other in after[start] - {end})]


def layers(names: Sequence[str], edges: Sequence[Edge]) -> list[list[str]]:
    """Rules from top to bottom, each above all that wait for it, in an order in which few edges cross."""
    after = {name: [end for start, end in edges if start == name] for name in names}
    before = {name: [start for start, end in edges if end == name] for name in names}
    depth: dict[str, int] = {}

    def deep(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max(map(deep, after[name]), default=-1)
        return depth[name]

    found: list[list[str]] = [[] for _ in range(1 + max(map(deep, names), default=-1))]
    for name in names:
        found[-1 - depth[name]].append(name)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = before if downwards else after
        place = {name: (index + 0.5) / len(layer) for layer in found for index, name in enumerate(layer)}
        for layer in found if downwards else reversed(found):
            layer.sort(key=_mean_place(neighbours, place))
            place |= {name: (index + 0.5) / len(layer) for index, name in enumerate(layer)}
    return found


def _mean_place(neighbours: dict[str, list[str]], place: dict[str, float]) -> Callable[[str], float]:
    """Where a rule would like to stand: amid its neighbours, or where it is if it has none."""

    def wanted(name: str) -> float:
        known = [place[other] for other in neighbours[name]]
        return sum(known) / len(known) if known else place[name]

    return wanted


def crossings(rows: Sequence[Sequence[str]], edges: Sequence[Edge]) -> int:
    """Pairs of edges between neighbouring layers that cross."""
    total = 0
    for upper, lower in itertools.pairwise(rows):
        lines = [(upper.index(a), lower.index(b)) for a, b in edges if a in upper and b in lower]
        total += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(lines) for c, d in lines[:i])
    return total


def svg(rows: Sequence[Sequence[str]], edges: Sequence[Edge]) -> str:
    """The drawing, as wide as its widest layer."""
    wide = {name: 18 + LETTER * len(name) for row in rows for name in row}
    lengths = [sum(wide[name] for name in row) + GAP * (len(row) - 1) for row in rows]
    width, height = max(lengths) + 4, LEVEL * (len(rows) - 1) + HIGH + 4
    at: dict[str, tuple[float, float]] = {}
    for level, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        spread = (width - 4 - length) / (len(row) + 1)
        x = 2.0
        for name in row:
            x += spread
            at[name] = (x + wide[name] / 2, 2 + LEVEL * level)
            x += wide[name] + GAP
    parts = [_line(at[start], at[end]) for start, end in edges]
    parts += [_box(name, at[name], wide[name]) for row in rows for name in row]
    label = "The rules of the workflow: " + "; ".join(f"{start} before {end}" for start, end in edges)
    return (
        f'<svg class="rule-graph" role="img" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'aria-label="{escape(label)}" style="max-width:100%;height:auto" fill="none" stroke="currentColor">'
        + "".join(parts)
        + "</svg>"
    )


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (to_x, to_y) = (start[0], start[1] + HIGH), end
    bend = (to_y - y) / 2
    curve = f"M{x:.1f} {y:.1f}C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} {to_x:.1f} {to_y - 5:.1f}"
    head = f"M{to_x - 3.5:.1f} {to_y - 7:.1f}L{to_x:.1f} {to_y - 1:.1f}L{to_x + 3.5:.1f} {to_y - 7:.1f}z"
    return f'<path d="{curve}" opacity=".45"/><path d="{head}" fill="currentColor" stroke="none" opacity=".6"/>'


def _box(name: str, at: tuple[float, float], wide: float) -> str:
    x, y = at
    return (
        f'<rect x="{x - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{HIGH:.0f}" rx="6"/>'
        f'<text x="{x:.1f}" y="{y + HIGH / 2 + 4:.1f}" text-anchor="middle" font-family="monospace" font-size="12" '
        f'fill="currentColor" stroke="none">{escape(name)}</text>'
    )


def ask(root: Path, targets: Sequence[str]) -> str:
    """What Snakemake prints of the rules behind some targets, if every run were trained.

    Raises:
        RuntimeError: it prints none.
    """
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "--nolock", *targets, "--config", "runs=all"]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"snakemake --rulegraph failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def setup(app: Sphinx) -> None:
    """Register the directive."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class RuleGraph(SphinxDirective):
        """The rules behind the targets that are its arguments."""

        required_arguments = 1
        final_argument_whitespace = True

        def run(self) -> list[nodes.Node]:
            """Ask Snakemake, and draw."""
            root = Path(self.config.vacobook_root)
            for path in [*sorted((root / "workflow").rglob("*")), root / "src/vaco/dag.py"]:
                if path.is_file():
                    self.env.note_dependency(str(path))
            try:
                names, edges = parse(ask(root, self.arguments[0].split()))
            except RuntimeError as problem:
                raise self.error(str(problem)) from None
            edges = reduced(edges)
            drawing: Any = nodes.raw("", svg(layers(names, edges), edges), format="html")
            return [drawing]

    app.add_directive("rule-graph", RuleGraph)
