"""The numbers of a tier for prose, one function a table: see `vaco.report.prose.numbers`.

Every function yields (key without the tier's name, value, format). Keys are enumerated from the plan, so a cell without
a finished run has its keys too, with the value None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations, product
from typing import Any

import pandas as pd

from vaco.report.tables.caption import COVERAGE, SAME_WITHOUT_LAG, between
from vaco.report.tables.methods import look
from vaco.report.tables.power import MOST, separation
from vaco.report.tables.read import MAIN, Tables

Found = Iterator[tuple[str, Any, str]]
SUBJECT = "vaco"
PAIRED = ("factorial", "contributions")
"""Studies that cross alignments with filters."""


def short(env: str) -> str:
    """A task as a word of a key: halfcheetah of HalfCheetah-v5."""
    return env.rsplit("-v", 1)[0].lower()


def words(tables: Tables, grid: str, name: str) -> str:
    """A method as words of a key: its name, or in studies of pairs its alignment and filter, `once.tv`."""
    method = tables.methods[name]
    return method["pair"].replace("+", ".") if grid in PAIRED and not method["settings"] else name


def with_interval(point: float, low: float, high: float, form: str) -> str:
    """An estimate as prose shows it, with its interval if it has one: `0.80 [0.71, 0.87]`."""
    return f"{point:{form}}" + ("" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]")


def estimate(key: str, row: pd.Series | None, form: str, *, with_seeds: bool = False) -> Found:
    """An estimate under five keys: the point, `.low` and `.high`, `.interval` for prose, and `.n` for the seeds.

    Args:
        key: without the tier's name.
        row: `point`, `low`, `high`, `runs`; None where nothing is finished.
        form: of one number.
        with_seeds: whether `.interval` says how many seeds are behind it, for cells that have more or fewer than those
            beside them: `0.80 [0.71, 0.87], 2 seeds`.
    """
    if row is None or math.isnan(row["point"]):
        yield from ((f"{key}{part}", None, form) for part in ("", ".low", ".high", ".interval"))
        yield f"{key}.n", 0, "d"
        return
    low, high = (None, None) if math.isnan(row["low"]) else (row["low"], row["high"])
    yield key, float(row["point"]), form
    yield f"{key}.low", low, form
    yield f"{key}.high", high, form
    seeds = int(row["runs"])
    behind = f", {seeds} seed{'s' * (seeds != 1)}" if with_seeds else ""
    yield f"{key}.interval", with_interval(row["point"], row["low"], row["high"], form) + behind, ""
    yield f"{key}.n", seeds, "d"


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
    yield "evaluation.points", summary["evaluation"]["points"], "d"
    yield "evaluation.final", summary["evaluation"]["final"], "d"
    yield "evaluation.episodes", summary["evaluation"]["episodes"], "d"
    yield "environment_steps", summary["environment_steps"], ",d"
    yield "core_hours", summary["core_hours"], ".1f"
    for seeds, (one, three) in COVERAGE.items():
        yield f"coverage.{seeds}.one", one, ".0%"
        yield f"coverage.{seeds}.three", three, ".0%"
    for name, grid in summary["progress"].items():
        for part in ("finished", "planned", "cells", "empty", "fewest", "most"):
            yield f"grid.{name}.{part}", grid[part], ",d"
        yield f"grid.{name}.a_cell", between(grid["fewest"], grid["most"]), ""
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
    seeds. `same.<method>.gap` is the difference between two names of one method, at K = 1. `keeps.<method>` is what a
    method has at the largest K in units of its score at the least, `keeps.less` and `keeps.more` name those that keep
    less or more of it than VACO, `claim.<metric>` is the paper's claim in words.
    """
    table = tables.read("aggregates")
    find = _lookup(table, ["grid", "name", "lag", "metric"])
    grid = tables.grid()
    kept: dict[str, float] = {}
    for name in grid["algorithms"]:
        ends = [find(MAIN, name, lag, "iqm") for lag in (min(grid["capacities"]), max(grid["capacities"]))]
        first, last = (math.nan if row is None else row["point"] for row in ends)
        if first > 0 and not math.isnan(last):
            kept[name] = last / first
        yield f"keeps.{name}", kept.get(name), ".0%"
    for word, sign in (("less", -1), ("more", 1)):
        others = [name for name in kept if SUBJECT in kept and sign * (kept[name] - kept[SUBJECT]) > 0]
        listed = ", ".join(look(name, tables.methods).label for name in sorted(others, key=lambda name: -kept[name]))
        yield f"keeps.{word}", (listed or "none") if SUBJECT in kept else None, ""
    for metric in ("iqm", "auc_iqm"):
        yield f"claim.{metric}", _claim(table[table["metric"] == metric], grid), ""
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
            key = f"{study}.{words(tables, study, name)}.lag{lag}.iqm"
            yield from estimate(key, find(study, name, lag, "iqm"), ".2f", with_seeds=True)


