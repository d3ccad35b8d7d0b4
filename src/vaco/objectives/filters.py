"""Filter: what becomes of each sample's gradient when the current policy moves away from the data.

Every method ascends (Σ wᵢ cᵢ ∇log π(aᵢ|sᵢ)) / Σ wᵢ. With the ratio ρ = π/β, the learner's ratio ρ_T = π_T/β and the
advantage A, the unmasked coefficient of nearly every method is c = ρA, and a filter is the rule that says which samples
keep it. A sample's gradient is kept or dropped here, and nowhere else.

A filter is a function from `Samples` and `FilterSettings` to `Filtered`. To add one, write such a function under
``@register`` with its formula; its name then works in every ``ALIGN+FILTER``.

Two rules hold for all of them. Nothing here carries a gradient: the coefficient multiplies ∇log π as a constant. And
the mean's denominator is the full batch, Σ wᵢ, never the number of kept samples: dropping a sample must not inflate the
gradient of those that remain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaco.objectives.divergence import mean_absolute_deviation


@dataclass(frozen=True)
class FilterSettings:
    """The numbers a filter may need.

    Attributes:
        delta: threshold δ of the TV filters on mean|·|, an estimate of twice a total variation, on the scale of ε.
        clip: ε of the ratio clips and of SPO.
        truncation: ρ̄ of the truncated importance weight.
        kl_coefficient: b, the weight of KL(π_T‖π) under the filter `kl`.
        mean_age: mean policy age of the batch in phases, newest = 0; GePPO shrinks its clip with it.
    """

    delta: float = 0.2
    clip: float = 0.2
    truncation: float = 1.0
    kl_coefficient: float = 1.0
    mean_age: float = 0.0


DEFAULTS = FilterSettings()


class Samples(NamedTuple):
    """What a filter sees of a batch; construct it by keyword. All tensors share one shape and float type.

    Attributes:
        ratio: ρ = π(a|s)/β(a|s) of each sample.
        learner_ratio: ρ_T = π_T(a|s)/β(a|s) of each sample.
        advantages: A.
        weights: sample weights, zero for dead steps and padding; None means equal weights.
        statistic: 0-d, the trigger statistic of a larger batch, used in place of this batch's own.
    """

    ratio: Tensor
    learner_ratio: Tensor
    advantages: Tensor
    weights: Tensor | None = None
    statistic: Tensor | None = None


class Filtered(NamedTuple):
    """What a filter decides.

    Attributes:
        coefficient: c, the factor of each sample's ∇log π, shape of the input.
        kept: bool, False where the sample's policy gradient was dropped.
        statistic: 0-d, what the filter compared with its threshold; NaN for filters without a batch trigger.
        triggered: 0-d bool, whether the batch trigger fired.
        kl_weight: b of a further term −b·KL(π_T‖π), taken in closed form by the learner; 0 for all but `kl`.
    """

    coefficient: Tensor
    kept: Tensor
    statistic: Tensor
    triggered: Tensor
    kl_weight: float = 0.0


FilterFunction = Callable[[Samples, FilterSettings], Filtered]
Statistic = Callable[[Samples], Tensor]


@dataclass(frozen=True)
class Filter:
    """A filter and what the table prints of it.

    Attributes:
        name: as written in ``ALIGN+FILTER``.
        function: the rule.
        formula: the coefficient, as the table prints it.
        statistic: mean|·| that the trigger compares with δ, or None for per-sample rules.
    """

    name: str
    function: FilterFunction
    formula: str
    statistic: Statistic | None = None


FILTERS: dict[str, Filter] = {}


def register(name: str, formula: str, statistic: Statistic | None = None) -> Callable[[FilterFunction], FilterFunction]:
    """Enter a filter function in `FILTERS` under a name, with its formula for the table."""
    if name in FILTERS:
        raise ValueError(f"there is already a filter '{name}'")

    def enter(function: FilterFunction) -> FilterFunction:
        detached: FilterFunction = torch.no_grad()(function)
        FILTERS[name] = Filter(name, detached, formula, statistic)
        return detached

    return enter


def _per_sample(kept: Tensor, coefficient: Tensor) -> Filtered:
    """The verdict of a rule that looks at each sample alone: no statistic (NaN), no trigger."""
    nothing = coefficient.new_full((), float("nan"))
    return Filtered(torch.where(kept, coefficient, 0.0), kept, nothing, nothing > 0)


def _keep_all(coefficient: Tensor) -> Filtered:
    """The verdict of a rule that drops nothing."""
    return _per_sample(torch.ones_like(coefficient, dtype=torch.bool), coefficient)


def _drop_outward(x: Samples, deviation: Tensor, threshold: float) -> Filtered:
    """The TV rule: once mean|deviation| > threshold, drop the samples with A · sign(deviation) > 0.

    Those are exactly the samples whose own gradient would increase their own term |deviation| (paper, Eq. 16).
    """
    statistic = mean_absolute_deviation(deviation, 0.0, x.weights) if x.statistic is None else x.statistic
    triggered = statistic > threshold
    outward = x.advantages * torch.sign(deviation) > 0
    kept = ~(triggered & outward)
    return Filtered(torch.where(kept, x.ratio * x.advantages, 0.0), kept, statistic, triggered)


def forward_statistic(x: Samples) -> Tensor:
    """Mean|ρ − ρ_T| = 2·TV(π, π_T) in expectation under β: twice the forward lag."""
    return mean_absolute_deviation(x.ratio, x.learner_ratio, x.weights)


def total_statistic(x: Samples) -> Tensor:
    """Mean|ρ − 1| = 2·TV(π, β) in expectation under β: twice the total lag."""
    return mean_absolute_deviation(x.ratio, 1.0, x.weights)


def proximal_statistic(x: Samples) -> Tensor:
    """Mean|π/π_T − 1|: a total variation only when the samples come from π_T, kept for comparison."""
    return mean_absolute_deviation(x.ratio / x.learner_ratio, 1.0, x.weights)


@register("none", "c = ρA")
def none(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """Importance-weighted policy gradient: every sample keeps ρA."""
    return _keep_all(x.ratio * x.advantages)


@register("clip", "c = ρA · 1[not (A>0 and ρ>1+ε)] · 1[not (A<0 and ρ<1−ε)]")
def clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """PPO's clip, with the behaviour policy as the old policy (Schulman et al. 2017, Eq. 7)."""
    above = (x.advantages > 0) & (x.ratio > 1.0 + settings.clip)
    below = (x.advantages < 0) & (x.ratio < 1.0 - settings.clip)
    return _per_sample(~(above | below), x.ratio * x.advantages)


