"""Gaussian policies in float64: log-probabilities, and the gradients of these and of the KL divergence."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def standard_score(actions: Floats, mean: Floats, log_std: Floats) -> Doubles:
    """(a − μ)/σ in float64.

    Float64 because a float32 log-probability of −20 is off by 10⁻⁶, which would already blur a ratio that must be 1.

    Args:
        actions: shape [..., A].
        mean: shape [..., A].
        log_std: broadcastable to [..., A].

    Returns:
        Shape [..., A].
    """
    return (actions.astype(np.float64) - mean) * np.exp(-log_std.astype(np.float64))


def log_probability(score: Doubles, log_std: Floats) -> Doubles:
    """Joint log-density of an action with independent Gaussian components: one number a sample, not one a dimension.

    Args:
        score: (a − μ)/σ, shape [..., A].
        log_std: broadcastable to [..., A].

    Returns:
        Shape [...], nats.
    """
    dimensions = score.shape[-1]
    constant = log_std.astype(np.float64).sum(-1) + 0.5 * dimensions * math.log(2.0 * math.pi)
    logp: Doubles = -0.5 * np.einsum("...i,...i->...", score, score) - constant
    return logp


def policy_gradient(score: Doubles, log_std: Floats, coefficient: Doubles) -> tuple[Doubles, Doubles]:
    """Σᵢ cᵢ ∇log π(aᵢ|sᵢ) of a Gaussian, with respect to its means and log σ.

    With z = (a − μ)/σ, ∂log π/∂μ = z/σ and ∂log π/∂log σ = z² − 1 in each dimension.

    Args:
        score: z, shape [N, A].
        log_std: log σ, shape [A].
        coefficient: c, shape [N].

    Returns:
        Derivatives with respect to the means, [N, A], and to log σ, [A].
    """
    d_mean = score * np.exp(-log_std.astype(np.float64)) * coefficient[:, None]
    return d_mean, coefficient @ score**2 - coefficient.sum()


def kl_gradient(
    mean: Floats, log_std: Floats, old_mean: Floats, old_log_std: Floats, weights: Doubles
) -> tuple[Doubles, Doubles]:
    """Σᵢ wᵢ ∇KL(old‖new) of Gaussians, with respect to the new means and the new log σ.

    Args:
        mean: new means, [N, A].
        log_std: new log σ, [A].
        old_mean: old means, [N, A].
        old_log_std: old log σ, [A], or [N, A] where the old policies are several.
        weights: w, [N].

    Returns:
        Derivatives with respect to the means, [N, A], and to log σ, [A].
    """
    inverse_std = np.exp(-log_std.astype(np.float64))
    shift = (mean.astype(np.float64) - old_mean) * inverse_std
    spread = np.exp(2.0 * (old_log_std.astype(np.float64) - log_std))
    grown = weights.sum() * (1.0 - spread) if spread.ndim == 1 else weights @ (1.0 - spread)
    return weights[:, None] * shift * inverse_std, grown - weights @ shift**2
