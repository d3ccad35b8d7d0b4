"""Statistics over runs: score matrices, rliable's aggregates, and intervals that repeat exactly.

A score matrix has shape [runs, tasks] (or [runs, tasks, points] for curves): row i holds the i-th seed of every task.

What is resampled: runs, with replacement, independently within each task (the strata); tasks are never resampled. An
interval therefore says how much the aggregate would move if the same tasks were run again with other seeds, not how
much it would move on other tasks. Rows are not paired: seed 3 of one task has nothing to do with seed 3 of another.

The two returns by which scores are normalised are taken for known, as rliable does. Here the unit is measured too
(`references` of `vaco.report.tables.aggregate`); its error is in no interval, and moves all methods together.

rliable 1.2.0 draws from NumPy's global generator whatever `random_state` it is given, so `seeded` sets that generator
just before each call and puts back its state afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaco.errors import UserError

Array = NDArray[np.float64]
METRICS = ("median", "iqm", "mean", "optimality_gap")
CONFIDENCE = 0.95
REPETITIONS = 2000


class Interval(NamedTuple):
    """A point estimate and its interval, arrays of one shape; `low` and `high` are NaN where undefined."""

    point: Array
    low: Array
    high: Array


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator for the body only; its former state returns afterwards."""
    before = np.random.get_state()  # noqa: NPY002 - rliable reads the global generator, and only that one
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def normalise(returns: ArrayLike, *, random: float, reference: float, task: str) -> Array:
    """Scale returns so that the random policy scores 0 and the reference 1.

    Args:
        returns: undiscounted episode returns, any shape.
        random: mean return of the uniformly random policy on the task.
        reference: mean final return of synchronous PPO (`ppo`, K = 1) of the same tier on the task.
        task: name of the task, for the message.

    Returns:
        (returns − random) / (reference − random), same shape.

    Raises:
        UserError: synchronous PPO did no better than the random policy, so that the scale has no unit.
    """
    unit = reference - random
    if not unit > 1e-9 * max(1.0, abs(random), abs(reference)):
        raise UserError(
            f"scores on {task} cannot be normalised: synchronous PPO ended at {reference:.4g} and the random policy at "
            f"{random:.4g}, but 1 and 0 must differ in that order; train longer or leave {task} out of the tier"
        )
    return (np.asarray(returns, dtype=np.float64) - random) / unit


def area_under_curve(steps: ArrayLike, values: ArrayLike) -> float:
    """Mean height of a piecewise linear curve: its trapezoid integral over `steps`, divided by their range.

    Args:
        steps: [points] increasing environment steps.
        values: [points] scores.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def final_points(points: int) -> int:
    """How many evaluation points a run's final return is the mean of: the last quarter of them, at least one.

    Args:
        points: evaluation points after step 0.
    """
    return max(1, points // 4)


def iqm(scores: Array) -> Array:
    """Interquartile mean over runs and tasks (the first two axes) for each point (the rest).

    The same trimming as `rliable.metrics.aggregate_iqm`: of n scores, ⌊n/4⌋ are cut at each end.
    """
    flat = np.sort(scores.reshape(scores.shape[0] * scores.shape[1], *scores.shape[2:]), axis=0)
    cut = flat.shape[0] // 4
    return np.asarray(flat[cut : flat.shape[0] - cut].mean(axis=0))


def aggregates(scores: Array) -> Array:
    """The four aggregates of a [runs, tasks] matrix, in the order of `METRICS`.

    Median and mean are over tasks of the mean over runs; the optimality gap is 1 − mean(min(score, 1)).
    """
    task_means = scores.mean(axis=0)
    gap = 1.0 - np.minimum(scores, 1.0).mean()
    return np.array([np.median(task_means), iqm(scores), task_means.mean(), gap])


def exceedance(scores: Array, thresholds: Array) -> Array:
    """Performance profile: the share of runs, over all tasks, that score above each threshold."""
    return np.asarray((scores[:, :, None] > thresholds).mean(axis=(0, 1)))


def improvement(x: Array, y: Array) -> float:
    """Probability of improvement P(X > Y) of a run of x over a run of y, averaged over tasks; ties count one half.

    Args:
        x: [runs_x, tasks] scores.
        y: [runs_y, tasks] scores.
    """
    wins = (x[:, None, :] > y[None, :, :]).mean(axis=(0, 1))
    ties = (x[:, None, :] == y[None, :, :]).mean(axis=(0, 1))
    return float((wins + 0.5 * ties).mean())


def interval(
    scores: Array | tuple[Array, Array],
    statistic: Callable[..., Array],
    *,
    seed: int,
    repetitions: int = REPETITIONS,
) -> Interval:
    """Point estimate and 95 % percentile interval of rliable's stratified bootstrap.

    Args:
        scores: a matrix [runs, tasks, ...], or two of them, which are then resampled independently.
        statistic: function of the matrix (or of both) that returns a one-dimensional array.
        seed: seed of the resampling; the same seed gives the same interval, bit for bit.
        repetitions: bootstrap resamples.

    Returns:
        Three arrays of the shape that `statistic` returns. With a single run a task there is nothing to resample:
        the interval is undefined, and its ends are NaN.
    """
    matrices = scores if isinstance(scores, tuple) else (scores,)
    point = np.asarray(statistic(*matrices), dtype=np.float64)
    if min(matrix.shape[0] for matrix in matrices) < 2:
        undefined = np.full_like(point, np.nan)
        return Interval(point, undefined, undefined)
    # Imported late: rliable takes two seconds, and every figure imports this module for its constants.
    from rliable import library

    # A bare matrix is resampled by rliable as one sample, a list as several independent ones.
    keyed = {"scores": list(scores) if isinstance(scores, tuple) else scores}
    with seeded(seed):
        _, ends = library.get_interval_estimates(
            keyed, statistic, reps=repetitions, confidence_interval_size=CONFIDENCE
        )
    low, high = ends["scores"]
    return Interval(point, np.asarray(low), np.asarray(high))
