"""Diagnostics over training: lag, total variation against the threshold, what the filter did, effective sample size.

A row a quantity and a column a K. The threshold δ of the TV filters is on mean|ρ − ρ_T|, which is twice a total
variation; the figure draws total variations, hence the line at δ/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import count, label_start, over_training, wide_last_column
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption, methods
from vaco.report.tables.read import Tables, drawn_last

ROWS = {
    "backward_lag": "backward lag\nTV($\\pi_T$, $\\beta$)",
    "forward_lag": "forward lag\nTV($\\pi$, $\\pi_T$)",
    "filter_tv": "TV the filter saw\n(TV filters)",
    "fired": "minibatches that\ntrigger (share)",
    "kept_fraction": "gradients kept\n(share)",
    "clip_fraction": "$|\\rho - 1| > \\epsilon$\n(share)",
    "ess": "effective sample\nsize (share)",
}
SHARES = frozenset({"fired", "kept_fraction", "clip_fraction", "ess"})
WITH_THRESHOLD = frozenset({"forward_lag", "filter_tv"})


def quartiles(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Median and quartiles over runs of one diagnostic, for every name and stretch of training.

    Returns:
        `name`, `progress`, `point`, `low`, `high`; stretches in which no run has a value are left out.
    """
    present = table[np.isfinite(table[value])]
    if present.empty:
        return pd.DataFrame(columns=["name", "progress", "point", "low", "high"]).astype({"point": np.float64})
    groups = present.groupby(["name", "stretch"], sort=False)
    spread = groups[value].quantile([0.25, 0.5, 0.75]).unstack()
    spread.columns = pd.Index(["low", "point", "high"])
    table_of_medians: pd.DataFrame = spread.join(groups["progress"].mean()).reset_index()
    return table_of_medians


def runs_of(table: pd.DataFrame) -> pd.DataFrame:
    """How many runs, over tasks and seeds, stand behind every name."""
    runs = table.drop_duplicates(["name", "env", "seed"]).groupby("name").size()
    return runs.rename("runs").reset_index()


def draw(tables: Tables) -> Drawn:
    """Draw the panels from `diagnostics`."""
    grid, steps = tables.grid(), tables.summary["steps"]
    names, capacities = drawn_last(grid["algorithms"]), grid["capacities"]
    table = tables.read("diagnostics")
    chosen = table["name"].isin(names) & table["env"].isin(grid["environments"]) & table["seed"].isin(grid["seeds"])
    table = table[chosen].assign(
        filter_tv=lambda rows: rows["tv_statistic"] / 2,
        fired=lambda rows: rows["trigger_fraction"].where(rows["tv_statistic"].notna()),
    )
    thresholds = np.unique(table.loc[np.isfinite(table["tv_statistic"]), "delta"] / 2)
    figure = style.new_figure(0.35 + 1.3 * len(ROWS))
    widths, room = wide_last_column(names, tables.methods, len(capacities))
    panels = figure.subplots(
        len(ROWS), len(capacities), squeeze=False, sharey="row", gridspec_kw={"width_ratios": widths}
    )
    ends = {}
    for row, (value, label) in enumerate(ROWS.items()):
        for column, lag in enumerate(capacities):
            axes = panels[row][column]
            spread = quartiles(table[table["lag"] == lag], value)
            spread["steps"] = spread["progress"] * steps
            last = column == len(capacities) - 1
            at = over_training(
                axes, spread, names, steps, tables.methods, room=room if last else 0.0, x="steps", mark=0.75
            )
            for threshold in thresholds if value in WITH_THRESHOLD else ():
                axes.plot([0, steps], [threshold, threshold], color="0.25", linewidth=0.8, linestyle=(0, (2, 1)))
                if last:
                    at.append(style.End(float(steps), float(threshold), methods.Look("δ/2", "0.25", "")))
            if value in SHARES:
                axes.set_ylim(-0.03, 1.05)
            if last:
                ends[axes] = at
            if row == 0:
                axes.set_title(f"K = {lag}", loc="left")
            count(axes, runs_of(table[table["lag"] == lag].dropna(subset=[value])))
            if row == len(ROWS) - 1:
                axes.set_xlabel("environment steps")
            if column == 0:
                axes.set_ylabel(label)
    figure.align_ylabels()
    figure.canvas.draw()
    for axes, at in ends.items():
        style.label_ends(axes, at, label_start(axes, at))
    listed = ", ".join(f"{threshold:g}" for threshold in thresholds)
    text = caption.joined(
        "Lag and filtering during training, a row a quantity and a column a buffer capacity K; labels stand at the "
        "last column. Lines: median over the n runs (tasks and seeds together); bands: quartiles over runs, not "
        "confidence intervals. Backward lag is measured before the first gradient step of a phase, forward lag after "
        "the last step; the TV the filter saw is the phase's mean of what its trigger compared with the threshold, and "
        "may stay below while single minibatches exceed it: the row below is the share of those that did.",
        f"Dashed line: the threshold δ/2 = {listed} of the TV filters." if listed else "",
        "Gradients kept counts samples whose policy gradient the method's own filter or clip left in; the share with "
        "|ρ − 1| > ε is measured for every method alike, whether it clips or not; the effective sample size is that "
        "of the ratios ρ = π/β, divided by the number of samples.",
        caption.scale(tables.summary),
        caption.naming(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
