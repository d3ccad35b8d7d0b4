"""Return against seconds: the same method synchronous, under simulated asynchrony, and with actors of its own.

The tier has a grid `wall_clock` of runs with actors beside its main grid. Its runs must be trained one at a time on an
otherwise idle machine, or the seconds mean nothing; `config/wall_clock.yaml` says how.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from vaco.command import run_command
from vaco.errors import UserError
from vaco.report.figures import style
from vaco.report.figures.panels import count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.figures.stand_in import source
from vaco.report.tables import caption
from vaco.report.tables.methods import centred_label
from vaco.report.tables.read import MAIN, Tables

STUDY = "wall_clock"
LOOKS = {"synchronous": "#000000", "uniform": "#56B4E9", "real": "#D55E00"}
KEYS = ["env", "name", "lag"]


def wanted(tables: Tables) -> pd.DataFrame:
    """What is drawn: a row a task, name and K, with the `source` of its data's age."""
    cells = [
        (env, name, lag, source(tables.methods[name]["settings"], lag))
        for grid in (tables.grid(MAIN), tables.grid(STUDY))
        for name in grid["algorithms"]
        for lag in grid["capacities"]
        for env in grid["environments"]
    ]
    return pd.DataFrame(cells, columns=[*KEYS, "source"])


def over_time(curves: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return and seconds at every evaluation.

    Args:
        curves: one row a run and evaluation point.
        cells: what `wanted` gives.

    Returns:
        A row a cell and point: `env`, `source`, `grid_steps`; `seconds` and `mean`, over seeds; `low` and `high`, the
        least and greatest return of a seed; `runs`.
    """
    table = curves.merge(cells, on=KEYS).groupby(["env", "source", "grid_steps"], sort=False)
    found = table.agg(
        seconds=("wall_seconds", "mean"), mean=("mean", "mean"), low=("mean", "min"), high=("mean", "max"),
        runs=("seed", "nunique"),
    )  # fmt: skip
    return found.reset_index()


def busy(runs: pd.DataFrame, cells: pd.DataFrame) -> dict[str, float]:
    """The share of its time in which the learner learns, by source: median over runs of medians over phases."""
    table = runs.merge(cells, on=KEYS)
    share = table["optimise_relative"] / (1.0 + table["optimise_relative"])
    return {str(name): float(value) for name, value in share.groupby(table["source"], sort=False).median().items()}


def draw(tables: Tables) -> Drawn:
    """Draw from `curves` and `runs`, a panel a task.

    Raises:
        UserError: no run is finished.
    """
    cells = wanted(tables)
    table, shares = over_time(tables.read("curves"), cells), busy(tables.read("runs"), cells)
    if table.empty:
        raise UserError("no run is finished yet: train the tier's runs")
    environments = [env for env in tables.grid()["environments"] if env in set(table["env"])]
    figure = style.new_figure(2.6)
    for axes, env in zip(figure.subplots(1, len(environments), squeeze=False)[0], environments, strict=True):
        own = table[table["env"] == env]
        for name, rows in own.groupby("source", sort=False):
            colour = LOOKS[str(name).replace(",", "").split()[0]]
            axes.fill_between(rows["seconds"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
            axes.plot(rows["seconds"], rows["mean"], color=colour, label=name)
        axes.set_title(env, loc="left")
        axes.set_xlabel("seconds")
        axes.set_xlim(left=0)
        count(axes, own)
    figure.axes[0].set_ylabel("return")
    figure.axes[0].legend(frameon=False, loc="lower right")
    (algorithm,) = {tables.methods[name]["algorithm"] for name in cells["name"]}
    parts = ", ".join(f"{100 * share:.0f} % ({name})" for name, share in shares.items())
    text = caption.joined(
        f"{centred_label(algorithm)} against seconds, evaluation among them: return "
        "of the stochastic policy, mean over seeds at equal environment steps, with the range of the seeds. "
        "Real are actors in processes of their own. Runs were trained one at a time on two cores. The learner was "
        f"learning, and not collecting or waiting for its actors, for {parts} of its time.",
        caption.scale(tables.summary),
        "n counts seeds.",
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
