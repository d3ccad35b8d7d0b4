"""The factorial of the two ideas: every alignment with every filter, a map a task and one over all tasks.

Reviewer questions 1 and 2: alignment without the filter, the filter without alignment, and alignment never, once or at
every update. The study is the grid `factorial` of a tier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import NO_SEED, NOTHING
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption, methods
from vaco.report.tables.read import Tables

STUDY = "factorial"
MAP = "Blues"
ALL = "all tasks"
FILTER_LABELS = {"decoupled_clip": "decoupled\nclip", "tv_total": "tv\ntotal"}


class Place(NamedTuple):
    """Where a method stands on the map."""

    row: str
    column: str


def places(names: Sequence[str], methods: Mapping[str, Any]) -> dict[str, Place]:
    """Row (alignment, or alignment with changed settings) and column (filter) of every name."""
    found = {}
    for name in names:
        align, rule = methods[name]["pair"].split("+")
        row = f"{align}\n(control)" if methods[name]["settings"] else align
        found[name] = Place(row, rule)
    return found


def maps(tables: Tables, study: str, columns: int, height: float) -> tuple[Figure, pd.DataFrame, pd.DataFrame]:
    """Draw the maps of a study from `task_scores` and `aggregates`.

    Args:
        tables: of the tier.
        study: a grid whose methods are pairs of an alignment and a filter, at one capacity.
        columns: maps side by side.
        height: of a row of maps, in inches.

    Returns:
        The figure, the rows drawn of single tasks, and those over all tasks.
    """
    grid = tables.grid(study)
    tasks, lag = list(grid["environments"]), grid["capacities"][0]
    scores, aggregates = tables.read("task_scores"), tables.read("aggregates")
    scores = scores[(scores["grid"] == study) & (scores["metric"] == "score") & (scores["lag"] == lag)]
    scores = scores.dropna(subset=["point"])
    whole = aggregates[(aggregates["grid"] == study) & (aggregates["metric"] == "iqm") & (aggregates["lag"] == lag)]
    drawn = {env: scores[scores["env"] == env] for env in tasks} | {ALL: whole}
    spot = places(grid["algorithms"], tables.methods)
    points = pd.concat([table["point"] for table in drawn.values() if len(table)] or [pd.Series([0.0, 1.0])])
    limits = Normalize(min(0.0, float(points.min())), max(1.0, float(points.max())))
    rows = math.ceil(len(drawn) / columns)
    figure = style.new_figure(0.5 + height * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for spare in list(panels.flat)[len(drawn) :]:
        spare.set_axis_off()
    for i, (axes, (title, table)) in enumerate(zip(panels.flat, drawn.items(), strict=False)):
        _panel(axes, table, spot, limits)
        axes.set_title(title + ("  (IQM)" if title == ALL and len(table) else ""), loc="left")
        if table.empty:
            axes.set_title(
                " ".join((NO_SEED if title == ALL else NOTHING).split()), loc="right", fontsize=6, color="0.35"
            )
        if i % columns == 0:
            axes.set_ylabel("alignment")
        if i >= len(drawn) - columns:
            axes.set_xlabel("filter")
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(limits, MAP), ax=panels, location="right", shrink=0.6, aspect=30, pad=0.01
    )
    bar.set_label(f"normalised score at K = {lag}")
    bar.outline.set_visible(False)
    return figure, scores, whole


def caption_of(tables: Tables, study: str, first: str, scores: pd.DataFrame, whole: pd.DataFrame) -> str:
    """The caption of a study's maps.

    Args:
        tables: of the tier.
        study: the grid.
        first: the sentences that say what the maps are.
        scores: the rows drawn of single tasks.
        whole: those over all tasks.
    """
    return caption.joined(
        first,
        "A panel a task, mean over seeds; last panel: interquartile mean over tasks and seeds, for seeds that are "
        "finished on every task. In each cell: the score, its 95 % interval, and n, the number of seeds.",
        caption.scale(tables.summary, study),
        caption.normalisation(tables.summary),
        caption.stratified(pd.concat([scores, whole], ignore_index=True), drawn="brackets"),
        caption.trimming(whole),
        caption.caveats(tables.summary),
    )


def draw(tables: Tables) -> Drawn:
    """Draw the maps of every alignment with every filter."""
    grid = tables.grid(STUDY)
    figure, scores, whole = maps(tables, STUDY, columns=2, height=2.15)
    spot = places(grid["algorithms"], tables.methods)
    controls = [methods.look(name, tables.methods).label for name in spot if tables.methods[name]["settings"]]
    first = (
        f"Performance retained at K = {grid['capacities'][0]} by every alignment (none, once, continuous) with every "
        "filter: the normalised score, so 1 is what synchronous PPO reaches and 0 the random policy. "
        "none + clip is PPO, none + decoupled clip decoupled PPO, once + tv VACO. Continuous alignment needs whole "
        "trajectories as minibatches, with advantages standardised in each; "
        + (f"the control row is {'; '.join(controls)}." if controls else "there is no control for that.")
    )
    return Drawn(figure, caption_of(tables, STUDY, first, scores, whole))


def _panel(axes: Axes, table: pd.DataFrame, spot: Mapping[str, Place], limits: Normalize) -> None:
    """One map: a square a method, with its score written into it."""
    rows = list(dict.fromkeys(place.row for place in spot.values()))
    columns = list(dict.fromkeys(place.column for place in spot.values()))
    by_name = {str(row["name"]): row for _, row in table.iterrows()}
    colours = matplotlib.colormaps[MAP]
    for name, place in spot.items():
        x, y = columns.index(place.column), rows.index(place.row)
        corner = (x - 0.48, y - 0.47)
        row = by_name.get(name)
        if row is None:
            axes.add_patch(
                Rectangle(corner, 0.96, 0.94, facecolor="0.97", edgecolor="0.8", hatch="////", linewidth=0.4)
            )
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            axes.text(x, y, "missing", ha="center", va="center", fontsize=6, color="0.4", bbox=box)
            continue
        colour = colours(limits(row["point"]))
        axes.add_patch(Rectangle(corner, 0.96, 0.94, facecolor=colour, edgecolor="none"))
        ink = "white" if np.dot(colour[:3], [0.299, 0.587, 0.114]) < 0.5 else "black"
        axes.text(x, y - 0.19, f"{row['point']:.2f}", ha="center", va="center", fontsize=8, color=ink)
        known = not math.isnan(row["low"])
        below = f"[{row['low']:.2f}, {row['high']:.2f}]\nn = {row['runs']:.0f}" if known else f"n = {row['runs']:.0f}"
        axes.text(x, y + 0.2, below, ha="center", va="center", fontsize=5.6, color=ink, linespacing=1.05)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [FILTER_LABELS.get(name, name) for name in columns])
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
