"""Inequalities between divergences, and what the sampled estimators estimate: ALGORITHMS.md B (g), (h), (i), (j).

Statewise claims are reported for the state in which they come closest to failing, so one number stands for all
states. Everything that trains is called from `vaco.objectives.divergence`.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor

from theory import expect, tolerance
from theory.bounds import CLEAR, Bound, mean_variation
from theory.instances import Instance
from vaco.objectives import divergence


def worst_state(x: Instance, left: Tensor, right: Tensor, error: Tensor) -> Bound:
    """Keep, for each instance, the entry of [B, ...] with the largest share left/right (least slack where right = 0).

    `error` is broadcastable to `left`.
    """
    error = torch.broadcast_to(error, left.shape)
    clear = right > CLEAR * error
    share = torch.where(clear, left / torch.where(clear, right, torch.ones_like(right)), -torch.inf)
    badness = torch.where(right - left < -error, 1e300, share).flatten(1)
    index = badness.argmax(1, keepdim=True)
    left, right, error = (v.flatten(1).gather(1, index)[:, 0] for v in (left, right, error))
    return Bound(left, right, error)


# what the estimators that train estimate ---------------------------------------------------------------------------


def _pairs(x: Instance) -> tuple[Tensor, Tensor, Tensor]:
    """Weights d^β·β, ratios ρ and ρ_T, each [B, S, A]."""
    weights = expect.joint(x.behaviour_states, x.behaviour)
    return weights, expect.ratio(x.current, x.behaviour), expect.ratio(x.learner, x.behaviour)


def estimator_total(x: Instance, *, half: float = 1.0) -> Bound:
    """½ E_{d^β, β}|ρ − 1| = E_{d^β} TV(π, β)."""
    weights, values, _ = _pairs(x)
    left = half * expect.total_variation(values, torch.ones_like(values), weights)
    right = mean_variation(x.behaviour_states, x.current, x.behaviour)
    return Bound(left, right, tolerance.solved(x.mdp), True)


def estimator_forward(x: Instance, *, statistic: Literal["difference", "proximal"] = "difference") -> Bound:
    """½ E_{d^β, β}|ρ − ρ_T| = E_{d^β} TV(π, π_T); the statistic of the filter `tv`, halved.

    The control ``proximal`` is mean|π/π_T − 1|, the statistic of `tv_proximal`: no total variation under β.
    """
    weights, values, learner_values = _pairs(x)
    if statistic == "difference":
        left = expect.total_variation(values, learner_values, weights)
    else:
        proximal = expect.ratio(x.current, x.learner)
        left = expect.total_variation(proximal, torch.ones_like(values), weights)
    right = mean_variation(x.behaviour_states, x.current, x.learner)
    return Bound(left, right, tolerance.solved(x.mdp), True)


def estimator_bounded(x: Instance, *, side: Literal["below", "above", "lost support"] = "below") -> Bound:
    """E_{d^β, β}(1 − ρ)⁺ = E_{d^β} TV(π, β), because E_β ρ = 1: needs β > 0 wherever π > 0."""
    weights, values, _ = _pairs(x)
    behaviour = x.behaviour
    if side == "lost support":  # β forgets the first action, so E_β ρ < 1
        behaviour = behaviour.clone()
        behaviour[..., 0] = 0.0
        behaviour = behaviour / behaviour.sum(-1, keepdim=True).clamp(min=1e-300)
        weights, values = expect.joint(x.behaviour_states, behaviour), expect.ratio(x.current, behaviour)
        left = 0.5 * expect.estimate(divergence.mean_absolute_deviation, values, torch.ones_like(values), weights)
    else:
        left = expect.estimate(divergence.bounded_total_variation, values, weights)
    right = mean_variation(x.behaviour_states, x.current, behaviour)
    return Bound(left, right, tolerance.solved(x.mdp), True)


# (h) Pinsker -------------------------------------------------------------------------------------------------------


def _kl_error(x: Instance, p: Tensor, q: Tensor) -> Tensor:
    """Rounding of KL, statewise [B, S]: terms are as large as |log q| where p > 0."""
    logs = torch.where(p > 0, q.clamp(min=1e-300).log().abs(), 0.0).amax(-1)
    return tolerance.summation(x.mdp)[:, None] * (1.0 + logs)


def pinsker(
    x: Instance, *, constant: float = 2.0, direction: Literal["forward", "backward"] = "forward", half: float = 1.0
) -> Bound:
    """2·TV(π, β)² ≤ KL(π‖β), or KL(β‖π) when ``direction="backward"``, in nats, in every state."""
    p, q = (x.current, x.behaviour) if direction == "forward" else (x.behaviour, x.current)
    variation = half * divergence.categorical_total_variation(p, q)
    kl = divergence.categorical_kl(p, q)
    return worst_state(x, constant * variation**2, kl, _kl_error(x, p, q))


def pinsker_mean(x: Instance, *, constant: float = 2.0) -> Bound:
    """2·(E_d TV)² ≤ E_d KL with d = d^β: Pinsker and Jensen."""
    variation = mean_variation(x.behaviour_states, x.current, x.behaviour)
    kl = (x.behaviour_states * divergence.categorical_kl(x.current, x.behaviour)).sum(-1)
    error = _kl_error(x, x.current, x.behaviour).amax(-1) * tolerance.condition(x.mdp.discount)
    return Bound(constant * variation**2, kl, error)


def pinsker_converse(x: Instance, *, constant: float = 2.0) -> Bound:
    """The false converse KL(π‖β) ≤ 2·TV²: kept as a control of `pinsker`, it fails nearly everywhere."""
    variation = divergence.categorical_total_variation(x.current, x.behaviour)
    kl = divergence.categorical_kl(x.current, x.behaviour)
    return worst_state(x, kl, constant * variation**2, _kl_error(x, x.current, x.behaviour))


def reverse_pinsker(x: Instance, *, constant: float = 2.0, least: Literal["of q", "none"] = "of q") -> Bound:
    """KL(π‖β) ≤ log(1 + 2·TV²/min β), the minimum over β's support: a converse that needs bounded ratios."""
    variation = divergence.categorical_total_variation(x.current, x.behaviour)
    kl = divergence.categorical_kl(x.current, x.behaviour)
    smallest = torch.where(x.behaviour > 0, x.behaviour, torch.inf).amin(-1)
    if least == "none":
        smallest = torch.ones_like(smallest)
    right = torch.log1p(constant * variation**2 / smallest)
    error = _kl_error(x, x.current, x.behaviour) + tolerance.summation(x.mdp)[:, None] / smallest
    return worst_state(x, kl, right, error)