def from_sensitivity(tables: Tables) -> Found:
    """`sensitivity.<algorithm>.best` and `.worst`: the setting of the study with the highest and lowest score, with it.

    A best of several settings, on the runs that it was chosen by, flatters.
    """
    grid = tables.summary["grids"].get("sensitivity")
    if not grid:
        return
    find = _lookup(tables.read("aggregates"), ["grid", "name", "lag", "metric"])
    rows = {name: find("sensitivity", name, grid["capacities"][0], "iqm") for name in grid["algorithms"]}
    known = {name: row for name, row in rows.items() if row is not None and not math.isnan(row["point"])}
    for algorithm in dict.fromkeys(tables.methods[name]["algorithm"] for name in grid["algorithms"]):
        own = {name: row for name, row in known.items() if tables.methods[name]["algorithm"] == algorithm}
        order = sorted(own, key=lambda name: own[name]["point"])
        for word, place in (("worst", 0), ("best", -1)):
            row = own[order[place]] if order else None
            shown = None if row is None else with_interval(row["point"], row["low"], row["high"], ".2f")
            yield f"sensitivity.{algorithm}.{word}", shown, ""


def from_factorial(tables: Tables) -> Found:
    """`factorial.once_above.<never|continuous>`: the filters with which aligning once scores higher, of how many."""
    grid = tables.summary["grids"].get("factorial")
    if not grid:
        return
    find = _lookup(tables.read("aggregates"), ["grid", "name", "lag", "metric"])
    points: dict[str, float] = {}
    for name in grid["algorithms"]:
        row = find("factorial", name, grid["capacities"][0], "iqm")
        if row is not None and not tables.methods[name]["settings"]:
            points[tables.methods[name]["pair"]] = row["point"]
    filters = sorted({pair.split("+")[1] for pair in points})
    for word, align in (("never", "none"), ("continuous", "continuous")):
        both = [one for one in filters if {f"once+{one}", f"{align}+{one}"} <= set(points)]
        above = [one for one in both if points[f"once+{one}"] > points[f"{align}+{one}"]]
        listed = f"{len(above)} of {len(both)} filters" + (f" ({', '.join(above)})" if above else "")
        yield f"factorial.once_above.{word}", listed if both else None, ""


