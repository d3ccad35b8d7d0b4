"""Problems from reasoning-gym's own generators, split into training and evaluation by their text.

reasoning-gym draws problem i of a data set with seed s from the seed s + i. Here a problem is the first of a sequence
of such draws whose text falls to the wanted split, so that each split keeps the generator's distribution, restricted to
its share of the texts; and the two splits' draws come from disjoint ranges of seeds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from vaco.errors import UserError, nearest
from vaco.lm.tasks.answers import MARKER, final_answer, final_number, plain_number
from vaco.lm.tasks.base import INSTRUCTION, Problem, check_index, check_split, held_out, read_settings
from vaco.runs.settings import Settings

_ATTEMPTS = 256
_UNLIMITED = 2**40  # problems of chain_sum
_RANGE = _ATTEMPTS * _UNLIMITED  # seeds of one split
_STRIDE = 7919  # from a draw of the wrong split to the next, within a pool

# Responses are a model's: nothing may evaluate them as code. These scorers do (eval, or SymPy's parser, which is eval).
_EVALUATING = {"binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication"} | {
    "puzzle24",
    "simple_integration",
    "spiral_matrix",
    "string_insertion",
}
_SHARED_RANDOM = {"codeio", "list_functions", "pool_matrix"}


@checked(frozen=True)
class ProceduralSettings(Settings):
    """Settings of every reasoning-gym task; what else is given goes to its generator."""

    seed: int = Field(default=0, ge=0)
    pool: int = Field(default=2**14, ge=1, le=2**24)
    eval_share: float = Field(default=0.2, gt=0, le=0.9)


@checked(frozen=True)
class ChainSumSettings(Settings):
    """Settings of `chain_sum`: the generator's, the format, and the split."""

    min_terms: int = Field(default=2, ge=1)
    max_terms: int = Field(default=4, ge=1, le=64)
    min_digits: int = Field(default=1, ge=1)
    max_digits: int = Field(default=2, ge=1, le=18)
    allow_negation: bool = False
    compact: bool = True
    seed: int = Field(default=0, ge=0)
    eval_share: float = Field(default=0.2, gt=0, le=0.9)


class _Split(NamedTuple):
    """How a source is split: draw number of problem i is i, then i + stride, ... until its text is of the split."""

    seed: int
    eval_share: float
    stride: int
    draws: int


class _Source:
    """Draws of one reasoning-gym data set, split by text."""

    def __init__(self, task: str, dataset: str, options: Mapping[str, Any], settings: _Split):
        self._task, self._dataset, self._options, self._settings = task, dataset, dict(options), settings
        self.open = functools.cache(self._open)

    def _open(self, split: str) -> Any:
        """The data set of a split; its item i is drawn from the split's first seed + i."""
        import reasoning_gym

        seed = (2 * self._settings.seed + (split == "eval")) * _RANGE
        try:
            return reasoning_gym.create_dataset(self._dataset, seed=seed, size=self._settings.draws, **self._options)
        except (AssertionError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"the task '{self._task}' refuses its settings, {reason}: change them") from None

    def draw(self, split: str, index: int) -> dict[str, Any]:
        """Entry `index` of a split.

        Raises:
            UserError: no draw falls to the split; the generator makes too few texts.
        """
        drawn, chosen = self.open(split), self._settings
        for attempt in range(_ATTEMPTS):
            entry: dict[str, Any] = drawn[(index + attempt * chosen.stride) % chosen.draws]
            if held_out(entry["question"], chosen.eval_share) == (split == "eval"):
                return entry
        raise UserError(
            f"the settings of '{self._task}' make too few different problems for both training and evaluation: "
            f"allow more of them, or another eval_share than {chosen.eval_share}"
        )


@dataclass(frozen=True)
class DrawnProblem(Problem):
    """A problem with the entry that its own scorer reads."""

    entry: Mapping[str, Any] = field(compare=False, repr=False)


