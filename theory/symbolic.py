"""The steps of the proofs that are algebra, derived by SymPy; executable, so the book imports them and CI runs them.

Every derivation returns a `Derivation`: the two sides as SymPy expressions and their simplified difference, which must
be zero. What SymPy cannot decide by simplification alone is a limit or an assumption, and is named in `assumes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy as sp


@dataclass(frozen=True)
class Derivation:
    """One algebraic step.

    Attributes:
        name: key.
        claim: what is shown, in words.
        left: one side.
        right: the other.
        assumes: what is not algebra.
    """

    name: str
    claim: str
    left: Any
    right: Any
    assumes: str = ""

    @property
    def difference(self) -> Any:
        """Left − right, simplified; zero when the step holds."""
        return sp.simplify(sp.simplify(sp.expand(self.left - self.right)).rewrite(sp.erf))

    @property
    def holds(self) -> bool:
        """Whether the difference is identically zero."""
        return bool(self.difference == 0)

    def latex(self) -> str:
        """The step as LaTeX, for the book."""
        return f"{sp.latex(self.left)} = {sp.latex(self.right)}"


def telescoping(steps: int = 6) -> Derivation:
    """Lemma 3.1's sum: Σ_{t<T} γᵗ(γV_{t+1} − V_t) = γᵀV_T − V_0."""
    gamma = sp.symbols("gamma", positive=True)
    values = sp.symbols(f"V0:{steps + 1}")
    left = sum(gamma**t * (gamma * values[t + 1] - values[t]) for t in range(steps))
    right = gamma**steps * values[steps] - values[0]
    return Derivation("telescoping", "the value terms of Lemma 3.1 telescope", left, right, "γᵀ V_T → 0 as T → ∞")


def importance(actions: int = 3) -> Derivation:
    """Σ_a β(π/β)A = Σ_a πA: ratios change the policy that an expectation is over."""
    beta, pi = sp.symbols(f"beta0:{actions}", positive=True), sp.symbols(f"pi0:{actions}", positive=True)
    gains = sp.symbols(f"A0:{actions}", real=True)
    left = sum(b * (p / b) * g for b, p, g in zip(beta, pi, gains, strict=True))
    right = sum(p * g for p, g in zip(pi, gains, strict=True))
    return Derivation("importance", "importance identity", left, right, "β > 0 where π > 0")


def forward_lag() -> Derivation:
    """β(π/β − π_T/β)σ = (π − π_T)σ: why ½E_β|ρ − ρ_T| is TV(π, π_T); σ is the sign of the difference."""
    beta, pi, learner = sp.symbols("beta pi pi_T", positive=True)
    sign = sp.symbols("sigma", real=True)
    left = beta * (pi / beta - learner / beta) * sign
    return Derivation("forward_lag", "forward lag from samples of β", left, (pi - learner) * sign, "|x| = σx")


def subgradient() -> Derivation:
    """∂/∂θ_b of ½Σ_a σ_a(π_a − β_a) for softmax logits = Σ_a β_a c_a ∂log π_a/∂θ_b, c = ½σρ; three actions."""
    theta = sp.symbols("theta0:3", real=True)
    beta, signs = sp.symbols("beta0:3", positive=True), sp.symbols("sigma0:3", real=True)
    total = sum(sp.exp(t) for t in theta)
    policy = [sp.exp(t) / total for t in theta]
    variation = sum(s * (p - b) for s, p, b in zip(signs, policy, beta, strict=True)) / 2
    left = sp.diff(variation, theta[0])
    coefficients = [s * p / b / 2 for s, p, b in zip(signs, policy, beta, strict=True)]
    right = sum(b * c * sp.diff(sp.log(p), theta[0]) for b, c, p in zip(beta, coefficients, policy, strict=True))
    return Derivation(
        "subgradient", "gradient of TV from the coefficients that train", left, right, "σ constant: no kink"
    )


def sign_rule() -> Derivation:
    """⟨ρA g, ½σρ g⟩ = ½ρ²σA‖g‖²: a sample's gradient raises its own term of TV exactly when Aσ > 0."""
    ratio, gain, sign = sp.symbols("rho A sigma", real=True)
    score = sp.symbols("g0:2", real=True)
    left = sum((ratio * gain * g) * (sign * ratio * g / 2) for g in score)
    right = ratio**2 * sign * gain * sum(g**2 for g in score) / 2
    return Derivation("sign_rule", "the filter's test is exact for each sample alone", left, right)


def gaussian_total_variation() -> Derivation:
    """∫ over x < Δ/2 of N(0,1) − N(Δ,1) = erf(Δ/(2√2)): TV of two unit Gaussians Δ apart."""
    x = sp.symbols("x", real=True)
    distance = sp.symbols("Delta", positive=True)
    density = sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi)
    below = sp.integrate(density, (x, -sp.oo, distance / 2))
    shifted = sp.integrate(density, (x, -sp.oo, -distance / 2))
    right = sp.erf(distance / (2 * sp.sqrt(2)))
    return Derivation(
        "gaussian_tv", "TV of Gaussians with equal covariance", below - shifted, right, "{p > q} is x < Δ/2"
    )


