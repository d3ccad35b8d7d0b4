"""What the captions of language-model figures share: the scale, how far it is from the paper's, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vaco.report.caption import joined

__all__ = ["caveats", "intervals", "joined", "scale"]


def scale(summary: Mapping[str, Any], grid: str = "main") -> str:
    """Model, task, numbers of steps and responses, seeds, and what of it is not the paper's."""
    training, chosen = summary["training"], summary["grids"][grid]
    responses = training["updates"] * training["prompts"] * training["samples"]
    text = (
        f"Tier '{summary['tier']}': task {training['task']}, model {training['model']} with "
        f"{summary['parameters'] / 1e6:.2f}M parameters, {training['updates']} gradient steps on {responses:,} "
        f"responses in all ({training['prompts']} problems × {training['samples']} responses a step), "
        f"{len(chosen['seeds'])} seeds, {training['eval_problems']} held-out problems."
    )
    if training["task"] != "gsm8k":
        text += (
            " The paper trains a pretrained model on GSM8k; this is a small model on procedural arithmetic, so only "
            "the mechanism is comparable, not the numbers."
        )
    if training["updates"] < 64:
        text += " This is a check of the machinery, not evidence about the methods."
    return text


def intervals(table: pd.DataFrame) -> str:
    """What the bars are."""
    if table.empty:
        return "No run is finished yet."
    fewest, most = int(table["seeds"].min()), int(table["seeds"].max())
    seeds = str(most) if fewest == most else f"{fewest} to {most}"
    if most < 2:
        return "With one seed no interval is defined, and no bars are drawn."
    return f"Bars: 95% bootstrap intervals of the mean over {seeds} seeds; so few seeds make them too narrow."


def caveats(summary: Mapping[str, Any]) -> str:
    """What is missing, and where the clock ran."""
    parts = []
    if summary["missing"]:
        parts.append(f"Incomplete: {len(summary['missing'])} of {summary['planned_runs']} planned runs are missing.")
    parts.append("Other work shared the machine's cores, which inflates all seconds.")
    return " ".join([*parts, *summary["warnings"]])
