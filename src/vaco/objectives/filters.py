"""Filter: what becomes of each sample's gradient when the current policy moves away from the data.

Every method ascends (Σ wᵢ cᵢ ∇log π(aᵢ|sᵢ)) / Σ wᵢ. With the ratio ρ = π/β, the learner's ratio ρ_T = π_T/β and the
advantage A, the unmasked coefficient of nearly every method is c = ρA, and a filter is the rule that says which samples
keep it. A sample's gradient is kept or dropped here, and nowhere else.

A filter is a function from `Samples` and `FilterSettings` to `Filtered`. To add one, write such a function under
``@register`` with its formula; its name then works in every ``ALIGN+FILTER``.

Two rules hold for all of them. Nothing here carries a gradient: the coefficient multiplies ∇log π as a constant. And
the mean's denominator is the full batch, Σ wᵢ, never the number of kept samples: dropping a sample must not inflate the
gradient of those that remain.

`FilterSettings.ratio_cap` truncates the importance weight of every filter that declares one, in `register` and in no
filter: with w = ρ (or u = π/π_T) and C > 0 the coefficient becomes min(w, C) A wherever it was wA. Which samples are
kept, and the trigger's statistic, are still those of the ratio as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vaco.objectives.divergence import mean_absolute_deviation
from vaco.objectives.own import require_declaration, require_new
from vaco.objectives.pytorch import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FilterSettings:
    """The numbers a filter may need.

    Attributes:
        delta: threshold δ of the TV filters on mean|·|, an estimate of twice a total variation, on the scale of ε. The
            reading "δ on half of mean|·|" needs no setting of its own: it is this one at 2δ.
        clip: ε of the ratio clips and of SPO.
        truncation: ρ̄ of the truncated importance weight.
        ratio_cap: C of the truncated weight min(ρ, C) in the coefficient, 0 for none; see the module's head.
        kl_coefficient: b, the weight of KL(π_T‖π) under the filter `kl`, of KL(β‖π) under `kl_total`.
        mean_age: mean policy age of the batch in phases, newest = 0; GePPO shrinks its clip with it.
        backward_lag: TV(π_T, β) of the phase's data, sampled as ½ mean|ρ_T − 1| before its first gradient step.
        progress: share of the training that was done before this phase, in [0, 1); MDPO anneals its step size with it.
        own: settings that only this rule has, an instance of `Filter.settings`; None for their defaults.
    """

    delta: float = 0.2
    clip: float = 0.2
    truncation: float = 1.0
    ratio_cap: float = 0.0
    kl_coefficient: float = 1.0
    mean_age: float = 0.0
    backward_lag: float = 0.0
    progress: float = 0.0
    own: Any = None


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
        kl_weight: b of a further term −b·KL(π_T‖π), or −b·KL(β‖π) where `Filter.penalty` says so, taken in closed form
            by the learner; 0 for filters without a penalty.
    """

    coefficient: Tensor
    kept: Tensor
    statistic: Tensor
    triggered: Tensor
    kl_weight: float = 0.0


FilterFunction = Callable[[Samples, FilterSettings], Filtered]
Statistic = Callable[[Samples], "Tensor"]
Weight = Callable[[Samples], "Tensor"]
Reference = Literal["learner", "behaviour"]


@dataclass(frozen=True)
class Filter:
    """A filter and what the table prints of it.

    Attributes:
        name: as written in ``ALIGN+FILTER``.
        function: the rule.
        formula: the coefficient, as the table prints it.
        statistic: mean|·| that the trigger compares with δ, or None for per-sample rules.
        weight: w of a coefficient wA, which `ratio_cap` truncates; None where the coefficient is another.
        penalty: the policy q of a penalty KL(q‖π): the learner π_T, or the behaviour policy β; None for no penalty.
        reads: which of δ, ε and ρ̄ (`delta`, `clip`, `truncation`) the rule reads, so that a run refuses the others;
            None where it does not say, and then none is refused.
        settings: the frozen dataclass of settings that only this rule has; None for none.
    """

    name: str
    function: FilterFunction
    formula: str
    statistic: Statistic | None = None
    weight: Weight | None = None
    penalty: Reference | None = None
    reads: tuple[str, ...] | None = None
    settings: type | None = None

    @property
    def needs_learner(self) -> bool:
        """Whether the rule compares with π_T, by what its formula says."""
        return "ρ_T" in self.formula or "π_T" in self.formula


