"""Forward lag in MuJoCo: more passes over the same data, with and without asynchrony, for PPO and VACO.

The study is the grid `forward_lag` of a tier. A column a K; from top to bottom the final return, the forward lag at the
end of a phase, and the share of gradients that the method itself dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.against import estimates, families, from_zero, logarithmic, runs
from vaco.report.figures.panels import count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.read import Tables

STUDY = "forward_lag"
DEFAULT = 10
ROWS = ("final return", "forward lag\nTV($\\pi$, $\\pi_T$)", "gradients dropped\n(share)")


def draw(tables: Tables) -> Drawn:
    """Draw from `task_scores` and `runs`."""
    grid = tables.grid(STUDY)
    env, capacities = grid["environments"][0], grid["capacities"]
    values = {name: float(tables.methods[name]["settings"].get("epochs", DEFAULT)) for name in grid["algorithms"]}
    groups = families(grid["algorithms"], values, tables.methods)
    scores = tables.read("task_scores")
    scores = scores[(scores["grid"] == STUDY) & (scores["metric"] == "final") & (scores["env"] == env)]
    table = tables.read("runs")
    table = table[(table["env"] == env) & table["seed"].isin(grid["seeds"])]
    table = table.assign(dropped=1.0 - table["kept_fraction"], lag_at_end=table["forward_mean"] / 2)
    delta = np.unique(table.loc[table["name"].isin(list(values)), "delta"] / 2)
    figure = style.new_figure(4.9)
    panels = figure.subplots(len(ROWS), len(capacities), squeeze=False, sharex=True, sharey="row")
    for column, lag in enumerate(capacities):
        returns, forward, dropped = (row[column] for row in panels)
        rows, of_runs = scores[scores["lag"] == lag], table[table["lag"] == lag]
        for rank, family in enumerate(groups):
            estimates(returns, rows, family, rank)
            runs(forward, of_runs, "lag_at_end", family, rank)
            runs(dropped, of_runs, "dropped", family, rank)
        for threshold in delta:
            forward.axhline(threshold, color="0.25", linewidth=0.8, linestyle=(0, (2, 1)))
            forward.text(0.85, threshold, "δ/2", fontsize=6.5, color="0.25", va="top", ha="left")
        for axes in (returns, forward, dropped):
            count(axes, rows)
        returns.set_title(f"{env}, K = {lag}", loc="left")
        dropped.set_xlabel("epochs: passes over the data of a phase")
        logarithmic(returns, sorted(set(values.values())))
    for row, label in zip(panels, ROWS, strict=True):
        row[0].set_ylabel(label)
        if label != ROWS[0]:
            from_zero(row[0])
    figure.align_ylabels()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    text = caption.joined(
        f"Forward lag made by more passes over the same data on {env}, a column a buffer capacity K. Top: final "
        "return, not normalised, mean over seeds. Middle: forward lag TV(π, π_T) = ½ mean|ρ − ρ_T| after the last "
        "gradient step of a phase; the dashed line is δ/2, above which VACO's trigger fires. Bottom: share of "
        "samples whose policy gradient the method dropped. Middle and bottom: mean over training and runs, hair "
        "lines from the least to the greatest run.",
        caption.scale(tables.summary, STUDY),
        caption.over_seeds(scores, drawn="bars"),
        "n counts seeds.",
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
