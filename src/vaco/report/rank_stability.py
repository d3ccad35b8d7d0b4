"""Rank stability: how often VACO beats each other method, and how many seeds it would take to be sure.

Top: the probability of improvement with its interval. Bottom: the number of seeds that the observed variance between
seeds would need to tell the two methods apart (two-sided 5 %, power 80 %), by the formula of `vaco.report.power`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from vaco.report import caption, style
from vaco.report.command import run_command
from vaco.report.improvement import improvement_panels
from vaco.report.panels import NO_SEED, count
from vaco.report.product import Drawn, figure_command
from vaco.report.tables import MAIN, Tables

MOST = 1000.0
"""More seeds than this are drawn at the edge, as an arrow."""


def draw(tables: Tables) -> Drawn:
    """Draw a column a K from `improvement` and `separation`."""
    grid = tables.grid()
    names, capacities = grid["algorithms"], grid["capacities"]
    subject = "vaco" if "vaco" in names else names[-1]
    opponents = [name for name in names if name != subject]
    label = style.look(subject, tables.methods).label
    improvement, separation = tables.read("improvement"), tables.read("separation")
    improvement = improvement[(improvement["grid"] == MAIN) & (improvement["name"] == subject)]
    separation = separation[(separation["grid"] == MAIN) & (separation["name"] == subject)]
    figure = style.new_figure(1.3 + 0.42 * len(opponents))
    panels = figure.subplots(2, len(capacities), squeeze=False, sharey="row", sharex="row")
    improvement_panels(panels[0], improvement, opponents, capacities, tables)
    for axes, lag in zip(panels[1], capacities, strict=True):
        rows = separation[separation["lag"] == lag]
        _needed(axes, rows, opponents, tables)
        axes.axvline(len(grid["seeds"]), color="0.25", linewidth=0.8, linestyle=(0, (2, 1)), zorder=1)
        count(axes, rows, nothing=NO_SEED)
    panels[1][0].set_yticks(range(len(opponents)), [style.look(name, tables.methods).label for name in opponents])
    for row in panels:
        row[0].set_ylabel(f"{label} against")
    middle = panels[0][len(capacities) // 2], panels[1][len(capacities) // 2]
    for axes, text in zip(middle, (f"probability that a run of {label} scores higher", "seeds needed"), strict=True):
        axes.set_xlabel(text, x=0.0 if len(capacities) % 2 == 0 else 0.5)
    freedom = int(separation["freedom"].max()) if len(separation) else 0
    text = caption.joined(
        f"Rank stability, a column a buffer capacity K. Top: probability that a run of {label} has a higher final "
        "score than a run of the other method on the same task, averaged over tasks; ties count one half. Bottom: "
        "number of seeds each method would need for a two-sided test at 5 % to detect the observed difference of "
        "mean scores with a probability of 80 %: n = (1.96 + 0.84)² · 2 Σ s² / (Σ d)², sums over tasks, d the "
        "observed difference on a task and s² the variance between the seeds of a task, pooled over all methods and "
        f"K that have two seeds or more ({freedom} degrees of freedom). It takes the observed differences for true, "
        f"so it is rough where n is small. Filled: {label} is ahead; open: it is behind; an arrow: more than "
        f"{MOST:g} seeds. Dashed line: the seeds that the tier plans.",
        "" if freedom else "No cell has two seeds yet, so there is no variance to go by.",
        caption.scale(tables.summary),
        caption.stratified(improvement),
        "n counts the seeds that are finished on every task; below, those of the smaller cell.",
        caption.chance(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _needed(axes: Axes, rows: pd.DataFrame, opponents: Sequence[str], tables: Tables) -> None:
    """A mark an opponent on a logarithmic axis."""
    for place, opponent in enumerate(opponents):
        found = rows[rows["opponent"] == opponent]
        if found.empty or np.isnan(found["seeds"].iloc[0]):
            continue
        seeds, ahead = float(found["seeds"].iloc[0]), float(found["difference"].iloc[0]) > 0
        look = style.look(opponent, tables.methods)
        if seeds > MOST:
            axes.plot([MOST], [place], marker=">", markersize=5, color=look.colour, linestyle="none")
            continue
        point = look.point if ahead else look.point | {"markerfacecolor": "white", "markeredgecolor": look.colour}
        axes.plot([seeds], [place], color=look.colour, linestyle="none", **point)
        axes.annotate(
            f"{seeds:.0f}", (seeds, place), (5, 0), textcoords="offset points", va="center", fontsize=6, color="0.3"
        )
    axes.set_xscale("log")
    axes.set_xlim(1.4, MOST * 1.6)
    axes.set_xticks([2, 10, 100, MOST])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(len(opponents) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
