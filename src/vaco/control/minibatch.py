"""What a gradient step sees of a phase's data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaco.control.collect import Batch, Flags
from vaco.control.gaussian import Doubles, Floats
from vaco.objectives.filters import Samples


class Trajectories(NamedTuple):
    """What alignment needs of some actors' trajectories, each [T, e]."""

    rewards: Doubles  # scaled
    terminated: Flags
    truncated: Flags
    dead: Flags

    def of(self, actors: NDArray[np.int64]) -> Trajectories:
        """The trajectories of some actors."""
        return Trajectories(
            self.rewards[:, actors], self.terminated[:, actors], self.truncated[:, actors], self.dead[:, actors]
        )


class Policies(NamedTuple):
    """A distribution over actions for each of N states."""

    outputs: Floats  # [N, M]
    log_std: Floats  # [N, S], or [S] where all have the same

    def take(self, rows: NDArray[np.int64] | slice) -> Policies:
        """Those of some states."""
        return Policies(self.outputs[rows], self.log_std if self.log_std.ndim == 1 else self.log_std[rows])

    @classmethod
    def of_behaviour(cls, batch: Batch) -> Policies:
        """β of every transition of a phase, in order of time, then actor."""
        steps, actors, width = batch.behaviour_outputs.shape
        outputs, log_std = batch.behaviour_outputs.reshape(-1, width), batch.behaviour_log_std
        if log_std.ndim == 3:
            return cls(outputs, log_std.reshape(steps * actors, log_std.shape[-1]))
        return cls(outputs, log_std[0] if len(log_std) < actors else np.tile(log_std, (steps, 1)))


class Minibatch(NamedTuple):
    """N transitions, with everything about them that stays fixed during the phase."""

    inputs: Floats  # standardised observations [N, O]; for whole trajectories, e rows of last successors follow
    actions: Floats  # [N, A]
    outputs: Floats  # of π_T's actor [N, M]
    behaviour_logp: Doubles  # [N]
    learner_ratio: Doubles  # ρ_T [N]
    advantages: Doubles  # [N]
    targets: Doubles  # value targets [N]
    weights: Doubles  # 0 for dead steps, else 1, or ν of the step's phase [N]
    trajectories: Trajectories | None = None
    behaviour: Policies | None = None  # β itself, where the filter's penalty needs more of it than `behaviour_logp`

    def take(self, rows: NDArray[np.int64] | slice) -> Minibatch:
        """Some of the transitions, without their trajectories."""
        return Minibatch(
            inputs=self.inputs[rows],
            actions=self.actions[rows],
            outputs=self.outputs[rows],
            behaviour_logp=self.behaviour_logp[rows],
            learner_ratio=self.learner_ratio[rows],
            advantages=self.advantages[rows],
            targets=self.targets[rows],
            weights=self.weights[rows],
            behaviour=None if self.behaviour is None else self.behaviour.take(rows),
        )

    def samples(self, ratio: Doubles) -> Samples:
        """The filter's view, without copies.

        Args:
            ratio: ρ = π/β under the current policy, [N].
        """
        return Samples(
            ratio=torch.from_numpy(ratio),
            learner_ratio=torch.from_numpy(self.learner_ratio),
            advantages=torch.from_numpy(self.advantages),
            weights=torch.from_numpy(self.weights),
        )
