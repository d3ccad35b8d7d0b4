"""Final returns and scores of every task, method and K, with their intervals, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import pandas as pd

from vaco.command import run_command
from vaco.report.tables import caption, methods
from vaco.report.tables.read import Tables
from vaco.report.tables.sidecar import parse, write_sidecar
from vaco.report.tables.typeset import write_all

MISSING = "missing"
HEADER = ("grid", "task", "method", "K", "seeds", "final return", "normalised score", "area under curve")


def rows(table: pd.DataFrame, tables: Tables) -> list[tuple[str, ...]]:
    """One row a grid, task, name and K, in the order of the plan; what is not finished is marked so."""
    columns = ["grid", "env", "name", "lag", "metric"]
    found = {tuple(row[column] for column in columns): row for _, row in table.iterrows()}
    made = []
    for grid, plan in tables.summary["grids"].items():
        for env, name, lag in product(plan["environments"], plan["algorithms"], plan["capacities"]):
            key = (grid, env, name, lag)
            cells, seeds = [MISSING] * 3, 0
            if (*key, "final") in found:
                seeds = int(found[(*key, "final")]["runs"])
                metrics = (("final", 0), ("score", 2), ("auc", 2))
                cells = [_estimate(found[(*key, metric)], digits) for metric, digits in metrics]
            made.append((grid, env, methods.look(name, tables.methods).label, str(lag), str(seeds), *cells))
    return made


def _estimate(row: pd.Series, digits: int) -> str:
    """`0.93 [0.81, 1.02]`; the point alone where the interval is undefined, `missing` without one."""
    if math.isnan(row["point"]):
        return MISSING
    point = f"{row['point']:.{digits}f}"
    if math.isnan(row["low"]):
        return point
    return f"{point} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this table."""
    tables, stem = parse(arguments, __doc__)
    table = tables.read("task_scores")
    write_all(stem, HEADER, rows(table, tables))
    text = caption.joined(
        "Mean over seeds of the final return of the stochastic policy, of the normalised score and of the normalised "
        "area under the curve, for every task, method and buffer capacity K of the tier and its studies.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.over_seeds(table, drawn="brackets"),
        caption.caveats(tables.summary),
    )
    write_sidecar(tables, stem, text)
    return 0


if __name__ == "__main__":
    run_command(main)
