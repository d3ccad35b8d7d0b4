"""Numbers of the language-model track that stand in prose, from its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pandas as pd

from vaco.report.figures.lm_cost import proximal_shares
from vaco.report.prose.tier_numbers import Found, with_interval
from vaco.report.tables.lm_stats import CELL, final_accuracy
from vaco.report.tables.read import Tables


def from_language(tables: Tables) -> Found:
    """Scale, accuracies of every cell, dropped shares and lags, and the cost of the proximal policy.

    Keys are `lm.scale...`, `lm.cost...`, and `lm.ALGORITHM.nN[.kK].` with `accuracy|interval|low|high`,
    `sampled|sampled_low|sampled_high` and `dropped|fires|lag`; an interval of a single seed is unknown.
    """
    evals, updates = tables.read("evals"), tables.read("updates")
    yield from _scale(tables, evals)
    for cell, row in _by_cell(tables, final_accuracy(evals)):
        yield f"{cell}.accuracy", row.get("mean"), ".2f"
        yield f"{cell}.interval", with_interval(row["mean"], row["low"], row["high"], ".2f") if row else None, ""
        for end in ("low", "high"):
            yield f"{cell}.{end}", row.get(end), ".2f"
        yield f"{cell}.seeds", row.get("seeds"), "d"
    for cell, row in _by_cell(tables, final_accuracy(evals, "sampled_accuracy")):
        yield f"{cell}.sampled", row.get("mean"), ".2f"
        for end in ("low", "high"):
            yield f"{cell}.sampled_{end}", row.get(end), ".2f"
    means = updates.groupby(CELL)[["filtered_fraction", "triggered", "total_lag"]].mean().reset_index()
    for cell, row in _by_cell(tables, means):
        yield f"{cell}.dropped", row.get("filtered_fraction"), ".1%"
        yield f"{cell}.fires", row.get("triggered"), ".1%"
        yield f"{cell}.lag", row.get("total_lag"), ".3f"
    yield from _cost(updates)


def _by_cell(tables: Tables, rows: pd.DataFrame) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every cell that the tier asks for, as the beginning of its keys, with its row; empty while no run is finished."""
    found = {tuple(row[name] for name in CELL): row for row in rows.to_dict("records")}
    asked: dict[tuple[Any, ...], None] = {}
    for grid in tables.summary["grids"].values():
        asked |= dict.fromkeys(product(grid["algorithms"], grid["minibatches"], grid["lags"]))
    for algorithm, minibatches, lag in asked:
        key = f"lm.{algorithm}.n{minibatches}" + (f".k{lag}" if lag > 1 else "")
        yield key, {str(name): value for name, value in found.get((algorithm, minibatches, lag), {}).items()}


def _scale(tables: Tables, evals: pd.DataFrame) -> Found:
    summary = tables.summary
    training = summary["training"]
    yield "lm.scale.runs", summary["runs"], "d"
    yield "lm.scale.planned", summary["planned_runs"], "d"
    yield "lm.scale.hours", summary["hours"], ".1f"
    yield "lm.scale.parameters", summary["parameters"], ",d"
    yield "lm.scale.updates", training["updates"], "d"
    yield "lm.scale.responses", training["updates"] * training["prompts"] * training["samples"], ",d"
    yield "lm.scale.seeds", len(summary["grids"]["main"]["seeds"]), "d"
    start = evals[evals["update"] == 0]
    yield "lm.scale.start", float(start["accuracy"].mean()), ".2f"
    yield "lm.scale.distinct_problems", summary["distinct_eval_problems"], "d"
    yield "lm.scale.proximal_updates", training["proximal_updates"], "d"
    yield "lm.scale.problems", training["eval_problems"], "d"
    yield "lm.scale.delta", training["delta"], "g"


def _cost(updates: pd.DataFrame) -> Found:
    """Share of decoupled PPO's step that evaluating the proximal policy takes; median and range over cells."""
    share = proximal_shares(updates)
    for key, value in (("", share.median()), ("_least", share.min()), ("_most", share.max())):
        yield f"lm.cost.proximal_share{key}", None if share.empty else float(value), ".0%"
