"""The numbers of a tier for prose, one function a table: see `vaco.report.numbers`.

Every function yields (key without the tier's name, value, format). Keys are enumerated from the plan, so a cell without
a finished run has its keys too, with the value None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import pandas as pd

from vaco.report.caption import COVERAGE, SAME_WITHOUT_LAG
from vaco.report.power import MOST
from vaco.report.style import look
from vaco.report.tables import MAIN, Tables

Found = Iterator[tuple[str, Any, str]]
SUBJECT = "vaco"


def short(env: str) -> str:
    """A task as a word of a key: halfcheetah of HalfCheetah-v5."""
    return env.rsplit("-v", 1)[0].lower()


def words(tables: Tables, grid: str, name: str) -> str:
    """A method as words of a key: its name, or in the factorial its alignment and filter, `once.tv`."""
    method = tables.methods[name]
    return method["pair"].replace("+", ".") if grid == "factorial" and not method["settings"] else name


def with_interval(point: float, low: float, high: float, form: str) -> str:
    """An estimate as prose shows it, with its interval if it has one: `0.80 [0.71, 0.87]`."""
    return f"{point:{form}}" + ("" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]")


def estimate(key: str, row: pd.Series | None, form: str) -> Found:
    """An estimate under four keys: the point, `.low` and `.high`, `.interval` for prose, and `.n` for the seeds."""
    if row is None or math.isnan(row["point"]):
        yield from ((f"{key}{part}", None, form) for part in ("", ".low", ".high", ".interval"))
        yield f"{key}.n", 0, "d"
        return
    low, high = (None, None) if math.isnan(row["low"]) else (row["low"], row["high"])
    yield key, float(row["point"]), form
    yield f"{key}.low", low, form
    yield f"{key}.high", high, form
    yield f"{key}.interval", with_interval(row["point"], row["low"], row["high"], form), ""
    yield f"{key}.n", int(row["runs"]), "d"


def _lookup(table: pd.DataFrame, columns: list[str]) -> Callable[..., pd.Series | None]:
    """A function from the values of some columns to the row that has them, or None."""
    rows = {tuple(row[column] for column in columns): row for _, row in table.iterrows()}
    return lambda *key: rows.get(key)


def from_summary(tables: Tables) -> Found:
    """Progress, scale, cost and the references of normalisation."""
    summary = tables.summary
    yield "runs.finished", summary["runs"], ",d"
    yield "runs.planned", summary["planned_runs"], ",d"
    yield "runs.missing", len(summary["missing"]), ",d"
    yield "steps", summary["steps"], ",d"
    yield "evaluation.episodes", summary["evaluation"]["episodes"], "d"
    yield "environment_steps", summary["environment_steps"], ",d"
    yield "core_hours", summary["core_hours"], ".1f"
    for seeds, (one, three) in COVERAGE.items():
        yield f"coverage.{seeds}.one", one, ".0%"
        yield f"coverage.{seeds}.three", three, ".0%"
    for name, grid in summary["progress"].items():
        for part in ("finished", "planned", "cells", "empty", "fewest", "most"):
            yield f"grid.{name}.{part}", grid[part], ",d"
        for seed, (finished, planned) in grid["seeds"].items():
            yield f"grid.{name}.seed{seed}", f"{finished} of {planned}", ""
    for env, reference in summary["references"].items():
        yield f"reference.{short(env)}.random", reference["random"], ".0f"
        yield f"reference.{short(env)}.ppo", reference["ppo"], ".0f"
        yield f"reference.{short(env)}.error", reference["ppo_error"], ".0f"
        yield f"reference.{short(env)}.seeds", reference["ppo_seeds"], "d"


def from_aggregates(tables: Tables) -> Found:
    """`<method>.lag<K>.<metric>` of the tier's own grid, and `factorial.<align>.<filter>` and other studies.

    `order.lag<K>` is the methods from the highest interquartile mean to the lowest, and `order.lag<K>.n` their fewest
    seeds. `same.<method>.gap` is the difference between two names of one method, at K = 1.
    """
    table = tables.read("aggregates")
    find = _lookup(table, ["grid", "name", "lag", "metric"])
    grid = tables.grid()
    for lag in grid["capacities"]:
        rows = {name: find(MAIN, name, lag, "iqm") for name in grid["algorithms"]}
        known = {name: row for name, row in rows.items() if row is not None and not math.isnan(row["point"])}
        order = sorted(known, key=lambda name: -known[name]["point"])
        listed = ", ".join(f"{look(name, tables.methods).label} {known[name]['point']:.2f}" for name in order)
        yield f"order.lag{lag}", listed or None, ""
        yield f"order.lag{lag}.n", min((int(row["runs"]) for row in known.values()), default=0), "d"
        for name, same in SAME_WITHOUT_LAG.items():
            if lag == 1 and {name, same} <= set(grid["algorithms"]):
                both = {name, same} <= set(known)
                yield f"same.{name}.gap", abs(known[name]["point"] - known[same]["point"]) if both else None, ".2f"
    metrics = ("iqm", "median", "mean", "optimality_gap", "auc_iqm")
    for name, lag, metric in product(grid["algorithms"], grid["capacities"], metrics):
        yield from estimate(f"{name}.lag{lag}.{metric}", find(MAIN, name, lag, metric), ".2f")
    for study, grid in tables.summary["grids"].items():
        if study == MAIN:
            continue
        for name, lag in product(grid["algorithms"], grid["capacities"]):
            yield from estimate(
                f"{study}.{words(tables, study, name)}.lag{lag}.iqm", find(study, name, lag, "iqm"), ".2f"
            )


def from_task_scores(tables: Tables) -> Found:
    """`task.<task>.<method>.lag<K>.final` and `.score`, and `<study>.<task>.<method>...` for the studies."""
    find = _lookup(tables.read("task_scores"), ["grid", "env", "name", "lag", "metric"])
    for grid_name, grid in tables.summary["grids"].items():
        first = "task" if grid_name == MAIN else grid_name
        cells = product(grid["environments"], grid["algorithms"], grid["capacities"])
        for env, name, lag in cells:
            for metric, form in (("final", ".0f"), ("score", ".2f")):
                row = find(grid_name, env, name, lag, metric)
                method = words(tables, grid_name, name)
                yield from estimate(f"{first}.{short(env)}.{method}.lag{lag}.{metric}", row, form)


def from_losses(tables: Tables) -> Found:
    """`losses`: on how many (task, K) the mean score of VACO is below another method's, of those with both.

    A name that stands for another of the methods at K = 1 is not counted there a second time.
    """
    table = tables.read("task_scores")
    table = table[(table["grid"] == MAIN) & (table["metric"] == "score")].dropna(subset=["point"])
    means = table.set_index(["name", "env", "lag"])["point"]
    grid = tables.grid()
    total, of = 0, 0
    for other in grid["algorithms"]:
        if other == SUBJECT:
            continue
        cells = [
            (env, lag)
            for env, lag in product(grid["environments"], grid["capacities"])
            if (SUBJECT, env, lag) in means.index and (other, env, lag) in means.index
            if lag > 1 or SAME_WITHOUT_LAG.get(other) not in grid["algorithms"]
        ]
        behind = [cell for cell in cells if means[(SUBJECT, *cell)] < means[(other, *cell)]]
        total, of = total + len(behind), of + len(cells)
        yield f"losses.{other}.cells", len(behind) if cells else None, "d"
        yield f"losses.{other}.of", len(cells), "d"
        listed = ", ".join(f"{env} at K = {lag}" for env, lag in behind)
        yield f"losses.{other}.where", (listed or "nowhere") if cells else None, ""
    yield "losses.all.cells", total if of else None, "d"
    yield "losses.all.of", of, "d"


def from_improvement(tables: Tables) -> Found:
    """`improvement.<opponent>.lag<K>`: probability that a run of VACO scores higher."""
    find = _lookup(tables.read("improvement"), ["grid", "name", "opponent", "lag"])
    for other, lag in _opponents(tables):
        yield from estimate(f"improvement.{other}.lag{lag}", find(MAIN, SUBJECT, other, lag), ".2f")


def from_separation(tables: Tables) -> Found:
    """`separation.<opponent>.lag<K>.seeds`: seeds that would tell VACO and the other method apart."""
    table = tables.read("separation")
    find = _lookup(table, ["grid", "name", "opponent", "lag"])
    for other, lag in _opponents(tables):
        row = find(MAIN, SUBJECT, other, lag)
        seeds = None if row is None or math.isnan(row["seeds"]) else _count(row["seeds"])
        yield f"separation.{other}.lag{lag}.seeds", seeds, ",d"
        yield f"separation.{other}.lag{lag}.difference", None if row is None else row["difference"], "+.2f"
    yield "separation.freedom", int(table["freedom"].min()) if len(table) else 0, "d"


def _count(seeds: float) -> int | str:
    """A number of seeds; infinity has been calculated and is more than any that one would count."""
    return int(seeds) if math.isfinite(seeds) else f"more than {MOST:,}"


def _opponents(tables: Tables) -> list[tuple[str, int]]:
    grid = tables.grid()
    return [pair for pair in product(grid["algorithms"], grid["capacities"]) if pair[0] != SUBJECT]


def from_runs(tables: Tables) -> Found:
    """Means of diagnostics over the runs of a task, then over tasks: `filter`, `lag`, `constraint` by method and K.

    `trigger` and `cost` are those of the studies.
    """
    table = tables.read("runs")
    grid = tables.grid()
    main = table[table["env"].isin(grid["environments"]) & table["seed"].isin(grid["seeds"])]
    for name, lag in product(grid["algorithms"], grid["capacities"]):
        rows = main[(main["name"] == name) & (main["lag"] == lag)]
        found = _means(rows)
        key = f"{name}.lag{lag}"
        yield f"filter.{key}.dropped", None if found is None else 1.0 - found["kept_fraction"], ".1%"
        yield f"filter.{key}.outside_clip", _get(found, "clip_fraction"), ".1%"
        yield f"filter.{key}.trigger_fraction", _get(found, "trigger_fraction"), ".1%"
        fires = _get(found, "trigger_fraction")
        yield f"filter.{key}.silent", None if fires is None else 1.0 - fires, ".0%"
        yield f"filter.{key}.trigger_flips", _get(found, "trigger_flips"), ".1%"
        yield f"filter.{key}.trigger_stops", _get(found, "trigger_stops"), ".0%"
        yield f"lag.{key}.backward", _get(found, "backward_lag"), ".3f"
        yield f"lag.{key}.forward", None if found is None else found["forward_mean"] / 2, ".3f"
        yield f"lag.{key}.effective_samples", _get(found, "ess"), ".0%"
        share = _get(found, "forward_excess_share")
        yield f"constraint.{key}.share", share, ".1%"
        if share == 0:
            yield from ((f"constraint.{key}.{part}", "none", "") for part in ("excess", "largest"))
        else:
            yield f"constraint.{key}.excess", _median(rows, "forward_excess_median"), ".1%"
            yield f"constraint.{key}.largest", _largest(rows, "forward_excess_max"), ".0%"
        yield f"constraint.{key}.n", len(rows), "d"
    yield from _trigger(tables, table)
    yield from _cost(tables, table)


def _trigger(tables: Tables, table: pd.DataFrame) -> Found:
    """`trigger.<task>.<method>`: how often the trigger fired and flipped in the study of sensitivity."""
    grid = tables.summary["grids"].get("sensitivity")
    for env, name in product(grid["environments"], grid["algorithms"]) if grid else ():
        if tables.methods[name]["algorithm"] != SUBJECT:
            continue
        rows = table[(table["env"] == env) & (table["name"] == name) & (table["lag"] == grid["capacities"][0])]
        found = _means(rows[rows["seed"].isin(grid["seeds"])])
        for part in ("trigger_fraction", "trigger_flips", "trigger_stops"):
            yield f"trigger.{short(env)}.{name}.{part}", _get(found, part), ".1%"


def _cost(tables: Tables, table: pd.DataFrame) -> Found:
    """`cost.<align>.<filter>`: time of a phase in units of its collecting, in the factorial, on its first task."""
    grid = tables.summary["grids"].get("factorial")
    for name in grid["algorithms"] if grid else ():
        rows = table[(table["name"] == name) & (table["lag"] == grid["capacities"][0])]
        rows = rows[(rows["env"] == grid["environments"][0]) & rows["seed"].isin(grid["seeds"])]
        for part in ("align", "optimise"):
            yield f"cost.{words(tables, 'factorial', name)}.{part}", _median(rows, f"{part}_relative"), ".1%"


def _means(rows: pd.DataFrame) -> Mapping[str, float] | None:
    if rows.empty:
        return None
    by_task = rows.groupby("env").mean(numeric_only=True)
    return {str(name): float(value) for name, value in by_task.mean().items()}


def _get(found: Mapping[str, float] | None, name: str) -> float | None:
    return None if found is None or math.isnan(found[name]) else found[name]


def _median(rows: pd.DataFrame, column: str) -> float | None:
    known = rows[column].dropna()
    return float(known.median()) if len(known) else None


def _largest(rows: pd.DataFrame, column: str) -> float | None:
    known = rows[column].dropna()
    return float(known.max()) if len(known) else None


TABLES: dict[str, tuple[Callable[[Tables], Found], ...]] = {
    "summary.json": (from_summary,),
    "aggregates.parquet": (from_aggregates,),
    "task_scores.parquet": (from_task_scores, from_losses),
    "improvement.parquet": (from_improvement,),
    "separation.parquet": (from_separation,),
    "runs.parquet": (from_runs,),
}
