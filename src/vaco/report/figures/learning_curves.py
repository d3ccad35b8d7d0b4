"""Figure 4: IQM of the normalised return during training for each K, and the IQM of the area under the curve."""

from __future__ import annotations

from collections.abc import Sequence

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.panels import NO_SEED, against_capacity, count, label_room, label_start, over_training
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.read import MAIN, Tables, drawn_last


def draw(tables: Tables) -> Drawn:
    """Draw a panel for each K from `iqm_curves`, and the area panel from `aggregates`."""
    curves, aggregates = tables.read("iqm_curves"), tables.read("aggregates")
    curves = curves[curves["grid"] == MAIN]
    areas = aggregates[(aggregates["grid"] == MAIN) & (aggregates["metric"] == "auc_iqm")]
    grid, steps = tables.grid(), tables.summary["steps"]
    names, capacities = drawn_last(grid["algorithms"]), grid["capacities"]
    columns = 2 if len(capacities) < 6 else 3
    rows = len(capacities) // columns + 1
    figure = style.new_figure(2.25 * rows)
    cells = figure.add_gridspec(rows, columns)
    panels = [figure.add_subplot(cells[divmod(i, columns)]) for i in range(len(capacities))]
    # The area panel takes what is left of the last row: the bottom right, as in the paper.
    area = figure.add_subplot(cells[rows - 1, len(capacities) % columns :])
    width = style.WIDTH / columns
    room = label_room(names, tables.methods, width - 0.45)
    ends = {}
    for axes, lag in zip(panels, capacities, strict=True):
        rows_of_lag = curves[curves["lag"] == lag]
        ends[axes] = over_training(axes, rows_of_lag, names, steps, tables.methods, room=room)
        axes.set_title(f"K = {lag}" + ("  (synchronous)" if lag == 1 else ""), loc="left")
        count(axes, rows_of_lag, nothing=NO_SEED)
        axes.set_ylabel("IQM of normalised return")
        axes.set_xlabel("environment steps")
    low = min(axes.get_ylim()[0] for axes in ends)
    high = max(axes.get_ylim()[1] for axes in ends)
    for axes in ends:
        axes.set_ylim(low, high)
    room = label_room(names, tables.methods, width * (columns - len(capacities) % columns) - 0.45)
    ends[area] = against_capacity(area, areas, names, capacities, tables.methods, room=room)
    count(area, areas, nothing=NO_SEED)
    area.set_title("Area under the curve  (higher is better)", loc="left")
    area.set_ylabel("IQM of mean height")
    area.set_xlabel("buffer capacity K")
    figure.canvas.draw()
    for axes, at in ends.items():
        style.label_ends(axes, at, label_start(axes, at))
    text = caption.joined(
        "Interquartile mean (IQM) of the normalised return during training, a panel for each degree of asynchrony; "
        "last panel: IQM of the area under each run's curve, divided by the length of training.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.stratified(curves, drawn="bands and bars"),
        caption.trimming(curves),
        "n counts the seeds that are finished on every task.",
        caption.naming(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
