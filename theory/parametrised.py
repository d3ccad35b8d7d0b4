"""Policies with parameters, for measuring what the filter does not guarantee: tables, shared features, networks.

All hold a batch of independent problems; the gradient of a sum over problems is the gradient of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from theory import expect
from theory.families import garnet
from theory.mdp import MDP, advantages, state_distribution
from vaco.objectives import divergence
from vaco.objectives.filters import FilterSettings, Samples

STATES, ACTIONS, GAMMA = 6, 4, 0.9


@dataclass(frozen=True)
class Model:
    """A kind of policy: how logits [B, S, A] come from parameters [B, P].

    Attributes:
        name: label.
        features: None for a table, otherwise φ, shape [B, S·A, F] (linear) or state inputs [B, S, F] (network).
        hidden: width of a tanh layer, 0 for none.
    """

    name: str
    features: Tensor | None
    hidden: int = 0

    @property
    def size(self) -> int:
        """Number of parameters P of one problem."""
        if self.features is None:
            return STATES * ACTIONS
        inputs = int(self.features.shape[-1])
        return (inputs + 1) * self.hidden + (self.hidden + 1) * ACTIONS if self.hidden else inputs

    def policy(self, parameters: Tensor) -> Tensor:
        """π(a|s), [B, S, A], differentiable in parameters [B, P]."""
        batch = len(parameters)
        if self.features is None:
            return torch.softmax(parameters.reshape(batch, STATES, ACTIONS), -1)
        if not self.hidden:
            logits = torch.einsum("bif,bf->bi", self.features, parameters).reshape(batch, STATES, ACTIONS)
            return torch.softmax(logits, -1)
        inputs = int(self.features.shape[-1])
        first, rest = parameters[:, : (inputs + 1) * self.hidden], parameters[:, (inputs + 1) * self.hidden :]
        weights = first.reshape(batch, inputs + 1, self.hidden)
        layer = torch.tanh(self.features @ weights[:, :-1] + weights[:, -1:])
        head = rest.reshape(batch, self.hidden + 1, ACTIONS)
        return torch.softmax(layer @ head[:, :-1] + head[:, -1:], -1)


def models(rng: np.random.Generator, batch: int) -> list[Model]:
    """Tabular softmax, linear softmax with 12, 6 and 3 shared features, and a network of 16 tanh units."""

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape))

    linear = [Model(f"{k} features", normal(batch, STATES * ACTIONS, k)) for k in (12, 6, 3)]
    return [Model("table", None), *linear, Model("network", normal(batch, STATES, 4), hidden=16)]


@dataclass(frozen=True)
class Problem:
    """A batch of problems: data from β, a learner π_T, exact advantages.

    Attributes:
        model: the kind of policy.
        learner_parameters: θ_T, [B, P].
        behaviour: β, [B, S, A].
        learner: π_T, [B, S, A].
        states: d^β, [B, S].
        gains: A^{π_T} scaled to unit variance under the data, [B, S, A].
    """

    model: Model
    learner_parameters: Tensor
    behaviour: Tensor
    learner: Tensor
    states: Tensor
    gains: Tensor

    @property
    def weights(self) -> Tensor:
        """d^β(s)β(a|s), [B, S, A]."""
        return expect.joint(self.states, self.behaviour)

    @property
    def learner_ratio(self) -> Tensor:
        """ρ_T, [B, S, A]."""
        return expect.ratio(self.learner, self.behaviour)

    def forward_lag(self, policy: Tensor) -> Tensor:
        """E_{d^β} TV(π, π_T), [B], exact."""
        return (self.states * divergence.categorical_total_variation(policy, self.learner)).sum(-1)


def problem(rng: np.random.Generator, model: Model, batch: int, stale: float = 0.3) -> Problem:
    """Garnet processes, a random learner, and a behaviour policy `stale` away from it in parameters."""
    mdp: MDP = garnet(rng, batch, STATES, ACTIONS, branches=3)
    mdp = MDP(mdp.transition, mdp.reward, mdp.start, torch.full_like(mdp.discount, GAMMA))
    scale = 0.7 if model.features is not None else 1.0
    learner_parameters = scale * torch.from_numpy(rng.standard_normal((batch, model.size)))
    noise = torch.from_numpy(rng.standard_normal((batch, model.size)))
    with torch.no_grad():
        learner = model.policy(learner_parameters)
        behaviour = model.policy(learner_parameters + stale * noise)
        gains = advantages(mdp, learner)
        states = state_distribution(mdp, behaviour)
        weights = expect.joint(states, behaviour)
        spread = expect.mean(gains**2, weights).sqrt().clamp(min=1e-12)
    return Problem(model, learner_parameters, behaviour, learner, states, gains / spread[:, None, None])


def draw(rng: np.random.Generator, p: Problem, count: int | None) -> Tensor:
    """Weights of the pairs in a minibatch: exact probabilities for None, else shares of `count` samples, [B, S, A]."""
    exact = p.weights
    if count is None:
        return exact
    flat = exact.flatten(1).numpy()
    counts = rng.multinomial(count, flat / flat.sum(-1, keepdims=True))
    return torch.from_numpy(counts / float(count)).reshape(exact.shape)


@dataclass(frozen=True)
class Direction:
    """One gradient: of the filtered surrogate and of the sampled TV, with the filter's own view of the batch.

    Attributes:
        ascent: Σ w c ∇log π, [B, P], repaired by projection if asked.
        plain: the same before the repair.
        triggered: bool [B].
        statistic: mean|·| of the batch, [B].
        kept: share of the samples kept, [B].
    """

    ascent: Tensor
    plain: Tensor
    triggered: Tensor
    statistic: Tensor
    kept: Tensor


def direction(p: Problem, parameters: Tensor, weights: Tensor, arm: str, delta: float) -> Direction:
    """The ascent direction of one minibatch under one arm.

    Args:
        p: the problems.
        parameters: θ, [B, P].
        weights: of the pairs, from `draw`.
        arm: a filter of `vaco.objectives.filters`, or ``tv+projection``: the filtered gradient, projected where the
            trigger fires on the half-space in which the minibatch's TV estimate does not increase.
        delta: threshold of the statistic.

    Returns:
        The direction and what the filter saw.
    """
    leaf = parameters.detach().requires_grad_(True)
    policy = p.model.policy(leaf)
    values = expect.ratio(policy, p.behaviour)
    samples = Samples(ratio=values.detach(), learner_ratio=p.learner_ratio, advantages=p.gains, weights=weights)
    rule = arm.split("+")[0]
    seen = expect.verdict(rule, samples, FilterSettings(delta=delta, clip=delta))
    logp = torch.where(weights > 0, policy.clamp(min=1e-300).log(), 0.0)
    plain = torch.autograd.grad((weights * seen.coefficient * logp).sum(), leaf, retain_graph=True)[0]
    ascent = plain
    if arm.endswith("projection"):
        toward = divergence.total_variation_coefficient(values.detach(), p.learner_ratio)
        rising = torch.autograd.grad((weights * toward * logp).sum(), leaf)[0]
        size = (rising**2).sum(-1, keepdim=True)
        excess = (plain * rising).sum(-1, keepdim=True).clamp(min=0.0) / torch.where(size > 0, size, 1.0)
        ascent = plain - torch.where(seen.triggered[:, None], excess, 0.0) * rising
    kept = (weights * seen.kept).sum((1, 2))
    return Direction(ascent, plain, seen.triggered, seen.statistic, kept)
