"""Performance profiles: the share of runs that score above a threshold, a panel a K."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import NO_SEED, count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption, methods
from vaco.report.tables.read import MAIN, Tables, drawn_last

ROOM = 0.27
"""Share of a panel's width that the names take."""


def draw(tables: Tables) -> Drawn:
    """Draw a panel for each K from `profiles`."""
    table = tables.read("profiles")
    table = table[table["grid"] == MAIN]
    grid = tables.grid()
    names, capacities = drawn_last(grid["algorithms"]), grid["capacities"]
    columns = min(2, len(capacities))
    rows = math.ceil(len(capacities) / columns)
    figure = style.new_figure(0.2 + 2.3 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for spare in panels[len(capacities) :]:
        spare.set_axis_off()
    crossings = {}
    for i, (axes, lag) in enumerate(zip(panels, capacities, strict=False)):
        crossings[axes] = _panel(axes, table[table["lag"] == lag], names, tables)
        axes.set_title(f"K = {lag}" + ("  (synchronous)" if lag == 1 else ""), loc="left")
        count(axes, table[table["lag"] == lag], nothing=NO_SEED)
        axes.set_ylim(-0.02, 1.04)
        if i % columns == 0:
            axes.set_ylabel("share of runs with score > τ")
        axes.set_xlabel("normalised score τ")
    for axes, found in crossings.items():
        _key(axes, found)
    text = caption.joined(
        "Performance profiles: the share of runs, over all tasks and seeds, whose final score exceeds τ; a curve "
        "further to the right is better. Marks stand where a curve crosses one half; names are listed in that order.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.stratified(table, drawn="bands", coverage=False),
        "Over few seeds these bands are too narrow." if (table["runs"] > 1).any() else "",
        "n counts the seeds that are finished on every task.",
        caption.naming(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _panel(axes: Axes, table: pd.DataFrame, names: Sequence[str], tables: Tables) -> list[style.End]:
    """Draw the curves of one K; returns where each crosses one half."""
    found = []
    for name in names:
        rows = table[table["name"] == name].sort_values("threshold")
        if rows.empty:
            continue
        look = methods.look(name, tables.methods)
        x, y = rows["threshold"].to_numpy(), rows["point"].to_numpy()
        style.band(axes, x, rows["low"], rows["high"], look)
        axes.plot(x, y, **look.line)
        crossing = float(x[int(np.argmax(y < 0.5))]) if (y < 0.5).any() else float(x[-1])
        axes.plot([crossing], [0.5], color=look.colour, zorder=look.order + 1, **look.point)
        found.append(style.End(crossing, 0.5, look))
    if table.empty:
        return found
    axes.set_xlim(float(table["threshold"].min()), float(table["threshold"].max()))
    return found


def _key(axes: Axes, found: Sequence[style.End]) -> None:
    """Write the names right of the data, each with a piece of its line, in the order of the curves.

    All curves end at zero, so there are no ends to label; the order of the crossings replaces them.
    """
    low, high = axes.get_xlim()
    room = (high - low) * ROOM / (1 - ROOM)
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= high])
    axes.set_xlim(low, high + room)
    style.bounded_x_axis(axes, low, high)
    for rank, end in enumerate(sorted(found, key=lambda end: -end.x)):
        y = 0.97 - 0.125 * rank
        sample = [high + 0.12 * room, high + 0.26 * room, high + 0.40 * room]
        axes.plot(sample, [y] * 3, **end.look.line, **end.look.point, markevery=[1])
        axes.text(
            high + 0.46 * room,
            y,
            end.look.label,
            va="center",
            fontsize=7.0,
            fontweight="bold" if end.look is methods.LOOKS["vaco"] else "normal",
            color=style.readable(end.look.colour),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
