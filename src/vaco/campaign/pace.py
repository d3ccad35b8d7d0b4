"""How long a run takes, by what archived runs took: what jobs ask a scheduler for, and what a campaign will cost.

Only the index of each archive is read, a few milliseconds, so that each of thousands of jobs can afford to ask. A run
that takes longer than its job asked for is no loss: it stops with a checkpoint, and its job is queued again.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from vaco.archive import INDEX
from vaco.campaign.archives import ARCHIVE
from vaco.errors import UserError
from vaco.runs.tables import read_json

RESULTS = Path("results")
SPARE = 1.5
"""What a job asks for, as a multiple of what the median run of its task took."""
START = 10
"""Minutes for a job to start, to load what it needs and to write what it leaves."""
FALLBACK = 1 / 500
"""Seconds an environment step where nothing was ever measured."""


def seconds(task: str, steps: int, known: Mapping[str, float]) -> float:
    """What a run takes on the machines that were measured, evaluation included.

    Args:
        task: of a task that was not measured, the slowest that was stands in.
        steps: environment steps.
        known: seconds a step by task, from `measured`.
    """
    return steps * known.get(task, max(known.values(), default=FALLBACK))


def minutes(task: str, steps: int, known: Mapping[str, float]) -> int:
    """What a job asks for; see `seconds`."""
    return START + math.ceil(SPARE * seconds(task, steps, known) / 60)


@functools.cache
def measured(results: Path = RESULTS, language: str = "") -> Mapping[str, float]:
    """Seconds an environment step of the median archived MuJoCo run of each task.

    Args:
        results: where archives are.
        language: a tier of language models instead: seconds a gradient step, from its own archive alone, for a task
            does not tell how large the model is.

    Raises:
        UserError: an archive's index cannot be read.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for path in sorted(results.glob(f"{language or '*'}/{ARCHIVE}/{INDEX}")):
        index = read_json(path)
        if not isinstance(index, dict) or index.get("kind") != ("language" if language else "control"):
            continue
        runs = path.with_name("runs.parquet")
        try:
            table = pq.read_table(runs, columns=["task", "completed_steps", "wall_seconds"])
        except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are of these kinds
            raise UserError(
                f"cannot read {runs} ({error}): put it back, 'vaco verify' says what else is wrong"
            ) from None
        for task, steps, wall in zip(*table.to_pydict().values(), strict=True):
            if steps and wall:
                found[task].append(wall / steps)
    return {task: median(each) for task, each in found.items()}
