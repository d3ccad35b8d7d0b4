"""What is done to rewards and advantages before they reach a loss."""

from __future__ import annotations

import math

import numpy as np
import torch

from vaco.control.collect import Batch, accumulate
from vaco.control.gaussian import Doubles
from vaco.control.policy import Normaliser
from vaco.objectives import align


class RewardScaler:
    """Divides rewards by the standard deviation of the actors' discounted returns so far."""

    def __init__(self, num_envs: int, discount: float, clip: float) -> None:
        """Start with no data.

        Args:
            num_envs: E.
            discount: γ.
            clip: limit of scaled rewards.
        """
        self.returns: Doubles = np.zeros(num_envs)
        self.statistics = Normaliser(1)
        self.discount, self.clip = discount, clip

    def scale(self, batch: Batch) -> Doubles:
        """Merge a phase's returns into the statistics, then scale the rewards of all data, shape [T, E]."""
        new = batch if batch.newest is None else batch.newest
        if new.discounted is not None:
            self.returns[:] = new.discounted
        history = accumulate(self.returns, new, self.discount)
        self.statistics.update(history[~new.dead][:, None])
        deviation = math.sqrt(float(self.statistics.variance[0]) + 1e-8)
        return np.clip(batch.rewards / deviation, -self.clip, self.clip)


def normalise_advantages(choice: str, advantages: Doubles, learner_ratio: Doubles, weights: Doubles) -> Doubles:
    """Advantages on a common scale, over the samples that are given.

    Args:
        choice: of the setting `advantage_normalisation`: "none"; "scale" divides by the standard deviation; "learner"
            centres and scales with moments under π_T, which ρ_T weights; the others centre and scale with the sample's.
        advantages: A, [N].
        learner_ratio: ρ_T, [N].
        weights: 0 for dead samples, else 1, or the weight of the sample's phase, [N]; they weigh in the moments of all
            but "scale", and scale no advantage.

    Returns:
        [N].
    """
    if choice == "none":
        return advantages
    alive = (weights > 0).astype(np.float64)
    given, live = torch.from_numpy(advantages), torch.from_numpy(alive)
    if choice == "scale":
        return align.scale(given, live).numpy()
    if choice == "learner":
        return align.standardise_under(given, torch.from_numpy(learner_ratio * weights), live).numpy()
    if not np.array_equal(weights, alive):
        return align.standardise_under(given, torch.from_numpy(weights), live).numpy()
    return align.standardise(given, live).numpy()
