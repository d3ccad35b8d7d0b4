"""Continuous actions: what the sampled ½|ρ − 1| estimates for Gaussian policies, and how badly.

β = N(0, I) and π = N(m, s²I) in k dimensions; every pair of diagonal Gaussians with one ratio of standard deviations is
of this form after scaling. For s = 1 the total variation is erf(Δ/(2√2)), Δ = ‖m‖. For s ≠ 1 the set {ρ > 1} is a ball
or its complement, so TV is a difference of two non-central χ² probabilities, exact in any dimension; quadrature in
one and two dimensions confirms it. The estimator ½ mean|ρ − 1| is unbiased with variance (χ² − 4TV²)/(4N), where
χ² = E(ρ − 1)² = exp(Δ²) − 1 for s = 1 and infinite for s² ≥ 2; the bounded mean (1 − ρ)⁺ has the same expectation and
variance at most TV(1 − TV)/N ≤ 1/(4N).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import integrate, special, stats

from theory.families import Floats
from vaco.objectives import divergence

Json = dict[str, Any]
DIMENSIONS = (1, 2, 3, 6, 8, 11, 17)
VARIATIONS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
PER_DIMENSION = (0.05, 0.1, 0.2, 0.5)  # shift of every coordinate, in standard deviations
BATCHES = (64, 512, 2048)
REPEATS = 4000


def equal_covariance(distance: float) -> float:
    """TV of two Gaussians with the same covariance at Mahalanobis distance Δ, by the function that trains."""
    one = torch.tensor([distance], dtype=torch.float64)
    return float(divergence.gaussian_total_variation(one, torch.zeros_like(one), torch.zeros_like(one)))


def isotropic(shift: float, scale: float, dimension: int) -> float:
    """TV(N(m, s²I), N(0, I)) with ‖m‖ = shift, exact by non-central χ² probabilities.

    log ρ(x) = −k log s + ‖x‖²/2 − ‖x − m‖²/(2s²) = a‖x − c‖² + b with a = (1 − 1/s²)/2 and c = −m/(s² − 1).
    """
    if scale == 1.0:
        return equal_covariance(shift)
    square = scale * scale
    curvature = 0.5 * (1.0 - 1.0 / square)
    centre = -shift / (square - 1.0)
    constant = -dimension * np.log(scale) - 0.5 * shift**2 / square - curvature * centre**2
    radius = max(0.0, -constant / curvature)  # {log ρ = 0} is the sphere ‖x − c‖² = radius

    def inside(mean: float, deviation: float) -> float:
        displaced = ((mean - centre) / deviation) ** 2
        return float(stats.ncx2.cdf(radius / deviation**2, dimension, displaced))

    return abs(inside(shift, scale) - inside(0.0, 1.0))


def by_quadrature(shift: float, scale: float, dimension: int) -> float:
    """The same in one dimension by adaptive quadrature of ½|p − q|, in two by the trapezoidal rule on a fine grid."""
    reach = 9.0 * max(1.0, scale) + shift
    if dimension == 1:
        found = integrate.quad(
            lambda x: 0.5 * abs(stats.norm.pdf(x, shift, scale) - stats.norm.pdf(x)), -reach, reach, limit=400
        )
        return float(found[0])
    grid = np.linspace(-reach, reach, 1601)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    p = stats.norm.pdf(x, shift, scale) * stats.norm.pdf(y, 0.0, scale)
    q = stats.norm.pdf(x) * stats.norm.pdf(y)
    return float(integrate.trapezoid(integrate.trapezoid(0.5 * np.abs(p - q), grid), grid))


def distance_of(variation: float) -> float:
    """Δ with erf(Δ/(2√2)) = variation."""
    return float(2.0 * np.sqrt(2.0) * special.erfinv(variation))


def deviations(distance: float) -> tuple[float, float]:
    """Standard deviations of one term of ½|ρ − 1| and of (1 − ρ)⁺ for equal covariances, in closed form."""
    variation = equal_covariance(distance)
    plain = 0.25 * np.expm1(distance**2) - variation**2
    half = distance / 2.0
    below = special.ndtr(half) - 2.0 * special.ndtr(-half) + np.exp(distance**2) * special.ndtr(-3.0 * half)
    return float(np.sqrt(plain)), float(np.sqrt(max(0.0, below - variation**2)))


def sample_ratios(
    rng: np.random.Generator, shift: float, scale: float, dimension: int, shape: tuple[int, int]
) -> Floats:
    """ρ of samples from β, shape `shape`: ‖x‖² splits into the coordinate along m and a χ² rest."""
    along = rng.standard_normal(shape)
    rest = rng.chisquare(dimension - 1, shape) if dimension > 1 else np.zeros(shape)
    square = scale * scale
    log = -dimension * np.log(scale) + 0.5 * (along**2 + rest) - 0.5 * ((along - shift) ** 2 + rest) / square
    return np.asarray(np.exp(log))


def estimators(ratios: Floats) -> tuple[Floats, Floats]:
    """½ mean|ρ − 1| and mean (1 − ρ)⁺ of each row, by the functions that train."""
    rows = torch.from_numpy(ratios)
    plain = torch.vmap(divergence.sampled_total_variation)(rows)
    bounded = torch.vmap(divergence.bounded_total_variation)(rows)
    return plain.numpy(), bounded.numpy()


def measure(rng: np.random.Generator, shift: float, scale: float, dimension: int, batch: int) -> Json:
    """Bias, standard deviation, tail and false triggers of both estimators against the exact TV.

    Args:
        rng: source of the samples.
        shift: ‖m‖, in standard deviations of β.
        scale: s.
        dimension: k.
        batch: samples an estimate.

    Returns:
        Exact TV and, for each estimator, mean, standard error of the mean, deviation, median, 99.9 % quantile.
    """
    exact = isotropic(shift, scale, dimension)
    row: Json = {"shift": shift, "scale": scale, "dimension": dimension, "batch": batch, "exact": exact}
    estimates = estimators(sample_ratios(rng, shift, scale, dimension, (REPEATS, batch)))
    for name, values in zip(("plain", "bounded"), estimates, strict=True):
        row[name] = {
            "mean": float(values.mean()),
            "standard_error": float(values.std() / np.sqrt(REPEATS)),
            "deviation": float(values.std()),
            "median": float(np.median(values)),
            "high": float(np.quantile(values, 0.999)),
            "largest": float(values.max()),
        }
    return row


def run_gaussian(seed: int, advance: Callable[[str], None] = lambda name: None) -> Json:
    """The whole study.

    Args:
        seed: of the generator.
        advance: called with the name of each stage.

    Returns:
        The contents of gaussian.json: agreement of the closed forms with quadrature, the estimators against TV (they
        depend on Δ alone when covariances agree) and against dimension with unequal covariances, and saturation.
    """
    rng = np.random.default_rng([seed, 3])
    advance("gaussian quadrature")
    agreement = []
    for dimension, shift, scale in [(1, 0.5, 1.0), (1, 0.3, 0.7), (1, 1.0, 1.5), (2, 0.4, 0.8), (2, 0.5, 1.2)]:
        exact, numeric = isotropic(shift, scale, dimension), by_quadrature(shift, scale, dimension)
        agreement.append(
            {"dimension": dimension, "shift": shift, "scale": scale, "exact": exact, "quadrature": numeric}
        )
    advance("gaussian equal covariance")
    equal = []
    for variation in VARIATIONS:
        distance = distance_of(variation)
        plain, bounded = deviations(distance)
        for batch in BATCHES:
            row = measure(rng, distance, 1.0, 1, batch)
            equal.append(row | {"theory": {"plain": plain / np.sqrt(batch), "bounded": bounded / np.sqrt(batch)}})
    advance("gaussian unequal covariance")
    unequal = [
        measure(rng, 0.1 * np.sqrt(k), scale, k, 512) for scale in (0.8, 0.9, 1.0, 1.1, 1.25, 1.5) for k in DIMENSIONS
    ]
    saturation = [
        {
            "per_dimension": shift,
            "dimension": k,
            "variation": equal_covariance(shift * np.sqrt(k)),
            "sum_of_components": k * equal_covariance(shift),
        }
        for shift in PER_DIMENSION
        for k in range(1, 18)
    ]
    head = {"seed": seed, "repeats": REPEATS, "batches": list(BATCHES)}
    return head | {"agreement": agreement, "equal": equal, "unequal": unequal, "saturation": saturation}
