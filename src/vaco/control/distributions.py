"""What the actor's last layer means: a distribution over actions. One interface, Gaussian and categorical.

Nothing else of the learner knows which it is: filters and alignment see ratios alone. An *output* is a row [M] of the
actor's last layer, the *spread* [S] are parameters of the policy that no state changes (the Gaussian's log σ).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaco.control.gaussian import (
    Doubles,
    Floats,
    kl_gradient,
    log_probability,
    policy_gradient,
    standard_score,
)
from vaco.objectives import divergence

JOINT_LIMIT = 4096
"""Joint categories up to which the total variation of several categoricals is summed; beyond, it is not known."""


class Density(NamedTuple):
    """How probable some actions are.

    Attributes:
        logp: log π(a|s), [...] float64.
        score: what the gradient of it is made of: (a − μ)/σ, or the derivative with respect to the logits.
    """

    logp: Doubles
    score: Doubles


class Gradient(NamedTuple):
    """Derivatives with respect to outputs [N, M] and spread [S]."""

    outputs: Doubles
    spread: Doubles


class Distribution(ABC):
    """A distribution over actions [..., A], for each output [..., M].

    Attributes:
        actions: A, columns of an action.
        outputs: M, width of the actor's last layer.
        spread: S, parameters that no state changes.
    """

    def __init__(self, actions: int, outputs: int, spread: int) -> None:
        self.actions, self.outputs, self.spread = actions, outputs, spread

    @abstractmethod
    def noise(self, generator: np.random.Generator, shape: tuple[int, ...], spread: Floats) -> Floats:
        """What makes actions random, drawn before they are needed, [*shape, ...] float32; 0 gives the mode."""

    @abstractmethod
    def act(self, outputs: Floats, noise: Floats) -> Floats:
        """Actions [..., A] float32 of outputs and noise; without noise, the mode."""

    @abstractmethod
    def density(self, actions: Floats, outputs: Floats, spread: Floats) -> Density:
        """The log-probability of actions, in float64."""

    @abstractmethod
    def gradient(self, score: Doubles, spread: Floats, coefficient: Doubles) -> Gradient:
        """Σᵢ cᵢ ∇log π(aᵢ|sᵢ), of `density`'s score [N, ...] and c [N]."""

    @abstractmethod
    def kl(self, old: Floats, old_spread: Floats, new: Floats, new_spread: Floats) -> Tensor:
        """KL(old‖new) in closed form, [N], nats."""

    @abstractmethod
    def kl_gradient(
        self, new: Floats, new_spread: Floats, old: Floats, old_spread: Floats, weights: Doubles
    ) -> Gradient:
        """Σᵢ wᵢ ∇KL(old‖new), with respect to the new policy."""

    @abstractmethod
    def total_variation(self, first: Floats, second: Floats, spread: Floats) -> Tensor:
        """TV of two policies of the same spread in closed form, [N]; NaN where it is too costly."""

    @abstractmethod
    def entropies(self, outputs: Floats, spread: Floats) -> Doubles:
        """H(π(·|s)) of every state, [N], nats."""

    @abstractmethod
    def entropy(self, outputs: Floats, spread: Floats, weights: Doubles) -> float:
        """Mean entropy over states with these weights [N], nats."""

    @abstractmethod
    def entropy_gradient(self, outputs: Floats, spread: Floats, share: Doubles) -> Gradient:
        """The gradient of Σᵢ wᵢ H(π(·|sᵢ)), for weights w that sum to 1."""


class Gaussian(Distribution):
    """Independent Gaussians; the spread is log σ, the same in every state."""

    def __init__(self, size: int) -> None:
        """Of `size` dimensions."""
        super().__init__(size, size, size)

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...], spread: Floats) -> Floats:
        """See `Distribution.noise`; scaled by σ, which broadcasts."""
        drawn = generator.standard_normal((*shape, self.actions), np.float32)
        drawn *= np.exp(spread)
        return drawn

    def act(self, outputs: Floats, noise: Floats) -> Floats:
        """See `Distribution.act`."""
        return outputs + noise

    def density(self, actions: Floats, outputs: Floats, spread: Floats) -> Density:
        """See `Distribution.density`."""
        score = standard_score(actions, outputs, spread)
        return Density(log_probability(score, spread), score)

    def gradient(self, score: Doubles, spread: Floats, coefficient: Doubles) -> Gradient:
        """See `Distribution.gradient`."""
        return Gradient(*policy_gradient(score, spread, coefficient))

    def kl(self, old: Floats, old_spread: Floats, new: Floats, new_spread: Floats) -> Tensor:
        """See `Distribution.kl`."""
        return divergence.gaussian_kl(*map(torch.from_numpy, (old, old_spread, new, new_spread)))

    def kl_gradient(
        self, new: Floats, new_spread: Floats, old: Floats, old_spread: Floats, weights: Doubles
    ) -> Gradient:
        """See `Distribution.kl_gradient`."""
        return Gradient(*kl_gradient(new, new_spread, old, old_spread, weights))

    def total_variation(self, first: Floats, second: Floats, spread: Floats) -> Tensor:
        """See `Distribution.total_variation`."""
        return divergence.gaussian_total_variation(*map(torch.from_numpy, (first, second, spread)))

    def entropies(self, outputs: Floats, spread: Floats) -> Doubles:
        """See `Distribution.entropies`; the same in every state."""
        return np.full(len(outputs), self.entropy(outputs, spread, np.ones(len(outputs))))

    def entropy(self, outputs: Floats, spread: Floats, weights: Doubles) -> float:
        """See `Distribution.entropy`; the same in every state."""
        return float(spread.sum()) + 0.5 * self.actions * math.log(2.0 * math.pi * math.e)

    def entropy_gradient(self, outputs: Floats, spread: Floats, share: Doubles) -> Gradient:
        """See `Distribution.entropy_gradient`: 1 for every log σ."""
        return Gradient(np.zeros(outputs.shape), np.ones(self.spread))


