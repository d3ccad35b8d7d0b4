"""What a problem and a task are, and what all tasks share: their settings and the split of their problems."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from vaco.errors import UserError, nearest
from vaco.runs.settings import Settings

SPLITS = ("train", "eval")
INSTRUCTION = "Reason step by step, and write the final answer at the end, after '####'."
"""What follows the question where the model cannot know the format from training alone."""

TaskSettings = TypeVar("TaskSettings", bound=Settings)


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        prompt: what the model reads; it ends where the response starts.
        answer: the reference answer.
        solution: a worked response with the final answer in the task's format, for the supervised warm start; None
            if the task has none.
    """

    prompt: str
    answer: str
    solution: str | None


class Task(Protocol):
    """A source of problems and the judge of responses to them."""

    @property
    def name(self) -> str:
        """The name that `make_task` knows the task by."""

    def problems(self, split: str, indices: Sequence[int]) -> list[Problem]:
        """The problems at `indices`, the same for the same settings; no problem of 'eval' occurs in 'train'.

        Args:
            split: 'train' or 'eval'.
            indices: from 0, below `size(split)` where there is one.

        Raises:
            ValueError: another split, or an index out of range.
            UserError: the settings leave too few different problems for two splits.
        """

    def size(self, split: str) -> int | None:
        """How many problems the split has; None if there is no limit."""

    def verify(self, response: str, problem: Problem) -> float:
        """1.0 if the response ends in the right answer in the task's format, else 0.0; it never raises."""


def read_settings(kind: type[TaskSettings], task: str, settings: Mapping[str, Any]) -> TaskSettings:
    """Make a task's settings from loosely typed values.

    Args:
        kind: their class.
        task: the task's name, for messages.
        settings: names and values as YAML gives them.

    Raises:
        UserError: an unknown name, a value of the wrong type or out of range.
    """
    for name in settings:
        if name not in kind.fields():
            raise UserError(f"the task '{task}' has no setting '{name}': {nearest(str(name), kind.fields())}")
    return kind(**settings)


def held_out(content: str, share: float) -> bool:
    """Whether a problem belongs to the evaluation: its own text decides, so that no text is in both splits.

    Args:
        content: what makes two problems the same.
        share: the part of all texts that is held out, in (0, 1).
    """
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def check_split(split: str) -> None:
    """Refuse a split that does not exist.

    Raises:
        ValueError: for anything but 'train' and 'eval'.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split '{split}': use one of {', '.join(SPLITS)}")


def check_index(index: int, size: int, task: str) -> None:
    """Refuse an index outside a split.

    Raises:
        ValueError: below 0, or not below `size`.
    """
    if not 0 <= index < size:
        raise ValueError(f"the task '{task}' has no problem {index}: indices go from 0 to {size - 1}")