# (i) the lag splits, (j) further inequalities ----------------------------------------------------------------------


def lag_split(x: Instance, *, parts: Literal["both", "forward", "backward"] = "both") -> Bound:
    """E TV(π, β) ≤ E TV(π, π_T) + E TV(π_T, β) under d^β, all three by the estimators that train."""
    weights, values, learner_values = _pairs(x)
    one = torch.ones_like(values)
    forward = expect.total_variation(values, learner_values, weights)
    backward = expect.total_variation(learner_values, one, weights)
    right = {"both": forward + backward, "forward": forward, "backward": backward}[parts]
    return Bound(expect.total_variation(values, one, weights), right, 3.0 * tolerance.summation(x.mdp))


def lag_split_reverse(x: Instance, *, forward_only: bool = False) -> Bound:
    """|E TV(π, π_T) − E TV(π_T, β)| ≤ E TV(π, β) under d^β."""
    weights, values, learner_values = _pairs(x)
    one = torch.ones_like(values)
    forward = expect.total_variation(values, learner_values, weights)
    backward = expect.total_variation(learner_values, one, weights)
    left = forward if forward_only else (forward - backward).abs()
    return Bound(left, expect.total_variation(values, one, weights), 3.0 * tolerance.summation(x.mdp))


def lag_chain(x: Instance, *, drop_last: bool = False) -> Bound:
    """TV(π, β_M) ≤ TV(π, π_T) + TV(π_T, β_1) + Σ_i TV(β_i, β_{i+1}): caps per phase add up along the buffer."""
    links = [x.current, x.learner, *x.behaviours.unbind(1)]
    pairs = list(itertools.pairwise(links))
    if drop_last:
        pairs = pairs[:-1]
    right = torch.stack([divergence.categorical_total_variation(p, q) for p, q in pairs]).sum(0)
    left = divergence.categorical_total_variation(links[0], links[-1])
    return worst_state(x, left, right, 5.0 * tolerance.summation(x.mdp)[:, None])


def ratio_range(x: Instance, *, constant: float = 0.5) -> Bound:
    """TV(π, β)(s) ≤ ½ max_a |ρ − 1|: if every ratio stays within 1 ± ε, TV ≤ ε/2 (PPO and SPO, idealised)."""
    values = expect.ratio(x.current, x.behaviour)
    deviation = torch.where(x.behaviour > 0, (values - 1.0).abs(), 0.0).amax(-1)
    left = divergence.categorical_total_variation(x.current, x.behaviour)
    return worst_state(x, left, constant * deviation, tolerance.summation(x.mdp)[:, None])


def chi_squared(x: Instance, *, constant: float = 4.0) -> Bound:
    """4·(E TV(π, β))² ≤ χ²(π‖β) = E_{d^β, β}(ρ − 1)², by `divergence.chi_squared`."""
    weights, values, _ = _pairs(x)
    variation = expect.total_variation(values, torch.ones_like(values), weights)
    right = expect.estimate(divergence.chi_squared, values, weights)
    return Bound(constant * variation**2, right, tolerance.summation(x.mdp, 1.0 + right))


