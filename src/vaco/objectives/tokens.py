"""Filters for sequences of tokens: those of `filters`, and those that need to know more of a sample than its ratios.

A token carries two further facts: its *staleness* d, the number of policy versions between the behaviour policy that
wrote it and the current policy, and its behaviour log-probability, which for a discrete action has no units. Hence the
rules here have no counterpart for Gaussian policies: a density's |π − β| depends on the units of the action.

Two methods of regression type, TBA and OAPL, use no importance ratio at all. They fit the log-probability of a whole
response to its reward, so their coefficient belongs to the sequence.

A rule is a function from `Tokens` and `TokenSettings` to `filters.Filtered`, without gradient, like those of `filters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaco.errors import UserError, nearest
from vaco.objectives.divergence import mean_absolute_deviation
from vaco.objectives.filters import FILTERS, Filtered, FilterSettings, Samples


@dataclass(frozen=True)
class TokenSettings:
    """The numbers a token rule may need.

    Attributes:
        filter: the numbers of the rules in `filters`.
        clip_high: ε_high of CISPO's truncation at 1 + ε_high.
        divergence_limit: threshold of DPPO's binary total variation |π(a) − β(a)|.
        ratio_cap: C, largest behaviour weight of truncated importance sampling.
        dppo_cap: C, largest importance weight of DPPO; published settings are 10 to 10,000, so that it rarely acts.
        temperature: b, weight of the KL term of TBA and OAPL, in units of reward.
    """

    filter: FilterSettings = field(default_factory=FilterSettings)
    clip_high: float = 0.2
    divergence_limit: float = 0.15
    ratio_cap: float = 2.0
    dppo_cap: float = 20.0
    temperature: float = 0.1


DEFAULTS = TokenSettings()


@dataclass(frozen=True)
class Tokens:
    """What a rule sees of a minibatch; every tensor has shape [sequences, tokens].

    Attributes:
        samples: ρ, ρ_T (of the proximal policy), A, and the weights: 1 for response tokens, 0 for padding.
        staleness: d ≥ 0, policy versions from the behaviour policy to the current one: gradient steps, or generation
            rounds where the algorithm counts these.
        behaviour_logp: log β(a|s).
    """

    samples: Samples
    staleness: Tensor
    behaviour_logp: Tensor

    @property
    def weights(self) -> Tensor:
        """The mask of response tokens as numbers."""
        weights = self.samples.weights
        return torch.ones_like(self.samples.ratio) if weights is None else weights


TokenRule = Callable[[Tokens, TokenSettings], Filtered]


@dataclass(frozen=True)
class TokenFilter:
    """A rule and what the table prints of it.

    Attributes:
        name: as written on the command line.
        function: the rule.
        formula: its coefficient.
        proximal: whether it reads ρ_T, so that the proximal policy must be evaluated.
    """

    name: str
    function: TokenRule
    formula: str
    proximal: bool = False


def _lifted(name: str) -> TokenRule:
    """A filter of `filters`, applied to tokens."""

    def rule(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
        return FILTERS[name].function(x.samples, settings.filter)

    return rule


# The penalties need a closed form over all actions, which a sampled token does not give; and the learner of tokens has
# no phase before whose first step a backward lag could be measured, and knows no age, so that `centred_clip` is there
# what `centred_clip_fixed` is.
NOT_FOR_TOKENS = {name for name, entry in FILTERS.items() if entry.penalty is not None}
NOT_FOR_TOKENS |= {"centred_clip_lag", "centred_clip_fixed"}
TOKEN_FILTERS: dict[str, TokenFilter] = {
    name: TokenFilter(name, _lifted(name), entry.formula, proximal="ρ_T" in entry.formula or "π_T" in entry.formula)
    for name, entry in FILTERS.items()
    if name not in NOT_FOR_TOKENS
}


def token_filter(name: str, formula: str, proximal: bool = False) -> Callable[[TokenRule], TokenRule]:
    """Enter a rule in `TOKEN_FILTERS` under a name, with its formula for the table."""
    if name in TOKEN_FILTERS:
        raise ValueError(f"there is already a token filter '{name}'")

    def enter(function: TokenRule) -> TokenRule:
        detached: TokenRule = torch.no_grad()(function)
        TOKEN_FILTERS[name] = TokenFilter(name, detached, formula, proximal)
        return detached

    return enter


def _outside(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Where PPO's clip drops the gradient: the ratio is beyond 1 ± ε on the side that the advantage pushes to."""
    return ((advantages > 0) & (ratio > 1.0 + clip)) | ((advantages < 0) & (ratio < 1.0 - clip))


def _verdict(coefficient: Tensor, kept: Tensor) -> Filtered:
    """A rule without a batch trigger."""
    nothing = coefficient.new_full((), float("nan"))
    return Filtered(torch.where(kept, coefficient, 0.0), kept, nothing, nothing > 0)


