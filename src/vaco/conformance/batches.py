"""Batches on which rules differ: both signs, no advantage, no move, beside every boundary, padding, extremes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaco.objectives.tokens import TokenSettings

BESIDE = 1e-3
"""Distance from a boundary: beyond float32's rounding, and nearer than any second boundary."""
ROWS, LENGTH = 8, 32


class Batch(NamedTuple):
    """What a loss may read, beside log π itself; tokens [B, T] in float32, all without gradients.

    Attributes:
        name: what is hard about it.
        logp: log π, where the loss is evaluated.
        behaviour_logp: log β.
        learner_logp: log π_T.
        advantages: A, the same for all tokens of a row, or for each its own.
        mask: 1 for samples, 0 for padding.
        staleness: versions from β to π, at least 0.
    """

    name: str
    logp: Tensor
    behaviour_logp: Tensor
    learner_logp: Tensor
    advantages: Tensor
    mask: Tensor
    staleness: Tensor


def hard_batches(
    settings: TokenSettings, *, padded: bool = True, learner: bool = True, one_advantage: bool = False
) -> list[Batch]:
    """The library of batches on which a rule is to be recognised; all numbers finite.

    Args:
        settings: of the rule, for its boundaries.
        padded: whether to have some in which samples are masked; False for losses of samples, which know no mask.
        learner: whether π_T differs from β; False for a loss that knows one old policy only.
        one_advantage: whether all tokens of a row have one advantage in every batch, not in some.
    """
    generator = torch.Generator().manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(ROWS, LENGTH, generator=generator)

    def batch(name: str, log_ratio: Tensor, log_learner: Tensor, *, pad: bool = False, each: bool = True) -> Batch:
        behaviour = -0.05 - 2.5 * torch.rand(ROWS, LENGTH, generator=generator)
        log_learner = log_learner if learner else torch.zeros_like(log_learner)
        advantages = normal() if each else normal()[:, :1].expand(ROWS, LENGTH).clone()
        advantages[torch.rand(ROWS, LENGTH, generator=generator) < 0.1] = 0.0
        if one_advantage:
            advantages = advantages[:, :1].expand(ROWS, LENGTH).clone()
        lengths = torch.randint(1, LENGTH + 1, (ROWS, 1), generator=generator)
        mask = (torch.arange(LENGTH) < lengths) if pad and padded else torch.ones(ROWS, LENGTH, dtype=torch.bool)
        ages = torch.randint(0, 9, (ROWS, 1), generator=generator).expand(ROWS, LENGTH).clone()
        # A probability is at most 1; where the ratio would make it larger, β is less likely.
        behaviour = torch.minimum(behaviour, -0.01 - torch.maximum(log_ratio, log_learner).clamp(min=0.0))
        return Batch(name, behaviour + log_ratio, behaviour, behaviour + log_learner, advantages, mask, ages)

    still = torch.zeros(ROWS, LENGTH)
    found = [
        batch("the first step, ρ = 1", still, still),
        batch("the first step of a lagged phase, ρ = ρ_T", moved := 0.3 * normal(), moved),
        batch("small moves", 0.02 * normal(), 0.02 * normal()),
        batch("moves across every boundary", 0.4 * normal(), 0.2 * normal()),
        batch("one advantage a row", 0.4 * normal(), 0.2 * normal(), each=False),
        batch("heavy tails", 1.5 * normal(), 0.3 * normal()),
        batch("far behind", 0.5 * normal() + 0.6, 0.5 * normal() + 0.6),
        batch("rows that moved differently", torch.linspace(0.0, 0.9, ROWS)[:, None] * normal(), 0.1 * normal()),
    ]
    if padded:
        found += [batch("padding", 0.4 * normal(), 0.2 * normal(), pad=True)]
        broken = found[-1]._replace(name="padding that is far away")
        far = torch.where(broken.mask, broken.logp, broken.behaviour_logp - 8.0)
        found += [broken._replace(logp=far)]
    clip, high = settings.filter.clip, settings.clip_high
    for boundary in sorted({1.0 + clip, 1.0 - clip, 1.0 + high, settings.ratio_cap, settings.dppo_cap, 1.0, 3.0}):
        if boundary > 0:
            sides = torch.where(torch.rand(ROWS, LENGTH, generator=generator) < 0.5, 1.0 - BESIDE, 1.0 + BESIDE)
            found += [batch(f"beside ρ = {boundary:g}", math.log(boundary) + sides.log(), still)]
            if learner:
                about = 0.2 * normal()
                found += [batch(f"beside π/π_T = {boundary:g}", about + math.log(boundary) + sides.log(), about)]
    return found


def broken_batches(settings: TokenSettings) -> dict[str, Batch]:
    """Batches that a robust loss survives, by what is wrong with them."""
    plain = next(b for b in hard_batches(settings) if b.name == "padding")
    rows, columns = plain.mask.nonzero(as_tuple=True)
    place = (rows[3], columns[3])

    def with_(field: str, value: float, at: object = place) -> Batch:
        tensor: Tensor = getattr(plain, field).clone()
        tensor[at] = value  # type: ignore[index]
        return plain._replace(**{field: tensor})  # type: ignore[arg-type]

    return {
        "NaN sample": with_("behaviour_logp", math.nan),
        "NaN padding": with_("behaviour_logp", math.nan, ~plain.mask),
        "log-ratio 200": with_("behaviour_logp", float(plain.logp[place]) - 200.0),
        "empty mask": plain._replace(mask=torch.zeros_like(plain.mask)),
    }
