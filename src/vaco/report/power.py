"""How many seeds would be needed to tell two methods apart, given the variance between seeds that was observed.

Scores of two methods x and y at one K are compared by the mean over tasks of the mean over seeds. With n seeds on each
of T tasks, and variances s_xt² and s_yt² between the seeds of task t, the difference D of two such means has the
variance V/n, V = Σ_t (s_xt² + s_yt²) / T². A two-sided test at level 5 % detects a true difference D with a probability
of 80 % when

    n ≥ (t_0.975 + t_0.80)² · V / D²,    quantiles of Student's t with 2T(n − 1) degrees of freedom,

the usual approximation. The variance s_xt² is that of one method on one task, pooled over K: methods differ much in it,
so pooling over them would flatter the restless ones. With fewer than `FEWEST_FREEDOM` degrees of freedom behind one of
the variances no number is given.

The true D is not known. Put in place of it, the observed D̂ makes n too small on average, since chance has made |D̂|
larger: for two equal methods the formula returns a finite number, too. So n is given for the ends of the interval
|D̂| ± 1.96 standard errors as well; it is infinite where the interval reaches 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05
POWER = 0.8
FEWEST = 2
MOST = 1_000_000
"""Beyond this many seeds the answer is "never"."""
FEWEST_FREEDOM = 4
COLUMNS = ["grid", "lag", "name", "opponent", "runs", "difference", "error", "freedom", "seeds", "fewest", "most"]


def cell_variance(scores: pd.DataFrame) -> tuple[float, int]:
    """Variance between the seeds of one method on one task, pooled over K.

    Args:
        scores: rows of one task and method, with `lag`, `score`.

    Returns:
        The pooled variance, NaN where no K has two seeds, and its degrees of freedom.
    """
    groups = scores.dropna(subset=["score"]).groupby("lag")["score"]
    freedom = int((groups.size() - 1).sum())
    if not freedom:
        return math.nan, 0
    squares = float(((groups.transform("mean") - scores["score"]) ** 2).sum())
    return squares / freedom, freedom


def seeds_needed(difference: float, variance: float, tasks: int) -> float:
    """Seeds each method needs, by the formula above.

    Args:
        difference: D, the true difference of the means over tasks.
        variance: V, so that with n seeds the measured difference has the variance V/n.
        tasks: T.

    Returns:
        The least n of `FEWEST` or more that suffices; NaN without a variance, infinite above `MOST`.
    """
    if math.isnan(variance) or math.isnan(difference):
        return math.nan
    wanted = variance / difference**2 if difference else math.inf
    quantiles = np.array([1 - LEVEL / 2, POWER])
    least = float(stats.norm.ppf(quantiles).sum() ** 2 * wanted)
    if least > MOST:
        return math.inf
    n = max(FEWEST, math.ceil(least))  # Student's quantiles only ask for more
    while n < float(stats.t.ppf(quantiles, 2 * tasks * (n - 1)).sum() ** 2 * wanted):
        n += 1
    return float(n)


def separation(scores: pd.DataFrame, grid: Mapping[str, Any]) -> pd.DataFrame:
    """Every ordered pair of a grid's names at every K.

    Args:
        scores: `scores.parquet`.
        grid: `environments`, `algorithms`, `capacities`, `seeds`.

    Returns:
        `difference` of mean scores (name minus opponent, mean over tasks) and its standard `error`; `freedom`, the
        least degrees of freedom behind one of the variances; `seeds` needed for the observed difference, `fewest` and
        `most` for the ends of its 95 % interval; these are NaN where `freedom` is below `FEWEST_FREEDOM`. `runs` is
        the smaller number of seeds behind the difference. Pairs without a run on some task have no row.
    """
    tasks = grid["environments"]
    chosen = scores["env"].isin(tasks) & scores["seed"].isin(grid["seeds"])
    chosen &= scores["name"].isin(grid["algorithms"]) & scores["lag"].isin(grid["capacities"])
    scores = scores[chosen].dropna(subset=["score"])
    cells = scores.groupby(["lag", "name", "env"])["score"].agg(["mean", "size"])
    spread = {
        name: [cell_variance(scores[(scores["env"] == env) & (scores["name"] == name)]) for env in tasks]
        for name in grid["algorithms"]
    }
    rows = []
    for lag in grid["capacities"]:
        means = {}
        for name in grid["algorithms"]:
            keys = [(lag, name, env) for env in tasks]
            if all(key in cells.index for key in keys):
                means[name] = cells.loc[keys]
        for x, y in combinations(means, 2):
            found = {"grid": "main", "lag": lag, **compared(means[x], means[y], spread[x], spread[y])}
            rows.append(found | {"name": x, "opponent": y})
            rows.append(found | {"name": y, "opponent": x, "difference": -found["difference"]})
    return pd.DataFrame(rows, columns=COLUMNS)


def compared(
    x: pd.DataFrame, y: pd.DataFrame, of_x: list[tuple[float, int]], of_y: list[tuple[float, int]]
) -> dict[str, Any]:
    """One row of `separation`.

    Args:
        x: a row a task, `mean` and `size` of the first method's scores.
        y: the second method's, tasks in the same order.
        of_x: the first method's `cell_variance` of each task.
        of_y: the second method's.
    """
    tasks = len(x)
    freedom = min(pair[1] for pair in (*of_x, *of_y))
    variances = np.array([[pair[0] for pair in of_x], [pair[0] for pair in of_y]])
    sizes = np.array([x["size"], y["size"]], dtype=np.float64)
    difference = float(np.mean(x["mean"].to_numpy() - y["mean"].to_numpy()))
    error = math.sqrt(float((variances / sizes).sum())) / tasks
    variance = float(variances.sum()) / tasks**2 if freedom >= FEWEST_FREEDOM else math.nan
    reach = float(stats.norm.ppf(1 - LEVEL / 2)) * error
    return {
        "runs": int(sizes.min()),
        "difference": difference,
        "error": error,
        "freedom": freedom,
        "seeds": seeds_needed(difference, variance, tasks),
        "fewest": seeds_needed(abs(difference) + reach, variance, tasks),
        "most": seeds_needed(max(0.0, abs(difference) - reach), variance, tasks),
    }