def from_contributions(tables: Tables) -> Found:
    """`contributions.<align>.<filter>.over.<align>.<filter>`: the difference of two mean scores, with its interval.

    The interval is that of `vaco.report.tables.power`, by Welch's t. `contributions.pairs` counts the pairs that differ
    in one thing, alignment or filter, and `contributions.clear` lists those whose interval does not hold 0, the higher
    one first.
    """
    grid = tables.summary["grids"].get("contributions")
    if not grid:
        return
    lag = grid["capacities"][0]
    find = _lookup(separation(tables.read("scores"), grid), ["name", "opponent", "lag"])
    alike, clear = 0, []
    for name, other in permutations(grid["algorithms"], 2):
        row = find(name, other, lag)
        shown = None
        if row is not None:  # with a typographic minus, also inside the interval
            shown = with_interval(row["difference"], row["low"], row["high"], "+.2f").replace("-", "−")
        one, two = (words(tables, "contributions", each) for each in (name, other))
        yield f"contributions.{one}.over.{two}", shown, ""
        pairs = [tables.methods[each]["pair"] for each in (name, other)]
        if row is None or not set(pairs[0].split("+")) & set(pairs[1].split("+")):
            continue
        alike += 1
        if row["low"] > 0:
            clear.append(f"{pairs[0]} over {pairs[1]}")
    yield "contributions.pairs", alike // 2, "d"
    yield "contributions.clear", (", ".join(clear) or "none") if alike else None, ""


def _claim(table: pd.DataFrame, grid: Mapping[str, Any]) -> str | None:
    """Whether VACO's estimate is the highest at every K > 1, as words: the paper's claim, on these runs.

    Args:
        table: rows of one metric of `aggregates`.
        grid: the tier's own.
    """
    points = table[table["grid"] == MAIN].dropna(subset=["point"]).set_index(["lag", "name"])["point"]
    lagged = [lag for lag in grid["capacities"] if lag > 1]
    if not lagged or any((lag, name) not in points.index for lag in lagged for name in grid["algorithms"]):
        return None
    highest = [lag for lag in lagged if points.loc[lag].idxmax() == SUBJECT]
    lost = [lag for lag in lagged if lag not in highest]
    if not lost:
        return "holds"
    missed = f"does not hold at K = {listed_words(lost)}"
    return f"holds at K = {listed_words(highest)} and {missed}" if highest else missed


def listed_words(things: Sequence[Any]) -> str:
    """`4`, `4 and 16`, `4, 16 and 64`."""
    *most, last = map(str, things)
    return f"{', '.join(most)} and {last}" if most else last


def from_task_scores(tables: Tables) -> Found:
    """`task.<task>.<method>.lag<K>.final` and `.score`, and `<study>.<task>.<method>...` for the studies.

    `same.<method>.<task>` is the difference of the scores of two names of one method, at K = 1.
    """
    find = _lookup(tables.read("task_scores"), ["grid", "env", "name", "lag", "metric"])
    own = tables.grid()
    for (name, same), env in product(SAME_WITHOUT_LAG.items(), own["environments"]):
        if 1 in own["capacities"] and {name, same} <= set(own["algorithms"]):
            mine, its = (find(MAIN, env, one, 1, "score") for one in (name, same))
            gap = None if mine is None or its is None else mine["point"] - its["point"]
            yield f"same.{name}.{short(env)}", gap, "+.2f"
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
    """`improvement.<opponent>.lag<K>`: probability that a run of VACO scores higher.

    Where all pairs of runs of a task have the same winner the bootstrap's interval has no width, and none is shown.
    """
    find = _lookup(tables.read("improvement"), ["grid", "name", "opponent", "lag"])
    for other, lag in _opponents(tables):
        row = find(MAIN, SUBJECT, other, lag)
        for key, value, form in estimate(f"improvement.{other}.lag{lag}", row, ".2f"):
            decided = key.endswith(".interval") and value is not None and row is not None and row["low"] == row["high"]
            yield key, f"{row['point']:.2f}, all pairs of a task alike" if decided and row is not None else value, form


