"""The number of seeds needed, against the formula worked by hand and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vaco.report.tables.power import FEWEST_FREEDOM, freedom_of, seeds_needed, separation


def scores(values: dict[tuple[str, str, int], list[float]]) -> pd.DataFrame:
    rows = [
        {"env": env, "name": name, "lag": lag, "seed": seed, "score": score}
        for (env, name, lag), found in values.items()
        for seed, score in enumerate(found)
    ]
    return pd.DataFrame(rows)


GRID = {"environments": ["A", "B"], "algorithms": ["vaco", "ppo"], "capacities": [1, 16], "seeds": [0, 1, 2]}
TABLE = {
    ("A", "vaco", 1): [1.0, 1.2, 1.4], ("A", "vaco", 16): [2.0, 2.0, 2.3],
    ("B", "vaco", 1): [0.8, 0.8, 0.8], ("B", "vaco", 16): [0.5, 0.6, 0.7],
    ("A", "ppo", 1): [0.5, 0.5, 0.5], ("A", "ppo", 16): [0.3, 0.6, 0.9],
    ("B", "ppo", 1): [0.7, 0.9, 1.1], ("B", "ppo", 16): [0.2, 0.2, 0.5],
}  # fmt: skip
# Variances of the four cells at K = 16: (0.01 + 0.01 + 0.04)/2 and so on.
AT_16 = [0.03, 0.01, 0.09, 0.03]


def row_of(table: dict[tuple[str, str, int], list[float]], lag: int) -> pd.Series:
    return separation(scores(table), GRID).set_index(["lag", "name", "opponent"]).loc[(lag, "vaco", "ppo")]


def slow_freedom(variances: list[float], freedoms: list[float]) -> float:
    """Satterthwaite's formula, term by term."""
    total, squares = 0.0, 0.0
    for variance, freedom in zip(variances, freedoms, strict=True):
        total += variance
        squares += variance**2 / freedom
    return total**2 / squares


def test_degrees_of_freedom() -> None:
    for variances, freedoms in (([0.3, 0.1, 2.0], [1.0, 2.0, 2.0]), (AT_16, [1.0] * 4)):
        found = freedom_of(np.array(variances), np.array(freedoms))
        assert found == pytest.approx(slow_freedom(variances, freedoms))
        assert min(freedoms) <= found <= sum(freedoms)
    assert freedom_of(np.full(4, 0.7), np.full(4, 2.0)) == pytest.approx(8), "equal ones count in full"
    assert freedom_of(np.array([1.0, 1e-9]), np.full(2, 2.0)) == pytest.approx(2), "one that dominates stands alone"
    assert freedom_of(np.array([1e-200, 1e-200]), np.ones(2)) == pytest.approx(2)
    assert freedom_of(np.zeros(3), np.full(3, 2.0)) == 6 and freedom_of(np.array([1.0, math.nan]), np.ones(2)) == 0


def slow_seeds(difference: float, variance: float, cells: float) -> int:
    """Count up until the formula holds."""
    n = 2
    while True:
        freedom = cells * (n - 1)
        wanted = (stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) ** 2 * variance / difference**2
        if n >= wanted:
            return n
        n += 1


