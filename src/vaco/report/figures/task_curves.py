"""Learning curves a task: mean return over seeds during training, a row a task and a column a K."""

from __future__ import annotations

from collections.abc import Sequence

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import count, label_start, over_training, wide_last_column
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.read import Tables, drawn_last


def draw(tables: Tables) -> Drawn:
    """Draw the panels from `task_curves`."""
    table = tables.read("task_curves")
    grid, steps = tables.grid(), tables.summary["steps"]
    names, tasks, capacities = drawn_last(grid["algorithms"]), grid["environments"], grid["capacities"]
    table = table[table["name"].isin(names)]
    figure = style.new_figure(0.35 + 1.55 * len(tasks))
    widths, room = wide_last_column(names, tables.methods, len(capacities))
    panels = figure.subplots(
        len(tasks), len(capacities), squeeze=False, sharey="row", gridspec_kw={"width_ratios": widths}
    )
    ends = {}
    for row, env in enumerate(tasks):
        for column, lag in enumerate(capacities):
            axes = panels[row][column]
            rows = table[(table["env"] == env) & (table["lag"] == lag)]
            last = column == len(capacities) - 1
            at = over_training(axes, rows, names, steps, tables.methods, room=room if last else 0.0, mark=0.85)
            if last:
                ends[axes] = at
            count(axes, rows)
            if row == 0:
                axes.set_title(f"K = {lag}", loc="left")
            if row == len(tasks) - 1:
                axes.set_xlabel("environment steps")
            if column == 0:
                axes.set_ylabel(f"{env}\nreturn")
    figure.align_ylabels()
    figure.canvas.draw()
    for axes, at in ends.items():
        style.label_ends(axes, at, label_start(axes, at))
    text = caption.joined(
        "Return of the stochastic policy during training, not normalised: mean over seeds, a row a task and a column "
        "a buffer capacity K; labels stand at the last column.",
        caption.scale(tables.summary),
        caption.over_seeds(table),
        "n counts seeds.",
        caption.naming(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