class Categorical(Distribution):
    """One categorical distribution a component, independent given the state; outputs are their logits side by side.

    Actions are the numbers of the categories, exact in float32.
    """

    def __init__(self, categories: Sequence[int]) -> None:
        """Args: categories: how many values each component has."""
        self.categories = tuple(categories)
        super().__init__(len(self.categories), sum(self.categories), 0)
        ends = np.cumsum(self.categories)
        self._starts: NDArray[np.int64] = np.array([0, *ends[:-1]], np.int64)
        self._parts = [slice(int(a), int(b)) for a, b in zip(self._starts, ends, strict=True)]

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...], spread: Floats) -> Floats:
        """See `Distribution.noise`: standard Gumbel, of which the largest sum with the logits is a sample."""
        return generator.gumbel(size=(*shape, self.outputs)).astype(np.float32)

    def act(self, outputs: Floats, noise: Floats) -> Floats:
        """See `Distribution.act`."""
        disturbed = outputs + noise
        return np.stack([disturbed[..., part].argmax(-1) for part in self._parts], axis=-1).astype(np.float32)

    def log_probabilities(self, outputs: Floats) -> Doubles:
        """Log-probabilities of all categories, [..., M] float64."""
        logits = outputs.astype(np.float64)
        for part in self._parts:
            own = logits[..., part]
            own -= own.max(-1, keepdims=True)
            own -= np.log(np.exp(own).sum(-1, keepdims=True))
        return logits

    def density(self, actions: Floats, outputs: Floats, spread: Floats) -> Density:
        """See `Distribution.density`; ∂log π/∂logits is one-hot − p."""
        logp = self.log_probabilities(outputs)
        chosen = actions.astype(np.int64) + self._starts
        score = -np.exp(logp)
        np.put_along_axis(score, chosen, np.take_along_axis(score, chosen, -1) + 1.0, -1)
        return Density(np.take_along_axis(logp, chosen, -1).sum(-1), score)

    def gradient(self, score: Doubles, spread: Floats, coefficient: Doubles) -> Gradient:
        """See `Distribution.gradient`."""
        return Gradient(coefficient[:, None] * score, np.zeros(0))

    def kl(self, old: Floats, old_spread: Floats, new: Floats, new_spread: Floats) -> Tensor:
        """See `Distribution.kl`; a sum over the components."""
        before, after = self.log_probabilities(old), self.log_probabilities(new)
        return torch.from_numpy((np.exp(before) * (before - after)).sum(-1))

    def kl_gradient(
        self, new: Floats, new_spread: Floats, old: Floats, old_spread: Floats, weights: Doubles
    ) -> Gradient:
        """See `Distribution.kl_gradient`: p_new − p_old."""
        moved = np.exp(self.log_probabilities(new)) - np.exp(self.log_probabilities(old))
        return Gradient(weights[:, None] * moved, np.zeros(0))

    def total_variation(self, first: Floats, second: Floats, spread: Floats) -> Tensor:
        """See `Distribution.total_variation`: ½ Σ|p − q| over the joint categories."""
        if math.prod(self.categories) > JOINT_LIMIT:
            return torch.full((math.prod(first.shape[:-1]),), math.nan).reshape(first.shape[:-1])
        p, q = (torch.from_numpy(self._joint(outputs)) for outputs in (first, second))
        return divergence.categorical_total_variation(p, q)

    def _joint(self, outputs: Floats) -> Doubles:
        """Probabilities of all combinations, [..., Π categories]."""
        probabilities = np.exp(self.log_probabilities(outputs))
        joint = np.ones((*outputs.shape[:-1], 1))
        for part in self._parts:
            joint = (joint[..., :, None] * probabilities[..., None, part]).reshape(*outputs.shape[:-1], -1)
        return joint

    def entropies(self, outputs: Floats, spread: Floats) -> Doubles:
        """See `Distribution.entropies`."""
        logp = self.log_probabilities(outputs)
        each: Doubles = -(np.exp(logp) * logp).sum(-1)
        return each

    def entropy(self, outputs: Floats, spread: Floats, weights: Doubles) -> float:
        """See `Distribution.entropy`."""
        return float(weights @ self.entropies(outputs, spread) / max(weights.sum(), 1.0))

    def entropy_gradient(self, outputs: Floats, spread: Floats, share: Doubles) -> Gradient:
        """See `Distribution.entropy_gradient`: −p (log p + H), H of the component."""
        logp = self.log_probabilities(outputs)
        p = np.exp(logp)
        for part in self._parts:
            logp[..., part] += -(p[..., part] * logp[..., part]).sum(-1, keepdims=True)
        return Gradient(-share[:, None] * p * logp, np.zeros(0))


def distribution_of(action_size: int, categories: Sequence[int]) -> Distribution:
    """The distribution over the actions of an environment: categorical where they are discrete.

    Args:
        action_size: A.
        categories: as in `VectorEnv`.
    """
    return Categorical(categories) if categories else Gaussian(action_size)
