"""Gymnasium's spaces as flat rows of numbers, and back: what policies see, and what they do.

Observations of any kind that Gymnasium can flatten become one vector; of what is discrete, one indicator a value.
Actions are continuous (boxes) or discrete (one or several categories); dictionaries and tuples of either are rows too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vaco.control.envs.tasks import Flags, Floats
from vaco.errors import UserError


class Observations:
    """An observation space as rows [O].

    Attributes:
        size: O.
        indicators: [O] bool, whether a feature is 0 or 1 and nothing between: it is never standardised.
        plain: whether observations are such rows already.
    """

    def __init__(self, name: str, space: spaces.Space[Any]) -> None:
        """Read a space.

        Args:
            name: of the environment, for the sentence.
            space: its observation space.

        Raises:
            UserError: it has no fixed number of features.
        """
        self.name, self.space = name, space
        self.plain = isinstance(space, spaces.Box) and len(space.shape) == 1
        try:
            fixed = space.is_np_flattenable
            self.size = int(spaces.flatdim(space)) if fixed else 0
        except (NotImplementedError, ValueError):
            fixed = False
        if not fixed or self.size < 1:
            raise UserError(
                f"{name} has the observation space {space}, which is no vector of fixed length: give it a wrapper "
                "that makes one, such as --wrapper FlattenObservation"
            )
        self.indicators: Flags = np.concatenate([_indicators(part) for part in _leaves(space)])

    def flat(self, observation: Any) -> Floats:
        """One observation as a row [O], float64.

        Raises:
            UserError: it is not of the space.
        """
        try:
            row = np.asarray(observation if self.plain else spaces.flatten(self.space, observation), np.float64)
        except (ValueError, TypeError, KeyError, IndexError, AssertionError) as error:
            raise self._unlike(type(observation).__name__) from error
        if row.shape != (self.size,):
            raise self._unlike(f"shape {row.shape}")
        return row

    def _unlike(self, what: str) -> UserError:
        return UserError(
            f"{self.name} returned an observation of {what}, but its space is {self.space}: mend the environment"
        )


class Actions:
    """An action space as rows [A].

    Attributes:
        size: A.
        low: [A] float64, least action.
        high: [A] float64, greatest action.
        categories: how many values each of the A columns has, counted from 0; empty where actions are continuous.
    """

    def __init__(self, name: str, space: spaces.Space[Any]) -> None:
        """Read a space.

        Args:
            name: of the environment, for the sentence.
            space: its action space.

        Raises:
            UserError: it mixes continuous and discrete parts, or has parts that are neither.
        """
        parts = list(_leaves(space))
        boxes = [p for p in parts if isinstance(p, spaces.Box) and np.issubdtype(p.dtype, np.floating)]
        choices = [p for p in parts if isinstance(p, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)]
        if not parts or len(parts) not in (len(boxes), len(choices)):
            raise UserError(
                f"{name} has the action space {space}, but continuous (Box) or discrete (Discrete, MultiDiscrete, "
                "MultiBinary) actions were expected, or a dictionary of one of the two: give it a wrapper that makes "
                "one of these"
            )
        self.categories: tuple[int, ...] = tuple(n for part in choices for n in _values(part))
        if choices:
            self.low: Floats = np.zeros(len(self.categories))
            self.high: Floats = np.array(self.categories, np.float64) - 1.0
        else:
            self.low = np.concatenate([part.low.ravel().astype(np.float64) for part in boxes])
            self.high = np.concatenate([part.high.ravel().astype(np.float64) for part in boxes])
        self.size = len(self.low)
        if not self.size:
            raise UserError(f"{name} has the action space {space}, which leaves nothing to choose: give it one")
        self._build, _ = _builder(space, 0)

    def native(self, row: Floats) -> Any:
        """A row [A] as an action of the space."""
        return self._build(row)


def _leaves(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    """The spaces that a nested one is made of, in the order of Gymnasium's `flatten`."""
    if isinstance(space, spaces.Dict):
        return [leaf for part in space.spaces.values() for leaf in _leaves(part)]
    if isinstance(space, spaces.Tuple):
        return [leaf for part in space.spaces for leaf in _leaves(part)]
    return [space]


def _indicators(space: spaces.Space[Any]) -> Flags:
    """Whether each feature of a flattened leaf is 0 or 1."""
    discrete = isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    return np.full(int(spaces.flatdim(space)), discrete)


def _values(space: Any) -> list[int]:
    """How many values each component of a discrete space has."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    return [2] * int(np.prod(space.shape))


def _builder(space: Any, start: int) -> tuple[Callable[[Floats], Any], int]:
    """A function that makes an action of a row, whose part of it begins at `start`; and where it ends."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts: Mapping[Any, Any] = space.spaces if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))
        made = {}
        for key, part in parts.items():
            made[key], start = _builder(part, start)
        if isinstance(space, spaces.Dict):
            return lambda row: {key: build(row) for key, build in made.items()}, start
        return lambda row: tuple(build(row) for build in made.values()), start
    if isinstance(space, spaces.Discrete):
        first, kind = space.start, space.dtype.type
        return lambda row: kind(first + int(row[start])), start + 1
    shape, dtype = space.shape, space.dtype
    end = start + int(np.prod(shape))
    offset: NDArray[Any] | int = space.start if isinstance(space, spaces.MultiDiscrete) else 0
    if isinstance(space, spaces.Box):
        return lambda row: row[start:end].astype(dtype).reshape(shape), end
    return lambda row: (offset + row[start:end].reshape(shape)).astype(dtype), end
