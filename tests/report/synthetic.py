"""Run folders that no training made, for the tests of aggregation and figures: every number here is invented.

They follow the layout of a real run folder, so that the reporting code cannot tell them apart, and are seeded by the
cell, so that the same cell always gets the same numbers. Nothing outside the tests may read them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vaco.runs.config import build
from vaco.runs.tiers import RunSpec, Tier

RANDOM_RETURN = {"HalfCheetah-v5": -280.0, "Hopper-v5": 18.0, "InvertedPendulum-v5": 6.0}
GOOD_RETURN = {"HalfCheetah-v5": 1500.0, "Hopper-v5": 1400.0, "InvertedPendulum-v5": 900.0}
QUALITY = {"ppo": 1.0, "ppo_kl": 0.85, "spo": 0.9, "impala": 0.7, "geppo": 1.0, "vaco": 1.05}
ROBUSTNESS = {"ppo": 0.55, "ppo_kl": 0.5, "spo": 0.35, "impala": 0.8, "geppo": 0.75, "vaco": 0.9}
ZEROS = "0" * 64


def write_tier(tier: Tier, root: Path, *, phases: int = 20) -> None:
    """Write every run of a tier and its references below `root` (which stands for `results/<tier>`)."""
    for spec in tier.runs():
        write_run(spec, root.parent / spec.folder, phases=phases)
    for env in tier.environments:
        write_reference(env, root / "references" / f"{env}.json")


def write_reference(env: str, path: Path) -> None:
    """Write what `vaco evaluate --random` would."""
    low = RANDOM_RETURN.get(env, 0.0)
    returns = (low + np.random.default_rng(1).normal(0, 5, 100)).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "env": env,
        "policy": "uniform random",
        "episodes": 100,
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
        "returns": returns,
        "seed": 0,
    }
    path.write_text(json.dumps(content))


def write_run(spec: RunSpec, folder: Path, *, phases: int = 20, **changes: Any) -> None:
    """Write one run folder; `changes` replace entries of the manifest."""
    rng = np.random.default_rng(zlib.crc32(spec.folder.encode()))
    folder.mkdir(parents=True, exist_ok=True)
    _evals(spec, rng).to_parquet(folder / "evals.parquet", index=False)
    _phases(spec, rng, phases).to_parquet(folder / "phases.parquet", index=False)
    config = build(
        {
            "env": spec.env,
            "algorithm": spec.algorithm,
            "lag": spec.lag,
            "seed": spec.seed,
            "steps": spec.steps,
            "eval_points": spec.points,
            "eval_episodes": spec.episodes,
            **dict(spec.settings),
        }
    )
    digests = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in ("evals.parquet", "phases.parquet")}
    manifest = {
        "schema": 1,
        "identity": config.identity,
        "config": config.resolved(),
        "config_hash": config.hash,
        "source_hash": ZEROS,
        "revision": None,
        "dirty": False,
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0", "mujoco": "4.0.0", "gymnasium": "1.4.0"},
        "host": "synthetic",
        "cpu": "synthetic",
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:01:00Z",
        "wall_seconds": 10.0,
        "completed_steps": spec.steps,
        "checksums": digests,
        "status": "complete",
    } | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


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
