"""Final scores a task: mean normalised score over seeds against the degree of asynchrony K, a panel a task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import against_capacity, count, label_room, label_start
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.read import MAIN, Tables, drawn_last


def draw(tables: Tables) -> Drawn:
    """Draw the panels from `task_scores`."""
    table = tables.read("task_scores")
    table = table[(table["grid"] == MAIN) & (table["metric"] == "score")].dropna(subset=["point"])
    grid = tables.grid()
    names, tasks = drawn_last(grid["algorithms"]), grid["environments"]
    table = table[table["name"].isin(names)]
    columns = min(3, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure = style.new_figure(0.2 + 2.3 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[len(tasks) :]:
        spare.set_axis_off()
    room = label_room(names, tables.methods, style.WIDTH / columns - 0.35)
    ends = {}
    for i, (axes, env) in enumerate(zip(panels, tasks, strict=False)):
        rows_of_task = table[(table["env"] == env) & table["lag"].isin(grid["capacities"])]
        ends[axes] = against_capacity(axes, rows_of_task, names, grid["capacities"], tables.methods, room=room)
        axes.set_title(env, loc="left")
        count(axes, rows_of_task)
        axes.set_xlabel("buffer capacity K")
        if i % columns == 0:
            axes.set_ylabel("normalised score")
    figure.canvas.draw()
    for axes, at in ends.items():
        style.label_ends(axes, at, label_start(axes, at))
    text = caption.joined(
        "Final score on each task against the degree of asynchrony: mean over seeds.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.over_seeds(table, drawn="bars"),
        "n counts seeds.",
        "Methods are set apart sideways at each K to keep their bars visible.",
        caption.naming(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