def from_separation(tables: Tables) -> Found:
    """`separation.<opponent>.lag<K>.seeds`: seeds that would tell VACO and the other method apart.

    `ahead.lag<K>` and `behind.lag<K>` are the methods whose mean score is below or above VACO's, `clear.lag<K>` those
    of them for which the 95 % interval of the difference does not hold 0. `clear.count` counts these over all K, of
    `separation.pairs`, and `separation.enough` those whose seeds suffice by the number that the observed difference
    would need. `claim.refuted` says at which K > 1 another method is ahead of VACO beyond chance, `claim.confirmed` at
    which VACO is ahead of all. `same.<method>.difference` and `.reach` are the difference of two names of one method at
    K = 1 and half the width of its interval.
    """
    table = tables.read("separation")
    find = _lookup(table, ["grid", "name", "opponent", "lag"])
    yield from _decided(table[(table["grid"] == MAIN) & (table["name"] == SUBJECT)], tables.grid())
    for other, lag in _opponents(tables):
        row = find(MAIN, SUBJECT, other, lag)
        seeds = None if row is None or math.isnan(row["seeds"]) else _count(row["seeds"])
        yield f"separation.{other}.lag{lag}.seeds", seeds, ",d"
        yield f"separation.{other}.lag{lag}.difference", None if row is None else row["difference"], "+.2f"
    for lag in tables.grid()["capacities"]:
        rows = table[(table["grid"] == MAIN) & (table["name"] == SUBJECT) & (table["lag"] == lag)]
        known = rows.dropna(subset=["low"])
        yield f"ahead.lag{lag}", _methods(tables, rows, rows["difference"] > 0), ""
        yield f"behind.lag{lag}", _methods(tables, rows, rows["difference"] < 0), ""
        yield f"clear.lag{lag}", _methods(tables, known, (known["low"] > 0) | (known["high"] < 0)), ""
    for name, same in SAME_WITHOUT_LAG.items():
        row = find(MAIN, name, same, 1)
        reach = math.nan if row is None else (row["high"] - row["low"]) / 2
        yield f"same.{name}.difference", None if row is None else row["difference"], "+.2f"
        yield f"same.{name}.reach", None if math.isnan(reach) else reach, ".2f"


def _decided(own: pd.DataFrame, grid: Mapping[str, Any]) -> Found:
    """What `from_separation` says over all K of the differences that are beyond chance.

    Args:
        own: rows of `separation`, VACO against each other method.
        grid: the tier's own.
    """
    known = own.dropna(subset=["low"])
    clear = (known["low"] > 0) | (known["high"] < 0)
    yield "separation.pairs", len(own), "d"
    yield "separation.enough", int((own["seeds"] <= own["runs"]).sum()) if len(own) else None, "d"
    yield "clear.count", int(clear.sum()) if len(known) else None, "d"
    opponents = len(grid["algorithms"]) - 1
    by_lag = {lag: known[known["lag"] == lag] for lag in grid["capacities"] if lag > 1}
    refuted = [lag for lag, rows in by_lag.items() if (rows["high"] < 0).any()]
    confirmed = [lag for lag, rows in by_lag.items() if len(rows) == opponents and (rows["low"] > 0).all()]
    for word, capacities in (("refuted", refuted), ("confirmed", confirmed)):
        listed = f"at K = {listed_words(capacities)}" if capacities else "at no K"
        yield f"claim.{word}", listed if len(known) else None, ""


def _methods(tables: Tables, rows: pd.DataFrame, chosen: pd.Series) -> str | None:
    """The other methods of the chosen rows of `separation`, the largest difference first; None without any rows."""
    if rows.empty:
        return None
    rows = rows[chosen]
    order = rows.reindex(rows["difference"].abs().sort_values(ascending=False).index)["opponent"]
    return ", ".join(look(name, tables.methods).label for name in order) or "none"


def _count(seeds: float) -> int | str:
    """A number of seeds; infinity has been calculated and is more than any that one would count."""
    return int(seeds) if math.isfinite(seeds) else f"more than {MOST:,}"


def _opponents(tables: Tables) -> list[tuple[str, int]]:
    grid = tables.grid()
    return [pair for pair in product(grid["algorithms"], grid["capacities"]) if pair[0] != SUBJECT]
