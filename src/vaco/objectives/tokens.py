"""Filters for sequences of tokens: those of `filters`, and those that need to know more of a sample than its ratios.

A token carries two further facts: its *staleness* d, the number of policy versions between the behaviour policy that
wrote it and the current policy, and its behaviour log-probability, which for a discrete action has no units. Hence the
rules here have no counterpart for Gaussian policies: a density's |π − β| depends on the units of the action. Methods
without an importance ratio, TBA and OAPL, are in `regressions`. A rule is a function from `Tokens` and `TokenSettings`
to `filters.Filtered`, without gradient, like those of `filters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING

from vaco.errors import UserError, nearest
from vaco.objectives.divergence import mean_absolute_deviation, sequence_mean
from vaco.objectives.filters import FILTERS, Filtered, FilterSettings, Samples
from vaco.objectives.own import Noting, require_declaration, require_new
from vaco.objectives.pytorch import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenSettings:
    """The numbers a token rule may need.

    Attributes:
        filter: the numbers of the rules in `filters`.
        clip_high: ε_high of CISPO's truncation at 1 + ε_high, and of clips with two sides.
        clip_low: ε_low of clips with two sides.
        divergence_limit: threshold of DPPO's binary total variation |π(a) − β(a)|.
        ratio_cap: C, largest behaviour weight of truncated importance sampling; 0 for none.
        dppo_cap: C, largest importance weight of DPPO; published settings are 10 to 10,000, so that it rarely acts.
        temperature: b, weight of the KL term of TBA and OAPL, in units of reward.
    """

    filter: FilterSettings = field(default_factory=FilterSettings)
    clip_high: float = 0.2
    clip_low: float = 0.2
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
        staleness: d ≥ 0, policy versions from the behaviour policy to the current one, in the algorithm's own unit.
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
        staleness: whether it reads d.
        whole_sequences: whether it looks along the tokens of a sequence.
        alone: whether its verdict on a response depends on no other response, so that a minibatch may be cut.
        reads: the settings that change what it does, those of `filter` as ``filter.clip``; None has it tried.
        settings: the frozen dataclass of settings that only this rule has, in ``settings.filter.own``; None for none.
    """

    name: str
    function: TokenRule
    formula: str
    proximal: bool = False
    staleness: bool = False
    whole_sequences: bool = False
    alone: bool = False
    reads: tuple[str, ...] | None = None
    settings: type | None = None


