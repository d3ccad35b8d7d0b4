"""Grade-school word problems in GSM8K's format: from local JSONL files, or from the hub where there is a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from vaco.errors import UserError
from vaco.lm.hub import fetch
from vaco.lm.tasks.answers import MARKER, final_number
from vaco.lm.tasks.base import INSTRUCTION, Problem, check_index, check_split, held_out, read_settings
from vaco.paths import user_path
from vaco.runs.settings import Settings

_LOCAL = "give local files with 'train' and 'eval', or one with 'path', or choose the task gsm_symbolic or chain_sum"
_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator notes, such as <<48/2=24>>


@dataclass(frozen=True)
class Gsm8kSettings(Settings):
    """Where the problems are: `train` and `eval` files, or one file `path` to split, or the hub."""

    train: str = ""
    eval: str = ""
    path: str = ""
    eval_share: float = Field(default=0.2, gt=0, le=0.9)
    hub: str = "openai/gsm8k"
    hub_config: str = "main"


class Gsm8k:
    """Word problems whose response ends in ``#### number``."""

    name = "gsm8k"

    def __init__(self, settings: Mapping[str, Any]):
        self.settings = chosen = read_settings(Gsm8kSettings, self.name, settings)
        if bool(chosen.train) != bool(chosen.eval) or (chosen.path and chosen.train):
            raise UserError("gsm8k needs both 'train' and 'eval', or 'path' alone to split one file: set either")
        if chosen.path:
            rows = list(read_jsonl(user_path(chosen.path)))
            train = [row for row in rows if not held_out(row.prompt, chosen.eval_share)]
            held = [row for row in rows if held_out(row.prompt, chosen.eval_share)]
        elif chosen.train:
            train, held = list(read_jsonl(user_path(chosen.train))), list(read_jsonl(user_path(chosen.eval)))
        else:
            train, held = _from_hub(chosen.hub, chosen.hub_config)
        asked = {row.prompt for row in held}
        self._splits = {"train": [row for row in train if row.prompt not in asked], "eval": held}
        for split, rows in self._splits.items():
            if not rows:
                raise UserError(
                    f"gsm8k has no problem left for '{split}', since a question of the evaluation is never trained on: "
                    "give more questions or another eval_share"
                )

    def size(self, split: str) -> int | None:
        """How many problems the split has."""
        check_split(split)
        return len(self._splits[split])

    def problems(self, split: str, indices: Sequence[int]) -> list[Problem]:
        """See `Task.problems`."""
        check_split(split)
        rows = self._splits[split]
        for index in indices:
            check_index(int(index), len(rows), self.name)
        return [rows[int(index)] for index in indices]

    def verify(self, response: str, problem: Problem) -> float:
        """Whether the number after the last '####' is the reference's."""
        return float(final_number(response) == Fraction(problem.answer))


def read_jsonl(path: Path) -> Iterator[Problem]:
    """Read problems from a file of one JSON object a line, with the fields `question` and `answer`.

    Raises:
        UserError: the file cannot be read or is empty, or a line is malformed; the message names the line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"the problems {path} cannot be read: {error.strerror}; give a JSONL file") from None
    if not any(line.strip() for line in lines):
        raise UserError(f"the problems {path} are an empty file: give one JSON object a line")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _problem(_row(line), f"{path}, line {number}")


def _row(line: bytes) -> Any:
    """The value on one line; None if it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # ValueError includes text that is no UTF-8
        return None


def _problem(row: Any, where: str) -> Problem:
    """Make a problem from a row.

    Raises:
        UserError: a field is missing, or the answer does not end in one number.
    """
    wanted = isinstance(row, dict) and all(isinstance(row.get(name), str) for name in ("question", "answer"))
    if not wanted:
        raise UserError(f"{where} is malformed: expected a JSON object with the texts 'question' and 'answer'")
    worked = _ANNOTATION.sub("", row["answer"]).strip()
    value = final_number(worked)
    if value is None:
        raise UserError(f"{where} is malformed: expected an 'answer' that ends in '{MARKER}' and one number")
    return Problem(f"{row['question'].strip()}\n{INSTRUCTION}\n", str(value), worked)


def _from_hub(name: str, config: str) -> tuple[list[Problem], list[Problem]]:
    """Fetch the train and test splits through `datasets`.

    Raises:
        UserError: there is no network, or no such data set.
    """
    import datasets

    def load() -> list[Iterable[Any]]:
        datasets.disable_progress_bars()
        return [datasets.load_dataset(name, config, split=split) for split in ("train", "test")]

    both = fetch(name, "data set", load, _LOCAL)
    train, test = ([_problem(row, f"{name}, row {number}") for number, row in enumerate(rows)] for rows in both)
    return train, test
