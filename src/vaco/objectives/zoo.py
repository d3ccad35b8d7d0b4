"""Rules of other methods for language models, each as one public text has it.

They are here so that a run or a loss can be compared with them, and so that `vaco.conformance` can say which library's
flag is which. Each says whose it is, and what that text leaves open. Numbers that only one rule has are its own
settings, given as ``filter.NAME``. ρ = π/β, ρ_T = π_T/β, u = π/π_T, as everywhere.

Methods that need no rule of their own: PPO-EWMA is `decoupled_clip` with another π_T, which whoever trains supplies
(the control learner with ``proximal_decay``); Dr. GRPO is a denominator, which `vaco.policy_loss` takes as a number;
GSPO in this package's own learner is ``level: sequence`` under any rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vaco.errors import UserError
from vaco.objectives.divergence import mean_absolute_deviation, sequence_mean
from vaco.objectives.filters import FILTERS, Filtered, FilterSettings
from vaco.objectives.pytorch import torch
from vaco.objectives.tokens import DEFAULTS, Tokens, TokenSettings, keep, outside_range, token_filter

if TYPE_CHECKING:
    from torch import Tensor

Number: TypeAlias = "Tensor | float"


def _clipped(ratio: Tensor, advantages: Tensor, settings: TokenSettings) -> Tensor:
    """Where the clip with the range [1 − ε_low, 1 + ε_high] keeps the gradient."""
    return ~outside_range(ratio, advantages, 1.0 - settings.clip_low, 1.0 + settings.clip_high)


def _inside(ratio: Tensor, advantages: Tensor, settings: TokenSettings) -> Tensor:
    """Where PPO's clip keeps the gradient."""
    clip = settings.filter.clip
    return ~outside_range(ratio, advantages, 1.0 - clip, 1.0 + clip)


