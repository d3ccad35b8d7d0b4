"""How many seeds would be needed to tell two methods apart, given the variance between seeds that was observed.

Scores of two methods x and y at one K are compared by the mean over tasks of the mean over seeds. With n seeds on each
of T tasks, and variances s_xt² and s_yt² between the seeds of task t, the difference D of two such means has the
variance V/n, V = Σ_t (s_xt² + s_yt²) / T². A two-sided test at level 5 % (Welch's, 1947) detects a true difference D
with a probability of 80 % when

    n ≥ (t_0.975 + t_0.80)² · V / D²,    quantiles of Student's t with E(n − 1) degrees of freedom,

the usual approximation. E = (Σ s²)² / Σ s⁴, over the 2T variances, is the number of them that count: 2T where all are
equal, 1 where one exceeds all others by far (Satterthwaite 1946).

Every variance is that of one method on one task at one K. Methods differ much in it, and so do capacities: a method
that learns nothing at a large K does that with every seed. Pooling over either would flatter the restless. The price is
a variance from few seeds. `freedom` is Satterthwaite's for the variances at hand, at most 2T(n − 1) and near n − 1
where one of them dominates; below `FEWEST_FREEDOM` no number of seeds is given.

The true D is not known. Put in place of it, the observed D̂ makes n too small on average, since chance has made |D̂|
larger: for two equal methods the formula returns a finite number, too. So n is given for the ends of D̂'s 95 % interval
(Student's t with `freedom`) as well; it is infinite where the interval holds 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
POWER = 0.8
FEWEST = 2
MOST = 1_000_000
"""Beyond this many seeds the answer is "never"."""
FEWEST_FREEDOM = 4
COLUMNS = ["grid", "lag", "name", "opponent", "runs", "difference", "error", "low", "high", "freedom"]
COLUMNS += ["seeds", "fewest", "most"]
CORRECTED = ["difference", "low", "high", "wide_low", "wide_high", "runs"]
"""What `with_corrected` returns."""


def freedom_of(variances: NDArray[np.float64], freedoms: NDArray[np.float64]) -> float:
    """Degrees of freedom of a sum of independent estimates of variance (Satterthwaite 1946).

    Args:
        variances: [cells], the summands.
        freedoms: [cells], the degrees of freedom behind each; 1 for each gives E of this module's formula.

    Returns:
        (Σ v)² / Σ (v²/f); their sum where all variances are 0; 0 where one of them is not known.
    """
    if np.isnan(variances).any():
        return 0.0
    if not variances.any():
        return float(freedoms.sum())
    shares = variances / variances.sum()  # v² may underflow
    return float(1.0 / (shares**2 / freedoms).sum())


def seeds_needed(difference: float, variance: float, cells: float) -> float:
    """Seeds each method needs, by the formula above.

    Args:
        difference: D, the true difference of the means over tasks.
        variance: V, so that with n seeds the measured difference has the variance V/n.
        cells: E, the number of variances that count.

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
    while n < float(stats.t.ppf(quantiles, cells * (n - 1)).sum() ** 2 * wanted):
        n += 1
    return float(n)


def separation(scores: pd.DataFrame, grid: Mapping[str, Any]) -> pd.DataFrame:
    """Every ordered pair of a grid's names at every K.

    Args:
        scores: `scores.parquet`.
        grid: `environments`, `algorithms`, `capacities`, `seeds`.

    Returns:
        `difference` of mean scores (name minus opponent, mean over tasks), its standard `error` and its 95 % interval
        from `low` to `high`; `freedom` of the error's estimate; `seeds` needed for the observed difference, `fewest`
        and `most` for the ends of the interval; these three are NaN where `freedom` is below `FEWEST_FREEDOM`. `runs`
        is the smaller number of seeds behind the difference. With a single seed in some cell there is a difference
        only. Pairs without a run on some task have no row.
    """
    tasks = grid["environments"]
    chosen = scores["env"].isin(tasks) & scores["seed"].isin(grid["seeds"])
    chosen &= scores["name"].isin(grid["algorithms"]) & scores["lag"].isin(grid["capacities"])
    scores = scores[chosen].dropna(subset=["score"])
    cells = scores.groupby(["lag", "name", "env"])["score"].agg(["mean", "var", "size"])
    rows = []
    for lag in grid["capacities"]:
        means = {}
        for name in grid["algorithms"]:
            keys = [(lag, name, env) for env in tasks]
            if all(key in cells.index for key in keys):
                means[name] = cells.loc[keys]
        for x, y in combinations(means, 2):
            found = {"grid": "main", "lag": lag, **compared(means[x], means[y])}
            back = {"difference": -found["difference"], "low": -found["high"], "high": -found["low"]}
            rows.append(found | {"name": x, "opponent": y})
            rows.append(found | back | {"name": y, "opponent": x})
    return pd.DataFrame(rows, columns=COLUMNS)


def compared(x: pd.DataFrame, y: pd.DataFrame, level: float = LEVEL) -> dict[str, Any]:
    """One row of `separation`.

    Args:
        x: a row a task, `mean`, `var` and `size` of the first method's scores; `var` is NaN for a single one.
        y: the second method's, tasks in the same order.
        level: one minus the coverage of the interval from `low` to `high`.
    """
    tasks = len(x)
    both = pd.concat([x, y])
    variances, sizes = both["var"].to_numpy(np.float64), both["size"].to_numpy(np.float64)
    difference = float(np.mean(x["mean"].to_numpy() - y["mean"].to_numpy()))
    error = math.sqrt(float((variances / sizes).sum())) / tasks
    freedom = freedom_of(variances / sizes, np.maximum(sizes - 1, 1))
    reach = float(stats.t.ppf(1 - level / 2, freedom)) * error if freedom else math.nan
    variance = float(variances.sum()) / tasks**2 if freedom >= FEWEST_FREEDOM else math.nan
    cells = freedom_of(variances, np.ones(len(variances)))
    return {
        "runs": int(sizes.min()),
        "difference": difference,
        "error": error,
        "low": difference - reach,
        "high": difference + reach,
        "freedom": freedom,
        "seeds": seeds_needed(difference, variance, cells),
        "fewest": seeds_needed(abs(difference) + reach, variance, cells),
        "most": seeds_needed(max(0.0, abs(difference) - reach), variance, cells),
    }


def with_corrected(x: pd.DataFrame, y: pd.DataFrame, comparisons: int) -> dict[str, Any]:
    """The difference of two methods with its interval, and with the one that is corrected for several comparisons.

    Args:
        x: as for `compared`.
        y: as for `compared`.
        comparisons: how many are made (Bonferroni).

    Returns:
        `difference`, `low`, `high` (95 %), `wide_low`, `wide_high` (corrected), `runs`, the smaller number of seeds.
    """
    row, wide = compared(x, y), compared(x, y, LEVEL / comparisons)
    row |= {"wide_low": wide["low"], "wide_high": wide["high"]}
    return {key: row[key] for key in CORRECTED}
