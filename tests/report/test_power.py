"""The number of seeds needed, against the formula worked by hand and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vaco.report.power import Z_LEVEL, Z_POWER, pooled_variance, seeds_needed, separation


def scores(values: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    rows = [
        {"env": env, "name": name, "lag": 16, "seed": seed, "score": score}
        for (env, name), found in values.items()
        for seed, score in enumerate(found)
    ]
    return pd.DataFrame(rows)


GRID = {"environments": ["A", "B"], "algorithms": ["vaco", "ppo"], "capacities": [16], "seeds": [0, 1, 2]}


def test_the_constants_are_those_of_the_normal_distribution() -> None:
    assert stats.norm.ppf(0.975) == pytest.approx(Z_LEVEL) and stats.norm.ppf(0.8) == pytest.approx(Z_POWER)


def test_variance_is_pooled_within_cells() -> None:
    table = scores({("A", "vaco"): [1.0, 3.0], ("A", "ppo"): [10.0, 10.0, 13.0], ("A", "spo"): [5.0]})
    # (1 + 1) + (1 + 1 + 4) over 1 + 2 degrees of freedom; the lone seed adds nothing.
    assert pooled_variance(table) == (pytest.approx(8 / 3), 3)
    alone, freedom = pooled_variance(scores({("A", "vaco"): [1.0]}))
    assert math.isnan(alone) and freedom == 0


def test_seeds_by_hand() -> None:
    assert seeds_needed([1.0], [1.0]) == math.ceil(2 * (1.959964 + 0.841621) ** 2)
    assert seeds_needed([1.0, 1.0], [1.0, 1.0]) == math.ceil(7.848879 * 2 * 2 / 4)
    assert seeds_needed([1e-9], [1.0]) == 2
    assert seeds_needed([1.0], [0.0]) == math.inf and math.isnan(seeds_needed([math.nan, 1.0], [1.0, 1.0]))


def test_that_many_seeds_detect_the_difference_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    deviations, shifts = np.array([0.5, 1.5]), np.array([0.6, 0.2])
    n = int(seeds_needed((deviations**2).tolist(), shifts.tolist()))
    trials = 4000
    x = rng.normal(shifts, deviations, (trials, n, 2)).mean(axis=(1, 2))
    y = rng.normal(0.0, deviations, (trials, n, 2)).mean(axis=(1, 2))
    error = math.sqrt(2 * float((deviations**2).sum()) / n) / 2
    assert float((np.abs(x - y) / error > Z_LEVEL).mean()) == pytest.approx(0.8, abs=0.025)


def test_separation_mirrors_and_leaves_out_what_is_unfinished() -> None:
    table = scores({("A", "vaco"): [1.0, 1.2], ("B", "vaco"): [0.8], ("A", "ppo"): [0.5], ("B", "ppo"): [0.7, 0.9]})
    found = separation(table, GRID).set_index(["name", "opponent"])
    forth, back = found.loc[("vaco", "ppo")], found.loc[("ppo", "vaco")]
    assert forth["difference"] == pytest.approx((0.6 + 0.0) / 2) and back["difference"] == -forth["difference"]
    assert forth["seeds"] == back["seeds"] == math.ceil(7.848879 * 2 * (0.02 + 0.02) / 0.6**2) and forth["runs"] == 1
    assert separation(table[table["env"] == "A"], GRID).empty
