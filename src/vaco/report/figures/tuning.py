"""Every method at every value of its own knob: score against the forward lag that was measured, a panel a task and K.

At equal nominal settings methods take steps of different size. Here each is drawn against how far it really moved from
the policy it started a phase from, so that heights can be compared at equal distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.choice import choose
from vaco.report.tables.methods import Look, centred_label, look
from vaco.report.tables.read import Tables


def looks(tables: Tables) -> dict[str, Look]:
    """How each sweep is drawn: as its algorithm; a further sweep of one is dotted, and says what it has besides."""
    found: dict[str, Look] = {}
    for sweep, swept in tables.summary["sweeps"].items():
        method = tables.methods[next(iter(swept["values"]))]
        own = look(method["algorithm"])
        common = {key: value for key, value in method["settings"].items() if key != swept["knob"]}
        label = ", ".join([centred_label(method["algorithm"]), *(f"{key} = {value}" for key, value in common.items())])
        if any(one.colour == own.colour for one in found.values()):
            own = replace(own, dashes=(0, (1, 1)), marker="x")
        found[sweep] = replace(own, label=label, width=1.1)
    return found


def measured(scores: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A row a task, method and K: mean over seeds of `score` and of the forward lag TV(π, π_T), and the `runs`."""
    keys = ["env", "name", "lag", "seed"]
    joined = scores[[*keys, "score"]].merge(runs[[*keys, "forward_mean"]], on=keys, validate="one_to_one")
    joined["forward"] = joined["forward_mean"] / 2
    grouped = joined.groupby(["env", "name", "lag"])
    return grouped.agg(score=("score", "mean"), forward=("forward", "mean"), runs=("seed", "size")).reset_index()


def draw(tables: Tables) -> Drawn:
    """Draw from `scores` and `runs`."""
    scores = tables.read("scores")
    table, chosen = measured(scores, tables.read("runs")), choose(scores, tables)
    environments = tables.grid()["environments"]
    capacities, found = sorted(chosen["lag"].unique()), looks(tables)
    figure = style.new_figure(2.1 * len(capacities) + 0.9)
    panels = figure.subplots(len(capacities), len(environments), squeeze=False, sharex="row", sharey="row")
    for row, lag in zip(panels, capacities, strict=True):
        for axes, env in zip(row, environments, strict=True):
            at = table[(table["lag"] == lag) & (table["env"] == env)].set_index("name")
            for sweep, rows in chosen[chosen["lag"] == lag].groupby("sweep", sort=False):
                _line(axes, at, rows.sort_values("value"), found[str(sweep)])
            axes.set_title(f"{env}, K = {lag}", loc="left")
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.xaxis.set_minor_locator(NullLocator())
            count(axes, at.loc[at.index.isin(chosen["name"])].reset_index())
        row[0].set_ylabel("normalised score")
    for axes in panels[-1]:
        axes.set_xlabel("forward lag TV($\\pi$, $\\pi_T$)")
    handles, labels = _legend(panels)
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    text = caption.joined(
        "Every method at every value of its own knob: normalised score against the forward lag TV(π, π_T) = ½ mean|ρ − "
        "ρ_T| measured after the last gradient step of a phase, means over seeds and training. A line joins the values "
        "of a method's knob in their order. A ring marks the value with the highest score over all tasks at that K, "
        "once all runs of the sweep are finished. Points left of another took shorter steps.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        "n counts seeds; no intervals are drawn, for these seeds only choose.",
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _line(axes: Axes, at: pd.DataFrame, rows: pd.DataFrame, drawn: Look) -> None:
    """One sweep in one panel; values without a finished run are left out."""
    marker: dict[str, Any] = {"marker": "x", "markersize": 3.5} if drawn.marker == "x" else drawn.point
    rows = rows[rows["name"].isin(at.index)]
    if rows.empty:
        return
    x, y = at.loc[rows["name"], "forward"].to_numpy(), at.loc[rows["name"], "score"].to_numpy()
    axes.plot(x, y, **drawn.line, **marker, label=drawn.label)
    best = np.flatnonzero(rows["chosen"].to_numpy())
    axes.plot(x[best], y[best], "o", markersize=8, markerfacecolor="none", markeredgecolor=drawn.colour, zorder=7)


def _legend(panels: np.ndarray[Any, Any]) -> tuple[list[Any], list[str]]:
    """One entry a sweep that is drawn in any panel."""
    entries: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