def interpolated_ratio(ratio: Tensor, staleness: Tensor) -> Tensor:
    """A-3PO's π/π_prox = ρ^{1/d}, with log π_prox = (1/d) log β + (1 − 1/d) log π; 1 where d = 0 (π_prox = π).

    Args:
        ratio: ρ = π/β, any shape.
        staleness: d ≥ 0, same shape.

    Returns:
        u, same shape.
    """
    fresh = staleness < 1
    exponent = torch.where(fresh, 0.0, 1.0 / staleness.clamp(min=1).to(ratio.dtype))
    return ratio**exponent


@token_filter("staleness_clip", "c = ρA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = ρ^{1/d}")
def staleness_clip(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """A-3PO with the behaviour weight (arXiv 2512.06547): decoupled PPO without evaluating the proximal policy.

    As (π_prox/β)·u = ρ, it is PPO against β with the clip range [(1−ε)^d, (1+ε)^d] (ALGORITHMS 6.3).
    """
    samples = x.samples
    u = interpolated_ratio(samples.ratio, x.staleness)
    kept = ~_outside(u, samples.advantages, settings.filter.clip)
    return _verdict(samples.ratio * samples.advantages, kept)


@token_filter("staleness_clip_unweighted", "c = uA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = ρ^{1/d}")
def staleness_clip_unweighted(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """A-3PO without the behaviour weight, as its code runs by default: the same samples, a smaller weight."""
    samples = x.samples
    u = interpolated_ratio(samples.ratio, x.staleness)
    kept = ~_outside(u, samples.advantages, settings.filter.clip)
    return _verdict(u * samples.advantages, kept)


@token_filter("tv_sequence", "as tv, with mean|ρ−ρ_T| and its trigger for each sequence", proximal=True)
def tv_sequence(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """VACO's rule with one trigger a sequence: only responses that have moved too far lose their outward tokens."""
    samples, weights = x.samples, x.weights
    deviation = samples.ratio - samples.learner_ratio
    length = weights.sum(-1, keepdim=True).clamp(min=1.0)
    own = (deviation.abs() * weights).sum(-1, keepdim=True) / length
    outward = samples.advantages * torch.sign(deviation) > 0
    kept = ~((own > settings.filter.delta) & outward)
    statistic = mean_absolute_deviation(samples.ratio, samples.learner_ratio, weights)
    fired = ((own > settings.filter.delta) & (weights.sum(-1, keepdim=True) > 0)).any()
    return Filtered(torch.where(kept, samples.ratio * samples.advantages, 0.0), kept, statistic, fired)


@token_filter("divergence_mask", "c = min(ρ, C) A · 1[not (|π−β| > δ_B and A·sign(ρ−1) > 0)]")
def divergence_mask(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """DPPO with the binary total variation of each token (arXiv 2602.04879): PPO with ε = δ_B/β(a|s)."""
    samples = x.samples
    distance = x.behaviour_logp.exp() * (samples.ratio - 1.0).abs()
    outward = samples.advantages * torch.sign(samples.ratio - 1.0) > 0
    kept = ~((distance > settings.divergence_limit) & outward)
    return _verdict(samples.ratio.clamp(max=settings.dppo_cap) * samples.advantages, kept)


@token_filter("truncated_high", "c = min(ρ, 1+ε_high) A")
def truncated_high(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """CISPO (arXiv 2506.13585): the weight is truncated from above, and no token loses its gradient."""
    samples = x.samples
    coefficient = samples.ratio.clamp(max=1.0 + settings.clip_high) * samples.advantages
    return _verdict(coefficient, torch.ones_like(coefficient, dtype=torch.bool))


@token_filter(
    "truncated_clip", "c = min(ρ_T, C) u A · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T", proximal=True
)
def truncated_clip(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """Truncated importance sampling: decoupled PPO whose behaviour weight π_T/β is truncated at C."""
    samples = x.samples
    u = samples.ratio / samples.learner_ratio
    kept = ~_outside(u, samples.advantages, settings.filter.clip)
    return _verdict(samples.learner_ratio.clamp(max=settings.ratio_cap) * u * samples.advantages, kept)


def tba_coefficient(rewards: Tensor, reference_log_ratio: Tensor, temperature: float) -> Tensor:
    """Trajectory balance with the group's mean as log-partition (TBA, arXiv 2503.18929; VarGrad).

    The loss mean(log Ẑ + log π/π_ref − R/b)² has, up to the factor 2/b, the ascent coefficient
    c = (R − b log π/π_ref) − its group mean, on ∇log π of the whole response.

    Args:
        rewards: R, [groups, members].
        reference_log_ratio: log π(y|x)/π_ref(y|x) of whole responses, [groups, members]; constant.
        temperature: b.

    Returns:
        c, [groups, members].
    """
    value = rewards - temperature * reference_log_ratio
    return value - value.mean(-1, keepdim=True)


def oapl_coefficient(rewards: Tensor, behaviour_log_ratio: Tensor, temperature: float) -> Tensor:
    """Off-policy advantage regression towards the lagged policy (OAPL, arXiv 2602.19362).

    The loss mean(b log π/π_lag − (R − V̂))² with V̂ = b log mean exp(R/b) over the group has, up to the factor 2b, the
    ascent coefficient c = R − V̂ − b log π/π_lag, on ∇log π of the whole response.

    Args:
        rewards: R, [groups, members].
        behaviour_log_ratio: log π(y|x)/π_lag(y|x) of whole responses, [groups, members]; constant.
        temperature: b.

    Returns:
        c, [groups, members].
    """
    value = temperature * (torch.logsumexp(rewards / temperature, -1, keepdim=True) - math.log(rewards.shape[-1]))
    return rewards - value - temperature * behaviour_log_ratio


@dataclass(frozen=True)
class TokenAlgorithm:
    """A row of the table: a name, and either a filter of tokens or a regression of whole responses.

    Attributes:
        name: alias.
        filter: the rule, None for a regression.
        regression: `tba` or `oapl`, None for a filter.
        recompute: whether π_prox is evaluated anew every few updates (decoupled PPO).
        by_rounds: whether staleness counts generation rounds, the current one included, instead of gradient steps.
    """

    name: str
    filter: TokenFilter | None
    regression: str | None = None
    recompute: bool = False
    by_rounds: bool = False

    @property
    def row(self) -> str:
        """What the algorithm is under every alias: its filter, or its regression, and the unit of staleness."""
        row = self.filter.name if self.filter else self.regression or ""
        return f"{row}-rounds" if self.by_rounds else row

    @property
    def canonical(self) -> str:
        """The name that no alias added later changes."""
        return "a3po_rounds" if self.by_rounds else self.row

    @property
    def functions(self) -> list[Callable[..., object]]:
        """The functions that it is made of, those of `filters` included."""
        if self.filter is None:
            return []
        lifted = FILTERS.get(self.filter.name)
        found = [self.filter.function, *((lifted.function, lifted.statistic) if lifted else ())]
        return [function for function in found if function is not None]

    @property
    def formula(self) -> str:
        """The coefficient, as the table prints it."""
        formula = self.filter.formula if self.filter else REGRESSIONS[self.regression or ""]
        return f"{formula},  d in rounds" if self.by_rounds else formula


REGRESSIONS = {
    "tba": "c = R − b log π/π_ref − its group mean  (whole responses)",
    "oapl": "c = R − V̂ − b log π/β,  V̂ = b log mean exp(R/b)  (whole responses)",
}
TOKEN_ALIASES = {
    "ppo": "clip",
    "vaco": "tv",
    "vaco_sequence": "tv_sequence",
    "spo": "spo",
    "decoupled": "decoupled_clip",
    "a3po": "staleness_clip",
    "a3po_rounds": "staleness_clip",
    "a3po_unweighted": "staleness_clip_unweighted",
    "dppo": "divergence_mask",
    "cispo": "truncated_high",
    "tis": "truncated_clip",
}


def parse_token_algorithm(name: str) -> TokenAlgorithm:
    """Find the row that a name stands for: an alias, a regression, or the name of a filter itself.

    Raises:
        UserError: no such row; the message names the nearest.
    """
    if name in REGRESSIONS:
        return TokenAlgorithm(name, None, regression=name)
    rule = TOKEN_ALIASES.get(name, name)
    if rule not in TOKEN_FILTERS:
        known = [*TOKEN_ALIASES, *REGRESSIONS, *TOKEN_FILTERS]
        raise UserError(f"there is no algorithm '{name}' for language models: {nearest(name, known)}")
    return TokenAlgorithm(
        name, TOKEN_FILTERS[rule], recompute=rule == "decoupled_clip", by_rounds=name == "a3po_rounds"
    )


def describe_tokens() -> str:
    """The table as text."""
    width = max(map(len, (*TOKEN_ALIASES, *REGRESSIONS)))
    lines = [
        "Every method ascends mean cᵢ ∇log π(aᵢ|sᵢ) over response tokens;  ρ = π/β,  ρ_T = π_T/β,  d = staleness",
        "in gradient steps, unless another unit is given.",
        "",
    ]
    for alias in (*TOKEN_ALIASES, *REGRESSIONS):
        lines.append(f"{alias.ljust(width)}   {parse_token_algorithm(alias).formula}")
    others = [name for name in TOKEN_FILTERS if name not in TOKEN_ALIASES.values()]
    lines += ["", "Further filters, by their own names:"]
    lines += [f"  {name.ljust(width)} {TOKEN_FILTERS[name].formula}" for name in others]
    return "\n".join(lines) + "\n"