def effective_sample_size(x: Instance, *, constant: float = 4.0) -> Bound:
    """4·(E TV)² ≤ 1/ESS − 1 with Kish's share ESS of ρ: a floor on ESS caps TV, not conversely."""
    weights, values, _ = _pairs(x)
    variation = expect.total_variation(values, torch.ones_like(values), weights)
    share = expect.estimate(divergence.effective_sample_size, values, weights)
    right = 1.0 / share - 1.0
    return Bound(constant * variation**2, right, tolerance.solved(x.mdp, 1.0 + right))


def binary_variation(x: Instance, *, own: Literal["largest", "sum"] = "largest") -> Bound:
    """|π(a|s) − β(a|s)| ≤ TV(π, β)(s) for every action: DPPO's binary divergence is a lower bound."""
    difference = (x.current - x.behaviour).abs()
    left = difference.amax(-1) if own == "largest" else difference.sum(-1)
    right = divergence.categorical_total_variation(x.current, x.behaviour)
    return worst_state(x, left, right, tolerance.summation(x.mdp)[:, None])


def _two_factors(x: Instance) -> tuple[Tensor, Tensor, Tensor]:
    """TV of the product of two action components, and of each: π⊗π_T against β_1⊗β_2, each [B, S]."""
    first, second = x.behaviours[:, 0], x.behaviours[:, 1]
    p = (x.current[..., :, None] * x.learner[..., None, :]).flatten(-2)
    q = (first[..., :, None] * second[..., None, :]).flatten(-2)
    variation = divergence.categorical_total_variation
    return variation(p, q), variation(x.current, first), variation(x.learner, second)


def product_upper(x: Instance, *, combine: Literal["sum", "max"] = "sum") -> Bound:
    """TV of a product of independent action components ≤ the sum of theirs."""
    joint, first, second = _two_factors(x)
    right = first + second if combine == "sum" else torch.maximum(first, second)
    return worst_state(x, joint, right, x.mdp.actions * tolerance.summation(x.mdp)[:, None])


def product_lower(x: Instance, *, swapped: bool = False) -> Bound:
    """Π_j (1 − TV_j) ≤ 1 − TV of the product: overlap is at least multiplicative.

    The control ``swapped`` claims the reverse inequality.
    """
    joint, first, second = _two_factors(x)
    left, right = (1.0 - first) * (1.0 - second), 1.0 - joint
    if swapped:
        left, right = right, left
    return worst_state(x, left, right, x.mdp.actions * tolerance.summation(x.mdp)[:, None])


# (g) the subgradient -----------------------------------------------------------------------------------------------


def subgradient(x: Instance, *, half: float = 1.0, keep_ratio: bool = True) -> Bound:
    """TV(π) + ⟨g, π_T − π⟩ ≤ TV(π_T), both against β: g = ½ d^β sign(π − β) is a subgradient of TV at π.

    ⟨g, π_T − π⟩ = E_{d^β, β}[c (π_T/π − 1)] with the coefficient c = ½ sign(ρ − 1)ρ that trains
    (`divergence.total_variation_coefficient`); written as c/ρ · (ρ_T − ρ), which needs no division by π.
    """
    weights, values, learner_values = _pairs(x)
    coefficient = half * divergence.total_variation_coefficient(values, 1.0)
    safe = torch.where(values > 0, values, torch.ones_like(values))
    slope = torch.where(values > 0, coefficient / safe, -0.5 * half) if keep_ratio else coefficient
    one = torch.ones_like(values)
    left = expect.total_variation(values, one, weights) + expect.mean(slope * (learner_values - values), weights)
    right = expect.total_variation(learner_values, one, weights)
    magnitude = 1.0 + expect.mean((slope * (learner_values - values)).abs(), weights)
    return Bound(left, right, 3.0 * tolerance.summation(x.mdp, magnitude))


def softmax_gradient(x: Instance, *, half: float = 1.0, keep_ratio: bool = True) -> Bound:
    """Mean c ∇log π, with c of `total_variation_coefficient`, equals automatic differentiation of ½ mean|ρ − 1|.

    Parameters are softmax logits; left and right are the two gradients along a fixed direction.
    """
    weights, values, _ = _pairs(x)
    logits = x.current.clamp(min=1e-300).log().detach().requires_grad_(True)
    policy = torch.softmax(logits, -1)
    loss = expect.total_variation(expect.ratio(policy, x.behaviour), torch.ones_like(values), weights).sum()
    automatic = torch.autograd.grad(loss, logits)[0]
    coefficient = half * divergence.total_variation_coefficient(expect.ratio(policy.detach(), x.behaviour), 1.0)
    if not keep_ratio:
        coefficient = coefficient / expect.ratio(policy.detach(), x.behaviour).clamp(min=1e-300)
    total = weights.sum((1, 2), keepdim=True)
    weighted = weights * coefficient / total
    built = weighted - policy.detach() * weighted.sum(-1, keepdim=True)
    direction = torch.cos(torch.arange(built[0].numel(), dtype=built.dtype)).reshape(built[0].shape)
    left, right = ((g * direction).sum((1, 2)) for g in (built, automatic))
    return Bound(left, right, tolerance.summation(x.mdp), True)