def lifted(name: str) -> TokenRule:
    """A filter of `filters`, applied to tokens."""

    def rule(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
        return FILTERS[name].function(x.samples, settings.filter)

    return rule


# The penalties need a closed form over all actions, which a sampled token does not give; and the learner of tokens has
# no phase before whose first step a backward lag could be measured, and knows no age, so that `centred_clip` is there
# what `centred_clip_fixed` is.
NOT_FOR_TOKENS = {name for name, entry in FILTERS.items() if entry.penalty is not None}
NOT_FOR_TOKENS |= {"centred_clip_lag", "centred_clip_fixed"}


def _lift(name: str) -> TokenFilter:
    """A filter of `filters` as one of tokens."""
    entry = FILTERS[name]
    # Of a filter from elsewhere only its author knows whether it looks at each response alone.
    alone = entry.statistic is None and entry.function.__module__.startswith("vaco.")
    return TokenFilter(
        name,
        lifted(name),
        entry.formula,
        proximal=entry.needs_learner,
        alone=alone,
        reads=None if entry.reads is None else tuple(f"filter.{number}" for number in entry.reads),
        settings=entry.settings,
    )


TOKEN_FILTERS: dict[str, TokenFilter] = {name: _lift(name) for name in FILTERS if name not in NOT_FOR_TOKENS}


def every_token_filter() -> dict[str, TokenFilter]:
    """Those of `TOKEN_FILTERS`, and of the filters registered since those that tokens can have."""
    later = [name for name, entry in FILTERS.items() if name not in NOT_FOR_TOKENS and entry.penalty is None]
    return TOKEN_FILTERS | {name: _lift(name) for name in later if name not in TOKEN_FILTERS}


def token_filter(
    name: str,
    formula: str,
    *,
    proximal: bool = False,
    staleness: bool = False,
    whole_sequences: bool = False,
    alone: bool = False,
    reads: tuple[str, ...] | None = None,
    settings: type | None = None,
) -> Callable[[TokenRule], TokenRule]:
    """Enter a rule in `TOKEN_FILTERS` under a name, with its formula for the table; see `TokenFilter`.

    Raises:
        UserError: as `filters.register`.
    """
    require_new("filter", name, {*TOKEN_FILTERS, *FILTERS})
    require_declaration(declared := settings, f"the filter '{name}'")

    def enter(function: TokenRule) -> TokenRule:
        @wraps(function)
        def detached(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
            if declared is not None and settings.filter.own is None:
                settings = replace(settings, filter=replace(settings.filter, own=declared()))
            with torch.no_grad():
                return function(x, settings)

        TOKEN_FILTERS[name] = TokenFilter(
            name, detached, formula, proximal, staleness, whole_sequences, alone, reads, declared
        )
        return detached

    return enter


def outside_range(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Where a clip drops the gradient: the ratio is beyond a bound on the side that the advantage pushes to."""
    return ((advantages > 0) & (ratio > high)) | ((advantages < 0) & (ratio < low))


def _outside(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Where PPO's clip drops the gradient."""
    return outside_range(ratio, advantages, 1.0 - clip, 1.0 + clip)


def keep(coefficient: Tensor, kept: Tensor) -> Filtered:
    """The verdict of a rule without a batch trigger.

    :meta private:
    """
    return Filtered(torch.where(kept, coefficient, 0.0), kept, no := coefficient.new_full((), float("nan")), no > 0)


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


@token_filter(
    "staleness_clip",
    "c = ρA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = ρ^{1/d}",
    staleness=True,
    alone=True,
    reads=("filter.clip",),
)
def staleness_clip(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """A-3PO with the behaviour weight (arXiv 2512.06547): decoupled PPO without evaluating the proximal policy.

    As (π_prox/β)·u = ρ, it is PPO against β with the clip range [(1−ε)^d, (1+ε)^d] (ALGORITHMS 6.3).
    """
    samples = x.samples
    u = interpolated_ratio(samples.ratio, x.staleness)
    kept = ~_outside(u, samples.advantages, settings.filter.clip)
    return keep(samples.ratio * samples.advantages, kept)


@token_filter(
    "staleness_clip_unweighted",
    "c = uA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = ρ^{1/d}",
    staleness=True,
    alone=True,
    reads=("filter.clip",),
)
def staleness_clip_unweighted(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """A-3PO without the behaviour weight, as its code runs by default: the same samples, a smaller weight."""
    samples = x.samples
    u = interpolated_ratio(samples.ratio, x.staleness)
    kept = ~_outside(u, samples.advantages, settings.filter.clip)
    return keep(u * samples.advantages, kept)


@token_filter(
    "tv_sequence",
    "as tv, with mean|ρ−ρ_T| and its trigger for each sequence",
    proximal=True,
    whole_sequences=True,
    alone=True,
    reads=("filter.delta",),
)
def tv_sequence(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """VACO's rule with one trigger a sequence: only responses that have moved too far lose their outward tokens."""
    samples, weights = x.samples, x.weights
    deviation = samples.ratio - samples.learner_ratio
    own = sequence_mean(deviation.abs(), weights)
    outward = samples.advantages * torch.sign(deviation) > 0
    kept = ~((own > settings.filter.delta) & outward)
    statistic = mean_absolute_deviation(samples.ratio, samples.learner_ratio, weights)
    fired = ((own > settings.filter.delta) & (weights.sum(-1, keepdim=True) > 0)).any()
    return Filtered(torch.where(kept, samples.ratio * samples.advantages, 0.0), kept, statistic, fired)


@token_filter(
    "divergence_mask",
    "c = min(ρ, C) A · 1[not (|π−β| > δ_B and A·sign(ρ−1) > 0)]",
    alone=True,
    reads=("divergence_limit", "dppo_cap"),
)
def divergence_mask(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """DPPO with the binary total variation of each token (arXiv 2602.04879): PPO with ε = δ_B/β(a|s)."""
    samples = x.samples
    distance = x.behaviour_logp.exp() * (samples.ratio - 1.0).abs()
    outward = samples.advantages * torch.sign(samples.ratio - 1.0) > 0
    kept = ~((distance > settings.divergence_limit) & outward)
    return keep(samples.ratio.clamp(max=settings.dppo_cap) * samples.advantages, kept)


@token_filter("truncated_high", "c = min(ρ, 1+ε_high) A", alone=True, reads=("clip_high",))
def truncated_high(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """CISPO (arXiv 2506.13585): the weight is truncated from above, and no token loses its gradient.

    The cap is 1 + ε_high, as in the paper's formula and in verl. TRL's ``epsilon_high`` is the cap itself under its
    CISPO loss: a cap of 5 there is ``clip_high = 4`` here.
    """
    samples = x.samples
    coefficient = samples.ratio.clamp(max=1.0 + settings.clip_high) * samples.advantages
    return keep(coefficient, torch.ones_like(coefficient, dtype=torch.bool))


@token_filter(
    "truncated_clip",
    "c = min(ρ_T, C) u A · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T",
    proximal=True,
    alone=True,
    reads=("filter.clip", "ratio_cap"),
)
def truncated_clip(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """Truncated importance sampling: decoupled PPO whose behaviour weight π_T/β is truncated at C."""
    samples = x.samples
    u = samples.ratio / samples.learner_ratio
    kept = ~_outside(u, samples.advantages, settings.filter.clip)
    return keep(samples.learner_ratio.clamp(max=settings.ratio_cap or math.inf) * u * samples.advantages, kept)


@dataclass(frozen=True)
class TokenAlgorithm:
    """A row of the table: a name, and either a filter of tokens or a regression of whole responses.

    Attributes:
        name: alias.
        filter: the rule, None for a regression.
        regression: `tba` or `oapl`, None for a filter.
        recompute: whether π_prox is evaluated anew every few updates (decoupled PPO).
        unit: what staleness counts, a key of `UNITS`.
    """

    name: str
    filter: TokenFilter | None
    regression: str | None = None
    recompute: bool = False
    unit: str = "steps"

    @property
    def row(self) -> str:
        """What the algorithm is under every alias: its filter, or its regression, and the unit of staleness."""
        row = self.filter.name if self.filter else self.regression or ""
        return row if self.unit == "steps" else f"{row}-{self.unit}"

    @property
    def canonical(self) -> str:
        """The name that no alias added later changes."""
        return next((name for name, unit in OTHER_UNITS.items() if unit == self.unit), self.row)

    @property
    def functions(self) -> list[Callable[..., object]]:
        """The functions that it is made of, those of `filters` included."""
        if self.filter is None:
            return []
        lifted = FILTERS.get(self.filter.name)
        found = [self.filter.function, *((lifted.function, lifted.statistic) if lifted else ())]
        return [function for function in (*found, self.filter.settings) if function is not None]

    @property
    def reads(self) -> frozenset[str]:
        """The numbers of `TokenSettings` that change what it does; those of its `filter` as ``filter.clip``."""
        if self.filter is None:
            return frozenset({"temperature"})
        if self.filter.reads is not None:
            return frozenset(self.filter.reads)
        noted: set[str] = set()
        one = torch.ones(1, 2)
        seen = Tokens(Samples(one, one, one, one), torch.ones(1, 2, dtype=torch.int64), -one)
        declared = self.filter.settings
        settings = DEFAULTS if declared is None else replace(DEFAULTS, filter=FilterSettings(own=declared()))
        self.filter.function(seen, Noting(settings, noted))  # type: ignore[arg-type]
        return frozenset(noted - {"filter"})

    @property
    def formula(self) -> str:
        """The coefficient, as the table prints it."""
        formula = self.filter.formula if self.filter else REGRESSIONS[self.regression or ""]
        return formula if self.unit == "steps" else f"{formula},  {UNITS[self.unit][0]}"


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
    "a3po_train_steps": "staleness_clip",
    "a3po_unweighted": "staleness_clip_unweighted",
    "dppo": "divergence_mask",
    "cispo": "truncated_high",
    "tis": "truncated_clip",
}


UNITS = {
    "steps": (
        "d = gradient steps since β",
        "a3po: d = v(π) − v(β), as the paper defines it, a version a gradient step",
    ),
    "rounds": (
        "d = 1 + rounds since β's",
        "a3po_rounds: the round under way counts as one; neither paper nor its code",
    ),
    "train-steps": (
        "d = max(train steps since β, 1)",
        "a3po_train_steps: a train step is a round here; as AReaL's code has it, where v counts train steps",
    ),
}
"""The units in which A-3PO's staleness is counted: what d is, and which row has it and whose it is."""
OTHER_UNITS = {"a3po_rounds": "rounds", "a3po_train_steps": "train-steps"}


def parse_token_algorithm(name: str) -> TokenAlgorithm:
    """Find the row that a name stands for: an alias, a regression, or the name of a filter itself.

    Raises:
        UserError: no such row; the message names the nearest.
    """
    if name in REGRESSIONS:
        return TokenAlgorithm(name, None, regression=name)
    rule = TOKEN_ALIASES.get(name, name)
    if rule not in TOKEN_FILTERS:
        from vaco.objectives import plugins  # which imports this module

        plugins.seek(rule)
        known = every_token_filter()
        if rule not in known:
            names = [*TOKEN_ALIASES, *REGRESSIONS, *known, *plugins.entry_points(plugins.FILTER_GROUP)]
            raise UserError(f"there is no algorithm '{name}' for language models: {nearest(name, names)}")
        return TokenAlgorithm(name, known[rule])
    unit = OTHER_UNITS.get(name, "steps")
    return TokenAlgorithm(name, TOKEN_FILTERS[rule], recompute=rule == "decoupled_clip", unit=unit)


def describe_tokens() -> str:
    """The table as text, filters of other packages included."""
    from vaco.objectives import plugins  # which imports this module

    plugins.load_all()
    every = every_token_filter()
    width = max(map(len, (*TOKEN_ALIASES, *REGRESSIONS)))
    lines = [
        "Every method ascends mean cᵢ ∇log π(aᵢ|sᵢ) over response tokens;  ρ = π/β,  ρ_T = π_T/β,  d = staleness",
        "in gradient steps, unless another unit is given.",
        "",
    ]
    for alias in (*TOKEN_ALIASES, *REGRESSIONS):
        lines.append(f"{alias.ljust(width)}   {parse_token_algorithm(alias).formula}")
    lines += ["", "A-3PO's staleness d in three units:", *(f"  {meaning}" for _, meaning in UNITS.values())]
    others = [name for name in every if name not in TOKEN_ALIASES.values()]
    lines += ["", "Further filters, by their own names:"]
    lines += [f"  {name.ljust(width)} {every[name].formula}" for name in others]
    return "\n".join(lines) + "\n"
