"""Estimates over the seeds of a language-model tier."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vaco.report.tables.stats import interval

CELL = ["algorithm", "minibatches", "lag"]


def of_grid(table: pd.DataFrame, grid: str) -> pd.DataFrame:
    """The rows of the runs that a grid asks for."""
    return table[table["grids"].str.split(",").map(lambda names: grid in names)]


def mean_interval(values: pd.Series, seed: int = 0) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % bootstrap interval; NaN limits for a single seed, where none is defined."""
    scores = values.to_numpy(dtype=np.float64)[:, None]
    if len(scores) < 2:
        return float(scores.mean()), float("nan"), float("nan")
    point, low, high = interval(scores, lambda x: np.array([x.mean()]), seed=seed)
    return float(point[0]), float(low[0]), float(high[0])


def final_accuracy(evals: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """One row a cell: mean final accuracy with interval, seeds, and the mean accuracy at the start.

    Args:
        evals: rows of evaluation points.
        column: `accuracy` (greedy) or `sampled_accuracy`.
    """
    last = evals.loc[evals.groupby([*CELL, "seed"])["update"].idxmax()]
    first = evals[evals["update"] == 0]
    rows = []
    for cell, group in last.groupby(CELL):
        mean, low, high = mean_interval(group[column])
        start = first.merge(group[[*CELL, "seed"]], on=[*CELL, "seed"])[column].mean()
        facts = dict(zip(CELL, cell, strict=True))
        facts |= {"mean": mean, "low": low, "high": high, "seeds": len(group), "start": float(start)}
        rows.append(facts | {"seconds": float(group["wall_seconds"].mean())})
    return pd.DataFrame(rows)