@pytest.mark.parametrize("difference", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("cells", [1.0, 2.3, 6.0])
def test_seeds_by_counting_up(difference: float, cells: float) -> None:
    assert seeds_needed(difference, 0.7, cells) == slow_seeds(difference, 0.7, cells)
    assert seeds_needed(-difference, 0.7, cells) == slow_seeds(difference, 0.7, cells)


def test_seeds_at_the_ends() -> None:
    assert seeds_needed(1.0, 1e-9, 2) == 2 and seeds_needed(0.0, 1.0, 2) == math.inf
    assert seeds_needed(1e-9, 1.0, 2) == math.inf
    assert math.isnan(seeds_needed(1.0, math.nan, 2)) and math.isnan(seeds_needed(math.nan, 1.0, 2))


@pytest.mark.parametrize("of_x", [[0.5, 0.7], [1.0, 0.02]])
def test_that_many_seeds_detect_the_difference_four_times_in_five(of_x: list[float]) -> None:
    """Welch's test with variances estimated from the very sample, two tasks, and methods equal or unequal in spread."""
    rng = np.random.default_rng(0)
    spread, shifts = np.array([of_x, [0.04, 0.08] if of_x[0] == 1.0 else [0.4, 0.8]]), np.array([1.1, 0.7])
    variances = (spread**2).ravel()
    cells = freedom_of(variances, np.ones(4))
    n = int(seeds_needed(float(shifts.mean()), float(variances.sum()) / 4, cells))
    assert 3 <= n <= 8
    x = rng.normal(shifts, spread[0], (6000, n, 2)).astype(np.float64)
    y = rng.normal(0.0, spread[1], (6000, n, 2)).astype(np.float64)
    seen = np.concatenate([x.var(axis=1, ddof=1), y.var(axis=1, ddof=1)], axis=1)
    error = np.sqrt(seen.sum(axis=1) / n) / 2
    freedom = seen.sum(axis=1) ** 2 / (seen**2).sum(axis=1) * (n - 1)
    found = np.abs(x.mean(axis=(1, 2)) - y.mean(axis=(1, 2))) / error > stats.t.ppf(0.975, freedom)
    # The least whole n, so the power is a little above.
    assert 0.76 < found.mean() < 0.9


def test_separation_by_hand() -> None:
    row = row_of(TABLE, 16)
    difference = ((2.1 - 0.6) + (0.6 - 0.3)) / 2
    error, freedom = math.sqrt(sum(AT_16) / 3) / 2, slow_freedom(AT_16, [2.0] * 4)
    assert freedom > FEWEST_FREEDOM
    assert row["difference"] == pytest.approx(difference) and row["error"] == pytest.approx(error)
    assert row["freedom"] == pytest.approx(freedom) and row["runs"] == 3
    reach = stats.t.ppf(0.975, freedom) * error
    assert row["low"] == pytest.approx(difference - reach) and row["high"] == pytest.approx(difference + reach)
    variance, cells = sum(AT_16) / 4, slow_freedom(AT_16, [1.0] * 4)
    assert row["seeds"] == slow_seeds(difference, variance, cells)
    assert row["fewest"] == slow_seeds(difference + reach, variance, cells)
    assert row["most"] == slow_seeds(difference - reach, variance, cells)


def test_what_another_capacity_does_says_nothing() -> None:
    """The variance falls with K in these results, so each K has its own."""
    other = TABLE | {key: [score * 9 for score in found] for key, found in TABLE.items() if key[2] == 1}
    pd.testing.assert_series_equal(row_of(other, 16), row_of(TABLE, 16))


def test_what_the_grid_does_not_ask_for_does_not_count() -> None:
    more = TABLE | {("A", "vaco", 64): [0.0, 9.0, 0.0]}  # another K
    more |= {("A", "ppo", 16): [*TABLE["A", "ppo", 16], 7.0]}  # another seed
    pd.testing.assert_frame_equal(separation(scores(more), GRID), separation(scores(TABLE), GRID))


def test_an_interval_that_reaches_zero_has_no_most() -> None:
    far = row_of(TABLE, 16)
    assert far["fewest"] <= far["seeds"] <= far["most"] < math.inf and far["low"] > 0
    near = {key: [score - 0.8 * (key[1] == "vaco") for score in found] for key, found in TABLE.items()}
    row = row_of(near, 16)
    assert row["difference"] == pytest.approx(0.1) and row["low"] < 0
    assert row["most"] == math.inf and row["seeds"] < math.inf


def test_separation_mirrors_and_leaves_out_what_is_unfinished() -> None:
    table = scores(TABLE)
    found = separation(table, GRID).set_index(["lag", "name", "opponent"])
    forth, back = found.loc[(16, "vaco", "ppo")], found.loc[(16, "ppo", "vaco")]
    assert back["difference"] == -forth["difference"] and (back["low"], back["high"]) == (-forth["high"], -forth["low"])
    assert (forth[["seeds", "fewest", "most", "error"]] == back[["seeds", "fewest", "most", "error"]]).all()
    assert separation(table[table["env"] == "A"], GRID).empty


def test_too_little_is_known_of_a_variance() -> None:
    """Two cells at K = 1 do not vary, two do, alike: 4 degrees of freedom, which is just enough; a seed less is not."""
    assert row_of(TABLE, 1)["freedom"] == pytest.approx(4) and row_of(TABLE, 1)["seeds"] < math.inf
    short = row_of(TABLE | {("B", "ppo", 1): [0.7, 0.9]}, 1)
    assert short["freedom"] < FEWEST_FREEDOM and math.isfinite(short["low"])
    assert short[["seeds", "fewest", "most"]].isna().all()
    # Each variance is divided by the number of its own seeds.
    assert short["runs"] == 2 and short["error"] == pytest.approx(math.sqrt(0.04 / 3 + 0.02 / 2) / 2)


def test_with_one_seed_in_a_cell_there_is_a_difference_only() -> None:
    row = row_of(TABLE | {("B", "ppo", 1): [0.7]}, 1)
    assert row["runs"] == 1 and row["freedom"] == 0 and row["difference"] == pytest.approx((0.7 + 0.1) / 2)
    assert row[["error", "low", "high", "seeds", "fewest", "most"]].isna().all()