def gaussian_kl() -> Derivation:
    """E_p[log p − log q] for N(m, s²) and N(n, v²), integrated, equals log(v/s) + (s² + (m − n)²)/(2v²) − ½."""
    x, m, n = sp.symbols("x m n", real=True)
    s, v = sp.symbols("s v", positive=True)
    z = sp.symbols("z", real=True)
    density = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    x = m + s * z
    integrand = sp.expand(-sp.log(s) + sp.log(v) - z**2 / 2 + (x - n) ** 2 / (2 * v**2))
    left = sp.integrate(integrand * density, (z, -sp.oo, sp.oo))
    right = sp.log(v / s) + (s**2 + (m - n) ** 2) / (2 * v**2) - sp.Rational(1, 2)
    return Derivation("gaussian_kl", "KL of Gaussians", sp.expand_log(left), sp.expand_log(right))


def staleness_clip() -> Derivation:
    """A-3PO: π_prox = β^{1/d} π^{1−1/d} makes u = π/π_prox = ρ^{1/d}, so u > 1 + ε is ρ > (1 + ε)ᵈ."""
    beta, pi, d = sp.symbols("beta pi d", positive=True)
    proximal = beta ** (1 / d) * pi ** (1 - 1 / d)
    left = sp.powsimp(sp.expand_power_base((pi / proximal) ** d, force=True), force=True)
    return Derivation("staleness_clip", "A-3PO clips ρ at (1 ± ε)ᵈ", sp.powdenest(left, force=True), pi / beta, "d ≥ 1")


def staleness_weight() -> Derivation:
    """A-3PO: (π_prox/β)·(π/π_prox) = ρ: its coefficient is ρA, whatever the staleness."""
    beta, pi, proximal = sp.symbols("beta pi pi_prox", positive=True)
    return Derivation("staleness_weight", "A-3PO weighs by ρ", (proximal / beta) * (pi / proximal), pi / beta)


def coupled_drift(order: int = 10) -> Derivation:
    """Σ_t (1 − γ)γᵗ(1 − (1 − α)ᵗ) = γα/(1 − γ + γα), as power series in γ: the coupled drift, halved."""
    gamma, alpha = sp.symbols("gamma alpha", positive=True)
    terms = sum((1 - gamma) * gamma**t * (1 - (1 - alpha) ** t) for t in range(order + 1))
    left = sum(sp.expand(terms).coeff(gamma, n) * gamma**n for n in range(order + 1))
    right = sp.series(gamma * alpha / (1 - gamma + gamma * alpha), gamma, 0, order + 1).removeO()
    return Derivation("coupled_drift", "series of the coupling", left, right, "|γ(1 − α)| < 1: the series converges")


def vtrace_row_sum() -> Derivation:
    """1 − E ρ₀ + γS − (S − E ρ₀) = 1 − (1 − γ)S: the row sums of V-trace's operator."""
    gamma, visits, mass = sp.symbols("gamma S Z", positive=True)
    left = 1 - mass + gamma * visits - (visits - mass)
    return Derivation("vtrace_row_sum", "V-trace's contraction modulus", left, 1 - (1 - gamma) * visits)


def second_moment() -> Derivation:
    """E(ρ − 1)² = exp(Δ²) − 1 for Gaussians Δ apart: the variance that makes ½|ρ − 1| heavy-tailed."""
    z = sp.symbols("z", real=True)
    distance = sp.symbols("Delta", positive=True)
    density = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    squared = sp.integrate(sp.exp(2 * distance * z - distance**2) * density, (z, -sp.oo, sp.oo))
    return Derivation("second_moment", "χ² of Gaussians with equal covariance", squared - 1, sp.exp(distance**2) - 1)


DERIVATIONS: tuple[Callable[[], Derivation], ...] = (
    telescoping,
    importance,
    forward_lag,
    subgradient,
    sign_rule,
    gaussian_total_variation,
    gaussian_kl,
    staleness_clip,
    staleness_weight,
    coupled_drift,
    vtrace_row_sum,
    second_moment,
)


def run_symbolic(advance: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Run every derivation; a wrong one (twice the right side) must not pass.

    Args:
        advance: called with the name of each derivation.

    Returns:
        The contents of symbolic.json, rows as in the other tables.
    """
    rows = []
    for derive in DERIVATIONS:
        advance(f"symbolic {derive.__name__}")
        started = time.perf_counter()
        step = derive()
        holds = step.holds
        fooled = Derivation(step.name, "", step.left, 2 * step.right).holds
        rows.append(
            {
                "name": step.name,
                "statement": step.claim,
                "assumes": step.assumes,
                "latex": step.latex(),
                "instances": 1,
                "violations": int(not holds) + int(fooled),
                "seconds": time.perf_counter() - started,
            }
        )
    return {"checks": rows}
