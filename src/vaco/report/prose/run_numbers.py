"""The numbers of a tier for prose that come from its runs' diagnostics: lag, filter, constraint, trigger and cost.

One table, `runs.parquet`; keys and values as in `vaco.report.prose.tier_numbers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import pandas as pd

from vaco.report.prose.tier_numbers import SUBJECT, Found, listed_words, short, words
from vaco.report.tables.read import Tables


def from_runs(tables: Tables) -> Found:
    """Means of diagnostics over the runs of a task, then over tasks: `filter`, `lag`, `constraint` by method and K.

    `trigger` and `cost` are those of the studies.
    """
    table = tables.read("runs")
    grid = tables.grid()
    main = table[table["env"].isin(grid["environments"]) & table["seed"].isin(grid["seeds"])]
    yield "phases", int(main["phases"].max()) if len(main) else None, ",d"
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
    yield from _drops(main, grid)
    yield from _trigger(tables, table)
    yield from _cost(tables, table)


def _drops(main: pd.DataFrame, grid: Mapping[str, Any]) -> Found:
    """`filter.drops_more`: at which K VACO drops a larger share of gradients than PPO's clip.

    Then, at the K where each is least and where it is most: the share of minibatches that trigger, the share dropped of
    one that does, and the share that PPO's clip drops in units of the backward lag, where there is any.
    """
    more, known = [], []
    shares: dict[str, list[float]] = {"fires": [], "of_triggered": [], "clip_per_lag": []}
    for lag in grid["capacities"]:
        mine, its = (_means(main[(main["name"] == name) & (main["lag"] == lag)]) for name in (SUBJECT, "ppo"))
        if mine is not None and mine["trigger_fraction"] > 0:
            shares["fires"].append(mine["trigger_fraction"])
            shares["of_triggered"].append((1.0 - mine["kept_fraction"]) / mine["trigger_fraction"])
        if its is not None and lag > 1 and its["backward_lag"] > 0:
            shares["clip_per_lag"].append((1.0 - its["kept_fraction"]) / its["backward_lag"])
        if mine is not None and its is not None:
            known.append(lag)
            more += [lag] if mine["kept_fraction"] < its["kept_fraction"] else []
    listed = f"at K = {listed_words(more)}" if more else "at no K"
    yield "filter.drops_more", listed if known else None, ""
    for name, found in shares.items():
        form = ".2f" if name == "clip_per_lag" else ".1%"
        yield f"filter.{name}.least", min(found, default=None), form
        yield f"filter.{name}.most", max(found, default=None), form


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
