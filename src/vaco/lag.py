"""Simulated asynchrony: a buffer of past policies, and which actor runs which of them (the paper's Figure 1).

After each phase the new snapshot enters a buffer of capacity K, the *degree of asynchrony*; before each collection
every actor is given one of the buffered snapshots by a `Schedule`, and all actors then collect synchronously. The
paper's schedule draws uniformly (`Uniform`). K = 1 is synchronous, on-policy collection.

A snapshot can be anything: the buffer never looks inside. Its *age* is the number of phases completed since it was the
newest, so the newest has age 0. With p snapshots pushed so far, uniform ages are on {0, ..., min(p, K) − 1}; where a
schedule asks for an older one than there is, the oldest serves.

What a real asynchronous run did is a schedule too, of more than ages: see `vaco.runs.schedule`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vaco.errors import UserError

S = TypeVar("S")
Ages = NDArray[np.int64]


class Schedule(ABC):
    """Which age the policy of each actor has in a phase.

    Attributes:
        capacity: how many of the newest policies must be held for it, at least 1.
    """

    capacity: int

    @abstractmethod
    def ages(self, held: int, actors: int, generator: np.random.Generator) -> Ages:
        """The ages of one phase.

        Args:
            held: how many policies there are to choose from, 1 to `capacity`; the result is below it.
            actors: number of actors.
            generator: source of draws.

        Returns:
            Shape [actors].
        """


@dataclass(frozen=True)
class Uniform(Schedule):
    """Every actor draws one of the K newest policies: the paper's schedule."""

    capacity: int

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise UserError(f"the lag (policy-buffer capacity K) is {self.capacity}, but it must be at least 1")

    def ages(self, held: int, actors: int, generator: np.random.Generator) -> Ages:
        """See `Schedule.ages`."""
        return generator.integers(held, size=actors)


@dataclass(frozen=True)
class Stragglers(Schedule):
    """Some actors are always so many policies behind, the others less; without stragglers a queue of constant length.

    Attributes:
        share: of the actors that are stragglers, the first ones; rounded, but at least one where it is above 0.
        slow: age of their policies.
        fast: age of the others'.
    """

    share: float
    slow: int
    fast: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or min(self.slow, self.fast) < 0:
            raise UserError(
                f"the schedule has a share of {self.share:g} stragglers and ages {self.slow} and {self.fast}, but a "
                "share lies between 0 and 1 and an age is at least 0"
            )

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """See `Schedule`."""
        return 1 + (max(self.slow, self.fast) if self.share else self.fast)

    def __str__(self) -> str:
        written = f"{self.share!r}".removesuffix(".0")
        return f"straggler:{written}:{self.slow}:{self.fast}" if self.share else f"fifo:{self.fast}"

    def ages(self, held: int, actors: int, generator: np.random.Generator) -> Ages:
        """See `Schedule.ages`; nothing is drawn."""
        stragglers = max(1, round(self.share * actors)) if self.share else 0
        wanted = np.where(np.arange(actors) < stragglers, self.slow, self.fast)
        return np.minimum(wanted, held - 1)


@dataclass(frozen=True)
class Geometric(Schedule):
    """Every actor draws an age from the geometric distribution on 0, 1, 2, ... of the given mean.

    Attributes:
        mean: of the ages, before those beyond the oldest policy held are cut to it; that is ten times mean + 1, beyond
            which lies less than e⁻¹⁰ of the distribution.
    """

    mean: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.mean < math.inf:
            raise UserError(f"the mean age of the geometric schedule is {self.mean:g}, but it must be at least 0")

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """See `Schedule`."""
        return math.ceil(10.0 * (self.mean + 1.0)) if self.mean else 1

    def __str__(self) -> str:
        return f"geometric:{self.mean!r}".removesuffix(".0")

    def ages(self, held: int, actors: int, generator: np.random.Generator) -> Ages:
        """See `Schedule.ages`."""
        drawn = generator.geometric(1.0 / (self.mean + 1.0), size=actors) - 1
        return np.minimum(drawn, held - 1)


KINDS: dict[str, tuple[str, Callable[..., Schedule], tuple[type, ...], int]] = {
    # word → what follows it, what is made of that, the types of the numbers, how many of them are needed
    "uniform": ("K", Uniform, (int,), 1),
    "fifo": ("AGE", lambda age: Stragglers(0.0, 0, age), (int,), 1),
    "geometric": ("MEAN", Geometric, (float,), 1),
    "straggler": ("SHARE:SLOW[:FAST]", Stragglers, (float, int, int), 2),
}
FILE = "file"
"""The word of a recorded schedule, ``file:PATH``, which `vaco.runs.schedule` reads."""


def forms() -> str:
    """How schedules are written, as a list for people."""
    return ", ".join([*(f"{word}:{rest}" for word, (rest, *_) in KINDS.items()), f"{FILE}:PATH"])


def parse_schedule(text: str) -> Schedule:
    """Make a schedule of ages of what a user wrote.

    Args:
        text: ``uniform:16``, ``fifo:8``, ``geometric:3.5``, ``straggler:0.25:12`` or ``straggler:0.25:12:1``.

    Raises:
        UserError: it is none of these.
    """
    word, *numbers = text.split(":")
    if word in KINDS:
        _, make, types, needed = KINDS[word]
        if needed <= len(numbers) <= len(types):
            try:
                values = [kind(number) for kind, number in zip(types, numbers, strict=False)]
            except ValueError:
                pass
            else:
                return make(*values)
    raise UserError(f"the lag is '{text}', but it must be a whole number K or one of {forms()}")


class PolicyBuffer(Generic[S]):
    """The newest `capacity` snapshots, oldest first."""

    def __init__(self, schedule: int | Schedule) -> None:
        """Make an empty buffer.

        Args:
            schedule: who is given which snapshot; a number K ≥ 1 stands for `Uniform`.

        Raises:
            UserError: K < 1.
        """
        self.schedule = schedule if isinstance(schedule, Schedule) else Uniform(schedule)
        self.capacity = self.schedule.capacity
        self._snapshots: list[S] = []

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[S]:
        return iter(self._snapshots)

    def push(self, snapshot: S) -> None:
        """Add the newest snapshot; beyond the capacity the oldest leaves."""
        self._snapshots.append(snapshot)
        del self._snapshots[: -self.capacity]

    def assign(self, actors: int, generator: np.random.Generator) -> tuple[list[S], NDArray[np.int64]]:
        """Give every actor a snapshot, as the schedule says.

        Args:
            actors: number of actors.
            generator: source of the draws.

        Returns:
            The snapshot of each actor, and their ages in phases, shape [actors].

        Raises:
            ValueError: nothing was pushed yet.
        """
        if not self._snapshots:
            raise ValueError("the policy buffer is empty: push the initial policy before assigning")
        ages = self.schedule.ages(len(self._snapshots), actors, generator)
        return [self._snapshots[-1 - int(age)] for age in ages], ages


def expected_ages(pushed: int, capacity: int) -> NDArray[np.float64]:
    """Closed form of the age distribution of `Uniform` after `pushed` snapshots.

    Args:
        pushed: snapshots pushed so far, at least 1.
        capacity: K.

    Returns:
        Probability of each age 0, ..., capacity − 1.
    """
    held = min(pushed, capacity)
    return np.where(np.arange(capacity) < held, 1.0 / held, 0.0)
