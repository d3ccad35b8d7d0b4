"""Data of earlier phases in the update of this one: the sample reuse of GePPO (Queeney et al. 2021, section 4).

An update takes the data of the M newest phases, weighted by ν over phases. Each transition keeps the behaviour policy
that drew it; its age grows by one a phase. Advantages are estimated anew for all of it. A gradient step takes M times
the samples, so that the number of steps does not depend on M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaco.control.collect import Batch
from vaco.control.gaussian import Floats

_BY_COLUMN = (
    *("observations", "actions", "behaviour_logp", "behaviour_outputs", "rewards"),
    *("terminated", "truncated", "dead"),
)


class Reuse:
    """The newest phases, as far as they are trained on again."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Hold nothing.

        Args:
            weights: ν, not normalised, of the newest phase first; fewer than two for no reuse.
        """
        self.weights = np.array(weights, np.float64)
        self.held: list[Batch] = []  # the newest first

    def merge(self, batch: Batch) -> Batch:
        """The phase's data with those held, which it then joins.

        Args:
            batch: what was just collected.

        Returns:
            The columns of all phases side by side, the newest first, `Batch.weights` of mean one; the same object where
            nothing is used again.
        """
        if len(self.weights) < 2:
            return batch
        parts = [batch, *self.held]
        self.held = parts[: len(self.weights) - 1]
        shares = self.weights[: len(parts)]
        shares = shares * len(parts) / shares.sum()
        columns = batch.rewards.shape[1]
        return replace(
            batch,
            **{name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in _BY_COLUMN},
            behaviour_log_std=_spreads(parts),
            ages=_ages(parts),
            weights=np.repeat(shares, columns),
            newest=batch,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """What is held, as arrays by place and field."""
        return {
            f"{place}.{field.name}": value
            for place, part in enumerate(self.held)
            for field in fields(Batch)
            if (value := getattr(part, field.name)) is not None
        }

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state` returned."""
        found: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            place, _, field = name.partition(".")
            found.setdefault(int(place), {})[field] = value
        self.held = [Batch(**found[place]) for place in sorted(found)]


def _ages(parts: Sequence[Batch]) -> NDArray[np.int64]:
    """Ages of all columns, [E'] or, where some policy changed within a phase, [T, E']."""
    ages = [part.ages + place for place, part in enumerate(parts)]
    if any(each.ndim == 2 for each in ages):
        ages = [np.broadcast_to(each, part.rewards.shape) for each, part in zip(ages, parts, strict=True)]
    return np.concatenate(ages, axis=-1)


def _spreads(parts: Sequence[Batch]) -> Floats:
    """β's log σ of all columns, [E', S] or, where some policy changed within a phase, [T, E', S]."""
    spreads = []
    for part in parts:
        steps, columns = part.rewards.shape
        width = part.behaviour_log_std.shape[-1]
        changing = any(other.behaviour_log_std.ndim == 3 for other in parts)
        shape = (steps, columns, width) if changing else (columns, width)
        spreads.append(np.broadcast_to(part.behaviour_log_std, shape))
    return np.concatenate(spreads, axis=-2)
