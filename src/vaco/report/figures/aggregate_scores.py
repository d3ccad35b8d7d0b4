"""Figure 3: median, IQM, mean and optimality gap of the normalised scores against the degree of asynchrony K."""

from __future__ import annotations

from collections.abc import Sequence

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import NO_SEED, against_capacity, count, label_room, label_start
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.read import MAIN, Tables, drawn_last

PANELS = {
    "median": "Median  (higher is better)",
    "iqm": "Interquartile mean  (higher is better)",
    "mean": "Mean  (higher is better)",
    "optimality_gap": "Optimality gap  (lower is better)",
}


def draw(tables: Tables) -> Drawn:
    """Draw the four panels from `aggregates`."""
    table = tables.read("aggregates")
    table = table[table["grid"] == MAIN]
    grid = tables.grid()
    names = drawn_last(grid["algorithms"])
    figure = style.new_figure(4.7)
    room = label_room(names, tables.methods, style.WIDTH / 2 - 0.45)
    ends = {}
    for axes, (metric, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        rows = table[table["metric"] == metric]
        ends[axes] = against_capacity(axes, rows, names, grid["capacities"], tables.methods, room=room)
        axes.set_title(title, loc="left")
        count(axes, rows, nothing=NO_SEED)
        axes.set_ylabel("gap to a score of 1" if metric == "optimality_gap" else "normalised score")
        axes.set_xlabel("buffer capacity K (degree of asynchrony)")
    figure.canvas.draw()
    for axes, at in ends.items():
        style.label_ends(axes, at, label_start(axes, at))
    text = caption.joined(
        "Aggregate scores over tasks against the degree of asynchrony.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.stratified(table),
        caption.trimming(table),
        "n counts the seeds that are finished on every task.",
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
