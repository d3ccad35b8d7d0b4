"""What a run writes down: the columns of its two tables, and rows as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PHASE_COLUMNS = (
    *("phase", "env_steps", "wall_seconds", "episode_return", "episodes"),
    *("backward_lag", "forward_lag", "tv_before", "tv_after", "tv_statistic", "trigger_fraction", "trigger_flips"),
    *("kept_fraction", "clip_fraction", "kl", "ess", "policy_loss", "value_loss", "entropy", "grad_norm"),
    *("learning_rate", "kl_coefficient", "explained_variance", "age_min", "age_mean", "age_max"),
    *("collect_seconds", "align_seconds", "update_seconds"),
    *("kl_total", "normaliser_lag"),
)
EVAL_COLUMNS = (
    *("env_steps", "grid_steps", "mean", "std", "episodes"),
    *("deterministic_mean", "deterministic_std", "deterministic_episodes", "wall_seconds"),
)
INTEGERS = ("phase", "env_steps", "episodes", "age_min", "age_max", "grid_steps", "deterministic_episodes")

Row = dict[str, float]


def to_columns(rows: list[Row], names: Sequence[str], precision: type[np.floating]) -> dict[str, NDArray[Any]]:
    """Rows as columns, whole numbers as int64 and the others in the given precision.

    A row from a checkpoint of before some column was recorded has NaN there.
    """
    return {
        n: np.array([r[n] for r in rows], np.int64)
        if n in INTEGERS
        else np.array([r.get(n, np.nan) for r in rows], precision)
        for n in names
    }


def to_rows(columns: dict[str, NDArray[Any]]) -> list[Row]:
    """The inverse of `to_columns`."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
