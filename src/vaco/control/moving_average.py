"""The proximal policy of PPO-EWMA: an exponentially weighted average of the policy's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from vaco.control.acting import Networks
from vaco.control.gaussian import Floats


class MovingAverage:
    """θ̄ ← (d w θ̄ + θ)/(d w + 1), w ← d w + 1 after every step (Hilton et al. 2022, arXiv 2110.00641, section 3).

    With w = 1 at the start, θ̄ is the average of all θ so far, the last weighted by 1, the one before by d, and so on:
    there is no bias towards the first, which θ̄ ← d θ̄ + (1 − d) θ would have. As their code has it
    (`ppo_ewma/ppg.py`); there PPO's d is 8/9.
    """

    def __init__(self, decay: float, flat: Floats) -> None:
        """Start at the parameters as they are.

        Args:
            decay: d in (0, 1).
            flat: θ, [P]; copied.
        """
        self.decay, self.flat, self.weight = decay, flat.copy(), 1.0

    def update(self, flat: Floats) -> None:
        """Take the parameters after a gradient step in."""
        earlier = self.decay * self.weight
        self.weight = earlier + 1.0
        self.flat += np.float32(1.0 / self.weight) * (flat - self.flat)

    @contextmanager
    def in_place_of(self, networks: Networks) -> Iterator[None]:
        """Within this, the networks are those of the average; their own parameters come back after."""
        own = networks.flat.copy()
        networks.flat[:] = self.flat
        try:
            yield
        finally:
            networks.flat[:] = own

    def state(self) -> dict[str, NDArray[np.floating]]:
        """What a bitwise continuation needs."""
        return {"average.flat": self.flat, "average.weight": np.array(self.weight)}

    def set_state(self, state: dict[str, NDArray[np.floating]]) -> None:
        """Restore what `state` returned."""
        self.flat[:] = state["average.flat"]
        self.weight = float(state["average.weight"])
