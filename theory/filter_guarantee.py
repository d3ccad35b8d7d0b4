"""What the filter guarantees, and for which parametrisation: statements that hold, as checks, with controls that fail.

Notation: h = 1[kept]·A is what the filter leaves of the advantage, σ = sign(π − π_T), D = E_d TV(π, π_T) with d = d^β,
so h·σ ≤ 0 wherever σ ≠ 0. Pairs with π = π_T exactly are *kinks* K of D: the filter keeps them (sign 0) although any
move there raises D. D' is the one-sided derivative along δπ, ½ E_d[Σ_{a∉K} σδπ + Σ_{a∈K} |δπ|]. Statements and proofs:

1. *Per sample.* ⟨gᵢ, ∇Dᵢ⟩ = cᵢ·½ sign(ρᵢ − ρ_Tᵢ)ρᵢ·‖∇log πᵢ‖² ≤ 0 for every kept sample, whatever the parametrisation.
2. *Direct tabular* (the probabilities are the parameters, gradient projected on Σ_a δπ = 0): δπ = d(h − h̄), h̄ the plain
   mean over the A actions. If h = 0 on K, Σ_{a∉K} σ(h − h̄) + Σ_{a∈K} |h̄| ≤ −Σ|h| + |h̄|(|Σσ| + |K|) ≤ −Σ|h| + A|h̄| ≤ 0.
   Otherwise D' is subadditive and δπ linear in h, so D' ≤ ½ E_d‖δπ(h on K)‖₁: what the kinks alone would do.
   D is piecewise linear along the step, so it does not increase before the first change of sign.
3. *Natural gradient of tabular softmax*: δπ = π(h − E_π h). The same with π for the counting measure:
   Σ_{a∉K} σπ(h − E_π h) + Σ_{a∈K} π|E_π h| ≤ −E_π|h| + |E_π h| ≤ 0 if h = 0 on K.
4. *Ordinary gradient of tabular softmax*: δπ = π(G − E_π G), G = dπ(h − E_π h). With two actions the same argument
   works; with three it does not: see `softmax_counterexample`. Shared features: no guarantee either.
5. *Projection repair*: g − max(0, ⟨g, ∇D⟩)∇D/‖∇D‖² never increases D to first order, in any parametrisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from theory import expect, tolerance
from theory.bounds import Bound
from theory.instances import Instance
from theory.mdp import MDP
from vaco.objectives import divergence
from vaco.objectives.filters import FilterSettings, Samples

ALWAYS = FilterSettings(delta=0.0)  # the trigger fires whenever π ≠ π_T


class Filtered(NamedTuple):
    """The filter's view of an instance, each [B, S, A]: weights d·β, ρ, ρ_T, coefficient c and h = c/ρ."""

    weights: Tensor
    ratio: Tensor
    learner_ratio: Tensor
    coefficient: Tensor
    kept_advantage: Tensor


def filtered(x: Instance, rule: str = "tv") -> Filtered:
    """Run the filter `rule` of `vaco.objectives` on every pair of every instance, with exact weights."""
    weights = expect.joint(x.behaviour_states, x.behaviour)
    values, learner_values = expect.ratio(x.current, x.behaviour), expect.ratio(x.learner, x.behaviour)
    samples = Samples(ratio=values, learner_ratio=learner_values, advantages=x.learner_advantages, weights=weights)
    decided = expect.verdict(rule, samples, ALWAYS)
    kept = torch.where(decided.kept & (x.behaviour > 0), x.learner_advantages, 0.0)
    return Filtered(weights, values, learner_values, decided.coefficient, kept)


def per_sample(x: Instance, *, rule: str = "tv") -> Bound:
    """Statement 1: the largest ⟨gᵢ, ∇Dᵢ⟩/‖∇log πᵢ‖² over all samples is ≤ 0."""
    f = filtered(x, rule)
    toward = divergence.total_variation_coefficient(f.ratio, f.learner_ratio)
    product = torch.where(f.weights > 0, f.coefficient * toward, -torch.inf)
    error = torch.zeros_like(x.mdp.discount)  # a sign, computed without rounding: products of signs are exact
    return Bound(product.amax((1, 2)), torch.zeros_like(error), error)


StepOf = Callable[[Instance, Tensor], Tensor]  # from h to δπ, linear in h


def _first_order(x: Instance, step_of: StepOf, rule: str = "tv") -> Bound:
    """One-sided derivative of D along δπ(h) ≤ ½ E_d‖δπ(h on the kinks)‖₁."""
    states = x.behaviour_states[:, :, None]
    f = filtered(x, rule)
    h, sigma = f.kept_advantage, torch.sign(f.ratio - f.learner_ratio)  # the signs that the filter itself sees
    kink = sigma == 0
    step = step_of(x, h)
    left = (0.5 * states * torch.where(kink, step.abs(), sigma * step)).sum((1, 2))
    right = (0.5 * states * step_of(x, torch.where(kink, h, 0.0)).abs()).sum((1, 2))
    magnitude = (states * (x.behaviour_states[:, :, None] + x.current) * h.abs().amax(-1, keepdim=True)).sum((1, 2))
    return Bound(left, right, 4.0 * tolerance.summation(x.mdp, magnitude))


def direct_step(x: Instance, h: Tensor) -> Tensor:
    """δπ of a gradient step on the probabilities themselves: Σ w c ∇log π = d·h, then projected on Σ_a δπ = 0."""
    taken = (x.behaviour > 0).to(h.dtype)
    step = x.behaviour_states[:, :, None] * h
    return step - (step * taken).sum(-1, keepdim=True) / taken.sum(-1, keepdim=True) * taken


