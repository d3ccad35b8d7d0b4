"""Final returns and scores of every task, method and K, with their intervals, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from vaco.report import caption, style
from vaco.report.command import run_command
from vaco.report.product import parse, write_sidecar
from vaco.report.tables import Tables
from vaco.report.typeset import write_all

HEADER = ("task", "method", "K", "seeds", "final return", "normalised score", "area under curve")


def rows(table: pd.DataFrame, tables: Tables) -> list[tuple[str, ...]]:
    """One row a task, name and K, in the order of the plan."""
    made = []
    for (env, name, lag), group in table.groupby(["env", "name", "lag"], sort=False):
        by_metric = group.set_index("metric")
        label = style.look(str(name), tables.methods).label
        cells = [
            _estimate(by_metric.loc[[metric]].iloc[0], digits)
            for metric, digits in (("final", 0), ("score", 2), ("auc", 2))
        ]
        made.append((str(env), label, str(lag), str(int(group["runs"].iloc[0])), *cells))
    return made


def _estimate(row: pd.Series, digits: int) -> str:
    """`0.93 [0.81, 1.02]`; the point alone where the interval is undefined."""
    point = f"{row['point']:.{digits}f}"
    if math.isnan(row["low"]):
        return point
    return f"{point} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this table."""
    tables, stem = parse(arguments, __doc__)
    table = tables.read("task_scores")
    write_all(stem, HEADER, rows(table, tables))
    repetitions, runs = int(table["repetitions"].iloc[0]), int(table["runs"].min())
    text = caption.joined(
        "Mean over seeds of the final return of the stochastic policy, of the normalised score and of the normalised "
        "area under the curve, for every task, method and buffer capacity K of the tier and its studies.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.over_seeds(repetitions, runs=runs, drawn="brackets"),
        caption.caveats(tables.summary),
    )
    write_sidecar(tables, stem, text)
    return 0


if __name__ == "__main__":
    run_command(main)
