"""Learning curves and lags of any set of runs, complete or under way: what `vaco plot` draws."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vaco.report.figures import style

Columns = Mapping[str, NDArray[Any]]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
PANELS = (
    ("evals", "mean", "return of evaluations"),
    ("phases", "episode_return", "return in training"),
    ("phases", "backward_lag", "backward lag"),
    ("phases", "forward_lag", "forward lag"),
)


def draw(runs: Mapping[str, Mapping[str, Columns]], note: str = "", titles: Sequence[str] = ()) -> Figure:
    """Draw two panels of returns and two of lags.

    Args:
        runs: by label, the tables `phases` and `evals` of a run as columns. Runs of one label are drawn in one colour
            if the label ends in what tells them apart, behind a blank: "ppo K=1 seed0".
        note: written below, such as that a run's episodes were restarted.
        titles: of the panels; what they show by default.

    Returns:
        The figure; a panel without data says so.
    """
    figure = style.new_figure(4.4)
    groups = list(dict.fromkeys(_group(label) for label in runs))
    for index, (table, name, title) in enumerate(PANELS):
        axes = figure.add_subplot(2, 2, index + 1)
        drawn = False
        for label, tables in runs.items():
            columns = tables[table]
            if name not in columns or not np.isfinite(columns[name]).any():
                continue
            live = np.isfinite(columns[name])  # a phase in which no episode ended has no return
            colour, first = COLOURS[groups.index(_group(label)) % len(COLOURS)], not drawn
            named = _group(label) if label == next(one for one in runs if _group(one) == _group(label)) else None
            axes.plot(columns["env_steps"][live], columns[name][live], color=colour, linewidth=0.9, label=named)
            drawn = drawn or first
        axes.set_title(titles[index] if titles else title, loc="left")
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(lambda value, _: style.steps_label(value))
        if index == 0 and drawn:
            axes.legend(frameon=False)
        if not drawn:
            axes.text(0.5, 0.5, "no data yet", transform=axes.transAxes, ha="center", va="center", color="0.5")
    if note:
        figure.supxlabel(textwrap.fill(note, 110), fontsize="x-small", color="0.3")
    return figure


def _group(label: str) -> str:
    """What runs that differ in their seed alone have in common."""
    head, _, tail = label.rpartition(" ")
    return head if tail.startswith("seed") and head else label