class ChainSum:
    """Sums and differences such as ``12+34-5=``, answered by partial sums, ``46,41#41``."""

    name = "chain_sum"

    def __init__(self, settings: Mapping[str, Any]):
        self.settings = chosen = read_settings(ChainSumSettings, self.name, settings)
        for what in ("terms", "digits"):
            low, high = getattr(chosen, f"min_{what}"), getattr(chosen, f"max_{what}")
            if low > high:
                raise UserError(f"min_{what} is {low} and max_{what} is {high}: make min_{what} the smaller")
        options = {name: getattr(chosen, name) for name in ("min_terms", "max_terms", "min_digits", "max_digits")}
        split = _Split(chosen.seed, chosen.eval_share, _UNLIMITED, _RANGE)
        self._source = _Source(self.name, "chain_sum", options | {"allow_negation": chosen.allow_negation}, split)

    def size(self, split: str) -> int | None:
        """No limit."""
        check_split(split)
        return None

    def problems(self, split: str, indices: Sequence[int]) -> list[Problem]:
        """See `Task.problems`."""
        check_split(split)
        return [self._problem(split, int(index)) for index in indices]

    def _problem(self, split: str, index: int) -> Problem:
        check_index(index, _UNLIMITED, self.name)
        entry = self._source.draw(split, index)
        terms = entry["metadata"]["expression"].split(" ")
        total, partial = int(terms[0]), []
        for sign, term in zip(terms[1::2], terms[2::2], strict=True):
            total += int(term) if sign == "+" else -int(term)
            partial.append(str(total))
        if self.settings.compact:
            solution = f"{','.join(partial)}#{entry['answer']}"
            return Problem("".join(terms) + "=", entry["answer"], solution)
        solution = f"{', '.join(partial or terms)}\n{MARKER} {entry['answer']}"
        return Problem(f"{entry['question']}\n{INSTRUCTION}\n", entry["answer"], solution)

    def verify(self, response: str, problem: Problem) -> float:
        """Whether what follows the last '#' is the answer: alone if compact, else stated in a phrase."""
        if self.settings.compact:
            return float(plain_number(final_answer(response, "#") or "") == Fraction(problem.answer))
        return float(final_number(response, "#") == Fraction(problem.answer))


class Procedural:
    """Any other reasoning-gym data set, judged by its own scorer, or for `gsm_symbolic` by the number."""

    def __init__(self, name: str, settings: Mapping[str, Any]):
        self.name = name
        self._dataset = dataset = name.removeprefix("rg:")
        known = dataclasses.fields(_generator_config(name, dataset))
        own = ProceduralSettings.fields().keys()
        options = {key: value for key, value in settings.items() if key not in own}
        accepted = {spec.name for spec in known} - {"seed", "size"}
        for option in options.keys() - accepted:
            raise UserError(f"the task '{name}' has no setting '{option}': {nearest(str(option), own | accepted)}")
        self.settings = read_settings(
            ProceduralSettings, name, {key: value for key, value in settings.items() if key in own}
        )
        split = _Split(self.settings.seed, self.settings.eval_share, _STRIDE, self.settings.pool)
        self._source = _Source(name, dataset, options, split)
        self._source.draw("train", 0)  # settings that the generator refuses are refused here

    def size(self, split: str) -> int | None:
        """The pool: draws of each split, some of them alike."""
        check_split(split)
        return self.settings.pool

    def problems(self, split: str, indices: Sequence[int]) -> list[Problem]:
        """See `Task.problems`."""
        check_split(split)
        return [self._problem(split, int(index)) for index in indices]

    def _problem(self, split: str, index: int) -> Problem:
        check_index(index, self.settings.pool, self.name)
        entry = self._source.draw(split, index)
        solution = entry.get("metadata", {}).get("answer_cot")  # gsm_symbolic has one
        return DrawnProblem(f"{entry['question']}\n{INSTRUCTION}\n", str(entry["answer"] or ""), solution, entry)

    def verify(self, response: str, problem: Problem) -> float:
        """Whether the scorer gives the text after the last '####' its full mark."""
        if self._dataset == "gsm_symbolic":
            return float(final_number(response) == Fraction(problem.answer))
        if not isinstance(problem, DrawnProblem):
            raise TypeError(f"'{self.name}' judges its own problems only, for its scorer reads their metadata")
        answer = final_answer(response)
        if not answer:
            return 0.0
        try:
            return float(self._source.open("train").score_answer(answer, problem.entry) >= 1.0)
        except Exception:  # a scorer stumbles over an answer of a form that it did not expect: no right answer
            return 0.0


def _generator_config(name: str, dataset: str) -> type[Any]:
    """The class of a data set's configuration.

    Raises:
        UserError: there is no such data set, or it must not be used.
    """
    from reasoning_gym.factory import DATASETS

    usable = set(DATASETS) - _EVALUATING - _SHARED_RANDOM
    if dataset in _EVALUATING:
        raise UserError(f"'{name}' is refused because its scorer runs the model's answer as code: choose another task")
    if dataset in _SHARED_RANDOM:
        raise UserError(f"'{name}' is refused because it draws from a shared random generator: choose another task")
    if dataset not in usable:
        raise UserError(f"reasoning-gym has no task '{dataset}': {nearest(dataset, usable)}")
    config: type[Any] = DATASETS[dataset][1]
    return config
