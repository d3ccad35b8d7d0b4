"""From tidy tables to estimates with intervals: `python -m vaco.report.tables.estimates --tables DIR`.

Reads `scores.parquet`, `curves.parquet` and `summary.json`, and writes beside them:

* `aggregates.parquet`: a grid, name and K: median, IQM, mean, optimality gap of the final scores, IQM of the area
  under the curve;
* `iqm_curves.parquet`: the IQM at every evaluation point, of the tier's own grid;
* `profiles.parquet`: performance profiles, of the tier's own grid;
* `improvement.parquet`: probability that one name's run beats another's, at the same K, of the tier's own grid;
* `separation.parquet`: how many seeds the observed variance would need to tell two names apart, likewise;
* `task_scores.parquet`: a grid, task, name and K: the mean over the grid's seeds;
* `task_curves.parquet`: a task, name and K: the mean over seeds.

Every row has `point`, `low`, `high` (NaN where a single seed leaves the interval undefined) and the number of runs and
tasks behind it. What no finished run can fill has no row. `vaco.report.tables.stats` says what is resampled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.report.tables import stats
from vaco.report.tables.aggregate import write_table
from vaco.report.tables.power import separation
from vaco.report.tables.read import MAIN
from vaco.report.tables.stats import Array, Interval

THRESHOLDS = 101
Row = dict[str, Any]
ENDS = ["point", "low", "high"]
BEHIND = ["runs", "tasks"]


def score_matrix(table: pd.DataFrame, value: str, tasks: Sequence[str]) -> tuple[Array, list[int]]:
    """The [runs, tasks] matrix of one name at one K.

    Args:
        table: rows of that name and K, one a run, with `env`, `seed` and the column `value`.
        value: the column.
        tasks: order of the columns.

    Returns:
        The matrix and its seeds. A seed that is missing on some task is left out on all of them, so that every task
        has the same weight; `aggregate` records which runs are missing.
    """
    if table.empty:
        return np.empty((0, len(tasks))), []
    wide = table.pivot(index="seed", columns="env", values=value).reindex(columns=list(tasks)).dropna()
    return wide.to_numpy(dtype=np.float64), [int(seed) for seed in wide.index]


def curve_matrix(table: pd.DataFrame, tasks: Sequence[str]) -> tuple[Array, Array]:
    """The [runs, tasks, points] array of normalised returns of one name at one K, and its [points] steps."""
    wide = table.pivot(index="seed", columns=["env", "grid_steps"], values="score").dropna()
    steps = np.sort(table["grid_steps"].unique())
    if not set(tasks) <= set(table["env"]):
        return np.empty((0, len(tasks), len(steps))), steps
    ordered = wide.reindex(columns=pd.MultiIndex.from_product([list(tasks), steps.tolist()])).dropna()
    return ordered.to_numpy(dtype=np.float64).reshape(len(ordered), len(tasks), len(steps)), steps


class Estimator:
    """The tables of a tier and the bootstrap's settings, from which every estimate is made.

    Attributes:
        scores: `scores.parquet`.
        curves: `curves.parquet`.
        grids: the grids of `summary.json`.
    """

    def __init__(
        self, scores: pd.DataFrame, curves: pd.DataFrame, grids: dict[str, Any], *, repetitions: int, seed: int
    ) -> None:
        self.scores = scores
        self.curves = curves
        self.grids = grids
        self._repetitions = repetitions
        self._seed = seed

    def _interval(self, scores: Any, statistic: Any) -> Interval:
        return stats.interval(scores, statistic, seed=self._seed, repetitions=self._repetitions)

    def _cells(self, only: str | None = None) -> Iterator[tuple[str, str, int, list[str], list[int]]]:
        """Every grid (or one), name and K, with the tasks and seeds of the grid."""
        for grid_name, grid in self.grids.items():
            if only not in (None, grid_name):
                continue
            for lag in grid["capacities"]:
                for name in grid["algorithms"]:
                    yield grid_name, name, lag, grid["environments"], grid["seeds"]

    def _rows(
        self, table: pd.DataFrame, name: str, lag: int, tasks: Sequence[str], seeds: Sequence[int]
    ) -> pd.DataFrame:
        chosen = (table["name"] == name) & (table["lag"] == lag) & table["env"].isin(tasks) & table["seed"].isin(seeds)
        return table[chosen]

    def matrices(self, value: str, only: str | None = None) -> Iterator[tuple[Row, Array]]:
        """Score matrices of every grid (or one), name and K that has at least one seed on all its tasks."""
        for grid, name, lag, tasks, seeds in self._cells(only):
            matrix, kept = score_matrix(self._rows(self.scores, name, lag, tasks, seeds), value, tasks)
            if kept:
                yield {"grid": grid, "name": name, "lag": lag, "runs": len(kept), "tasks": len(tasks)}, matrix

    def aggregates(self) -> pd.DataFrame:
        """Median, IQM, mean, optimality gap, and the IQM of the area under the curve."""
        rows: list[Row] = []
        for key, matrix in self.matrices("score"):
            found = self._interval(matrix, stats.aggregates)
            rows += [key | {"metric": m} | _ends(found, i) for i, m in enumerate(stats.METRICS)]
        for key, matrix in self.matrices("auc"):
            found = self._interval(matrix, lambda scores: stats.iqm(scores)[None])
            rows.append(key | {"metric": "auc_iqm"} | _ends(found, 0))
        return _frame(rows, ["grid", "name", "lag", *BEHIND, "metric", *ENDS])

    def iqm_curves(self) -> pd.DataFrame:
        """The IQM of the normalised return at every evaluation point."""
        rows: list[Row] = []
        for grid, name, lag, tasks, seeds in self._cells(MAIN):
            table = self._rows(self.curves, name, lag, tasks, seeds)
            if table["score"].isna().all():
                continue
            matrix, steps = curve_matrix(table, tasks)
            if not len(matrix):
                continue
            key = {"grid": grid, "name": name, "lag": lag, "runs": len(matrix), "tasks": len(tasks)}
            found = self._interval(matrix, stats.iqm)
            rows += [key | {"grid_steps": int(step)} | _ends(found, i) for i, step in enumerate(steps)]
        return _frame(rows, ["grid", "name", "lag", *BEHIND, "grid_steps", *ENDS])

    def profiles(self) -> pd.DataFrame:
        """The share of runs above each of `THRESHOLDS` equally spaced scores that span the grid's runs."""
        matrices = list(self.matrices("score", MAIN))
        thresholds = np.linspace(*_span([matrix for _, matrix in matrices]), THRESHOLDS)
        rows: list[Row] = []
        for key, matrix in matrices:
            found = self._interval(matrix, lambda scores: stats.exceedance(scores, thresholds))
            rows += [key | {"threshold": float(t)} | _ends(found, i) for i, t in enumerate(thresholds)]
        return _frame(rows, ["grid", "name", "lag", *BEHIND, "threshold", *ENDS])

    def improvement(self) -> pd.DataFrame:
        """P(X > Y) for every ordered pair of names of a grid at the same K; P(Y > X) = 1 − P(X > Y)."""
        rows: list[Row] = []
        for (x_key, x), (y_key, y) in combinations(list(self.matrices("score", MAIN)), 2):
            if x_key["lag"] != y_key["lag"]:
                continue
            found = self._interval((x, y), lambda a, b: np.array([stats.improvement(a, b)]))
            key = {k: x_key[k] for k in ("grid", "lag", "tasks")} | {"runs": min(x_key["runs"], y_key["runs"])}
            rows.append(key | {"name": x_key["name"], "opponent": y_key["name"]} | _ends(found, 0))
            mirrored = Interval(1 - found.point, 1 - found.high, 1 - found.low)
            rows.append(key | {"name": y_key["name"], "opponent": x_key["name"]} | _ends(mirrored, 0))
        return _frame(rows, ["grid", "lag", *BEHIND, "name", "opponent", *ENDS])

    def separation(self) -> pd.DataFrame:
        """How many seeds would tell two names of the tier's own grid apart; see `vaco.report.tables.power`."""
        return separation(self.scores, self.grids[MAIN])

    def task_scores(self) -> pd.DataFrame:
        """A grid, task, name and K: means over seeds of final return, normalised score and area under the curve."""
        rows: list[Row] = []
        metrics = ["final", "score", "auc"]
        for grid, name, lag, tasks, seeds in self._cells():
            for env in tasks:
                group = self._rows(self.scores, name, lag, [env], seeds)
                if group.empty:
                    continue
                values = group[metrics].to_numpy(dtype=np.float64)
                known = np.isfinite(values).all(axis=0)
                # A task without its reference has returns but no scores yet.
                found = self._interval(np.where(known, values, 0.0)[:, None, :], _mean_over_runs)
                found = Interval(*(np.where(known, part, np.nan) for part in found))
                key = {"grid": grid, "env": env, "name": name, "lag": lag, "runs": len(group), "tasks": 1}
                rows += [key | {"metric": m} | _ends(found, i) for i, m in enumerate(metrics)]
        return _frame(rows, ["grid", "env", "name", "lag", *BEHIND, "metric", *ENDS])

    def task_curves(self) -> pd.DataFrame:
        """A task, name and K: mean over seeds of the return (not normalised) at every evaluation point."""
        rows: list[Row] = []
        for (env, name, lag), group in self.curves.groupby(["env", "name", "lag"], sort=False):
            wide = group.pivot(index="seed", columns="grid_steps", values="mean")
            found = self._interval(wide.to_numpy(dtype=np.float64)[:, None, :], _mean_over_runs)
            key = {"env": env, "name": name, "lag": lag, "runs": len(wide), "tasks": 1}
            rows += [key | {"grid_steps": int(step)} | _ends(found, i) for i, step in enumerate(wide.columns)]
        return pd.DataFrame(rows)


