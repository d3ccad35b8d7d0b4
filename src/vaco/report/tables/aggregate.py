"""From the archive of a tier to tidy tables.

`python -m vaco.campaign.tiers desk |
python -m vaco.report.tables.aggregate --plan - --archive results/desk/archive --out DIR`

Writes below `--out`:

* `scores.parquet`: one row a run: final return of the stochastic policy, the mean of the last quarter of the evaluation
  points, its normalised score, the normalised area under the curve, wall-clock seconds;
* `curves.parquet`: one row a run and evaluation point;
* `diagnostics.parquet`: lag, filter and optimiser diagnostics over training, averaged over at most 100 equal stretches
  of training a run, float32;
* `runs.parquet`: one row a run: its phases condensed, its cost, and where and when it was made;
* `lags.parquet`: quantiles over the phases of every run of the lag at the end of a phase;
* `configs.json`: the hyper-parameters behind every name;
* `summary.json`: scale, references of the normalisation, progress, what is missing, warnings, versions.

Scores are normalised for each task: 0 is the uniformly random policy, 1 the tier's own synchronous PPO (`ppo`, K = 1).
While the tier is incomplete, a task on which no synchronous PPO is finished has no scores yet (NaN).
"""

from __future__ import annotations

import json
import math
import sys
import warnings as python_warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vaco.archive import Archive
from vaco.command import Parser, run_command
from vaco.errors import UserError
from vaco.paths import path_flag, user_path
from vaco.report.tables.facts import labels, lags_table, runs_table
from vaco.report.tables.plan import Cell, Plan, read_plan
from vaco.report.tables.runs import Run, check_mixture, configurations, find_runs
from vaco.report.tables.stats import area_under_curve, final_points, normalise

REFERENCE = "ppo"
STRETCHES = 100
KEYS = ["env", "name", "algorithm", "lag", "seed"]
# Not all that the `phases.parquet` of a run has, since this table is tracked.
DIAGNOSTICS = (
    "episode_return",
    "backward_lag",
    "forward_lag",
    "tv_after",
    "tv_statistic",
    "trigger_fraction",
    "trigger_flips",
    "kept_fraction",
    "clip_fraction",
    "kl",
    "ess",
    "entropy",
    "grad_norm",
    "explained_variance",
    "age_min",
    "age_mean",
    "age_max",
)


