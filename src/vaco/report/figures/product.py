"""The command that every figure shares: read tables, draw, write PDF, PNG and the sidecar.

Each module of a figure is a command of its own: `python -m vaco.report.figures.task_scores --tables
build/results/smoke/tables --out build/paper/figures/smoke/task_scores` writes `task_scores.pdf`, `task_scores.png` and
`task_scores.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from vaco.report.figures import style
from vaco.report.tables.read import Tables
from vaco.report.tables.sidecar import parse, write_sidecar


class Drawn(NamedTuple):
    """A figure and its caption."""

    figure: Figure
    caption: str


def figure_command(draw: Callable[[Tables], Drawn], arguments: Sequence[str] | None, description: str) -> int:
    """Draw, save as PDF and PNG, write the sidecar."""
    tables, stem = parse(arguments, description)
    drawn = draw(tables)
    style.save(drawn.figure, stem)
    write_sidecar(tables, stem, drawn.caption)
    return 0
