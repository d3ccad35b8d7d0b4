"""Archives that no training made, for the tests of aggregation and figures: every number here is invented.

Their runs have what real ones have, so that the reporting code cannot tell them apart, and are seeded by the cell, so
that the same cell always gets the same numbers. Nothing outside the tests may read them.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from vaco.archive import Archive, Entry, write
from vaco.campaign.archives import plan_hash
from vaco.campaign.tiers import RunSpec, Tier
from vaco.runs.identity import EVALUATION_VERSION, SCHEMA

RANDOM_RETURN = {"HalfCheetah-v5": -280.0, "Hopper-v5": 18.0, "InvertedPendulum-v5": 6.0}
GOOD_RETURN = {"HalfCheetah-v5": 1500.0, "Hopper-v5": 1400.0, "InvertedPendulum-v5": 900.0}
QUALITY = {"ppo": 1.0, "ppo_kl": 0.85, "spo": 0.9, "impala": 0.7, "geppo": 1.0, "vaco": 1.05}
ROBUSTNESS = {"ppo": 0.55, "ppo_kl": 0.5, "spo": 0.35, "impala": 0.8, "geppo": 0.75, "vaco": 0.9}


def cell_of(spec: RunSpec) -> str:
    """A run in one word, as plans name it."""
    return f"{spec.env}/{spec.name}/lag{spec.lag}/seed{spec.seed}"


def write_archive(
    tier: Tier,
    folder: Path,
    *,
    phases: int = 20,
    without: Collection[str] = (),
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    unmeasured: Collection[str] = (),
) -> Archive:
    """Write a tier into an archive, as if it had been trained.

    Args:
        tier: the tier.
        folder: the archive's.
        phases: of every run.
        without: cells whose runs are missing.
        changed: by cell, entries of the manifest that are other than they should be.
        unmeasured: tasks without a measurement of the random policy.
    """
    specs = tier.runs()
    strangers = {*without, *(changed or {})} - {cell_of(spec) for spec in specs}
    assert not strangers, f"the tier has no {strangers}"
    entries = [
        entry_of(spec, phases, **(changed or {}).get(cell_of(spec), {}))
        for spec in specs
        if cell_of(spec) not in without
    ]
    measured = {env: reference(env) for env in tier.environments if env not in unmeasured}
    plan, planned = plan_hash(tier), len(specs)
    write(folder, entries, tier=tier.name, kind="control", plan=plan, planned=planned, references=measured)
    return Archive(folder)


def reference(env: str) -> dict[str, Any]:
    """What `vaco evaluate --random` would measure."""
    low = RANDOM_RETURN.get(env, 0.0)
    returns = (low + np.random.default_rng(1).normal(0, 5, 100)).tolist()
    return {
        "env": env,
        "policy": "uniform random",
        "episodes": 100,
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
        "returns": returns,
        "seed": 0,
        "evaluation_version": EVALUATION_VERSION,
    }


def entry_of(spec: RunSpec, phases: int = 20, **changes: Any) -> Entry:
    """A run as an entry of an archive; `changes` replace entries of its manifest, by which it is identified."""
    rng = np.random.default_rng(zlib.crc32(cell_of(spec).encode()))
    frames = {"evals": _evals(spec, rng), "phases": _phases(spec, rng, phases)}
    # Not from pandas, which would make null of NaN.
    tables = {name: pa.table({key: frame[key].to_numpy() for key in frame}) for name, frame in frames.items()}
    config = spec.config
    manifest = {
        "schema": SCHEMA,
        "identity": config.identity,
        "config": config.resolved(),
        "config_hash": config.run_id.config_hash,
        "training_version": config.run_id.version,
        "revision": None,
        "dirty": False,
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0", "mujoco": "4.0.0", "gymnasium": "1.4.0"},
        "host": "synthetic",
        "cpu": "synthetic",
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:01:00Z",
        "wall_seconds": 10.0,
        "completed_steps": spec.steps,
        "checksums": {},
        "status": "complete",
    } | changes
    return Entry(f"{manifest['config_hash']}-v{manifest['training_version']}", manifest, tables.__getitem__)


def _quality(spec: RunSpec) -> float:
    slowdown = ROBUSTNESS.get(spec.algorithm, 0.6) ** np.log2(max(1, spec.lag) ** 0.5)
    return float(QUALITY.get(spec.algorithm, 0.8) * slowdown)


def _evals(spec: RunSpec, rng: np.random.Generator) -> pd.DataFrame:
    grid = np.linspace(0, spec.steps, spec.points + 1).astype(np.int64)
    low, high = RANDOM_RETURN.get(spec.env, 0.0), GOOD_RETURN.get(spec.env, 1000.0)
    rise = 1 - np.exp(-3.0 * grid / spec.steps)
    mean = low + (high - low) * _quality(spec) * rise * (1 + 0.08 * rng.normal())
    mean = mean + 0.03 * (high - low) * rng.normal(size=len(grid))
    return pd.DataFrame(
        {
            "env_steps": grid,
            "grid_steps": grid,
            "mean": mean.astype(np.float32),
            "std": np.full(len(grid), 30, np.float32),
            "episodes": np.full(len(grid), spec.episodes),
            "deterministic_mean": (mean * 1.02).astype(np.float32),
            "deterministic_std": np.full(len(grid), 10, np.float32),
            "deterministic_episodes": np.full(len(grid), spec.episodes),
            "wall_seconds": np.linspace(0, 10, len(grid)).astype(np.float32),
        }
    )


def _phases(spec: RunSpec, rng: np.random.Generator, phases: int) -> pd.DataFrame:
    time = np.linspace(1 / phases, 1, phases)
    lag = np.log2(spec.lag)
    backward = 0.03 * lag * (1 + 0.2 * rng.random(phases))
    forward = (0.05 + 0.15 * (1 - _quality(spec)) + 0.03 * rng.random(phases)) * (1.2 - 0.6 * time)
    is_tv = spec.algorithm.endswith(("tv", "tv_total")) or spec.algorithm == "vaco"
    statistic = 2 * forward if is_tv else np.full(phases, np.nan)
    columns: dict[str, Any] = {
        "phase": np.arange(phases),
        "env_steps": (time * spec.steps).astype(np.int64),
        "wall_seconds": time * 10,
        "episode_return": np.where(rng.random(phases) < 0.1, np.nan, 100 * time),
        "episodes": rng.integers(0, 5, phases),
        "backward_lag": backward,
        "forward_lag": forward,
        "tv_before": backward,
        "tv_after": backward + forward,
        "tv_statistic": statistic,
        "trigger_fraction": np.where(np.isnan(statistic), np.nan, np.clip(3 * forward, 0, 1)),
        "trigger_flips": np.where(np.isnan(statistic), np.nan, 0.2),
        "kept_fraction": 1 - np.clip(0.5 * forward + 0.5 * backward, 0, 0.9),
        "clip_fraction": np.clip(2 * forward + backward, 0, 1),
        "kl": forward**2,
        "ess": 1 / (1 + 4 * (forward + backward) ** 2),
    }
    others = ["policy_loss", "value_loss", "entropy", "grad_norm", "learning_rate", "explained_variance"]
    others += ["age_min", "age_mean", "age_max"]
    columns |= {name: rng.random(phases) for name in others}
    columns |= {name: np.full(phases, 0.1) for name in ("collect_seconds", "align_seconds", "update_seconds")}
    frame = pd.DataFrame(columns)
    floats = frame.select_dtypes("float").columns
    return frame.astype(dict.fromkeys(floats, np.float32))
