"""Problems and their verifiers: the front door to the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaco.errors import UserError, nearest
from vaco.lm.tasks.base import Problem, Task

__all__ = ["TASKS", "Problem", "Task", "make_task"]

TASKS = ("chain_sum", "gsm8k", "gsm_symbolic")
"""The tasks with a name of their own; ``rg:NAME`` is any other data set of reasoning-gym."""


def make_task(name: str, settings: Mapping[str, Any]) -> Task:
    """Open a task.

    Args:
        name: one of `TASKS`, or ``rg:NAME`` for any other data set of reasoning-gym.
        settings: the task's settings, loosely typed as YAML gives them.

    Raises:
        UserError: an unknown task, an unknown or bad setting, problems that cannot be read or fetched.
    """
    # Late, because importing reasoning-gym takes seconds that other commands need not wait.
    from vaco.lm.tasks.gsm8k import Gsm8k
    from vaco.lm.tasks.procedural import ChainSum, Procedural

    if name == "chain_sum" or name == "rg:chain_sum":
        return ChainSum(settings)
    if name == "gsm8k":
        return Gsm8k(settings)
    if name == "gsm_symbolic" or name.startswith("rg:"):
        return Procedural(name, settings)
    raise UserError(f"there is no task '{name}': {nearest(name, (*TASKS, 'rg:NAME'))}")