def natural_step(x: Instance, h: Tensor) -> Tensor:
    """δπ = π(h − E_π h): the natural gradient of tabular softmax, multiplicative weights."""
    return x.current * (h - (x.current * h).sum(-1, keepdim=True))


def softmax_step(x: Instance, h: Tensor) -> Tensor:
    """δπ of an ordinary gradient step on tabular softmax logits."""
    logits = x.behaviour_states[:, :, None] * x.current * (h - (x.current * h).sum(-1, keepdim=True))
    return x.current * (logits - (x.current * logits).sum(-1, keepdim=True))


def direct(x: Instance, *, rule: str = "tv") -> Bound:
    """Statement 2 to first order; the controls run the same step without the filter, or with PPO's clip."""
    return _first_order(x, direct_step, rule)


def natural(x: Instance, *, rule: str = "tv") -> Bound:
    """Statement 3 to first order."""
    return _first_order(x, natural_step, rule)


def direct_finite(x: Instance, *, overshoot: float = 1.0) -> Bound:
    """Statement 2 for a finite step: up to the first change of sign, or the simplex's border, D does not increase."""
    f = filtered(x)
    step = direct_step(x, f.kept_advantage)
    difference = x.current - x.learner
    kink = f.ratio == f.learner_ratio
    step = torch.where(kink.any(-1, keepdim=True), 0.0, step)  # states with a kink stay where they are
    size = torch.where(step != 0, step.abs(), 1e-300)
    closing = torch.where(step * difference < 0, difference.abs() / size, torch.inf)
    border = torch.where(step < 0, x.current / size, torch.inf)
    length = torch.minimum(closing, border).amin((1, 2)).clamp(max=1e6)
    after = x.current + overshoot * length[:, None, None] * step
    left = (x.behaviour_states * divergence.categorical_total_variation(after, x.learner)).sum(-1)
    right = (x.behaviour_states * divergence.categorical_total_variation(x.current, x.learner)).sum(-1)
    return Bound(left, right, 4.0 * tolerance.summation(x.mdp, 1.0 + after.abs().amax((1, 2))))


def two_actions(x: Instance) -> Instance:
    """The instance with its first two actions only, every policy mixed with a little of the uniform one.

    The mixing keeps a ratio defined where a policy used neither action; equal policies stay equal.
    """
    m = x.mdp
    mdp = MDP(m.transition[:, :, :2], m.reward[:, :, :2], m.start, m.discount)
    mixed = [p[..., :2] + 1e-6 for p in (x.behaviours, x.learner, x.current)]
    behaviours, learner, current = (p / p.sum(-1, keepdim=True) for p in mixed)
    return replace(x, mdp=mdp, behaviours=behaviours, learner=learner, current=current)


def softmax_two_actions(x: Instance) -> Bound:
    """Statement 4, first half: with two actions ordinary softmax is safe to first order."""
    pair = two_actions(x) if x.mdp.actions > 2 else x
    return _first_order(pair, softmax_step)


def softmax_any(x: Instance) -> Bound:
    """The false extension of statement 4 to more actions: a control, it fails."""
    return _first_order(x, softmax_step)


def shared_features(x: Instance, *, repair: Literal["none", "projection"] = "projection", features: int = 3) -> Bound:
    """Statement 5: with linear features shared by all pairs, the repaired filtered gradient does not increase D.

    Parameters θ with logits Φθ, Φ a fixed [S·A, features] array; left is ⟨step, ∇D⟩ with the step normalised. With
    ``repair="none"`` it is the plain filtered gradient, which may increase D.
    """
    f = filtered(x)
    angles = torch.arange(x.mdp.states * x.mdp.actions * features, dtype=f.ratio.dtype)
    phi = torch.sin(angles * 1.7 + 0.3).reshape(x.mdp.states, x.mdp.actions, features)
    score = phi - torch.einsum("bsa,saf->bsf", x.current, phi)[:, :, None, :]  # ∇θ log π, [B, S, A, F]
    gradient = torch.einsum("bsa,bsaf->bf", f.weights * f.coefficient, score)
    toward = divergence.total_variation_coefficient(f.ratio, f.learner_ratio)
    rising = torch.einsum("bsa,bsaf->bf", f.weights * toward, score)
    step = project(gradient, rising) if repair == "projection" else gradient
    left = (step * rising).sum(-1)
    size = gradient.norm(dim=-1) * rising.norm(dim=-1)
    error = 16.0 * tolerance.summation(x.mdp, size + x.learner_advantages.abs().amax((1, 2)))
    return Bound(left, torch.zeros_like(left), error)


def project(gradient: Tensor, rising: Tensor) -> Tensor:
    """Remove from `gradient` what raises D: g − max(0, ⟨g, n⟩)n, n = ∇D/‖∇D‖; last axis is the parameters."""
    norm = rising.norm(dim=-1, keepdim=True)
    normal = rising / torch.where(norm > 0, norm, torch.ones_like(norm))
    return gradient - (gradient * normal).sum(-1, keepdim=True).clamp(min=0.0) * normal


def softmax_counterexample() -> dict[str, list[str]]:
    """One state, three actions, β = π_T: the filter fires, drops what it must, and TV still rises.

    TV(π, π_T) = 1/4. E_{π_T} A = 0. Two samples of three are dropped; the one that is kept, with A < 0 and π > π_T, is
    rightly pushed down, but an ordinary softmax step hands most of its probability to the third action, which is
    the most probable and already too probable.

    Returns:
        π, π_T and A as fractions; `theory.exact` computes the derivative of D from them without rounding.
    """
    return {
        "current": ["1/8", "1/4", "5/8"],
        "learner": ["3/8", "1/8", "1/2"],
        "advantages": ["-1", "-1", "1"],
    }
