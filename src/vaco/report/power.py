"""How many seeds would be needed to tell two methods apart, given the variance between seeds that was observed.

Scores of two methods at one K are compared by the mean over tasks of the mean over seeds. With n seeds on each of T
tasks and a variance s_t² between the seeds of task t, the difference of two such means has the variance
(2/n) · Σ_t s_t² / T². A two-sided test at level 5 % detects a true difference D with a probability of 80 % when

    n ≥ (z_0.975 + z_0.80)² · 2 · Σ_t s_t² / (Σ_t d_t)²,    D = (Σ_t d_t) / T,

the usual normal approximation, in which the observed differences d_t stand for the true ones. The variance s_t² is
pooled over all methods and K of a task that have two seeds or more, Σ (x − mean of its cell)² / Σ (seeds − 1), because
the variance of a single cell of two or three seeds is hardly known at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

# Quantiles of the standard normal distribution at 0.975 (two-sided 5 %) and 0.80 (power).
Z_LEVEL = 1.959963984540054
Z_POWER = 0.8416212335729143
FEWEST = 2
COLUMNS = ["grid", "lag", "name", "opponent", "runs", "difference", "deviation", "freedom", "seeds"]


def pooled_variance(scores: pd.DataFrame) -> tuple[float, int]:
    """Variance between seeds within the cells (name, K) of one task.

    Args:
        scores: rows of one task, with `name`, `lag`, `score`.

    Returns:
        The pooled variance, NaN where no cell has two seeds, and its degrees of freedom.
    """
    groups = scores.dropna(subset=["score"]).groupby(["name", "lag"])["score"]
    freedom = int((groups.size() - 1).sum())
    if not freedom:
        return math.nan, 0
    squares = float(((groups.transform("mean") - scores["score"]) ** 2).sum())
    return squares / freedom, freedom


def seeds_needed(variances: list[float], differences: list[float]) -> float:
    """Seeds a method needs, by the formula above; NaN without a variance, infinite without a difference.

    Args:
        variances: s_t² of each task.
        differences: d_t of each task, same unit and order.
    """
    total, shift = sum(variances), sum(differences)
    if math.isnan(total) or math.isnan(shift):
        return math.nan
    if shift == 0.0:
        return math.inf
    return max(float(FEWEST), math.ceil((Z_LEVEL + Z_POWER) ** 2 * 2.0 * total / shift**2))


def separation(scores: pd.DataFrame, grid: Mapping[str, Any]) -> pd.DataFrame:
    """Every ordered pair of a grid's names at every K.

    Args:
        scores: `scores.parquet`.
        grid: `environments`, `algorithms`, `capacities`, `seeds`.

    Returns:
        `difference` of mean scores (name minus opponent, mean over tasks), `deviation` (√ of the mean over tasks of
        the pooled variance), its degrees of `freedom`, and `seeds` needed, NaN where no task has a cell of two seeds.
        `runs` is the smaller number of seeds behind the difference. Pairs without a run on some task have no row.
    """
    chosen = scores["env"].isin(grid["environments"]) & scores["seed"].isin(grid["seeds"])
    chosen &= scores["name"].isin(grid["algorithms"]) & scores["lag"].isin(grid["capacities"])
    scores = scores[chosen].dropna(subset=["score"])
    pools = [pooled_variance(scores[scores["env"] == env]) for env in grid["environments"]]
    variances, freedom = [pool[0] for pool in pools], sum(pool[1] for pool in pools)
    cells = scores.groupby(["lag", "name", "env"])["score"].agg(["mean", "size"])
    rows = []
    for lag in grid["capacities"]:
        means = {}
        for name in grid["algorithms"]:
            keys = [(lag, name, env) for env in grid["environments"]]
            if all(key in cells.index for key in keys):
                means[name] = cells.loc[keys]
        for x, y in combinations(means, 2):
            differences = (means[x]["mean"].to_numpy() - means[y]["mean"].to_numpy()).tolist()
            found = {
                "grid": "main",
                "lag": lag,
                "runs": int(min(means[x]["size"].min(), means[y]["size"].min())),
                "deviation": float(np.sqrt(np.mean(variances))),
                "freedom": freedom,
                "seeds": seeds_needed(variances, differences),
            }
            shift = float(np.mean(differences))
            rows.append(found | {"name": x, "opponent": y, "difference": shift})
            rows.append(found | {"name": y, "opponent": x, "difference": -shift})
    return pd.DataFrame(rows, columns=COLUMNS)
