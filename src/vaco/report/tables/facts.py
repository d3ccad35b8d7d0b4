"""What each run's phases and manifest say, condensed: one row a run, and the distribution of its lag over phases.

The filters compare mean|·| with a threshold, which estimates twice a total variation; so `forward` here is the
sampled 2·TV(π, π_T) and `total` the sampled 2·TV(π, β), both measured after the last gradient step of a phase, on the
scale of δ and ε. The estimator has a heavy tail: unlike 2·TV it can exceed 2, and its largest value says little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vaco.report.tables.runs import Run
from vaco.report.tables.stats import Array

LEVELS = np.linspace(0.0, 1.0, 41)
"""Quantiles kept of every run's distribution over phases: minimum, every 2.5 %, maximum."""
FROM_BEHAVIOUR = "tv_total"
"""The filter whose trigger compares the policy with β."""


def labels(run: Run) -> dict[str, Any]:
    """The columns that say which run a row is about."""
    cell = run.cell
    return {"env": cell.env, "name": cell.name, "algorithm": run.algorithm, "lag": cell.lag, "seed": cell.seed}


def excess(values: Array, threshold: float) -> dict[str, float]:
    """How often and by how much values exceed a threshold.

    Args:
        values: [phases].
        threshold: what they are compared with, same unit.

    Returns:
        `share` of values above; of these the median, the 95 % quantile and the maximum of value/threshold − 1, NaN
        where none is above.
    """
    above = values[values > threshold] / threshold - 1.0
    share = len(above) / len(values)
    if not len(above):
        return {"share": share, "median": np.nan, "high": np.nan, "max": np.nan}
    median, high = np.quantile(above, [0.5, 0.95])
    return {"share": share, "median": float(median), "high": float(high), "max": float(above.max())}


def gradient_steps(config: Mapping[str, Any]) -> int:
    """Gradient steps of a phase: its epochs times the minibatches of its data."""
    return int(config["epochs"] * config["num_envs"] * config["phase_steps"] // config["minibatch"])


def trigger_stops(phases: pd.DataFrame, steps: int) -> float:
    """How often a trigger that fired at one gradient step of a phase was silent at the next.

    The steps themselves are not recorded, but how many fired and how many pairs of neighbours differed is. A trigger
    that compares the policy with the learner π_T is silent at the first step, where the two are one; so a phase ends
    firing if and only if the number of its changes is odd, and every other stretch of firing was stopped.

    Args:
        phases: `trigger_fraction` and `trigger_flips` of every phase.
        steps: gradient steps of a phase.

    Returns:
        Firing steps followed by a silent one, divided by firing steps followed by any, over all phases; NaN where no
        firing step was followed by another step.
    """
    fired = np.rint(phases["trigger_fraction"].to_numpy(dtype=np.float64) * steps)
    changes = np.rint(phases["trigger_flips"].to_numpy(dtype=np.float64) * (steps - 1))
    ends_firing = changes % 2
    followed = float((fired - ends_firing).sum())
    return float(((changes - ends_firing) / 2).sum()) / followed if followed else np.nan


def _of_phases(phases: pd.DataFrame, config: Mapping[str, Any], algorithm: str) -> dict[str, float]:
    """The condensed phases of one run."""
    found, delta = {"phases": float(len(phases))}, float(config.get("delta", np.nan))
    for name, column in (("forward", "forward_lag"), ("total", "tv_after")):
        values = 2.0 * phases[column].to_numpy(dtype=np.float64)
        found[f"{name}_mean"] = float(values.mean())
        found |= {f"{name}_excess_{key}": value for key, value in excess(values, delta).items()}
    for column in ("backward_lag", "kept_fraction", "clip_fraction", "ess", "kl"):
        found[column] = float(phases[column].mean())
    # Filters without a batch trigger write 0 for it; the statistic that they do not have tells them apart.
    has_trigger = phases["tv_statistic"].notna().any()
    fires = phases["trigger_fraction"].to_numpy(dtype=np.float64)
    found["trigger_fraction"] = float(fires.mean()) if has_trigger else np.nan
    found["trigger_flips"] = float(phases["trigger_flips"].mean()) if has_trigger else np.nan
    # A trigger that compares with β may fire from the first step on, and what is recorded does not say whether it did.
    starts_silent = has_trigger and not algorithm.endswith(FROM_BEHAVIOUR)
    found["trigger_stops"] = trigger_stops(phases, gradient_steps(config)) if starts_silent else np.nan
    collect, align, update = (phases[f"{part}_seconds"].astype(np.float64) for part in ("collect", "align", "update"))
    found["collect_ms"] = 1e3 * float(collect.median())
    found["align_relative"] = float((align / collect).median())
    found["optimise_relative"] = float(((align + update) / collect).median())
    return found


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run: labels, settings that the figures compare with, condensed phases, and its manifest's origin.

    Returns:
        Among the columns: `forward_excess_share` (of phases whose mean|ρ − ρ_T| ended above δ), `..._median`,
        `..._high`, `..._max` (relative excess); `trigger_fraction` (of minibatches), `trigger_flips` (of pairs of
        consecutive minibatches), `trigger_stops` (of firing minibatches, those followed by a silent one); `collect_ms`,
        and aligning (`align_relative`) and aligning with all gradient steps (`optimise_relative`) as multiples of the
        same phase's time of collecting, medians over phases.
    """
    rows = []
    for run in runs:
        config, manifest = run.manifest["config"], run.manifest
        settings = {key: float(config.get(key, np.nan)) for key in ("delta", "clip", "epochs")}
        origin = {key: str(manifest.get(key)) for key in ("started", "finished", "cpu", "revision")}
        origin["training_version"] = run.version
        origin["dirty"] = str(bool(manifest.get("dirty")))
        cost = {"wall_seconds": float(manifest["wall_seconds"]), "completed_steps": int(manifest["completed_steps"])}
        rows.append(labels(run) | settings | _of_phases(run.table("phases"), config, run.algorithm) | cost | origin)
    return pd.DataFrame(rows)


def lags_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The distribution over phases of every run: one row a run and quantile `level`, with `forward` and `total`."""
    frames = []
    for run in runs:
        phases = run.table("phases")
        frame = pd.DataFrame(labels(run), index=range(len(LEVELS)))
        frame["level"] = LEVELS.astype(np.float32)
        for name, column in (("forward", "forward_lag"), ("total", "tv_after")):
            values = 2.0 * phases[column].to_numpy(dtype=np.float64)
            frame[name] = np.quantile(values, LEVELS).astype(np.float32)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
