"""Probability of improvement: how often a run of VACO beats a run of another method, a panel a K."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.errors import UserError
from vaco.report.figures import style
from vaco.report.figures.panels import NO_SEED, count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption, methods
from vaco.report.tables.read import MAIN, Tables


def draw(tables: Tables) -> Drawn:
    """Draw a panel for each K from `improvement`."""
    table = tables.read("improvement")
    grid = tables.grid()
    names = grid["algorithms"]
    subject = "vaco" if "vaco" in names else names[-1]
    table = table[(table["grid"] == MAIN) & (table["name"] == subject)]
    opponents = [name for name in names if name != subject]
    if not opponents:
        raise UserError("the probability of improvement compares methods, but the tier has one only: add another")
    capacities = grid["capacities"]
    figure = style.new_figure(0.75 + 0.24 * len(opponents))
    panels = figure.subplots(1, len(capacities), squeeze=False, sharey=True)[0]
    label = methods.look(subject, tables.methods).label
    improvement_panels(panels, table, opponents, capacities, tables)
    panels[0].set_ylabel(f"{label} against")
    figure.supxlabel(f"probability that a run of {label} scores higher", fontsize=7.5)
    text = caption.joined(
        f"Probability that a run of {label} has a higher final score than a run of the other method on the same task "
        "and at the same K, averaged over tasks; ties count one half. Right of the dashed line the other method loses "
        "more often than it wins.",
        caption.scale(tables.summary),
        caption.stratified(table, coverage=False),
        caption.won_or_lost(table),
        "The two methods' runs are resampled independently. n counts the seeds that are finished on every task.",
        caption.naming(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def improvement_panels(
    panels: Sequence[Axes], table: pd.DataFrame, opponents: Sequence[str], capacities: Sequence[int], tables: Tables
) -> None:
    """Draw point and interval against every opponent, a panel a K.

    Args:
        panels: one a K.
        table: rows of one name of `improvement`.
        opponents: from top to bottom.
        capacities: values of K.
        tables: for the looks of variants.
    """
    for axes, lag in zip(panels, capacities, strict=True):
        count(axes, table[table["lag"] == lag], nothing=NO_SEED)
        axes.axvline(0.5, color="0.25", linewidth=0.8, linestyle=(0, (2, 1)), zorder=1)
        for place, opponent in enumerate(opponents):
            rows = table[(table["lag"] == lag) & (table["opponent"] == opponent)]
            look = methods.look(opponent, tables.methods)
            axes.hlines(rows.index * 0 + place, rows["low"], rows["high"], color=look.colour, linewidth=2.0)
            axes.plot(rows["point"], rows.index * 0 + place, color=look.colour, linestyle="none", **look.point)
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        axes.set_ylim(len(opponents) - 0.4, -0.6)
        axes.set_title(f"K = {lag}", loc="left")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
    panels[0].set_yticks(range(len(opponents)), [methods.look(name, tables.methods).label for name in opponents])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
