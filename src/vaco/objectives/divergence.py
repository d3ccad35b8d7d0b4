"""How far apart two policies are: sample estimators from probability ratios, and closed forms.

The estimators take ratios of samples drawn from the behaviour policy β: ``ratio`` = π(a|s)/β(a|s) and
``learner_ratio`` = π_T(a|s)/β(a|s). They accept optional sample weights, normalised here by their sum, so that
``theory/`` can pass exact probabilities d(s)·β(a|s) and obtain exact expectations from the very functions that
train. Divergences are in nats; total variation is ½‖p − q‖₁ and so lies in [0, 1].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vaco.objectives.pytorch import torch

if TYPE_CHECKING:
    from torch import Tensor


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of all entries, or Σ wᵢxᵢ / Σ wᵢ.

    Args:
        values: any shape.
        weights: same shape, non-negative; None means equal weights.

    Returns:
        A 0-d tensor. Zero, not NaN, when every weight is zero: a minibatch of dead steps carries no information.
    """
    if weights is None:
        return values.mean()
    total = weights.sum()
    # Selected, not multiplied: an infinite ratio in a dead sample times zero would be NaN, and no trigger would fire.
    weighted = torch.where(weights > 0, values * weights, 0.0)
    return weighted.sum() / torch.where(total > 0, total, torch.ones_like(total))


def sequence_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of each sequence, Σ wᵢxᵢ / Σ wᵢ along the last axis.

    Args:
        values: shape [..., T].
        weights: same shape, non-negative.

    Returns:
        Shape [..., 1]; 0, as in `weighted_mean`, where all weights of a sequence are.
    """
    length = weights.sum(-1, keepdim=True)
    return (values * weights).sum(-1, keepdim=True) / torch.where(length > 0, length, torch.ones_like(length))


def mean_absolute_deviation(ratio: Tensor, reference: Tensor | float = 1.0, weights: Tensor | None = None) -> Tensor:
    """Mean |ρ − reference|, twice the sampled total variation.

    With reference 1 it estimates 2·TV(π, β); with reference ρ_T it estimates 2·TV(π, π_T) although the samples
    come from β, because E_β|ρ − ρ_T| = Σ_a |π − π_T|.

    Args:
        ratio: ρ = π/β of each sample, any shape.
        reference: 1, or ρ_T = π_T/β of each sample.
        weights: optional sample weights.

    Returns:
        A 0-d tensor.
    """
    return weighted_mean((ratio - reference).abs(), weights)


def sampled_total_variation(ratio: Tensor, reference: Tensor | float = 1.0, weights: Tensor | None = None) -> Tensor:
    """½ mean|ρ − reference|: forward lag when the reference is ρ_T, total lag when it is 1 (paper, Eq. 5).

    Args:
        ratio: ρ = π/β, any shape; pass ρ_T with reference 1 for the backward lag.
        reference: 1 or ρ_T.
        weights: optional sample weights.

    Returns:
        A 0-d tensor; unbiased, not bounded by 1 on a finite sample.
    """
    return 0.5 * mean_absolute_deviation(ratio, reference, weights)


def bounded_total_variation(ratio: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean (1 − ρ)⁺, an equally unbiased estimator of TV(π, β) whose terms lie in [0, 1].

    E_β ρ = 1 makes the positive and the negative part of ρ − 1 equally large, so one of them suffices, and the
    part below 1 has no heavy tail (ALGORITHMS B.g; Hoeffding's inequality applies to it).

    Args:
        ratio: ρ = π/β, any shape.
        weights: optional sample weights.

    Returns:
        A 0-d tensor in [0, 1].
    """
    return weighted_mean((1.0 - ratio).clamp(min=0.0), weights)


def total_variation_coefficient(ratio: Tensor, reference: Tensor | float = 1.0) -> Tensor:
    """Coefficients cᵢ with ∇ ½ mean|ρ − reference| = mean cᵢ ∇log π(aᵢ|sᵢ) (paper, Eq. 15).

    Args:
        ratio: ρ = π/β, any shape.
        reference: 1 or ρ_T; constant with respect to the parameters.

    Returns:
        ½ sign(ρ − reference) ρ. At the kink sign(0) = 0 is one of the subgradients.
    """
    return 0.5 * torch.sign(ratio - reference) * ratio


def chi_squared(ratio: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sampled χ²(π‖β) = E_β (ρ − 1)², at least 4·TV(π, β)² by Cauchy–Schwarz.

    Args:
        ratio: ρ = π/β, any shape.
        weights: optional sample weights.

    Returns:
        A 0-d tensor.
    """
    return weighted_mean((ratio - 1.0) ** 2, weights)


def effective_sample_size(ratio: Tensor, weights: Tensor | None = None) -> Tensor:
    """Kish's effective sample size of importance weights as a share of the sample, in (0, 1].

    Args:
        ratio: importance weights ρ, any shape.
        weights: optional sample weights.

    Returns:
        (E ρ)² / E ρ². Blind to a common scale of ρ; zero when every weight is zero.
    """
    second = weighted_mean(ratio**2, weights)
    return weighted_mean(ratio, weights) ** 2 / torch.where(second > 0, second, torch.ones_like(second))


def categorical_total_variation(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ_a |p(a) − q(a)|.

    Args:
        p: probabilities, shape [..., A].
        q: probabilities, shape [..., A].

    Returns:
        Shape [...], in [0, 1].
    """
    return 0.5 * (p - q).abs().sum(-1)


def categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) = Σ_a p log(p/q), with 0 log 0 = 0 and infinity where q = 0 < p.

    Args:
        p: probabilities, shape [..., A].
        q: probabilities, shape [..., A].

    Returns:
        Shape [...], nats.
    """
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(p‖q) of Gaussians with diagonal covariance, summed over the action's dimensions.

    Args:
        mean_p: shape [..., A].
        log_std_p: broadcastable to [..., A].
        mean_q: shape [..., A].
        log_std_q: broadcastable to [..., A].

    Returns:
        Shape [...], nats.
    """
    variance_ratio = torch.exp(2.0 * (log_std_p - log_std_q))
    squared_shift = ((mean_p - mean_q) * torch.exp(-log_std_q)) ** 2
    return (log_std_q - log_std_p + 0.5 * (variance_ratio + squared_shift - 1.0)).sum(-1)


def gaussian_total_variation(mean_p: Tensor, mean_q: Tensor, log_std: Tensor) -> Tensor:
    """TV of two Gaussians with the same diagonal covariance: erf(Δ / (2√2)), Δ the Mahalanobis distance.

    Args:
        mean_p: shape [..., A].
        mean_q: shape [..., A].
        log_std: the common log standard deviation, broadcastable to [..., A].

    Returns:
        Shape [...], in [0, 1].
    """
    distance = torch.linalg.vector_norm((mean_p - mean_q) * torch.exp(-log_std), dim=-1)
    return torch.erf(distance / (2.0 * math.sqrt(2.0)))
