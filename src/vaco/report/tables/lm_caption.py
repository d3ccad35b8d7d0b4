"""What the captions of language-model figures share: the scale, how far it is from the paper's, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vaco.report.tables.caption import joined

__all__ = ["caveats", "intervals", "joined", "scale", "split"]


def scale(summary: Mapping[str, Any], grid: str = "main") -> str:
    """Model, task, numbers of steps and responses, seeds, and what of it is not the paper's."""
    training, chosen = summary["training"], summary["grids"][grid]
    responses = training["updates"] * training["prompts"] * training["samples"]
    text = (
        f"Tier '{summary['tier']}': task {training['task']}, model {training['model']} with "
        f"{summary['parameters'] / 1e6:.2f}M parameters, {training['updates']} gradient steps on {responses:,} "
        f"responses in all ({training['prompts']} problems × {training['samples']} responses a step), "
        f"{len(chosen['seeds'])} seeds, {training['eval_problems']} held-out problems "
        f"({summary['distinct_eval_problems']} of them distinct)."
    )
    text += (
        " The paper's model, step size and lengths are not public; these are our choice."
        if training["task"] == "gsm8k"
        else f" The paper trains a pretrained model on GSM8k; this is the model '{training['model']}' on "
        f"{training['task']}, so only the mechanism is comparable, not the numbers."
    )
    share, earns = summary.get("cut_share"), training.get("cut_responses", "judged")
    cut = "of which it was not recorded how many were cut there" if share is None else f"{share:.1%} of them cut there"
    text += f" Responses have at most {training['new_tokens']} tokens, {cut}" + (
        ", and earn nothing then." if earns == "no_reward" else ", and are judged as they are."
    )
    if training["updates"] < 64:
        text += " This is a check of the machinery, not evidence about the methods."
    return text


def split(updates: pd.DataFrame) -> str:
    """What of the total variation to the data is mismatch of engine and learner; empty where the runs have none.

    Decoupled PPO's lags are to its proximal policy, which moves within a round, so that its backward lag is in part
    forward lag.
    """
    if "mismatch" not in updates or not (updates["mismatch"] > 1e-6).any():
        return ""
    apart = updates["algorithm"].str.startswith("decoupled")
    means = updates.loc[~apart, ["mismatch", "backward_lag", "forward_lag"]].mean()
    left_out = (
        " Decoupled PPO, whose proximal policy moves within a round, is left out of these." if apart.any() else ""
    )
    backward = "" if pd.isna(means["backward_lag"]) else f", {means['backward_lag']:.4f} backward lag"
    return (
        f"Generation and learner compute different probabilities of the same weights: of the mean total variation to "
        f"the data {means['mismatch']:.4f} is that mismatch{backward} and {means['forward_lag']:.4f} forward lag."
        f"{left_out}"
    )


def intervals(table: pd.DataFrame) -> str:
    """What the bars are."""
    if table.empty:
        return "No run is finished yet."
    fewest, most = int(table["seeds"].min()), int(table["seeds"].max())
    seeds = str(most) if fewest == most else f"{fewest} to {most}"
    if most < 2:
        return "With one seed no interval is defined, and no bars are drawn."
    return (
        f"Bars: 95% bootstrap intervals of the mean over {seeds} seeds of the reinforcement learning, which share one "
        "warm start and one set of problems; so few seeds make them too narrow."
    )


def caveats(summary: Mapping[str, Any], timed: bool = False) -> str:
    """What is missing, and what the clocks of runs are worth."""
    parts = []
    if summary["missing"]:
        parts.append(f"Incomplete: {len(summary['missing'])} of {summary['planned_runs']} planned runs are missing.")
    if timed:
        parts.append("Runs shared the machine with other work, each with different work: their seconds are inexact.")
    return " ".join([*parts, *summary["warnings"]])
