"""Every rule that a loss can take, under one name each: the filters of `filters` and of `tokens`, and their aliases.

A rule is asked for by name, its numbers by a flat mapping. What it needs to be told (π_T, staleness, whole responses)
stands beside it, so that a caller who leaves something out is told so instead of being given another rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from vaco.errors import UserError, nearest
from vaco.objectives import plugins
from vaco.objectives.filters import FILTERS, FilterSettings
from vaco.objectives.filters import Statistic as MeanOf
from vaco.objectives.own import own_settings
from vaco.objectives.table import ALIASES
from vaco.objectives.tokens import (
    DEFAULTS,
    REGRESSIONS,
    TOKEN_ALIASES,
    TOKEN_FILTERS,
    TokenFilter,
    TokenRule,
    TokenSettings,
    lifted,
)

Settings = TokenSettings | FilterSettings | Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """A row that a loss can take.

    Attributes:
        name: the filter's own name, whatever alias it was asked for by.
        function: the rule.
        formula: its coefficient c, of the ascent mean cᵢ ∇log π(aᵢ|sᵢ).
        needs_learner: whether it reads π_T.
        needs_staleness: whether it reads the policy's age.
        whole_sequences: whether it looks along the last axis, so that it needs tokens [B, T].
        trigger: mean|·| over the batch that it compares with δ; None for a rule that looks at each sample, or each
            sequence, alone.
        settings: the frozen dataclass of settings that only this rule has; None for none.
    """

    name: str
    function: TokenRule
    formula: str
    needs_learner: bool
    needs_staleness: bool
    whole_sequences: bool
    trigger: MeanOf | None
    settings: type | None = None


def _rule(name: str) -> Rule:
    if name in TOKEN_FILTERS:
        token = TOKEN_FILTERS[name]
    else:  # what the learner of tokens has no use for serves a loss of samples all the same
        entry = FILTERS[name]
        token = TokenFilter(name, lifted(name), entry.formula, entry.needs_learner, settings=entry.settings)
    trigger = FILTERS[name].statistic if name in FILTERS else None
    needs = token.proximal, token.staleness, token.whole_sequences
    return Rule(name, token.function, token.formula, *needs, trigger, token.settings)


PENALISED = tuple(name for name, entry in FILTERS.items() if entry.penalty is not None)


def names() -> dict[str, str]:
    """Every name that a loss knows, aliases first, each with the filter that it stands for."""
    aliases = {alias: rule for alias, (_, rule) in ALIASES.items()} | TOKEN_ALIASES
    own = {name: name for name in (*FILTERS, *TOKEN_FILTERS) if name not in FILTERS or FILTERS[name].penalty is None}
    return {alias: rule for alias, rule in (aliases | own).items() if rule not in PENALISED}


def rules() -> dict[str, Rule]:
    """The rules that `vaco.policy_loss` takes, by name, those of other packages included.

    Aliases such as ``vaco`` and ``ppo`` come first.
    """
    plugins.load_all()
    return {alias: _rule(name) for alias, name in names().items()}


def find_rule(name: str) -> Rule:
    """The rule of a name.

    Raises:
        UserError: there is none; the message names the nearest, or says why a loss of samples cannot have it.
    """
    if not isinstance(name, str):
        raise UserError(f"the rule is {name!r}, but it must be a name such as 'vaco' (vaco.rules() lists them)")
    known = names()
    if name in known:
        return _rule(known[name])
    if name in PENALISED or ALIASES.get(name, ("", ""))[1] in PENALISED:
        raise UserError(
            f"the rule '{name}' adds a KL penalty that only your policy can compute: take rule 'none' and add b times "
            "your own KL to the loss"
        )
    if name in REGRESSIONS:
        raise UserError(
            f"'{name}' regresses the log-probability of whole responses on their rewards and has no ratio to filter: "
            f"take vaco.objectives.regressions.{name}_coefficient"
        )
    plugins.seek(name)
    if name in names():
        return _rule(name)
    known |= {point: point for point in plugins.entry_points(plugins.FILTER_GROUP)}
    raise UserError(f"there is no rule '{name}': {nearest(name, known)} (vaco.rules() lists them)")


POSITIVE = {
    *("delta", "clip", "truncation", "clip_high", "clip_low", "divergence_limit", "dppo_cap", "temperature"),
}
FILTER_NAMES = [field.name for field in fields(FilterSettings) if field.name != "own"]
TOKEN_NAMES = [field.name for field in fields(TokenSettings) if field.name != "filter"]


OWN = "filter."
"""Before the name of a setting that only one rule has, as on the command line."""


def as_settings(settings: Settings | None, rule: Rule | None = None) -> TokenSettings:
    """One `TokenSettings` of whatever was given.

    Args:
        settings: one of the two dataclasses, or a flat mapping of their fields, such as ``{"delta": 0.1}``, and of the
            rule's own settings, such as ``{"filter.tau": 0.1}``. In a mapping ``ratio_cap`` is the cap of whichever
            weight the rule has.
        rule: whose own settings there may be; None for none.

    Raises:
        UserError: a name is unknown or a number is out of its range.
    """
    if settings is None:
        return DEFAULTS
    if isinstance(settings, FilterSettings):
        found = TokenSettings(filter=settings)
    elif isinstance(settings, TokenSettings):
        found = settings
    elif not isinstance(settings, Mapping):
        raise UserError(f"settings is {settings!r}, but it must be a mapping such as {{'delta': 0.1}}")
    else:
        own = {name: value for name, value in settings.items() if name.startswith(OWN)}
        for name in settings:
            if name not in FILTER_NAMES and name not in TOKEN_NAMES and name not in own:
                raise UserError(f"there is no setting '{name}': {nearest(name, {*FILTER_NAMES, *TOKEN_NAMES})}")
        filters = FilterSettings(**{name: value for name, value in settings.items() if name in FILTER_NAMES})
        if own:
            declared, what = (None, "this call") if rule is None else (rule.settings, f"the rule '{rule.name}'")
            given = {name[len(OWN) :]: value for name, value in own.items()}
            filters = replace(filters, own=own_settings(declared, given, what))
        others = {name: value for name, value in settings.items() if name in TOKEN_NAMES}
        # Every field given: torch.compile cannot trace a default factory.
        found = TokenSettings(filter=filters, **others)
    for holder, listed in ((found.filter, FILTER_NAMES), (found, TOKEN_NAMES)):
        for name in listed:
            _check(name, getattr(holder, name))
    return found


def _check(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        return  # of the caller's making, such as one under compilation
    # One type at a time: PyTorch 2.4 cannot compile a test for a union.
    number = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool))
    if not number or not math.isfinite(value):
        raise UserError(f"the setting {name} is {value!r}, but it must be a finite number")
    if value < 0 or (value == 0 and name in POSITIVE):
        least = "above 0" if name in POSITIVE else "at least 0"
        raise UserError(f"the setting {name} is {value}, but it must be {least}")
    if name == "progress" and value >= 1:
        raise UserError(f"the setting progress is {value}, but it must be below 1: the share of training done before")