def references(plan: Plan, runs: Sequence[Run], measured: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The two returns that define 0 and 1 on every task.

    Args:
        plan: what the tier asks for.
        runs: its finished runs.
        measured: the archive's measurements of the random policy, by task.

    Returns:
        By environment: `random`, `random_error` (standard error), `random_episodes`, `ppo`, `ppo_error`, `ppo_seeds`; a
        task without a finished synchronous PPO has NaN for it, and so no scores.

    Raises:
        UserError: no measurement of the random policy on some task, or a finished tier without synchronous PPO.
    """
    found = {}
    for env in plan.environments():
        if env not in measured:
            raise UserError(f"the archive of '{plan.tier}' does not measure the random policy on {env}: make it again")
        random = measured[env]
        finals = [
            float(run.table("evals").sort_values("grid_steps")["mean"].iloc[-final_points(plan.points) :].mean())
            for run in runs
            if (run.cell.env, run.cell.name, run.cell.lag) == (env, REFERENCE, 1)
        ]
        if not finals and len(runs) == len(plan.cells()):
            raise UserError(
                f"the tier '{plan.tier}' has no finished synchronous PPO (ppo, K = 1) on {env}, by which scores are "
                "normalised: add 'ppo' to its algorithms and 1 to its capacities, or run it"
            )
        found[env] = {
            "random": float(random["mean"]),
            "random_error": float(random["std"]) / math.sqrt(random["episodes"]),
            "random_episodes": int(random["episodes"]),
            "ppo": float(np.mean(finals)) if finals else math.nan,
            "ppo_error": float(np.std(finals, ddof=1) / math.sqrt(len(finals))) if len(finals) > 1 else math.nan,
            "ppo_seeds": len(finals),
        }
    return found


def weak_references(found: dict[str, dict[str, float]]) -> list[str]:
    """Warn of tasks on which the distance from 0 to 1 is within twice its own standard error, or of unknown error."""
    warnings = []
    single = [env for env, ref in found.items() if ref["ppo_seeds"] == 1]
    if single:
        warnings.append(
            f"On {', '.join(single)} the unit of scores rests on a single run of synchronous PPO, so its own error is "
            "unknown."
        )
    for env, ref in found.items():
        if not ref["ppo_seeds"]:
            warnings.append(f"On {env} no synchronous PPO is finished, so its runs have no normalised score yet.")
        error = math.hypot(ref["random_error"], 0.0 if math.isnan(ref["ppo_error"]) else ref["ppo_error"])
        if ref["ppo"] - ref["random"] < 2 * error:
            warnings.append(
                f"On {env} synchronous PPO ({ref['ppo']:.4g}) is within two standard errors of the random policy "
                f"({ref['random']:.4g}): normalised scores of this task are mostly noise."
            )
    return warnings


def curves_table(runs: Sequence[Run], found: dict[str, dict[str, float]]) -> pd.DataFrame:
    """One row a run and evaluation point, with the normalised return in `score`.

    Raises:
        UserError: runs were evaluated on different grids.
    """
    frames = []
    grid: np.ndarray[Any, Any] | None = None
    for run in runs:
        evals = run.table("evals").sort_values("grid_steps", ignore_index=True)
        steps = evals["grid_steps"].to_numpy()
        grid = steps if grid is None else grid
        if not np.array_equal(steps, grid):
            raise UserError(
                f"{run.cell.path} was evaluated at other steps than {runs[0].cell.path}: train one of them again"
            )
        ref = found[run.cell.env]
        scores = np.full(len(evals), np.nan)
        if ref["ppo_seeds"]:
            scores = normalise(evals["mean"], random=ref["random"], reference=ref["ppo"], task=run.cell.env)
        frame = pd.DataFrame(labels(run), index=evals.index)
        frame["grid_steps"] = steps.astype(np.int64)
        for column in ("mean", "std", "deterministic_mean", "wall_seconds"):
            frame[column] = evals[column].astype(np.float64)
        frame["score"] = scores
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def scores_table(runs: Sequence[Run], curves: pd.DataFrame) -> pd.DataFrame:
    """One row a run: its final return and normalised score, the normalised area under the curve, the cost."""
    by_run = dict(tuple(curves.groupby(KEYS, sort=False)))
    rows = []
    for run in runs:
        key = labels(run)
        curve = by_run[tuple(key.values())]
        # Every curve starts with the evaluation at step 0.
        last = curve.iloc[-final_points(len(curve) - 1) :]
        rows.append(
            key
            | {
                "final": last["mean"].mean(),
                "final_deterministic": last["deterministic_mean"].mean(),
                "score": last["score"].mean(),
                "auc": area_under_curve(curve["grid_steps"], curve["score"]),
                "wall_seconds": float(run.manifest["wall_seconds"]),
            }
        )
    return pd.DataFrame(rows)


def thin(phases: pd.DataFrame, steps: int, stretches: int = STRETCHES) -> pd.DataFrame:
    """Average the phases of a run over equal stretches of training.

    Args:
        phases: one row a phase, with `env_steps`.
        steps: length of training.
        stretches: at most this many rows; with fewer phases, one row a phase.

    Returns:
        `stretch` (0, 1, ...), `progress` in (0, 1] at the stretch's last phase, and the mean of each of `DIAGNOSTICS`
        over the phases that have a value; NaN where none has.
    """
    count = min(stretches, len(phases))
    ordered = phases.sort_values("env_steps", ignore_index=True)
    stretch = np.arange(len(ordered)) * count // len(ordered)
    means = ordered[list(DIAGNOSTICS)].astype(np.float64).groupby(stretch).mean()
    progress = ordered["env_steps"].groupby(stretch).last() / steps
    thinned = pd.concat([progress.rename("progress"), means], axis=1).astype(np.float32)
    thinned.insert(0, "stretch", np.arange(count, dtype=np.int32))
    return thinned


def diagnostics_table(runs: Sequence[Run], plan: Plan) -> pd.DataFrame:
    """Thinned phases of every run, with the threshold δ and the clip range ε that each was trained with."""
    frames = []
    for run in runs:
        frame = thin(run.table("phases"), plan.steps)
        for position, (key, value) in enumerate(labels(run).items()):
            frame.insert(position, key, value)
        for setting in ("delta", "clip"):
            frame[setting] = np.float32(run.manifest["config"].get(setting, np.nan))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def progress(plan: Plan, runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """How far every grid is.

    Returns:
        By grid: `planned` and `finished` runs; `cells` (task, name, K) and how many are `empty`; the `fewest` and
        `most` seeds of a cell; `seeds`, the finished and planned runs of every seed.
    """
    done = {run.cell for run in runs}
    found = {}
    for name, grid in plan.grids.items():
        cells: dict[tuple[str, str, int], int] = {}
        seeds = {str(seed): [0, 0] for seed in grid.seeds}
        for cell in grid.cells():
            key = (cell.env, cell.name, cell.lag)
            cells[key] = cells.get(key, 0) + (cell in done)
            seeds[str(cell.seed)][0] += cell in done
            seeds[str(cell.seed)][1] += 1
        counts = list(cells.values())
        found[name] = {
            "planned": len(grid.cells()),
            "finished": sum(counts),
            "cells": len(counts),
            "empty": counts.count(0),
            "fewest": min(counts),
            "most": max(counts),
            "seeds": seeds,
        }
    return found


def _summary(
    plan: Plan, runs: Sequence[Run], missing: Sequence[Cell], found: dict[str, Any], warnings: list[str]
) -> dict[str, Any]:
    """What `summary.json` says, but for the archive's digest."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run.manifest["versions"].items():
            versions.setdefault(package, set()).add(str(version))
    content = json.loads(plan.text)
    swept = {"sweeps": content["sweeps"]} if "sweeps" in content else {}
    return swept | {
        "tier": plan.tier,
        "description": plan.description,
        "steps": plan.steps,
        "evaluation": {"points": plan.points, "episodes": plan.episodes, "final": final_points(plan.points)},
        "grids": content["grids"],
        "methods": content["methods"],
        "meanings": dict(plan.meanings),
        "config_hash": plan.config_hash,
        "runs": len(runs),
        "planned_runs": len(plan.cells()),
        "progress": progress(plan, runs),
        "missing": [cell.path for cell in missing],
        "warnings": warnings,
        "references": {
            env: {key: None if math.isnan(value) else value for key, value in ref.items()} for env, ref in found.items()
        },
        "environment_steps": sum(int(run.manifest["completed_steps"]) for run in runs),
        "core_hours": sum(float(run.manifest["wall_seconds"]) for run in runs) / 3600,
        "versions": {package: sorted(found_versions) for package, found_versions in sorted(versions.items())},
        "cpus": sorted({str(run.manifest.get("cpu")) for run in runs}),
    }


def aggregate(plan: Plan, archive: Archive, out: Path) -> None:
    """Write the tables of a tier; see the module's docstring.

    Args:
        plan: what the tier asks for.
        archive: its finished runs; what is missing there is named in `summary.json`, and so in every caption.
        out: folder of the tables, made if need be.

    Raises:
        UserError: there is no run, runs may not be compared, or scores cannot be normalised.
    """
    runs, missing = find_runs(plan, archive)
    warnings = check_mixture(runs, plan)
    configs = configurations(runs)
    found = references(plan, runs, archive.references)
    warnings += weak_references(found)
    curves = curves_table(runs, found)
    out.mkdir(parents=True, exist_ok=True)
    with python_warnings.catch_warnings():
        # A column without any value in a stretch averages to NaN, which is what the table should say.
        python_warnings.simplefilter("ignore", RuntimeWarning)
        diagnostics = diagnostics_table(runs, plan)
    write_table(scores_table(runs, curves), out / "scores.parquet")
    write_table(curves, out / "curves.parquet")
    write_table(diagnostics, out / "diagnostics.parquet")
    write_table(runs_table(runs), out / "runs.parquet")
    write_table(lags_table(runs), out / "lags.parquet")
    write_json(configs, out / "configs.json")
    summary = _summary(plan, runs, missing, found, warnings) | {"archive": archive.digest}
    write_json(summary, out / "summary.json")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write parquet, small and the same bytes for the same table."""
    floats = [str(column) for column, kind in table.dtypes.items() if kind.kind == "f"]
    others = [str(column) for column in table.columns if column not in floats]
    table.to_parquet(
        path,
        index=False,
        compression="zstd",
        compression_level=12,
        use_dictionary=others,
        use_byte_stream_split=floats,
    )


def write_json(content: Any, path: Path) -> None:
    """Write JSON for people: indented, no NaN."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.report.tables.aggregate", description="From an archive to tables.")
    parser.add_argument("--plan", required=True, help="file with the tier's plan, JSON; - reads standard input")
    parser.add_argument("--archive", type=path_flag, required=True, help="folder results/<tier>/archive")
    parser.add_argument("--out", type=path_flag, required=True, help="folder of the tables")
    given = parser.parse_args(arguments)
    text = sys.stdin.read() if given.plan == "-" else user_path(given.plan).read_text(encoding="utf-8")
    plan = read_plan(text)
    aggregate(plan, Archive(given.archive, plan.tier), given.out)
    return 0


if __name__ == "__main__":
    run_command(main)
