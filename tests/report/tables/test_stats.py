"""Every statistic against a slow, obvious version of it, and intervals that repeat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rliable import metrics

from vaco.errors import UserError
from vaco.report.tables import stats


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).normal(0.8, 0.4, size=(5, 3))


def slow_iqm(values: list[float]) -> float:
    ordered = sorted(values)
    cut = int(0.25 * len(ordered))
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


@given(st.integers(1, 7), st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_iqm_is_the_mean_of_the_sorted_middle(runs: int, tasks: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(runs, tasks))
    assert float(stats.iqm(matrix)) == pytest.approx(slow_iqm(matrix.ravel().tolist()))
    assert float(stats.iqm(matrix)) == pytest.approx(float(metrics.aggregate_iqm(matrix)))


def test_iqm_of_curves_is_taken_point_by_point() -> None:
    curves = np.random.default_rng(1).normal(size=(4, 3, 6))
    expected = [slow_iqm(curves[:, :, point].ravel().tolist()) for point in range(6)]
    assert stats.iqm(curves) == pytest.approx(expected)


def test_aggregates_are_those_of_rliable(scores: np.ndarray) -> None:
    expected = [
        metrics.aggregate_median(scores),
        metrics.aggregate_iqm(scores),
        metrics.aggregate_mean(scores),
        metrics.aggregate_optimality_gap(scores),
    ]
    assert stats.METRICS == ("median", "iqm", "mean", "optimality_gap")
    assert stats.aggregates(scores) == pytest.approx(expected)


def test_optimality_gap_counts_only_what_is_below_one() -> None:
    assert stats.aggregates(np.array([[0.5, 3.0], [0.5, 3.0]]))[3] == pytest.approx(0.25)


def test_area_under_curve_against_a_loop() -> None:
    steps, values = [0, 10, 40, 100], [0.0, 1.0, 0.5, 2.0]
    area = sum((steps[i + 1] - steps[i]) * (values[i] + values[i + 1]) / 2 for i in range(3))
    assert stats.area_under_curve(steps, values) == pytest.approx(area / 100)


def test_area_under_a_constant_curve_is_its_height() -> None:
    assert stats.area_under_curve([0, 3, 50], [0.7, 0.7, 0.7]) == pytest.approx(0.7)


def test_normalisation_against_a_loop() -> None:
    returns = [[10.0, 20.0], [30.0, -5.0]]
    expected = [[(value - 10.0) / (25.0 - 10.0) for value in row] for row in returns]
    assert stats.normalise(returns, random=10.0, reference=25.0, task="T") == pytest.approx(np.array(expected))


@pytest.mark.parametrize("reference", [10.0, 5.0, float("nan")])
def test_a_degenerate_normaliser_is_refused_by_name(reference: float) -> None:
    with pytest.raises(UserError, match=r"Hopper-v5 cannot be normalised.*train longer"):
        stats.normalise([1.0], random=10.0, reference=reference, task="Hopper-v5")


def test_improvement_against_a_double_loop(scores: np.ndarray) -> None:
    other = np.random.default_rng(3).normal(0.7, 0.4, size=(4, 3))
    other[0, 0] = scores[2, 0]  # a tie
    total = 0.0
    for task in range(3):
        for x in scores[:, task]:
            for y in other[:, task]:
                total += (1.0 if x > y else 0.5 if x == y else 0.0) / (len(scores) * len(other))
    assert stats.improvement(scores, other) == pytest.approx(total / 3)
    assert stats.improvement(scores, other) == pytest.approx(metrics.probability_of_improvement(scores, other))
    assert stats.improvement(other, scores) == pytest.approx(1 - total / 3)


def test_profile_against_a_loop(scores: np.ndarray) -> None:
    thresholds = np.linspace(0, 1.5, 7)
    expected = [sum(score > t for score in scores.ravel()) / scores.size for t in thresholds]
    assert stats.exceedance(scores, thresholds) == pytest.approx(expected)


def test_the_interval_repeats_exactly_and_depends_on_its_seed(scores: np.ndarray) -> None:
    first = stats.interval(scores, stats.aggregates, seed=3, repetitions=100)
    np.random.seed(0)  # noqa: NPY002  nothing may hang on the global generator
    again = stats.interval(scores, stats.aggregates, seed=3, repetitions=100)
    other = stats.interval(scores, stats.aggregates, seed=4, repetitions=100)
    assert np.array_equal(first.low, again.low) and np.array_equal(first.high, again.high)
    assert not np.array_equal(first.low, other.low)
    assert (first.low <= first.point).all() and (first.point <= first.high).all()


def test_the_interval_of_two_methods_repeats_exactly(scores: np.ndarray) -> None:
    def win(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array([stats.improvement(x, y)])

    pair = (scores, scores[:3] - 0.1)
    first = stats.interval(pair, win, seed=0, repetitions=100)
    again = stats.interval(pair, win, seed=0, repetitions=100)
    assert np.array_equal(first.low, again.low) and np.array_equal(first.high, again.high)


def test_the_global_generator_is_left_as_it_was(scores: np.ndarray) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    stats.interval(scores, stats.aggregates, seed=3, repetitions=20)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_runs_are_resampled_within_tasks_and_tasks_kept() -> None:
    # Were tasks resampled, or runs moved between tasks, the mean could leave the range that this allows.
    scores = np.array([[0.0, 10.0], [1.0, 11.0]])
    seen: list[np.ndarray] = []

    def spy(matrix: np.ndarray) -> np.ndarray:
        seen.append(matrix.copy())
        return matrix.mean(axis=(0, 1))[None]

    stats.interval(scores, spy, seed=0, repetitions=50)
    for matrix in seen:
        assert set(matrix[:, 0]) <= {0.0, 1.0} and set(matrix[:, 1]) <= {10.0, 11.0}
    assert any(matrix[0, 0] != matrix[0, 1] - 10 for matrix in seen), "tasks must be resampled independently"


def test_a_single_run_has_no_interval() -> None:
    found = stats.interval(np.array([[0.3, 0.5]]), stats.aggregates, seed=0)
    assert np.isfinite(found.point).all() and np.isnan(found.low).all() and np.isnan(found.high).all()
