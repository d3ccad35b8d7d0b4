"""The number of seeds needed, against the formula worked by hand and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vaco.report.power import cell_variance, seeds_needed, separation


def scores(values: dict[tuple[str, str, int], list[float]]) -> pd.DataFrame:
    rows = [
        {"env": env, "name": name, "lag": lag, "seed": seed, "score": score}
        for (env, name, lag), found in values.items()
        for seed, score in enumerate(found)
    ]
    return pd.DataFrame(rows)


GRID = {"environments": ["A", "B"], "algorithms": ["vaco", "ppo"], "capacities": [1, 16], "seeds": [0, 1, 2]}
# Three seeds at two K: 4 degrees of freedom a method and task.
TABLE = {
    ("A", "vaco", 1): [1.0, 1.2, 1.4], ("A", "vaco", 16): [2.0, 2.0, 2.3],
    ("B", "vaco", 1): [0.8, 0.8, 0.8], ("B", "vaco", 16): [0.5, 0.6, 0.7],
    ("A", "ppo", 1): [0.5, 0.5, 0.5], ("A", "ppo", 16): [0.3, 0.6, 0.9],
    ("B", "ppo", 1): [0.7, 0.9, 1.1], ("B", "ppo", 16): [0.2, 0.2, 0.5],
}  # fmt: skip


def test_variance_is_pooled_over_capacities() -> None:
    table = scores({("A", "ppo", 1): [1.0, 3.0], ("A", "ppo", 4): [10.0, 10.0, 13.0], ("A", "ppo", 16): [5.0]})
    # (1 + 1) + (1 + 1 + 4) over 1 + 2 degrees of freedom; the lone seed adds nothing.
    assert cell_variance(table) == (pytest.approx(8 / 3), 3)
    alone, freedom = cell_variance(scores({("A", "ppo", 1): [1.0]}))
    assert math.isnan(alone) and freedom == 0


def slow_seeds(difference: float, variance: float, tasks: int) -> int:
    """Count up until the formula holds."""
    n = 2
    while True:
        freedom = 2 * tasks * (n - 1)
        wanted = (stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) ** 2 * variance / difference**2
        if n >= wanted:
            return n
        n += 1


@pytest.mark.parametrize("difference", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("tasks", [1, 3])
def test_seeds_by_counting_up(difference: float, tasks: int) -> None:
    assert seeds_needed(difference, 0.7, tasks) == slow_seeds(difference, 0.7, tasks)
    assert seeds_needed(-difference, 0.7, tasks) == slow_seeds(difference, 0.7, tasks)


def test_seeds_at_the_ends() -> None:
    assert seeds_needed(1.0, 1e-9, 1) == 2 and seeds_needed(0.0, 1.0, 1) == math.inf
    assert seeds_needed(1e-9, 1.0, 1) == math.inf
    assert math.isnan(seeds_needed(1.0, math.nan, 1)) and math.isnan(seeds_needed(math.nan, 1.0, 1))


def test_that_many_seeds_detect_the_difference_four_times_in_five() -> None:
    """Student's test with variances estimated from the very sample, two tasks and unequal methods."""
    rng = np.random.default_rng(0)
    of_x, of_y, shifts = np.array([0.5, 0.7]), np.array([0.4, 0.8]), np.array([1.1, 0.7])
    n = int(seeds_needed(float(shifts.mean()), float((of_x**2 + of_y**2).sum()) / 4, 2))
    assert 3 <= n <= 8
    x = rng.normal(shifts, of_x, (6000, n, 2))
    y = rng.normal(0.0, of_y, (6000, n, 2))
    error = np.sqrt((x.var(axis=1, ddof=1) + y.var(axis=1, ddof=1)).sum(axis=1) / n) / 2
    found = np.abs(x.mean(axis=(1, 2)) - y.mean(axis=(1, 2))) / error > stats.t.ppf(0.975, 4 * (n - 1))
    # The least whole n, so the power is a little above.
    assert 0.78 < found.mean() < 0.9


def test_separation_by_hand() -> None:
    found = separation(scores(TABLE), GRID).set_index(["lag", "name", "opponent"])
    row = found.loc[(16, "vaco", "ppo")]
    # Sums of squares 0.08 + 0.06, 0 + 0.02, 0 + 0.18, 0.08 + 0.06, each over 4 degrees of freedom.
    variance = (0.14 + 0.02 + 0.18 + 0.14) / 4 / 2**2
    difference = ((2.1 - 0.6) + (0.6 - 0.3)) / 2
    error = math.sqrt(variance / 3)
    assert row["difference"] == pytest.approx(difference) and row["error"] == pytest.approx(error)
    assert row["freedom"] == 4 and row["runs"] == 3
    assert row["seeds"] == slow_seeds(difference, variance, 2)
    assert row["fewest"] == slow_seeds(difference + 1.959964 * error, variance, 2)
    assert row["most"] == slow_seeds(difference - 1.959964 * error, variance, 2)


def test_what_the_grid_does_not_ask_for_does_not_count() -> None:
    more = TABLE | {("A", "vaco", 64): [0.0, 9.0, 0.0]}  # another K
    more |= {("A", "ppo", 16): [*TABLE["A", "ppo", 16], 7.0]}  # another seed
    pd.testing.assert_frame_equal(separation(scores(more), GRID), separation(scores(TABLE), GRID))


def test_an_interval_that_reaches_zero_has_no_most() -> None:
    row = separation(scores(TABLE), GRID).set_index(["lag", "name", "opponent"]).loc[(1, "vaco", "ppo")]
    assert row["fewest"] <= row["seeds"] < math.inf
    near = {key: [score - 0.32 * (key[:2] == ("A", "vaco")) for score in found] for key, found in TABLE.items()}
    row = separation(scores(near), GRID).set_index(["lag", "name", "opponent"]).loc[(1, "vaco", "ppo")]
    assert row["difference"] == pytest.approx(0.14) and row["most"] == math.inf and row["seeds"] < math.inf


def test_separation_mirrors_and_leaves_out_what_is_unfinished() -> None:
    table = scores(TABLE)
    found = separation(table, GRID).set_index(["lag", "name", "opponent"])
    forth, back = found.loc[(16, "vaco", "ppo")], found.loc[(16, "ppo", "vaco")]
    assert back["difference"] == -forth["difference"]
    assert (forth[["seeds", "fewest", "most", "error"]] == back[["seeds", "fewest", "most", "error"]]).all()
    assert separation(table[table["env"] == "A"], GRID).empty


def test_too_little_is_known_of_a_variance() -> None:
    """One method on one task has 3 degrees of freedom: a difference, but no number of seeds."""
    table = scores(TABLE)
    lost = (table["env"] == "B") & (table["name"] == "ppo") & (table["lag"] == 1) & (table["seed"] == 2)
    found = separation(table[~lost], GRID).set_index(["lag", "name", "opponent"])
    row = found.loc[(16, "vaco", "ppo")]
    assert row["freedom"] == 3 and math.isfinite(row["difference"])
    # At the other K that seed is missing itself: each variance is divided by the number of its own seeds.
    here = found.loc[(1, "vaco", "ppo")]
    error = math.sqrt(((0.14 + 0.02 + 0.18) / 4 / 3 + 0.08 / 3 / 2) / 2**2)
    assert row["runs"] == 3 and here["runs"] == 2 and here["error"] == pytest.approx(error)
    assert row[["seeds", "fewest", "most"]].isna().all()
