"""Final accuracy of every method of the language-model track, at each N, and with data of older policies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.report.figures import lm_style, style
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import lm_caption
from vaco.report.tables.lm_stats import final_accuracy
from vaco.report.tables.read import Tables


def draw(tables: Tables) -> Drawn:
    """One panel a setting of N and K, one line a method."""
    table = final_accuracy(tables.read("evals"), "sampled_accuracy")
    settings = sorted({(int(n), int(k)) for n, k in zip(table["minibatches"], table["lag"], strict=True)}, key=_order)
    names = list(dict.fromkeys(a for grid in tables.summary["grids"].values() for a in grid["algorithms"]))
    names = [name for name in names if name in set(table["algorithm"])]
    figure = style.new_figure(0.9 + 0.24 * len(names))
    panels = np.atleast_1d(figure.subplots(1, len(settings), sharex=True, sharey=True))
    for axes, (count, lag) in zip(panels, settings, strict=True):
        chosen = table[(table["minibatches"] == count) & (table["lag"] == lag)]
        points(axes, chosen, names)
        axes.set_title(f"N = {count}" + (f", K = {lag}" if lag > 1 else ""), loc="left")
    panels[0].set_yticks(range(len(names)), [lm_style.look(name).label for name in names])
    panels[0].invert_yaxis()
    panels[len(panels) // 2].set_xlabel("accuracy of sampled answers")
    text = lm_caption.joined(
        "Every method of the language-model track.",
        lm_caption.scale(tables.summary),
        "Accuracy of answers sampled at temperature 1 after the last gradient step; the dotted line is the warm start. "
        "N is the number of gradient steps per generation round, K the capacity of the policy buffer that generates "
        "(1 where not given).",
        lm_caption.intervals(table),
        lm_caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _order(setting: tuple[int, int]) -> tuple[int, int]:
    return setting[1], setting[0]


def points(axes: Axes, table: pd.DataFrame, names: Sequence[str]) -> None:
    """A point with its interval for every method that has runs; the number of seeds beside it."""
    axes.axvline(table["start"].mean(), color="0.6", linewidth=0.8, linestyle=":")
    rows = table.set_index("algorithm")
    for place, name in enumerate(names):
        if name not in rows.index:
            axes.annotate("–", (0.5, place), xycoords=("axes fraction", "data"), ha="center", va="center", color="0.6")
            continue
        row, look = rows.loc[name], lm_style.look(name)
        low, high = (0.0 if np.isnan(row[end]) else abs(row["mean"] - row[end]) for end in ("low", "high"))
        axes.errorbar(row["mean"], place, xerr=[[low], [high]], color=look.colour, capsize=0, **look.point)
    axes.grid(axis="y", visible=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