def _frame(rows: list[Row], columns: list[str]) -> pd.DataFrame:
    """A table that has its columns, with their types, even without a row."""
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({name: np.float64 for name in ENDS}) if table.empty else table


def _mean_over_runs(scores: Array) -> Array:
    """[runs, 1, points] to [points]."""
    return np.asarray(scores.mean(axis=(0, 1)))


def _ends(found: Interval, index: int) -> Row:
    return {
        "point": float(found.point[index]),
        "low": float(found.low[index]),
        "high": float(found.high[index]),
    }


def _span(matrices: Sequence[Array]) -> tuple[float, float]:
    """Range of thresholds: all scores, and 0 and 1 in any case; the top percent of wild scores is cut off."""
    if not matrices:
        return 0.0, 1.0
    values = np.concatenate([matrix.ravel() for matrix in matrices])
    return min(0.0, float(np.quantile(values, 0.01))), max(1.0, float(np.quantile(values, 0.99)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.report.tables.estimates", description="From tables to estimates.")
    parser.add_argument("--tables", type=path_flag, required=True, help="folder with the tables of `aggregate`")
    parser.add_argument("--repetitions", type=int, default=stats.REPETITIONS, help="bootstrap resamples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling")
    given = parser.parse_args(arguments)
    folder: Path = given.tables
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    estimator = Estimator(
        pd.read_parquet(folder / "scores.parquet"),
        pd.read_parquet(folder / "curves.parquet"),
        summary["grids"],
        repetitions=given.repetitions,
        seed=given.seed,
    )
    made = ("aggregates", "iqm_curves", "profiles", "improvement", "separation", "task_scores", "task_curves")
    for name in made:
        table: pd.DataFrame = getattr(estimator, name)()
        table.attrs.clear()
        write_table(table.assign(repetitions=given.repetitions), folder / f"{name}.parquet")
    return 0


if __name__ == "__main__":
    run_command(main)
