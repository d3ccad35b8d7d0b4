"""Does the constraint hold? Total variation at the end of a phase against δ, for every method and K.

Reviewer question 8. The filter drops gradients that would increase the lag; nothing guarantees that it stays below the
threshold. For every method of the tier's own grid, whether it has a threshold or not: the distribution over phases of
mean|ρ − ρ_T| and mean|ρ − 1| after the last gradient step (twice the total variation to π_T and to β), how often the
first exceeds δ, and by how much.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.diagnostics import runs_of
from vaco.report.figures.panels import count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption, methods
from vaco.report.tables.read import Tables

ROWS = {
    "forward": "mean$|\\rho - \\rho_T|$ at\nthe end of a phase",
    "total": "mean$|\\rho - 1|$ at\nthe end of a phase",
    "share": "share of phases with\nmean$|\\rho - \\rho_T| > \\delta$",
    "excess": "of these, excess\nover δ",
}
FLOOR = 1e-3
"""Smaller lags are drawn at the edge; they occur while hardly anything has moved the policy yet."""


def pooled(lags: pd.DataFrame, value: str) -> np.ndarray:
    """Five quantiles (5, 25, 50, 75, 95 %) of a lag over the phases of several runs, each run with equal weight.

    Args:
        lags: rows of `lags`, the same levels for every run.
        value: `forward` or `total`.
    """
    # Quantiles at equally spaced levels stand for equally many phases; the two ends stand for half as many.
    weights = np.where((lags["level"] == 0.0) | (lags["level"] == 1.0), 0.5, 1.0)
    order = np.argsort(lags[value].to_numpy())
    values, cumulated = lags[value].to_numpy()[order], np.cumsum(weights[order])
    cumulated = (cumulated - 0.5 * weights[order]) / cumulated[-1]
    return np.asarray(np.interp([0.05, 0.25, 0.5, 0.75, 0.95], cumulated, values))


def draw(tables: Tables) -> Drawn:
    """Draw a column a K from `lags` and `runs`."""
    grid = tables.grid()
    names, capacities = list(grid["algorithms"]), grid["capacities"]
    chosen = {"env": grid["environments"], "name": names, "seed": grid["seeds"]}
    lags, runs = tables.read("lags"), tables.read("runs")
    for key, allowed in chosen.items():
        lags, runs = lags[lags[key].isin(allowed)], runs[runs[key].isin(allowed)]
    thresholds = np.unique(runs["delta"])
    figure = style.new_figure(0.6 + len(ROWS) * (0.35 + 0.145 * len(names)))
    panels = figure.subplots(len(ROWS), len(capacities), squeeze=False, sharey=True, sharex="row")
    for column, lag in enumerate(capacities):
        forward, total, share, excess = (row[column] for row in panels)
        of_lags, of_runs = lags[lags["lag"] == lag], runs[runs["lag"] == lag]
        for axes, value in ((forward, "forward"), (total, "total")):
            _boxes(axes, of_lags, value, names, tables)
            for threshold in thresholds:
                axes.axvline(threshold, color="0.25", linewidth=0.8, linestyle=(0, (2, 1)), zorder=1)
        _violations(share, excess, of_runs, names, tables)
        for axes in (forward, total, share, excess):
            count(axes, runs_of(of_runs))
            axes.grid(axis="y", visible=False)
            axes.grid(axis="x", visible=True)
        forward.set_title(f"K = {lag}", loc="left")
    _axes(panels, names, tables)
    listed = ", ".join(f"{threshold:g}" for threshold in thresholds)
    text = caption.joined(
        "Whether the constraint holds, a column a buffer capacity K. First two rows: the distribution over the "
        "phases of training of mean|ρ − ρ_T| and mean|ρ − 1|, which estimate 2 TV(π, π_T) and 2 TV(π, β) with a heavy "
        "tail (above 2 they can only be wrong), on all data of a phase after its last gradient step (line: 5 to 95 %, "
        "bar: quartiles, mark: median; runs pooled with equal weight). Third row: share of phases that ended with "
        "mean|ρ − ρ_T| above δ, mean over runs with a hair line from the least to the greatest run. Last row: the "
        "excess of those phases, mean|ρ − ρ_T|/δ − 1, the median over runs of each run's median, with a line to the "
        "median of its 95 % quantiles.",
        f"Dashed line: δ = {listed}, the threshold of VACO's trigger; the other methods have none, or a different "
        "one, and are measured against the same."
        if listed
        else "",
        "n counts runs, over tasks and seeds. These are no confidence intervals.",
        caption.scale(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _boxes(axes: Axes, lags: pd.DataFrame, value: str, names: Sequence[str], tables: Tables) -> None:
    """A horizontal box a method."""
    for place, name in enumerate(names):
        rows = lags[lags["name"] == name]
        if rows.empty:
            continue
        look = methods.look(name, tables.methods)
        low, first, middle, third, high = np.maximum(pooled(rows, value), FLOOR)
        axes.plot([low, high], [place, place], color=look.colour, linewidth=0.9)
        axes.plot([first, third], [place, place], color=look.colour, linewidth=4.0, solid_capstyle="butt", alpha=0.45)
        axes.plot([middle], [place], color=look.colour, **look.point)


def _violations(share: Axes, excess: Axes, runs: pd.DataFrame, names: Sequence[str], tables: Tables) -> None:
    """How often and by how much, a mark a method."""
    for place, name in enumerate(names):
        rows = runs[runs["name"] == name]
        if rows.empty:
            continue
        look = methods.look(name, tables.methods)
        often = rows["forward_excess_share"]
        share.hlines(place, often.min(), often.max(), color=look.colour, linewidth=0.9)
        share.plot([often.mean()], [place], color=look.colour, **look.point)
        above = rows[often > 0]
        if len(above):
            middle, high = above["forward_excess_median"].median(), above["forward_excess_high"].median()
            excess.hlines(place, middle, high, color=look.colour, linewidth=0.9)
            excess.plot([middle], [place], color=look.colour, **look.point)


def _axes(panels: np.ndarray, names: Sequence[str], tables: Tables) -> None:
    """Scales and labels; a row shares its x-axis."""
    for row, label in zip(panels, ROWS.values(), strict=True):
        row[0].set_ylabel(label)
    for axes in (panels[0][0], panels[1][0]):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    panels[2][0].set_xlim(-0.04, 1.04)
    panels[2][0].set_xticks([0, 0.5, 1], ["0", "½", "1"])
    panels[3][0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    panels[3][0].set_xlim(left=0.0)
    first = panels[0][0]
    first.set_yticks(range(len(names)), [methods.look(name, tables.methods).label for name in names])
    first.set_ylim(len(names) - 0.4, -0.6)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