@token_filter("unweighted", "c = A", alone=True)
def unweighted(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """The policy gradient as if all data were on-policy: no weight, no clip (REINFORCE; GPG, arXiv 2504.02546)."""
    return keep(x.samples.advantages.clone(), torch.ones_like(x.samples.ratio, dtype=torch.bool))


@token_filter("clip_asymmetric", "c = ρA · 1[not (A>0 and ρ>1+ε_high)] · 1[not (A<0 and ρ<1−ε_low)]", alone=True)
def clip_asymmetric(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """PPO's clip with a range of its own on either side: DAPO's "clip higher" (arXiv 2503.14476, Eq. 10: 0.2, 0.28)."""
    samples = x.samples
    return keep(samples.ratio * samples.advantages, _clipped(samples.ratio, samples.advantages, settings))


@token_filter("truncated_range", "c = min(max(ρ, 1−ε_low), 1+ε_high) A", alone=True)
def truncated_range(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """CISPO with its lower bound (arXiv 2506.13585, Eq. 5), which its authors disable; `truncated_high` is without."""
    weight = x.samples.ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high)
    return keep(weight * x.samples.advantages, torch.ones_like(weight, dtype=torch.bool))


@dataclass(frozen=True)
class DualClip:
    """C, from which on a sample with A < 0 has no gradient."""

    cap: float = 3.0


@token_filter(
    "dual_clip",
    "c = ρA · 1[not (A>0 and ρ>1+ε)] · 1[not (A<0 and (ρ<1−ε or ρ>C))]",
    alone=True,
    settings=DualClip,
)
def dual_clip(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """PPO whose objective is at least C·A where A < 0 (Ye et al. 2020, arXiv 1912.09729, Eq. 4; C = 3)."""
    samples, cap = x.samples, settings.filter.own.cap
    far = (samples.advantages < 0) & (samples.ratio > cap)
    kept = _inside(samples.ratio, samples.advantages, settings) & ~far
    return keep(samples.ratio * samples.advantages, kept)


def sequence_log_mean(ratio: Tensor, weights: Tensor) -> Tensor:
    """The length-normalised log-ratio of every sequence, Σ w log ρ / Σ w; [..., T] gives [..., 1]."""
    return sequence_mean(ratio.log(), weights)


@token_filter(
    "gspo",
    "c = sA · 1[not (A>0 and s>1+ε_high)] · 1[not (A<0 and s<1−ε_low)],  s = exp(mean log ρ) of the response",
    whole_sequences=True,
    alone=True,
)
def gspo(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """GSPO (arXiv 2507.18071, Eq. 5 and 7), whose coefficient is GSPO-token's where all tokens have one advantage.

    Its loss is the mean over responses of each one's mean: ``denominator="sequences"``. Where advantages differ within
    a response, the two forms of that paper differ, too; this is GSPO-token, Eq. 13. The published ε are 3e-4 and 4e-4.
    """
    s = sequence_log_mean(x.samples.ratio, x.weights).exp().expand_as(x.samples.ratio)
    return keep(s * x.samples.advantages, _clipped(s, x.samples.advantages, settings))


@dataclass(frozen=True)
class IcePop:
    """The range of π_T/β within which a token counts."""

    low: float = 0.5
    high: float = 5.0


@token_filter(
    "icepop",
    "c = ρA · 1[low ≤ ρ_T ≤ high] · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T",
    proximal=True,
    alone=True,
    settings=IcePop,
)
def icepop(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """IcePop (Ling team 2025): decoupled PPO that drops tokens on which engine and trainer disagree.

    With ``low = 0`` it is masked importance sampling: `tis` that drops where that truncates. The range [0.5, 5] is that
    of the authors' blog; whether the clip is that of π/π_T is read from its formula, not from code.
    """
    samples, own = x.samples, settings.filter.own
    u = samples.ratio / samples.learner_ratio
    agreed = (samples.learner_ratio >= own.low) & (samples.learner_ratio <= own.high)
    return keep(samples.ratio * samples.advantages, agreed & _inside(u, samples.advantages, settings))


@token_filter(
    "tis_sequence",
    "c = min(Π ρ_T, C) u A · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T,  Π over the response",
    proximal=True,
    whole_sequences=True,
    alone=True,
)
def tis_sequence(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """Truncated importance sampling with one weight a response, the product of its tokens' (verl's documentation).

    Unbiased where nothing is truncated, other than `tis`, and heavy-tailed: in bfloat16 the product of 126 tokens is
    0.47 away from 1 before any step (PITFALLS).
    """
    samples = x.samples
    u = samples.ratio / samples.learner_ratio
    whole = (x.weights * samples.learner_ratio.log()).sum(-1, keepdim=True).clamp(max=20.0).exp()
    weight = whole.clamp(max=settings.ratio_cap or math.inf)
    return keep(weight * u * samples.advantages, _inside(u, samples.advantages, settings))


@dataclass(frozen=True)
class SecondMoment:
    """τ, below which the mean of (log ρ_T)² over the tokens that are kept must lie."""

    moment: float = 0.04


@token_filter(
    "m2po",
    "c = ρA · 1[not (A>0 and u>1+ε)] · 1[not (A<0 and u<1−ε)],  u = π/π_T,  without the largest (log ρ_T)² until their "
    "mean < τ",
    proximal=True,
    settings=SecondMoment,
)
def m2po(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """M2PO (arXiv 2510.01161) as AReaL has it: the mask looks at π_T/β, magnitude only, and keeps at least one token.

    Uncertain: AReaL multiplies with π_T/β only if told to; here the weight is always there. The denominator is the one
    before masking, as the paper's footnote says.
    """
    samples, live = x.samples, x.weights > 0
    square = samples.learner_ratio.log() ** 2
    u = samples.ratio / samples.learner_ratio
    near = (square <= _largest_kept(square, x.weights, settings.filter.own.moment)) & live
    return keep(samples.ratio * samples.advantages, near & _inside(u, samples.advantages, settings))


def _largest_kept(square: Tensor, weights: Tensor, limit: float) -> Tensor:
    """The largest value such that the weighted mean of all values up to it lies below a limit; at least the smallest.

    Values are dropped from the largest on; equal ones stay or go together, which the sources leave to their sorting.
    """
    ordered, places = torch.where(weights > 0, square, torch.inf).flatten().sort()
    w = weights.flatten()[places]
    means = torch.where(w > 0, ordered * w, 0.0).cumsum(0) / w.cumsum(0).clamp(min=1e-30)
    last_of_equals = torch.ones_like(w, dtype=torch.bool)
    last_of_equals[:-1] = ordered[1:] > ordered[:-1]
    good = (means < limit) & (w > 0) & last_of_equals
    return torch.where(good.any(), torch.where(good, ordered, -torch.inf).max(), ordered[0])


@dataclass(frozen=True)
class BinaryKL:
    """δ_B, threshold of KL(β‖π) of "this token or another", nats."""

    limit: float = 0.05


@token_filter(
    "dppo_kl",
    "c = min(ρ, C) A · 1[not (KL(β‖π) > δ_B and A·sign(ρ−1) > 0)],  KL of the event 'this token'",
    alone=True,
    settings=BinaryKL,
)
def dppo_kl(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """DPPO with the binary KL divergence of each token (arXiv 2602.04879; δ_B = 0.05 in verl's script)."""
    samples = x.samples
    before = x.behaviour_logp.exp()
    after = (before * samples.ratio).clamp(max=1.0)
    rest = ((1.0 - before + 1e-8) / (1.0 - after + 1e-8)).log()
    divergence = -before * samples.ratio.log() + (1.0 - before) * rest
    outward = samples.advantages * torch.sign(samples.ratio - 1.0) > 0
    kept = ~((divergence > settings.filter.own.limit) & outward)
    return keep(samples.ratio.clamp(max=settings.dppo_cap) * samples.advantages, kept)


@dataclass(frozen=True)
class BatchBudget:
    """δ on mean|ρ − 1|, and C of the weight."""

    budget: float = 0.015
    cap: float = 10_000.0


@token_filter("tvpo", "c = min(ρ, C) A · 1[not (mean|ρ−1| > δ and A·sign(ρ−1) > 0)]", settings=BatchBudget)
def tvpo(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """TVPO with one estimate a batch (docs/algo/tvpo.md of hmnhonari/verl, August 2026): `tv_total`, with a cap."""
    own = settings.filter.own
    return FILTERS["tv_total"].function(x.samples, FilterSettings(delta=own.budget, ratio_cap=own.cap))


@dataclass(frozen=True)
class GroupBudget(BatchBudget):
    """δ on mean|ρ − 1|, C of the weight, and how many neighbouring rows answer one prompt; 0 for all of them."""

    responses: int = 0


@token_filter(
    "tvpo_prompt",
    "c = min(ρ, C) A · 1[not (D > δ and D_prompt > δ and A·sign(ρ−1) > 0)],  D_prompt = mean|ρ−1| of its responses' "
    "means, D its mean over prompts",
    whole_sequences=True,
    settings=GroupBudget,
)
def tvpo_prompt(x: Tokens, settings: TokenSettings = DEFAULTS) -> Filtered:
    """TVPO with one estimate a prompt, its default scope: a prompt still inside keeps its tokens (see `tvpo`).

    Rows that answer one prompt are neighbours, ``filter.responses`` of them; this package's learner fills that in.
    Responses without a token count nowhere. The source estimates over one process's micro-batch; here it is the tensor
    that the rule is given.

    Raises:
        UserError: the rows are no whole number of prompts.
    """
    own, samples, weights = settings.filter.own, x.samples, x.weights
    size = own.responses or weights.shape[0]
    if weights.shape[0] % size:
        raise UserError(
            f"{weights.shape[0]} rows are no whole number of prompts with {size} responses each: set filter.responses "
            "to the number of responses a prompt"
        )
    means = sequence_mean((samples.ratio - 1.0).abs(), weights).squeeze(-1)
    there = (weights.sum(-1) > 0).to(means).reshape(-1, size)
    answered = there.sum(-1)
    prompts = (means.reshape(-1, size) * there).sum(-1) / answered.clamp(min=1.0)
    statistic = mean_absolute_deviation(1.0 + prompts, 1.0, (answered > 0).to(prompts))
    fired = statistic > own.budget
    left = (prompts > own.budget).repeat_interleave(size)[:, None]
    outward = samples.advantages * torch.sign(samples.ratio - 1.0) > 0
    kept = ~(fired & left & outward)
    coefficient = torch.where(kept, samples.ratio.clamp(max=own.cap) * samples.advantages, 0.0)
    return Filtered(coefficient, kept, statistic, fired)
