"""Figure 5: a language model's accuracy against forward lag and wall-clock, and what clip and filter drop.

Reads the tables of a language-model tier. Every run makes the same number of gradient steps on the same number of
responses; N of them follow each generation round, so that data are up to N − 1 steps old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.report.figures import lm_style, style
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import lm_caption
from vaco.report.tables.lm_stats import final_accuracy, of_grid
from vaco.report.tables.read import MAIN, Tables, drawn_last

DROPS = ("ppo", "vaco")


def draw(tables: Tables) -> Drawn:
    """Draw accuracy against N, accuracy against training seconds, and the dropped fractions over training."""
    evals = of_grid(tables.read("evals"), MAIN)
    updates = of_grid(tables.read("updates"), MAIN)
    grid = tables.grid()
    names, counts = drawn_last(grid["algorithms"]), sorted(grid["minibatches"])
    figure = style.new_figure(4.9)
    above, below = np.atleast_1d(np.asarray(figure.subfigures(2, 1, height_ratios=[1.15, 1])))
    left, right = above.subplots(1, 2)
    table = final_accuracy(evals)
    against_lag(left, table, names, counts)
    left.set_title("Final accuracy", loc="left")
    against_time(right, evals, names, max(counts), tables.summary["training"]["device"])
    right.set_title(f"Accuracy over training, N = {max(counts)}", loc="left")
    panels = below.subplots(1, len(counts), sharey=True)
    for axes, count in zip(np.atleast_1d(panels), counts, strict=True):
        dropped(axes, updates[updates["minibatches"] == count], [name for name in DROPS if name in names])
        axes.set_title(f"N = {count}", loc="left")
        axes.set_xlabel("gradient step")
    first = np.atleast_1d(panels)[0]
    first.set_ylabel("share of tokens dropped")
    first.set_ylim(bottom=min(0.0, first.get_ylim()[0]))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names))
    text = lm_caption.joined(
        "Forward lag in reinforcement learning of a language model.",
        lm_caption.scale(tables.summary),
        "Top: accuracy of greedy answers to held-out problems after the last gradient step against the number N of "
        "gradient steps per generation round (forward lag up to N − 1), and against training seconds (generation, "
        "verification and gradient steps; evaluations not counted) at the largest N. Bottom: the share of response "
        "tokens whose gradient PPO's clip and VACO's filter drop, mean over seeds.",
        _rounds(tables.summary["training"], counts),
        lm_caption.split(updates),
        lm_caption.intervals(table),
        lm_caption.caveats(tables.summary, timed=True),
    )
    return Drawn(figure, text)


def _rounds(training: Mapping[str, Any], counts: Sequence[int]) -> str:
    """Where N makes methods the same by construction, and how few rounds the largest N leaves."""
    rounds = training["updates"] // max(counts)
    text = f"N = {max(counts)} leaves {rounds} generation rounds." if rounds > 1 else ""
    if min(counts) == 1:
        text += (
            " At N = 1 no ratio leaves 1, so that all methods are one."
            if training.get("precision", "float32") == "float32"
            else " At N = 1 ratios leave 1 by what generation and learner compute differently, and by nothing else."
        )
    refresh = training["proximal_updates"] or max(counts)
    same = [n for n in counts if 1 < n <= refresh and training.get("precision", "float32") == "float32"]
    if same:
        text += (
            f" Decoupled PPO evaluates its proximal policy every {refresh} steps, which makes it "
            f"PPO at N = {', '.join(map(str, same))}."
        )
    return text.strip()


def against_lag(axes: Axes, table: pd.DataFrame, names: Sequence[str], counts: Sequence[int]) -> None:
    """Mean final accuracy with interval against N, the methods set slightly apart."""
    start = table["start"].mean()
    axes.axhline(start, color="0.6", linewidth=0.8, linestyle=":")
    axes.annotate("warm start", (0.01, start), xycoords=("axes fraction", "data"), va="bottom", fontsize=6, color="0.4")
    for place, name in enumerate(names):
        rows = table[table["algorithm"] == name].set_index("minibatches")
        shift = 0.09 * (place - (len(names) - 1) / 2)
        look = lm_style.look(name)
        found = [(x, rows.loc[n]) for x, n in enumerate(counts) if n in rows.index]
        if not found:
            continue
        x = np.array([x + shift for x, _ in found])
        mean = np.array([row["mean"] for _, row in found], dtype=float)
        bars = np.array([[row["mean"] - row["low"], row["high"] - row["mean"]] for _, row in found], dtype=float).T
        axes.errorbar(x, mean, np.nan_to_num(bars), label=look.label, **look.line, **look.point, capsize=0)
    axes.set_xticks(range(len(counts)), [str(n) for n in counts])
    axes.set_xlabel("N, gradient steps per generation round")
    axes.set_ylabel("accuracy")


def against_time(axes: Axes, evals: pd.DataFrame, names: Sequence[str], count: int, device: str) -> None:
    """Mean accuracy over seeds against the mean of their training seconds."""
    chosen = evals[evals["minibatches"] == count]
    for name in names:
        rows = chosen[chosen["algorithm"] == name].groupby("update")
        mean = rows[["accuracy", "wall_seconds"]].mean()
        if len(mean):
            axes.plot(mean["wall_seconds"], mean["accuracy"], **lm_style.look(name).line)
    axes.set_xlabel(f"training seconds, {'one core' if device == 'cpu' else 'one GPU'}")
    axes.set_ylabel("accuracy")


def dropped(axes: Axes, updates: pd.DataFrame, names: Sequence[str]) -> None:
    """The dropped share of tokens over training, mean over seeds, smoothed over eight steps."""
    for name in names:
        series = updates[updates["algorithm"] == name].groupby("update")["filtered_fraction"].mean()
        if len(series):
            smooth = series.rolling(8, min_periods=1, center=True).mean()
            axes.plot(smooth.index, smooth, **lm_style.look(name).line)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