@register("proximal_clip", "c = uA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T")
def proximal_clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """PPO's clip with the learner as the old policy: the backward lag is ignored, not corrected."""
    proximal = x.ratio / x.learner_ratio
    above = (x.advantages > 0) & (proximal > 1.0 + settings.clip)
    below = (x.advantages < 0) & (proximal < 1.0 - settings.clip)
    return _per_sample(~(above | below), proximal * x.advantages)


@register("decoupled_clip", "c = ρA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T")
def decoupled_clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """Decoupled PPO: weight by π/β, clip on π/π_T (Hilton, Cobbe and Schulman 2021)."""
    proximal = x.ratio / x.learner_ratio
    above = (x.advantages > 0) & (proximal > 1.0 + settings.clip)
    below = (x.advantages < 0) & (proximal < 1.0 - settings.clip)
    return _per_sample(~(above | below), x.ratio * x.advantages)


@register("centred_clip", "c = ρA · 1[not (A>0 and ρ>ρ_T+ε')] · 1[not (A<0 and ρ<ρ_T−ε')],  ε' = ε/(1+age)")
def centred_clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """GePPO's clip, centred on ρ_T and shrunk by the data's mean age (Queeney et al. 2021, without its other parts)."""
    epsilon = settings.clip / (1.0 + settings.mean_age)
    above = (x.advantages > 0) & (x.ratio > x.learner_ratio + epsilon)
    below = (x.advantages < 0) & (x.ratio < x.learner_ratio - epsilon)
    return _per_sample(~(above | below), x.ratio * x.advantages)


@register("tv", "c = ρA · 1[not (mean|ρ−ρ_T| > δ and A·sign(ρ−ρ_T) > 0)]", forward_statistic)
def tv(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """VACO's filter on the forward lag: alignment answers the backward lag, the filter bounds the rest."""
    return _drop_outward(x, x.ratio - x.learner_ratio, settings.delta)


@register("tv_total", "c = ρA · 1[not (mean|ρ−1| > δ and A·sign(ρ−1) > 0)]", total_statistic)
def tv_total(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """The TV filter on the total lag: where the backward lag alone exceeds δ/2, π may only move back towards β."""
    return _drop_outward(x, x.ratio - 1.0, settings.delta)


@register("tv_proximal", "c = ρA · 1[not (mean|u−1| > δ and A·sign(u−1) > 0)],  u = π/π_T", proximal_statistic)
def tv_proximal(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """The TV filter on π/π_T, which is no total variation under samples from β (ALGORITHMS B.g)."""
    return _drop_outward(x, x.ratio / x.learner_ratio - 1.0, settings.delta)


@register("spo", "c = ρ (A − |A|(ρ−1)/ε)")
def spo(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """Simple policy optimisation, quadratic form: each sample is pulled to ρ = 1 ± ε (Xie et al. 2025)."""
    return _keep_all(x.ratio * (x.advantages - x.advantages.abs() * (x.ratio - 1.0) / settings.clip))


@register("spo_proximal", "c = u (A − |A|(u−1)/ε),  u = π/π_T")
def spo_proximal(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """SPO with the learner as the old policy: no heavy-tailed pull towards stale policies, no correction either."""
    proximal = x.ratio / x.learner_ratio
    return _keep_all(proximal * (x.advantages - x.advantages.abs() * (proximal - 1.0) / settings.clip))


@register("truncated", "c = min(ρ̄, ρ) A")
def truncated(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """IMPALA's truncated importance weight; nothing is dropped (Espeholt et al. 2018, section 4.2)."""
    return _keep_all(x.ratio.clamp(max=settings.truncation) * x.advantages)


@register("kl", "c = ρA, and −b ∇KL(π_T‖π)")
def kl(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """PPO with a KL penalty, fixed or adaptive by `adapt_kl_coefficient` (Schulman et al. 2017, Eq. 8)."""
    return _keep_all(x.ratio * x.advantages)._replace(kl_weight=settings.kl_coefficient)


def adapt_kl_coefficient(coefficient: float, measured_kl: float, target_kl: float) -> float:
    """The adaptive rule of PPO's KL penalty, applied after a phase for the next one.

    Args:
        coefficient: b used in this phase.
        measured_kl: mean KL(π_T‖π) at the end of the phase, nats.
        target_kl: d_targ, nats.

    Returns:
        b/2 if the KL was below d_targ/1.5, 2b if above 1.5·d_targ, else b; kept within [1e-4, 1e4], so that a long
        excursion can be undone within a few phases.
    """
    if measured_kl < target_kl / 1.5:
        coefficient = coefficient / 2.0
    elif measured_kl > target_kl * 1.5:
        coefficient = coefficient * 2.0
    return min(max(coefficient, 1e-4), 1e4)
