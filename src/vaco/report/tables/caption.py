"""Captions that say what a figure rests on: the scale, the seeds, the interval, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vaco.report.tables.methods import look
from vaco.report.tables.read import MAIN
from vaco.report.tables.stats import CONFIDENCE

PAPER_STEPS = 100_000_000
PAPER_SEEDS = 10
# Below this a curve has hardly left the ground, and an interval of so few seeds says little.
EVIDENCE_STEPS = 500_000
EVIDENCE_SEEDS = 3
COVERAGE = {2: (0.50, 0.72), 3: (0.75, 0.83), 4: (0.79, 0.87), 5: (0.83, 0.89)}
"""Share of 95 % percentile intervals over so many normal scores that hold their true mean: on one task, over three of
equal spread. Over three of unequal spread it lies between, near the first where one task's spread dominates."""
SAME_WITHOUT_LAG = {"geppo": "ppo"}
"""Methods that are another one at K = 1: with data of age 0 from π_T itself, GePPO's clip and alignment are PPO's."""
WITHOUT = {"geppo": "GePPO stands for its alignment and clip, without its reuse of earlier data."}
"""What a method of that name lacks of its paper, where it matters to every comparison."""


def scale(summary: Mapping[str, Any], grid: str = MAIN) -> str:
    """The tier, its length, seeds, tasks and capacities, how far it is, and what that is worth."""
    chosen = summary["grids"][grid]
    seeds, tasks = len(chosen["seeds"]), chosen["environments"]
    capacities = ", ".join(str(lag) for lag in chosen["capacities"])
    progress = (summary.get("progress") or {}).get(grid)
    study = "" if grid == MAIN else f", study '{grid}'"
    text = (
        f"Tier '{summary['tier']}'{study}: {summary['steps']:,} environment steps a run, {_count(seeds, 'seed')}, "
        f"{_count(len(tasks), 'task')} ({', '.join(tasks)}), buffer capacity K in {{{capacities}}}."
    )
    if progress and progress["finished"] < progress["planned"]:
        seeds = progress["fewest"]
        text += (
            f" So far {progress['finished']} of these {progress['planned']} runs are finished, "
            f"{between(seeds, progress['most'])} seeds a cell; {progress['empty']} of {progress['cells']} cells are "
            "empty."
        )
    return f"{text} {_worth(summary['steps'], seeds)}".rstrip()


def studies(summary: Mapping[str, Any], *grids: str) -> str:
    """How far further grids of the tier are, whose runs a figure draws beside the main grid's."""
    parts = []
    for grid in grids:
        progress = (summary.get("progress") or {}).get(grid)
        capacities = ", ".join(str(lag) for lag in summary["grids"][grid]["capacities"])
        if progress:
            parts.append(
                f"Of its study '{grid}', K in {{{capacities}}}, {progress['finished']} of {progress['planned']} runs "
                f"are finished, {between(progress['fewest'], progress['most'])} seeds a cell."
            )
    return " ".join(parts)


def between(fewest: int, most: int) -> str:
    """A range in words: `2 to 3`, `3`."""
    return str(most) if fewest == most else f"{fewest} to {most}"


def _worth(steps: int, seeds: int) -> str:
    if steps < EVIDENCE_STEPS:
        return "This is a check of the machinery, not evidence about the methods."
    text = f"The paper used {PAPER_STEPS // 10**6}M steps and {PAPER_SEEDS} seeds."
    if seeds < EVIDENCE_SEEDS:
        return f"With fewer than {EVIDENCE_SEEDS} seeds in some cells, single differences are no evidence. {text}"
    return text if steps < PAPER_STEPS or seeds < PAPER_SEEDS else ""


