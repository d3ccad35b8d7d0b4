"""Exact expectations by the functions that train.

`vaco.objectives` estimates from samples; given every state-action pair once, weighted by d(s)·β(a|s), the same function
returns the exact expectation. `torch.vmap` maps it over the batch of processes, so there is no second implementation
of anything that trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaco.objectives import divergence, filters
from vaco.objectives.filters import FILTERS, FilterSettings, Samples


class Verdict(NamedTuple):
    """What a filter decides for each process: coefficient and kept [B, S, A], statistic and triggered [B]."""

    coefficient: Tensor
    kept: Tensor
    statistic: Tensor
    triggered: Tensor


def joint(states: Tensor, policy: Tensor) -> Tensor:
    """The probability d(s)π(a|s) of each pair, shape [B, S, A]."""
    return states[:, :, None] * policy


def ratio(target: Tensor, behaviour: Tensor) -> Tensor:
    """π/β where β > 0, and 0 where β = 0 (a pair of weight zero); any shape."""
    taken = behaviour > 0
    return torch.where(taken, target / torch.where(taken, behaviour, torch.ones_like(behaviour)), 0.0)


def mean(values: Tensor, weights: Tensor) -> Tensor:
    """`divergence.weighted_mean` of each process, [B, S, A] and [B, S, A] to [B]."""
    result: Tensor = torch.vmap(divergence.weighted_mean)(values, weights)
    return result


def estimate(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Any estimator of `divergence` applied to each process: ratios, then weights as its last positional argument."""
    result: Tensor = torch.vmap(function)(*arguments)
    return result


def total_variation(values: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """`divergence.sampled_total_variation` of each process: ½ E|ρ − reference|, shape [B]."""
    return estimate(divergence.sampled_total_variation, values, reference, weights)


def verdict(name: str, samples: Samples, settings: FilterSettings) -> Verdict:
    """Apply the filter `name` to each process of a batch.

    Args:
        name: a key of `vaco.objectives.filters.FILTERS`.
        samples: ratio, learner_ratio, advantages and weights, each [B, ...].
        settings: the filter's numbers.

    Returns:
        The filter's decision for each process.
    """
    function = FILTERS[name].function

    def one(values: Tensor, learner: Tensor, gains: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        decided = function(Samples(ratio=values, learner_ratio=learner, advantages=gains, weights=weights), settings)
        return decided.coefficient, decided.kept, decided.statistic, decided.triggered

    weights = torch.ones_like(samples.ratio) if samples.weights is None else samples.weights
    return Verdict(*torch.vmap(one)(samples.ratio, samples.learner_ratio, samples.advantages, weights))


def surrogate(values: Tensor, gains: Tensor, weights: Tensor) -> Tensor:
    """E[ρA], the objective whose gradient has coefficient ρA (`filters.none`), shape [B]."""
    samples = Samples(ratio=values, learner_ratio=torch.ones_like(values), advantages=gains, weights=weights)
    return mean(verdict("none", samples, filters.DEFAULTS).coefficient, weights)
