"""Simulated asynchrony: a buffer of past policies, and which actor runs which of them (the paper's Figure 1).

After each phase the new snapshot enters a buffer of capacity K, the *degree of asynchrony*; before each collection
every actor draws one of the buffered snapshots uniformly at random, and all actors then collect synchronously. K = 1 is
synchronous, on-policy collection. Real asynchrony makes runs irreproducible; this makes the ages of data exact and
repeatable.

A snapshot can be anything: the buffer never looks inside. Its *age* is the number of phases completed since it was the
newest, so the newest has age 0. With p snapshots pushed so far, ages are uniform on {0, ..., min(p, K) − 1}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vaco.errors import UserError

S = TypeVar("S")


class PolicyBuffer(Generic[S]):
    """The newest `capacity` snapshots, oldest first."""

    def __init__(self, capacity: int) -> None:
        """Make an empty buffer.

        Args:
            capacity: K ≥ 1.

        Raises:
            UserError: K < 1.
        """
        if capacity < 1:
            raise UserError(f"the lag (policy-buffer capacity K) is {capacity}, but it must be at least 1")
        self.capacity = capacity
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
        """Draw a snapshot for every actor, independently and uniformly.

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
        ages = generator.integers(len(self._snapshots), size=actors)
        return [self._snapshots[-1 - int(age)] for age in ages], ages


def expected_ages(pushed: int, capacity: int) -> NDArray[np.float64]:
    """Closed form of the age distribution after `pushed` snapshots.

    Args:
        pushed: snapshots pushed so far, at least 1.
        capacity: K.

    Returns:
        Probability of each age 0, ..., capacity − 1.
    """
    held = min(pushed, capacity)
    return np.where(np.arange(capacity) < held, 1.0 / held, 0.0)
