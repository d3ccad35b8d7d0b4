"""Numbers of the language-model track that stand in prose, from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vaco.report.lm_cost import proximal_shares
from vaco.report.lm_stats import CELL, final_accuracy
from vaco.report.tables import Tables
from vaco.report.tier_numbers import Found


def from_language(tables: Tables) -> Found:
    """Scale, accuracies of every cell, dropped shares and lags, and the cost of the proximal policy.

    Keys are `lm.scale...`, `lm.ALGORITHM.nN[.kK].accuracy|low|high|sampled|sampled_low|sampled_high|dropped|fires|lag`
    and `lm.cost...`; an interval of a single seed is unknown.
    """
    evals, updates = tables.read("evals"), tables.read("updates")
    yield from _scale(tables, evals)
    for prefix, column in (("", "accuracy"), ("sampled", "sampled_accuracy")):
        for row in final_accuracy(evals, column).to_dict("records"):
            cell = _cell(row)
            yield f"{cell}.{prefix or 'accuracy'}", row["mean"], ".2f"
            for end in ("low", "high"):
                yield f"{cell}.{prefix + '_' if prefix else ''}{end}", row[end], ".2f"
            if not prefix:
                yield f"{cell}.seeds", row["seeds"], "d"
    means = updates.groupby(CELL)[["filtered_fraction", "triggered", "total_lag"]].mean().reset_index()
    for row in means.to_dict("records"):
        cell = _cell(row)
        yield f"{cell}.dropped", row["filtered_fraction"], ".1%"
        yield f"{cell}.fires", row["triggered"], ".1%"
        yield f"{cell}.lag", row["total_lag"], ".3f"
    yield from _cost(updates)


def _cell(row: Mapping[Any, Any]) -> str:
    return f"lm.{row['algorithm']}.n{row['minibatches']}" + (f".k{row['lag']}" if row["lag"] > 1 else "")


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
    yield "lm.scale.start_sampled", float(start["sampled_accuracy"].mean()), ".2f"
    yield "lm.scale.distinct_problems", summary["distinct_eval_problems"], "d"
    yield "lm.scale.proximal_updates", training["proximal_updates"], "d"
    yield "lm.scale.problems", training["eval_problems"], "d"
    yield "lm.scale.delta", training["delta"], "g"


def _cost(updates: pd.DataFrame) -> Found:
    """Share of decoupled PPO's step that evaluating the proximal policy takes; median and range over cells."""
    share = proximal_shares(updates)
    if not share.empty:
        yield "lm.cost.proximal_share", float(share.median()), ".0%"
        yield "lm.cost.proximal_share_least", float(share.min()), ".0%"
        yield "lm.cost.proximal_share_most", float(share.max()), ".0%"
