"""The policy loss and the alignment for other people's trainers.

`policy_loss` takes log-probabilities and gives a loss whose gradient is −(Σ wᵢ cᵢ ∇log π(aᵢ|sᵢ)) / denominator, with c
from any rule of `vaco.rules`, and the sums that say what the rule did. It works on samples [N], trajectories [T, B]
and tokens [B, T], under ``torch.compile(fullgraph=True)``, ``torch.vmap`` and half precision: everything is computed in
float32 at least, ratios are held within e^±20, and a sample of which some number is not finite (inference engines emit
NaN) is left out of loss, statistic and denominator, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vaco.diagnostics import Diagnostics, Statistic, Verdict, mean_of, measure
from vaco.errors import UserError
from vaco.objectives.align import Aligned
from vaco.objectives.filters import Samples
from vaco.objectives.own import own_settings
from vaco.objectives.rules import Rule, Settings, as_settings, find_rule
from vaco.objectives.table import find_alignment
from vaco.objectives.tokens import Tokens

LOG_RATIO_LIMIT = 20.0
"""E^20 is beyond any useful ratio, and keeps float32 gradients finite."""
Denominator = Literal["samples", "sequences"] | float | Tensor


class _Batch(NamedTuple):
    """A batch made safe: float32 at least, nothing in it that is not finite."""

    logp: Tensor  # with gradients
    tokens: Tokens
    weights: Tensor
    nonfinite: Tensor  # 0-d


def policy_loss(
    logp: Tensor,
    *,
    behaviour_logp: Tensor,
    learner_logp: Tensor | None = None,
    advantages: Tensor,
    mask: Tensor | None = None,
    rule: str = "vaco",
    settings: Settings | None = None,
    staleness: Tensor | None = None,
    denominator: Denominator = "samples",
    statistic: Statistic | None = None,
) -> tuple[Tensor, Diagnostics]:
    """The loss of a rule, and what the rule did.

    All tensors have one shape: samples [N], trajectories [T, B] or tokens [B, T]. The denominator counts samples that
    the rule drops: dropping must not inflate what remains.

    Args:
        logp: log π(a|s) of the current policy, with gradients.
        behaviour_logp: log β(a|s) of the policy that drew the sample.
        learner_logp: log π_T(a|s) of the policy at the phase's start, for rules that read it.
        advantages: A, without gradients.
        mask: weights, 0 or False where there is no sample (padding, reset steps); None if all count.
        rule: a name of `vaco.rules`.
        settings: its numbers, such as ``{"delta": 0.1}``, those of a rule of your own as ``{"filter.tau": 0.1}``; None
            for the defaults. One mapping serves several rules: what a rule does not read changes nothing. Facts of the
            phase are settings, too, 0 unless given: ``mean_age`` (of GePPO's clip), ``backward_lag``, ``progress``.
        staleness: d, the policy's age in versions, for rules that read it.
        denominator: ``samples`` for Σ w of this batch; ``sequences`` for the mean over sequences of each one's mean; or
            a number, such as Σ w of the whole batch of which this is a micro-batch, or Dr. GRPO's constant.
        statistic: the trigger's statistic of a larger batch, from `trigger_statistic`; None for this batch's own.

    Returns:
        The loss, 0-d, float32 or float64: its value is −Σ wc / denominator, and its gradient as said above; and the
        diagnostics, additive over batches.

    Raises:
        UserError: an argument is of the wrong shape, type or range, missing, or left over.
    """
    entry = find_rule(rule)
    numbers = as_settings(settings, entry)
    batch = _prepare(logp, behaviour_logp, learner_logp, advantages, mask, staleness, entry, rule)
    tokens, weights = batch.tokens, batch.weights
    if statistic is not None and entry.trigger is None:
        raise UserError(f"the rule '{rule}' has no batch trigger, so that a statistic decides nothing: leave it out")
    share = _share(weights, denominator, mask)
    with torch.no_grad():
        own = _own_statistic(entry, tokens.samples, weights)
        used = own if statistic is None else statistic
        if entry.trigger is not None:
            # Neither the property nor `_replace`, which PyTorch 2.4 cannot compile.
            compared = mean_of(used.total, used.samples).to(weights.device, weights.dtype)
            x = tokens.samples
            x = Samples(x.ratio, x.learner_ratio, x.advantages, weights, compared)
            tokens = Tokens(x, tokens.staleness, tokens.behaviour_logp)
        filtered = entry.function(tokens, numbers)
        coefficient, kept = filtered.coefficient.expand_as(weights), filtered.kept.expand_as(weights)
        diagnostics = measure(
            tokens.samples,
            has_learner=learner_logp is not None,
            staleness=None if staleness is None else tokens.staleness,
            verdict=Verdict(coefficient, kept, own.total, filtered.triggered),
            nonfinite=batch.nonfinite,
        )
        factor = share * coefficient
    # The bracket is 1 and carries ∇log π, so that value and gradient are both those of the surrogate.
    return -(factor * (1.0 + batch.logp - batch.logp.detach())).sum(), diagnostics


def trigger_statistic(
    logp: Tensor,
    *,
    behaviour_logp: Tensor,
    learner_logp: Tensor | None = None,
    advantages: Tensor | None = None,
    mask: Tensor | None = None,
    staleness: Tensor | None = None,
    rule: str = "vaco",
) -> Statistic:
    """The statistic that a rule's trigger compares with δ, as sums: add those of micro-batches, `all_reduce` processes.

    Args:
        logp: log π(a|s), any of the shapes of `policy_loss`; no gradient is kept.
        behaviour_logp: log β(a|s).
        learner_logp: log π_T(a|s), for rules that read it.
        advantages: A, of which only is read whether it is finite, since a sample without one counts nowhere.
        mask: as in `policy_loss`.
        staleness: not read; with it, a batch for `policy_loss` can be given as it is.
        rule: a rule with a batch trigger.

    Returns:
        Σ w|deviation| and Σ w.

    Raises:
        UserError: as `policy_loss`; or the rule has no batch trigger.
    """
    entry = find_rule(rule)
    if entry.trigger is None:
        raise UserError(f"the rule '{rule}' has no batch trigger and so no statistic: take one such as 'vaco'")
    with torch.no_grad():
        # An advantage that is not finite takes its sample out of the loss, so out of the statistic, too.
        given = torch.zeros_like(logp) if advantages is None else advantages
        batch = _prepare(logp, behaviour_logp, learner_logp, given, mask, staleness, entry, rule)
        return _own_statistic(entry, batch.tokens.samples, batch.weights)


@torch.no_grad()
def diagnose(
    logp: Tensor,
    *,
    behaviour_logp: Tensor,
    learner_logp: Tensor | None = None,
    evaluated_logp: Tensor | None = None,
    mask: Tensor | None = None,
    staleness: Tensor | None = None,
) -> Diagnostics:
    """Everything that a batch says of the lag, in one call, whatever loss it is trained with.

    Args:
        logp: log π(a|s), any of the shapes of `policy_loss`.
        behaviour_logp: log β(a|s) as whoever drew the sample had it, such as an inference engine.
        learner_logp: log π_T(a|s), for forward and backward lag.
        evaluated_logp: log β(a|s) by the trainer's own forward pass with β's weights, for the engine's mismatch.
        mask: as in `policy_loss`.
        staleness: the policy's age in versions, for its histogram.

    Returns:
        Sums that add up over batches, micro-batches and processes; `Diagnostics.figures` names them.

    Raises:
        UserError: as `policy_loss`.
    """
    entry, zeros = find_rule("none"), torch.zeros_like(logp)
    if evaluated_logp is not None:
        _same_shape({"logp": logp, "evaluated_logp": evaluated_logp}, "logp")
        logp = torch.where(torch.isfinite(_wide("evaluated_logp", evaluated_logp)), logp, math.nan)  # left out, counted
    batch = _prepare(logp, behaviour_logp, learner_logp, zeros, mask, staleness, entry, entry.name)
    engine = None
    if evaluated_logp is not None:
        live = batch.weights > 0
        engine = torch.where(live, _ratio(evaluated_logp.to(batch.weights), behaviour_logp.to(batch.weights)), 1.0)
    return measure(
        batch.tokens.samples,
        has_learner=learner_logp is not None,
        staleness=None if staleness is None else batch.tokens.staleness,
        engine_ratio=engine,
        nonfinite=batch.nonfinite,
    )


def align(
    *,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor | None = None,
    dead: Tensor | None = None,
    target_logp: Tensor | None = None,
    behaviour_logp: Tensor | None = None,
    alignment: str = "once",
    discount: float = 0.99,
    trace_decay: float = 0.95,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    time_axis: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Aligned:
    """Advantages and value targets from data of an older policy, for either time axis.

    Args:
        rewards: r_t, [T, ...] or with time on `time_axis`; all tensors have this shape.
        values: V(s_t).
        next_values: V(s_{t+1}) of the true successor; ignored where terminated.
        terminated: bool, no bootstrap.
        truncated: bool, cut by a limit: bootstrap, but do not look past it; None if none is.
        dead: bool, reset steps that are no transitions; None if none is.
        target_logp: log-probability of the policy aligned to: π_T under ``once``, π under ``continuous``.
        behaviour_logp: log β(a|s).
        alignment: ``once`` or ``continuous`` (V-trace), ``none`` (GAE), or one of another package.
        discount: γ.
        trace_decay: λ.
        rho_bar: ρ̄.
        c_bar: c̄ ≤ ρ̄.
        time_axis: the axis along which time runs, such as 1 for [B, T].
        settings: those that only this alignment has, such as ``{"horizon": 8}``.

    Returns:
        Advantages and value targets in the shape given, without gradient. A step whose ratio is not finite counts as
        ratio 0: nothing is learnt of its value, and no trace passes it.

    Raises:
        UserError: shapes or types disagree, a log-probability or a name is missing, or a number is out of range.
    """
    given = dict(rewards=rewards, values=values, next_values=next_values, terminated=terminated, truncated=truncated)
    given |= dict(dead=dead, target_logp=target_logp, behaviour_logp=behaviour_logp)
    _same_shape(given, "rewards")
    row = find_alignment(alignment)
    _check_numbers(discount, trace_decay, rho_bar, c_bar, time_axis, rewards.dim())
    own = own_settings(row.settings, settings or {}, f"the alignment '{alignment}'")
    ratio = None
    if row.target is not None:
        if target_logp is None or behaviour_logp is None:
            raise UserError(
                f"the alignment '{alignment}' needs target_logp and behaviour_logp: give both, or take alignment 'none'"
            )
        wide = _wide("target_logp", target_logp), _wide("behaviour_logp", behaviour_logp)
        ratio = torch.nan_to_num(_ratio(*wide), 0.0).movedim(time_axis, 0)

    def flag(x: Tensor | None) -> Tensor:
        return (torch.zeros_like(terminated) if x is None else x.detach()).movedim(time_axis, 0).bool()

    numbers = (("rewards", rewards), ("values", values), ("next_values", next_values))
    found = row.estimate(
        own,
        **{name: _wide(name, x).detach().movedim(time_axis, 0) for name, x in numbers},
        **{name: flag(x) for name, x in (("terminated", terminated), ("truncated", truncated), ("dead", dead))},
        ratio=ratio,
        discount=discount,
        trace_decay=trace_decay,
        rho_bar=rho_bar,
        c_bar=c_bar,
    )
    return Aligned(*(x.movedim(0, time_axis) for x in found))


def _check_numbers(
    discount: float, trace_decay: float, rho_bar: float, c_bar: float, time_axis: int, axes: int
) -> None:
    for name, number in (("discount", discount), ("trace_decay", trace_decay)):
        if not 0.0 <= number <= 1.0:
            raise UserError(f"{name} is {number}, but it must lie between 0 and 1")
    if not 0.0 < c_bar <= rho_bar:
        raise UserError(f"V-trace needs 0 < c_bar <= rho_bar, but c_bar is {c_bar} and rho_bar is {rho_bar}")
    if not -axes <= time_axis < axes:
        raise UserError(f"time_axis is {time_axis}, but the tensors have {axes} axes")


def _prepare(
    logp: Tensor,
    behaviour_logp: Tensor,
    learner_logp: Tensor | None,
    advantages: Tensor,
    mask: Tensor | None,
    staleness: Tensor | None,
    entry: Rule,
    rule: str,
) -> _Batch:
    """Check everything, and replace what is masked or not finite by a sample that weighs nothing."""
    given = {"logp": logp, "behaviour_logp": behaviour_logp, "learner_logp": learner_logp, "advantages": advantages}
    _same_shape({**given, "mask": mask, "staleness": staleness}, "logp")  # PyTorch 2.4 cannot compile |
    if entry.needs_learner and learner_logp is None:
        raise UserError(
            f"the rule '{rule}' compares with the learner π_T: give learner_logp, the log-probabilities under the "
            "policy as it was before the phase's first step"
        )
    if entry.needs_staleness and staleness is None:
        raise UserError(f"the rule '{rule}' depends on the policy's age: give staleness, in versions, of logp's shape")
    if entry.whole_sequences and logp.dim() < 2:
        raise UserError(f"the rule '{rule}' looks at whole sequences: give tokens [B, T], not shape {_shape(logp)}")
    constants = {**given, "mask": mask, "staleness": staleness}
    for name in ("behaviour_logp", "learner_logp", "advantages", "mask", "staleness"):
        tensor = constants[name]
        if tensor is not None and tensor.requires_grad:
            raise UserError(f"{name} carries a gradient, but the coefficient is a constant: give {name}.detach()")
    wide = {name: _wide(name, tensor) for name, tensor in given.items() if tensor is not None}
    finite = torch.isfinite(wide["logp"].detach())
    for name in ("behaviour_logp", "learner_logp", "advantages"):
        finite = finite & torch.isfinite(wide[name]) if name in wide else finite
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in wide.values()) else torch.float32
    weights = torch.ones_like(wide["logp"].detach(), dtype=dtype) if mask is None else mask.detach().to(dtype)
    live = finite & (weights > 0)
    safe = {name: torch.where(live, tensor.to(dtype), 0.0) for name, tensor in wide.items()}
    current = safe["logp"].detach()
    ratio = _ratio(current, safe["behaviour_logp"])
    learner = _ratio(safe["learner_logp"], safe["behaviour_logp"]) if "learner_logp" in safe else torch.ones_like(ratio)
    kept = torch.where(live, weights, 0.0)
    samples = Samples(ratio=ratio, learner_ratio=learner, advantages=safe["advantages"], weights=kept)
    ages = torch.zeros_like(ratio) if staleness is None else staleness.detach()
    tokens = Tokens(samples, ages, safe["behaviour_logp"])
    return _Batch(safe["logp"], tokens, kept, ((weights > 0) & ~finite).sum())


def _own_statistic(entry: Rule, samples: Samples, weights: Tensor) -> Statistic:
    """Σ w|deviation| and Σ w; NaN in place of the first where the rule has no trigger."""
    count = weights.sum()
    if entry.trigger is None:
        return Statistic(torch.full_like(count, math.nan), count)
    return Statistic(entry.trigger(samples) * count, count)


def _share(weights: Tensor, denominator: Denominator, mask: Tensor | None) -> Tensor:
    """What each sample's coefficient is multiplied with."""
    if isinstance(denominator, str):
        if denominator not in ("samples", "sequences"):
            raise UserError(f"the denominator is '{denominator}', but it is 'samples', 'sequences' or a number above 0")
        _refuse_empty(mask, weights)
        total = weights.sum()
        if denominator == "samples":
            return weights / torch.where(total > 0, total, torch.ones_like(total))
        if weights.dim() < 2:
            raise UserError(f"the denominator 'sequences' needs tokens [B, T], not shape {_shape(weights)}")
        length = weights.sum(-1, keepdim=True)
        sequences = (length > 0).sum().clamp(min=1)
        return weights / torch.where(length > 0, length, torch.ones_like(length)) / sequences
    if not isinstance(denominator, Tensor) and not (0.0 < denominator < math.inf):
        raise UserError(f"the denominator is {denominator}, but it must be a finite number above 0")
    return weights / denominator


def _refuse_empty(mask: Tensor | None, weights: Tensor) -> None:
    """A batch without a sample is a mistake, unless its denominator comes from elsewhere."""
    if weights.numel() == 0:
        raise UserError(
            f"the batch has shape {_shape(weights)} and no sample: leave it out, or give the denominator of the batch "
            "that it is part of"
        )
    if mask is None or torch.compiler.is_compiling():
        return
    try:
        empty = not bool((mask > 0).any())
    except RuntimeError:  # under vmap no value may be looked at
        return
    if empty:
        raise UserError(
            "the mask keeps no sample: leave such a batch out, or give the denominator of the batch that it is part of"
        )


def _ratio(logp: Tensor, behaviour_logp: Tensor) -> Tensor:
    return (logp.detach() - behaviour_logp.detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def _wide(name: str, tensor: Tensor | None) -> Tensor:
    """The tensor in float32, or float64 if it is that."""
    assert tensor is not None
    if not tensor.dtype.is_floating_point:
        raise UserError(f"{name} is of type {tensor.dtype}, but it must be of a floating-point type")
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _same_shape(given: Mapping[str, Tensor | None], first: str) -> None:
    """One shape and one device for all tensors: broadcasting [8] with [8, 1] would make 64 samples of 8."""
    wanted = given[first]
    for name, tensor in given.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise UserError(f"{name} is of type {type(tensor).__name__}, but it must be a torch.Tensor")
        assert wanted is not None
        if tensor.shape != wanted.shape:
            raise UserError(
                f"{name} has shape {_shape(tensor)} and {first} has {_shape(wanted)}, but all must have one shape: "
                f"expand {name} to it"
            )
        if tensor.device != wanted.device:
            raise UserError(
                f"{name} is on {tensor.device} and {first} on {wanted.device}, but all must be on one device"
            )
