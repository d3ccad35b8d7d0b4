"""Rank stability: how often VACO beats each other method, and how many seeds it would take to be sure.

Top: the probability of improvement with its interval. Bottom: the number of seeds that the observed variance between
seeds would need to tell the two methods apart (two-sided 5 %, power 80 %), by the formula of
`vaco.report.tables.power`, with the range that the uncertainty of the observed difference leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullLocator

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.improvement import improvement_panels
from vaco.report.figures.panels import NO_SEED, count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption, methods
from vaco.report.tables.power import FEWEST_FREEDOM
from vaco.report.tables.read import MAIN, Tables

MOST = 1000.0
"""More seeds than this are drawn at the edge, as an arrow."""
EDGE = 1.25 * MOST


def draw(tables: Tables) -> Drawn:
    """Draw a column a K from `improvement` and `separation`."""
    grid = tables.grid()
    names, capacities = grid["algorithms"], grid["capacities"]
    subject = "vaco" if "vaco" in names else names[-1]
    opponents = [name for name in names if name != subject]
    label = methods.look(subject, tables.methods).label
    improvement, separation = tables.read("improvement"), tables.read("separation")
    improvement = improvement[(improvement["grid"] == MAIN) & (improvement["name"] == subject)]
    separation = separation[(separation["grid"] == MAIN) & (separation["name"] == subject)]
    figure = style.new_figure(1.3 + 0.42 * len(opponents))
    panels = figure.subplots(2, len(capacities), squeeze=False, sharey="row", sharex="row")
    improvement_panels(panels[0], improvement, opponents, capacities, tables)
    for axes, lag in zip(panels[1], capacities, strict=True):
        rows = separation[separation["lag"] == lag]
        _needed(axes, rows, opponents, tables)
        _planned(axes, len(grid["seeds"]))
        count(axes, rows, nothing=NO_SEED)
    panels[1][0].set_yticks(range(len(opponents)), [methods.look(name, tables.methods).label for name in opponents])
    for row in panels:
        row[0].set_ylabel(f"{label} against")
    middle = panels[0][len(capacities) // 2], panels[1][len(capacities) // 2]
    for axes, text in zip(middle, (f"probability that a run of {label} scores higher", "seeds needed"), strict=True):
        axes.set_xlabel(text, x=0.0 if len(capacities) % 2 == 0 else 0.5)
    known = separation[separation["freedom"] >= FEWEST_FREEDOM]
    text = caption.joined(
        f"Rank stability, a column a buffer capacity K. Top: probability that a run of {label} has a higher final "
        "score than a run of the other method on the same task, averaged over tasks; ties count one half. Bottom: "
        "number of seeds each method would need for a two-sided test at 5 % to detect a difference of mean scores with "
        "a probability of 80 %: n = (t₀.₉₇₅ + t₀.₈₀)² · Σ (s_x² + s_y²) / (Σ d)², sums over tasks, d the difference "
        "on a task and s² the variance between the seeds of a method on a task at that K. Marks take the observed "
        "differences for true. Chance has made these larger than the true ones, so marks stand too far left on "
        "average; the line runs over the 95 % interval of the observed difference, to the right edge where that "
        f"interval holds 0. Filled: {label} is ahead; open: it is behind; an arrow: beyond {MOST:g} seeds. Dashed "
        "line: the seeds that the tier plans. Nothing is drawn where the variance of the difference has fewer than "
        f"{FEWEST_FREEDOM} degrees of freedom"
        + (
            f"; those drawn have {known['freedom'].min():.1f} or more."
            if len(known)
            else ", which is so everywhere yet."
        ),
        caption.scale(tables.summary),
        caption.stratified(improvement, coverage=False),
        caption.won_or_lost(improvement),
        "n counts the seeds that are finished on every task; below, those of the smaller cell.",
        caption.naming(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _planned(axes: Axes, seeds: int) -> None:
    """A line at the seeds that the tier plans."""
    axes.axvline(seeds, color="0.25", linewidth=0.8, linestyle=(0, (2, 1)), zorder=1)
    _small(axes, f"{seeds} planned", (seeds, 1.0), ("data", "axes fraction"), 2)


def _small(axes: Axes, text: str, place: tuple[float, float], units: str | tuple[str, str], points: float) -> None:
    """A small text so many points above a place, legible where it crosses a line."""
    halo = [withStroke(linewidth=1.5, foreground="white")]
    small: dict[str, Any] = {"ha": "center", "fontsize": 6, "color": "0.3", "path_effects": halo}
    axes.annotate(text, place, (0, points), xycoords=units, textcoords="offset points", **small)


def _needed(axes: Axes, rows: pd.DataFrame, opponents: Sequence[str], tables: Tables) -> None:
    """A mark an opponent on a logarithmic axis, and the range behind it."""
    for place, opponent in enumerate(opponents):
        found = rows[(rows["opponent"] == opponent) & rows["seeds"].notna()]
        if found.empty:
            continue
        row, look = found.iloc[0], methods.look(opponent, tables.methods)
        right = min(float(row["most"]), EDGE)
        axes.plot([min(float(row["fewest"]), EDGE), right], [place, place], color=look.colour, linewidth=1.1, zorder=2)
        if row["most"] > MOST:
            axes.plot([EDGE], [place], marker=">", markersize=4, color=look.colour, linestyle="none")
        if row["seeds"] > MOST:
            continue
        seeds, ahead = float(row["seeds"]), row["difference"] > 0
        point = look.point if ahead else look.point | {"markerfacecolor": "white", "markeredgecolor": look.colour}
        axes.plot([seeds], [place], color=look.colour, linestyle="none", **point)
        _small(axes, f"{seeds:.0f}", (seeds, place), "data", 4)
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
