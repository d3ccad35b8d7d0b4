"""A-3PO's claim: what evaluating the proximal policy costs, and what leaving it out changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.report.figures import lm_style, style
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import lm_caption
from vaco.report.tables.lm_stats import CELL, final_accuracy
from vaco.report.tables.read import Tables

PARTS = {
    "generate_seconds": ("generation", "#BBBBBB"),
    "recompute_seconds": ("proximal policy", "#E69F00"),
    "update_seconds": ("gradient step", "#0072B2"),
}
METHODS = ("ppo", "decoupled", "a3po", "a3po_unweighted")


def step_parts(updates: pd.DataFrame) -> pd.DataFrame:
    """The parts of a gradient step in units of the run's own generation and gradient step, by cell.

    Seconds of different runs differ with whatever else the machine did then, often by more than the proximal policy
    takes. The parts of one run were slowed down alike, so that their ratios can be compared across runs. Generation
    happens once a round and the proximal policy is evaluated every few steps, so that only sums over whole runs spread
    them evenly; of the seeds the median is taken.
    """
    runs = updates.groupby([*CELL, "seed"])[list(PARTS)].sum()
    without = runs["generate_seconds"] + runs["update_seconds"]
    return runs.div(without, axis=0).groupby(level=CELL).median().reset_index()


def proximal_shares(updates: pd.DataFrame) -> pd.Series:
    """By cell, the share of decoupled PPO's step that evaluating the proximal policy takes, and so A-3PO saves.

    Without the cells of N = K = 1, where the behaviour policy is the proximal one and nothing need be evaluated.
    """
    lagging = (updates["minibatches"] > 1) | (updates["lag"] > 1)
    parts = step_parts(updates[lagging & (updates["algorithm"] == "decoupled")]).set_index(CELL)
    return parts["recompute_seconds"] / parts.sum(axis=1)


def draw(tables: Tables) -> Drawn:
    """Left: parts of a gradient step; right: final accuracy, same cells."""
    evals, updates = tables.read("evals"), tables.read("updates")
    cost = step_parts(updates[updates["algorithm"].isin(METHODS)])
    table = final_accuracy(evals[evals["algorithm"].isin(METHODS)], "sampled_accuracy")
    cells = sorted(set(zip(cost["lag"].tolist(), cost["minibatches"].tolist(), strict=True)))
    rows = [(lag, n, name) for lag, n in cells for name in METHODS if _has(cost, lag, n, name)]
    figure = style.new_figure(1.2 + 0.2 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    bars(left, cost, rows)
    accuracies(right, table, rows)
    left.set_yticks(range(len(rows)), [f"{lm_style.look(a).label}, N = {n}, K = {lag}" for lag, n, a in rows])
    left.invert_yaxis()
    text = lm_caption.joined(
        "What the proximal policy costs: decoupled PPO evaluates it, A-3PO interpolates it.",
        lm_caption.scale(tables.summary),
        "Left: parts of a gradient step, summed over a run, in units of the same run's generation and gradient step, "
        "since seconds of runs that shared a machine with other work cannot be compared; median over seeds. Right: "
        "accuracy of sampled answers (Figure 5 shows that of greedy answers).",
        savings(updates),
        "A-3PO's authors report 18 % less training time in their first version.",
        lm_caption.intervals(table),
        lm_caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def savings(updates: pd.DataFrame) -> str:
    """What evaluating the proximal policy takes of decoupled PPO's step: median and range over cells."""
    share = proximal_shares(updates)
    if share.empty:
        return ""
    return (
        f"Evaluating the proximal policy takes {share.median():.0%} of decoupled PPO's step (cells with N > 1 or "
        f"K > 1: {share.min():.0%} to {share.max():.0%}). That is what A-3PO saves: nothing else in its step differs."
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
    axes.set_xlabel("relative to a step without proximal policy")
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
