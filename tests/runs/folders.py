"""Runs for tests: folders begun, finished, and held by another process; finished runs of a tier that nobody trained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vaco import archive
from vaco.archive import Entry
from vaco.campaign import archives
from vaco.lm.kind import kind_of_tier
from vaco.runs import checkpoint, provenance, tables
from vaco.runs.config import build
from vaco.runs.folder import RunFolder
from vaco.runs.identity import EVALUATION_VERSION, RunId

FINAL = ["evals.parquet", "manifest.json", "phases.parquet", "policy.safetensors"]
CONFIG = {"env": "HalfCheetah-v5", "delta": 0.2, "seed": 0, "hidden": (64, 64)}
Columns = dict[str, NDArray[Any]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def at(path: Path, config_hash: str = "h", version: int = 1, **options: Any) -> RunFolder:
    """The folder of a run of invented identity."""
    return RunFolder(path, RunId(config_hash, version), **{"config": {}, "rebuild": build} | options)


def save(folder: RunFolder, progress: int = 1) -> None:
    checkpoint.save(folder.checkpoints, progress=progress, arrays={"x": np.ones(3)}, meta={})


def finish(folder: RunFolder, config_hash: str = "h", version: int = 1) -> None:
    folder.finish(
        phases={"phase": np.arange(3)},
        evals={"mean": np.zeros(2)},
        policy={"w": np.ones(4)},
        policy_meta={"env": "E", "lag": 1},
        manifest={"schema": 2, "config_hash": config_hash, "training_version": version, "config": CONFIG},
    )


def complete(path: Path) -> None:
    with at(path, config=CONFIG) as folder:
        finish(folder)


HOLDER = """
import sys
from pathlib import Path
from vaco.runs.config import build
from vaco.runs.folder import RunFolder
from vaco.runs.identity import EVALUATION_VERSION, RunId
with RunFolder(Path(sys.argv[1]), RunId("h", 1), config={}, rebuild=build):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process


# --- Finished runs of a tier, with the fewest columns that are checked


def control_rows(config: Any) -> tuple[Columns, Columns]:
    """Phases and evaluations."""
    count, rng = config.phases, np.random.default_rng(config.seed)
    phases: Columns = {"phase": np.arange(1, count + 1), "env_steps": config.batch * np.arange(1, count + 1)}
    phases["episode_return"] = np.where(np.arange(count) == 0, np.nan, rng.random(count)).astype(np.float32)
    phases |= {f"{name}_seconds": np.full(count, 0.1, np.float32) for name in ("collect", "align", "update")}
    if config.algorithm == "vaco":
        phases["tv_statistic"] = rng.random(count).astype(np.float32)
    grid = np.array([round(i * config.steps / config.eval_points) for i in range(config.eval_points + 1)])
    return phases, {"env_steps": grid, "grid_steps": grid, "mean": rng.random(len(grid)).astype(np.float32)}


def language_rows(config: Any) -> tuple[Columns, Columns]:
    """Updates and evaluations."""
    rng = np.random.default_rng(config.seed)
    updates = np.arange(1, config.updates + 1)
    points = np.array([round(i * config.updates / config.eval_points) for i in range(config.eval_points + 1)])
    phases: Columns = {"update": updates, "reward": rng.random(len(updates)).astype(np.float32)}
    return phases, {"update": points, "accuracy": rng.random(len(points)).astype(np.float32)}


def manifest_of(config: Any, **changes: Any) -> dict[str, Any]:
    """The manifest of a finished run; `changes` replace entries of it."""
    record = provenance.manifest(
        identity=config.identity,
        config=config.resolved(),
        run_id=config.run_id,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00",
        wall_seconds=10.0,
        completed_steps=config.batch * config.phases if hasattr(config, "batch") else config.updates,
    )
    record["versions"]["transformers"] = "5"
    # Whatever the state of the repository that runs the tests.
    return record | {"dirty": False, "status": "complete", "checksums": {}} | changes


def rows_of(config: Any) -> tuple[Columns, Columns]:
    return control_rows(config) if hasattr(config, "batch") else language_rows(config)


def write_run(config: Any, results: Path = Path("results")) -> Path:
    """A finished run where the workflow would put it."""
    folder = Path(results, archives.FOLDERS, config.place)
    folder.mkdir(parents=True)
    for name, rows in zip(("phases.parquet", "evals.parquet"), rows_of(config), strict=True):
        tables.write_parquet(folder / name, rows)
    tables.write_json(folder / "manifest.json", manifest_of(config))
    reseal(folder)
    return folder


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a record and nothing else."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def reseal(folder: Path) -> None:
    """Make the checksums those of the files, as a forger would."""
    sums = {name: tables.sha256_file(folder / name) for name in ("phases.parquet", "evals.parquet")}
    rewrite(folder / "manifest.json", lambda record: record["checksums"].update(sums))


def entry_of(config: Any, **changes: Any) -> Entry:
    """The same as `write_run`, as an entry of an archive."""
    rows = dict(zip(("phases", "evals"), rows_of(config), strict=True))
    return Entry(str(config.run_id), manifest_of(config, **changes), lambda name: pa.table(rows[name]))


def reference(env: str, episodes: int = 100, seed: int = 0) -> dict[str, Any]:
    """What `vaco evaluate --random` writes."""
    returns = np.random.default_rng(1).normal(18, 5, episodes).tolist()
    own = {"env": env, "policy": "uniform random", "episodes": episodes, "seed": seed, "returns": returns}
    own |= {"mean": float(np.mean(returns)), "std": float(np.std(returns))}
    return own | {"evaluation_version": EVALUATION_VERSION}


def write_archive(tier: Any, folder: Path, entries: list[Entry] | None = None) -> Path:
    """An archive of invented runs of a tier; all of them by default."""
    entries = [entry_of(run.config) for run in tier.planned()] if entries is None else entries
    references = {env: reference(env) for env in getattr(tier, "environments", ())}
    plan, planned = archives.plan_hash(tier), len(tier.planned())
    kind = kind_of_tier(tier).name
    archive.write(folder, entries, tier=tier.name, kind=kind, plan=plan, planned=planned, references=references)
    return folder