def normalisation(summary: Mapping[str, Any]) -> str:
    """What 0 and 1 mean."""
    references = summary["references"].values()
    episodes = sorted({ref["random_episodes"] for ref in references})
    seeds = sorted({ref["ppo_seeds"] for ref in references})
    return (
        f"Scores are normalised for each task: 0 is the uniformly random policy ({_range(episodes)} episodes), 1 the "
        f"mean final return of this tier's synchronous PPO (K = 1, {_range(seeds)} seeds). Intervals take both for "
        "known: with other seeds the unit would move as well, for all methods together. A run's final return is that "
        f"of its stochastic policy, the mean of the last {_count(summary['evaluation']['final'], 'evaluation')} of "
        f"{summary['evaluation']['points']} ({_count(summary['evaluation']['episodes'], 'episode')} each)."
    )


def naming(summary: Mapping[str, Any]) -> str:
    """Says what the names of the tier's own methods do not: what one leaves out, and which are the same at K = 1."""
    grid = summary["grids"][MAIN]
    pairs = [pair for pair in SAME_WITHOUT_LAG.items() if set(pair) <= set(grid["algorithms"])]
    if 1 not in grid["capacities"]:
        pairs = []
    return joined(
        *(text for name, text in WITHOUT.items() if name in grid["algorithms"]),
        *(
            f"At K = 1 {look(name).label} is {look(same).label}: only rounding, which training amplifies, sets them "
            "apart."
            for name, same in pairs
        ),
    )


def trimming(table: pd.DataFrame) -> str:
    """Says where the interquartile mean is the plain mean: with fewer than four scores there is nothing to cut.

    Args:
        table: the estimates drawn, with `runs` and `tasks`.
    """
    if table.empty or ((table["runs"] * table["tasks"]) // 4 > 0).all():
        return ""
    return "Over fewer than four scores (runs times tasks) the interquartile mean is the plain mean."


def stratified(table: pd.DataFrame, *, drawn: str = "bars", coverage: bool = True) -> str:
    """What an interval over runs and tasks is.

    Args:
        table: the estimates drawn, with `runs` and `repetitions`.
        drawn: what shows the interval.
        coverage: whether the estimates are means of scores, of which it is known how often the intervals hold them.
    """
    method = "runs are resampled within each task, tasks are kept"
    kind = f"of a stratified bootstrap ({{}} resamples): {method}"
    apart = "Where tasks lie far apart, an interval of the interquartile mean holds its own less often still."
    return _interval(table, kind, drawn, apart if coverage else None)


def won_or_lost(table: pd.DataFrame) -> str:
    """What is wrong with a bootstrap's interval of a probability.

    Args:
        table: the probabilities drawn, with `runs`, `low`, `high`.
    """
    text = "Over few seeds these intervals are too narrow." if (table["runs"] > 1).any() else ""
    if (table["low"] == table["high"]).any():
        alike = "One without width means that every pair of runs on a task had the same winner, not certainty."
        text = joined(text, alike)
    return text


def over_seeds(table: pd.DataFrame, *, drawn: str = "bands") -> str:
    """What an interval over the seeds of one task is; see `stratified`."""
    return _interval(table, "of a bootstrap of the mean over seeds ({} resamples)", drawn, "")


def _interval(table: pd.DataFrame, kind: str, drawn: str, also: str | None) -> str:
    """The sentences on intervals; `also` follows their coverage, and None leaves that out."""
    if table.empty:
        return "No cell is finished yet."
    fewest, most = int(table["runs"].min()), int(table["runs"].max())
    if most < 2:
        return f"With one seed no interval is defined, and no {drawn} are drawn."
    text = f"{drawn.capitalize()}: {CONFIDENCE:.0%} percentile intervals {kind.format(_thousands(table))}."
    if fewest < 2:
        text += f" Where a single seed is finished no interval is defined, and a point stands without {drawn}."
    narrowest = int(table.loc[table["runs"] > 1, "runs"].min())
    if also is not None and narrowest in COVERAGE:
        one, three = COVERAGE[narrowest]
        narrow = (
            f"They are too narrow: of normal scores, an interval of the mean over {narrowest} seeds holds the true "
            f"one in {one:.0%} of cases on one task and in {three:.0%} over three of equal spread; between the two "
            "where their spreads differ."
        )
        text = joined(text, narrow, also)
    return text


def _thousands(table: pd.DataFrame) -> str:
    return f"{int(table['repetitions'].iloc[0]):,}"


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
