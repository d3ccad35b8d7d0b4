"""Captions that say what a figure rests on: the scale, the seeds, the interval, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaco.report.stats import CONFIDENCE

PAPER_STEPS = 100_000_000
PAPER_SEEDS = 10
# Below this a curve has hardly left the ground, and an interval of so few seeds says little.
EVIDENCE_STEPS = 500_000
EVIDENCE_SEEDS = 3


def scale(summary: Mapping[str, Any], grid: str = "main") -> str:
    """The tier, its length, seeds, tasks and capacities, and what that is worth."""
    chosen = summary["grids"][grid]
    seeds, tasks = len(chosen["seeds"]), chosen["environments"]
    capacities = ", ".join(str(lag) for lag in chosen["capacities"])
    text = (
        f"Tier '{summary['tier']}': {summary['steps']:,} environment steps a run, {_count(seeds, 'seed')}, "
        f"{_count(len(tasks), 'task')} ({', '.join(tasks)}), buffer capacity K in {{{capacities}}}."
    )
    return f"{text} {_worth(summary['steps'], seeds)}".rstrip()


def _worth(steps: int, seeds: int) -> str:
    if steps < EVIDENCE_STEPS or seeds < EVIDENCE_SEEDS:
        return "This is a check of the machinery, not evidence about the methods."
    if steps < PAPER_STEPS or seeds < PAPER_SEEDS:
        return f"The paper used {PAPER_STEPS // 10**6}M steps and {PAPER_SEEDS} seeds."
    return ""


def normalisation(summary: Mapping[str, Any]) -> str:
    """What 0 and 1 mean."""
    references = summary["references"].values()
    episodes = sorted({ref["random_episodes"] for ref in references})
    seeds = sorted({ref["ppo_seeds"] for ref in references})
    return (
        f"Scores are normalised for each task: 0 is the uniformly random policy ({_range(episodes)} episodes), 1 the "
        f"mean final return of this tier's synchronous PPO (K = 1, {_range(seeds)} seeds). A run's final return is "
        "that of its stochastic policy at the last evaluation "
        f"({_count(summary['evaluation']['episodes'], 'episode')})."
    )


def stratified(summary: Mapping[str, Any], repetitions: int, *, runs: int, drawn: str = "bars") -> str:
    """What an interval over runs and tasks is."""
    if runs < 2:
        return f"With one run a task no interval is defined, and no {drawn} are drawn."
    return (
        f"{drawn.capitalize()}: {CONFIDENCE:.0%} percentile intervals of a stratified bootstrap ({repetitions:,} "
        "resamples): runs are resampled within each task, tasks are kept."
    )


def over_seeds(repetitions: int, *, runs: int, drawn: str = "bands") -> str:
    """What an interval over the seeds of one task is."""
    if runs < 2:
        return f"With one seed no interval is defined, and no {drawn} are drawn."
    return (
        f"{drawn.capitalize()}: {CONFIDENCE:.0%} percentile bootstrap intervals of the mean over seeds "
        f"({repetitions:,} resamples)."
    )


def caveats(summary: Mapping[str, Any]) -> str:
    """What is missing and what was warned of."""
    parts = []
    if summary["missing"]:
        parts.append(
            f"Incomplete: {len(summary['missing'])} of {summary['planned_runs']} planned runs are missing, and a seed "
            "that is missing on one task is left out of aggregates over tasks."
        )
    return " ".join([*parts, *summary["warnings"]])


def joined(*sentences: str) -> str:
    """Sentences to one paragraph, empty ones dropped."""
    return " ".join(sentence for sentence in sentences if sentence)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _range(values: list[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
