"""What each run's phases and manifest say, condensed: one row a run, and the distribution of its lag over phases.

The filters compare mean|·| with a threshold, which is twice a total variation; so `forward` here is 2·TV(π, π_T) and
`total` 2·TV(π, β), both measured after the last gradient step of a phase, on the same scale as δ and ε.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vaco.report.runs import Run
from vaco.report.stats import Array

LEVELS = np.linspace(0.0, 1.0, 41)
"""Quantiles kept of every run's distribution over phases: minimum, every 2.5 %, maximum."""


def labels(run: Run) -> dict[str, Any]:
    """The columns that say which run a row is about."""
    cell = run.cell
    algorithm = run.manifest["identity"]["algorithm"]
    return {"env": cell.env, "name": cell.name, "algorithm": algorithm, "lag": cell.lag, "seed": cell.seed}


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


def _of_phases(phases: pd.DataFrame, delta: float) -> dict[str, float]:
    """The condensed phases of one run."""
    found = {"phases": float(len(phases))}
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
    found["flips_if_independent"] = float((2.0 * fires * (1.0 - fires)).mean()) if has_trigger else np.nan
    for part in ("collect", "align", "update"):
        found[f"{part}_ms"] = 1e3 * float(phases[f"{part}_seconds"].median())
    found["optimise_ms"] = 1e3 * float((phases["align_seconds"] + phases["update_seconds"]).median())
    return found


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run: labels, settings that the figures compare with, condensed phases, and its manifest's origin.

    Returns:
        Among the columns: `forward_excess_share` (of phases whose mean|ρ − ρ_T| ended above δ), `..._median`,
        `..._high`, `..._max` (relative excess); `trigger_fraction` (of minibatches), `trigger_flips` (of pairs of
        consecutive minibatches), `flips_if_independent` (2p(1 − p) averaged over phases, p the phase's trigger
        fraction); `align_ms`, `update_ms`, `optimise_ms` (medians over phases).
    """
    rows = []
    for run in runs:
        config, manifest = run.manifest["config"], run.manifest
        settings = {key: float(config.get(key, np.nan)) for key in ("delta", "clip", "epochs")}
        origin = {key: str(manifest.get(key)) for key in ("started", "finished", "cpu", "revision", "source_hash")}
        origin["dirty"] = str(bool(manifest.get("dirty")))
        cost = {"wall_seconds": float(manifest["wall_seconds"]), "completed_steps": int(manifest["completed_steps"])}
        rows.append(labels(run) | settings | _of_phases(run.table("phases"), settings["delta"]) | cost | origin)
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
