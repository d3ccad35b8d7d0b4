"""A-3PO's claim: what evaluating the proximal policy costs, and what leaving it out changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vaco.report import lm_caption, lm_style, style
from vaco.report.command import run_command
from vaco.report.lm_stats import CELL, final_accuracy
from vaco.report.product import Drawn, figure_command
from vaco.report.tables import Tables

PARTS = {
    "generate_seconds": ("generation", "#BBBBBB"),
    "recompute_seconds": ("proximal policy", "#E69F00"),
    "update_seconds": ("gradient step", "#0072B2"),
}
METHODS = ("ppo", "decoupled", "a3po", "a3po_unweighted")


def step_seconds(updates: pd.DataFrame) -> pd.DataFrame:
    """Seconds of each part per gradient step, by cell: means over a run's steps, then medians over its seeds.

    Generation happens once a round and the proximal policy is evaluated every few steps, so that only a mean over
    whole runs spreads them evenly; the median over seeds is robust to a run that other work slowed down.
    """
    runs = updates.groupby([*CELL, "seed"])[list(PARTS)].mean()
    return runs.groupby(level=CELL).median().reset_index()


def draw(tables: Tables) -> Drawn:
    """Left: seconds per gradient step by part; right: final accuracy, same cells."""
    evals, updates = tables.read("evals"), tables.read("updates")
    cost = step_seconds(updates[updates["algorithm"].isin(METHODS)])
    table = final_accuracy(evals[evals["algorithm"].isin(METHODS)], "sampled_accuracy")
    cells = sorted(set(zip(cost["lag"].tolist(), cost["minibatches"].tolist(), strict=True)))
    rows = [(lag, n, name) for lag, n in cells for name in METHODS if _has(cost, lag, n, name)]
    figure = style.new_figure(1.2 + 0.2 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    bars(left, cost, rows)
    accuracies(right, table, rows)
    left.set_yticks(range(len(rows)), [f"{lm_style.look(a).label}, N = {n}, K = {lag}" for lag, n, a in rows])
    left.invert_yaxis()
    saved = savings(cost)
    text = lm_caption.joined(
        "What the proximal policy costs: decoupled PPO evaluates it, A-3PO interpolates it.",
        lm_caption.scale(tables.summary),
        "Left: seconds per gradient step, mean over a run, median over seeds. Right: accuracy of sampled answers.",
        saved,
        "A-3PO's authors report 18 % less training time in their first version.",
        lm_caption.intervals(table),
        lm_caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def savings(cost: pd.DataFrame) -> str:
    """How much less time per step A-3PO takes than decoupled PPO: the median over the cells that have both."""
    total = cost.assign(total=cost[list(PARTS)].sum(axis=1)).pivot(index=CELL[1:], columns="algorithm", values="total")
    if not {"decoupled", "a3po"} <= set(total.columns):
        return ""
    share = (1 - total["a3po"] / total["decoupled"]).dropna()
    evaluated = cost[cost["algorithm"] == "decoupled"]
    part = (evaluated["recompute_seconds"] / evaluated[list(PARTS)].sum(axis=1)).median()
    if share.empty:
        return ""
    return (
        f"Evaluating the proximal policy takes {part:.0%} of decoupled PPO's step (median over cells); A-3PO's step "
        f"took {share.median():.0%} less time (cells range from {share.min():.0%} to {share.max():.0%})."
    )


def _has(table: pd.DataFrame, lag: int, count: int, name: str) -> bool:
    chosen = (table["lag"] == lag) & (table["minibatches"] == count) & (table["algorithm"] == name)
    return bool(chosen.any())


def _by_row(table: pd.DataFrame) -> dict[tuple[int, int, str], dict[Any, Any]]:
    """The rows of a table by their cell."""
    return {(row["lag"], row["minibatches"], row["algorithm"]): row for row in table.to_dict("records")}


def bars(axes: Axes, cost: pd.DataFrame, rows: Sequence[tuple[int, int, str]]) -> None:
    """Stacked bars of the parts."""
    indexed = _by_row(cost)
    start = np.zeros(len(rows))
    for column, (label, colour) in PARTS.items():
        widths = np.array([indexed[row][column] for row in rows])
        axes.barh(range(len(rows)), widths, left=start, color=colour, label=label, height=0.7)
        start += widths
    axes.set_xlabel("seconds per gradient step")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=6)
    axes.grid(axis="y", visible=False)


def accuracies(axes: Axes, table: pd.DataFrame, rows: Sequence[tuple[int, int, str]]) -> None:
    """Final accuracies with their intervals."""
    indexed = _by_row(table)
    for place, row in enumerate(rows):
        values, look = indexed[row], lm_style.look(row[2])
        low, high = (0.0 if np.isnan(values[end]) else abs(values["mean"] - values[end]) for end in ("low", "high"))
        axes.errorbar(values["mean"], place, xerr=[[low], [high]], color=look.colour, capsize=0, **look.point)
    axes.set_xlabel("accuracy of sampled answers")
    axes.grid(axis="y", visible=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