FILTERS: dict[str, Filter] = {}


def register(
    name: str,
    formula: str,
    statistic: Statistic | None = None,
    *,
    weight: Weight | None = None,
    penalty: Reference | None = None,
    reads: tuple[str, ...] | None = None,
    settings: type | None = None,
) -> Callable[[FilterFunction], FilterFunction]:
    """Enter a filter function in `FILTERS` under a name, with its formula for the table; see `Filter`.

    Raises:
        UserError: the name is in use or no lower-case identifier, or `settings` is no frozen dataclass of plain values.
    """
    require_new("filter", name, FILTERS)
    require_declaration(settings, f"the filter '{name}'")
    declared = settings

    def enter(function: FilterFunction) -> FilterFunction:
        @wraps(function)
        def detached(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
            if declared is not None and settings.own is None:
                settings = replace(settings, own=declared())
            with torch.no_grad():
                verdict = function(x, settings)
                if weight is None or settings.ratio_cap == 0.0:
                    return verdict
                truncated = weight(x).clamp(max=settings.ratio_cap) * x.advantages
                return verdict._replace(coefficient=torch.where(verdict.kept, truncated, 0.0))

        FILTERS[name] = Filter(name, detached, formula, statistic, weight, penalty, reads, declared)
        return detached

    return enter


def behaviour_weight(x: Samples) -> Tensor:
    """ρ = π/β: the weight of samples from β in an expectation under π."""
    return x.ratio


def proximal_weight(x: Samples) -> Tensor:
    """U = π/π_T: the weight that would be right if the samples came from π_T."""
    return x.ratio / x.learner_ratio


def _per_sample(kept: Tensor, coefficient: Tensor) -> Filtered:
    """The verdict of a rule that looks at each sample alone: no statistic (NaN), no trigger."""
    nothing = coefficient.new_full((), float("nan"))
    return Filtered(torch.where(kept, coefficient, 0.0), kept, nothing, nothing > 0)


def keep_all(coefficient: Tensor) -> Filtered:
    """The verdict of a rule that drops nothing.

    :meta private:
    """
    return _per_sample(torch.ones_like(coefficient, dtype=torch.bool), coefficient)


def _clip_around_learner(x: Samples, epsilon: float) -> Filtered:
    """PPO's clip of ρ with the range ρ_T ± ε in place of 1 ± ε."""
    above = (x.advantages > 0) & (x.ratio > x.learner_ratio + epsilon)
    below = (x.advantages < 0) & (x.ratio < x.learner_ratio - epsilon)
    return _per_sample(~(above | below), x.ratio * x.advantages)


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


@register("none", "c = ρA", weight=behaviour_weight, reads=())
def none(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """Importance-weighted policy gradient: every sample keeps ρA."""
    return keep_all(x.ratio * x.advantages)


@register("clip", "c = ρA · 1[not (A>0 and ρ>1+ε)] · 1[not (A<0 and ρ<1−ε)]", weight=behaviour_weight, reads=("clip",))
def clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """PPO's clip, with the behaviour policy as the old policy (Schulman et al. 2017, Eq. 7)."""
    above = (x.advantages > 0) & (x.ratio > 1.0 + settings.clip)
    below = (x.advantages < 0) & (x.ratio < 1.0 - settings.clip)
    return _per_sample(~(above | below), x.ratio * x.advantages)


@register(
    "proximal_clip",
    "c = uA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T",
    weight=proximal_weight,
    reads=("clip",),
)
def proximal_clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """PPO's clip with the learner as the old policy: the backward lag is ignored, not corrected."""
    proximal = x.ratio / x.learner_ratio
    above = (x.advantages > 0) & (proximal > 1.0 + settings.clip)
    below = (x.advantages < 0) & (proximal < 1.0 - settings.clip)
    return _per_sample(~(above | below), proximal * x.advantages)


@register(
    "decoupled_clip",
    "c = ρA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T",
    weight=behaviour_weight,
    reads=("clip",),
)
def decoupled_clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """Decoupled PPO: weight by π/β, clip on π/π_T (Hilton, Cobbe and Schulman 2021)."""
    proximal = x.ratio / x.learner_ratio
    above = (x.advantages > 0) & (proximal > 1.0 + settings.clip)
    below = (x.advantages < 0) & (proximal < 1.0 - settings.clip)
    return _per_sample(~(above | below), x.ratio * x.advantages)


@register(
    "centred_clip",
    "c = ρA · 1[not (A>0 and ρ>ρ_T+ε')] · 1[not (A<0 and ρ<ρ_T−ε')],  ε' = ε/(1+age)",
    weight=behaviour_weight,
    reads=("clip",),
)
def centred_clip(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """GePPO's clip, centred on ρ_T and shrunk by the data's mean age (Queeney et al. 2021, without its other parts)."""
    return _clip_around_learner(x, settings.clip / (1.0 + settings.mean_age))


@register(
    "centred_clip_fixed",
    "c = ρA · 1[not (A>0 and ρ>ρ_T+ε)] · 1[not (A<0 and ρ<ρ_T−ε)]",
    weight=behaviour_weight,
    reads=("clip",),
)
def centred_clip_fixed(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """The clip centred on ρ_T, not shrunk: the per-sample counterpart of `tv`, with PPO's own ε at any lag."""
    return _clip_around_learner(x, settings.clip)


def shrunk_clip(settings: FilterSettings) -> float:
    """ε' = max(ε − 2b, ε/(1+age)) with the measured backward lag b; the rule is ours, its argument GePPO's.

    GePPO asks of a phase on old data what PPO asks of one on new data, TV(π, β) ≤ ε/2. By the triangle inequality
    TV(π, β) ≤ TV(π, π_T) + TV(π_T, β), and a clip at ρ_T ± ε' is meant to hold the first term to ε'/2. GePPO bounds the
    second in advance: π_T is `age` such phases from β, so at most age·ε'/2, and (1 + age) ε'/2 = ε/2 gives
    ε' = ε/(1+age). Here it is measured, b = ½ mean|ρ_T − 1|, and ε'/2 + b = ε/2 gives ε' = ε − 2b. (Counting steps of
    ε'/2 in the measured lag, n = 2b/ε' in place of the age, gives the same: ε' = ε/(1+n) is ε' + 2b = ε. And if every
    phase used its whole radius, b = age·ε'/2 would give back GePPO's.)

    Either is enough for the budget, so the larger holds. That is also what remains where the measured lag has used the
    budget up (b ≥ ε/2), as the normaliser alone can in the first phases: ε' = 0 would leave the verdict on the first
    gradient step to rounding.
    """
    return max(settings.clip - 2.0 * settings.backward_lag, settings.clip / (1.0 + settings.mean_age))


@register(
    "centred_clip_lag",
    "c = ρA · 1[not (A>0 and ρ>ρ_T+ε')] · 1[not (A<0 and ρ<ρ_T−ε')],  ε' = max(ε − 2b, ε/(1+age)),  b = ½ mean|ρ_T−1|",
    weight=behaviour_weight,
    reads=("clip",),
)
def centred_clip_lag(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """The clip centred on ρ_T, shrunk by the backward lag that was measured rather than by the data's age."""
    return _clip_around_learner(x, shrunk_clip(settings))


@register(
    "tv",
    "c = ρA · 1[not (mean|ρ−ρ_T| > δ and A·sign(ρ−ρ_T) > 0)]",
    forward_statistic,
    weight=behaviour_weight,
    reads=("delta",),
)
def tv(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """VACO's filter on the forward lag: alignment answers the backward lag, the filter bounds the rest."""
    return _drop_outward(x, x.ratio - x.learner_ratio, settings.delta)


@register(
    "tv_total",
    "c = ρA · 1[not (mean|ρ−1| > δ and A·sign(ρ−1) > 0)]",
    total_statistic,
    weight=behaviour_weight,
    reads=("delta",),
)
def tv_total(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """The TV filter on the total lag: where the backward lag alone exceeds δ/2, π may only move back towards β."""
    return _drop_outward(x, x.ratio - 1.0, settings.delta)


@register(
    "tv_proximal",
    "c = ρA · 1[not (mean|u−1| > δ and A·sign(u−1) > 0)],  u = π/π_T",
    proximal_statistic,
    weight=behaviour_weight,
    reads=("delta",),
)
def tv_proximal(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """The TV filter on π/π_T, which is no total variation under samples from β (ALGORITHMS B.g)."""
    return _drop_outward(x, x.ratio / x.learner_ratio - 1.0, settings.delta)


@register("spo", "c = ρ (A − |A|(ρ−1)/ε)", reads=("clip",))
def spo(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """Simple policy optimisation, quadratic form: each sample is pulled to ρ = 1 ± ε (Xie et al. 2025)."""
    return keep_all(x.ratio * (x.advantages - x.advantages.abs() * (x.ratio - 1.0) / settings.clip))


@register("spo_proximal", "c = u (A − |A|(u−1)/ε),  u = π/π_T", reads=("clip",))
def spo_proximal(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """SPO with the learner as the old policy: no heavy-tailed pull towards stale policies, no correction either."""
    proximal = x.ratio / x.learner_ratio
    return keep_all(proximal * (x.advantages - x.advantages.abs() * (proximal - 1.0) / settings.clip))


@register("truncated", "c = min(ρ̄, ρ) A", reads=("truncation",))
def truncated(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """IMPALA's truncated importance weight; nothing is dropped (Espeholt et al. 2018, section 4.2)."""
    return keep_all(x.ratio.clamp(max=settings.truncation) * x.advantages)


@register("kl", "c = ρA, and −b ∇KL(π_T‖π)", weight=behaviour_weight, penalty="learner", reads=())
def kl(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """PPO with a KL penalty, fixed or adaptive by `adapt_kl_coefficient` (Schulman et al. 2017, Eq. 8)."""
    return keep_all(x.ratio * x.advantages)._replace(kl_weight=settings.kl_coefficient)


@register("kl_total", "c = ρA, and −b ∇KL(β‖π)", weight=behaviour_weight, penalty="behaviour", reads=())
def kl_total(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:
    """PPO's KL penalty from the policy that made each sample: ratio and penalty have one old policy, β, as in Eq. 8.

    The penalty contains the backward lag, so it is not zero at the start of a phase, and an adaptive b answers to
    asynchrony as well as to the step (ALGORITHMS 1.2). Without lag β is π_T, and this is `kl`.
    """
    return keep_all(x.ratio * x.advantages)._replace(kl_weight=settings.kl_coefficient)


def adapt_kl_coefficient(coefficient: float, measured_kl: float, target_kl: float) -> float:
    """The adaptive rule of PPO's KL penalty, applied after a phase for the next one.

    Args:
        coefficient: b used in this phase.
        measured_kl: mean KL of the penalty at the end of the phase, KL(π_T‖π) or KL(β‖π), nats.
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


def adapt_step_size(factor: float, forward_lag: float, clip: float) -> float:
    """GePPO's rule for the step size, applied after a phase for the next (Queeney et al. 2021, section 5, and code).

    Args:
        factor: what this phase's step size was multiplied with.
        forward_lag: ½ mean|ρ − ρ_T| after the phase, TV(π, π_T).
        clip: ε' of the phase, whose clip means to hold that below ε'/2.

    Returns:
        The factor divided by 1.03 if the lag is above ε'/2, multiplied by 1.03 if below ε'/4.
    """
    if forward_lag > 0.5 * clip:
        return factor / 1.03
    return factor * 1.03 if forward_lag < 0.25 * clip else factor
