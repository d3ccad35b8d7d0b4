"""The performance bounds, as functions that return left, right, slack and the rounding they may carry.

Each takes an `Instance` and returns a `Bound` that claims left ≤ right (or left = right). Letters refer to
ALGORITHMS.md, section B. Every assumption of a statement is a keyword whose default is the assumption, so that a
negative control is the same function with one keyword changed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from theory import expect, tolerance
from theory.instances import Instance
from theory.mdp import advantages, performance, state_distribution
from vaco.objectives import divergence

CLEAR = 1e6  # a share left/right is reported where the right side is this many times its rounding


class Bound(NamedTuple):
    """One claim for each instance of a batch, all of shape [B].

    Attributes:
        left: the smaller side.
        right: the larger side, or the equal one when `identity`.
        error: what rounding may contribute to left − right.
        identity: the claim is left = right.
    """

    left: Tensor
    right: Tensor
    error: Tensor
    identity: bool = False

    @property
    def slack(self) -> Tensor:
        """Right − left, or −|right − left| for an identity."""
        difference = self.right - self.left
        return -difference.abs() if self.identity else difference

    @property
    def violated(self) -> Tensor:
        """Bool [B]: the claim is false by more than rounding."""
        return self.slack < -self.error

    @property
    def undecided(self) -> Tensor:
        """Bool [B]: rounding is as large as the slack, so an inequality is neither confirmed nor refuted."""
        near = (self.slack.abs() <= self.error) & (self.error > 0)
        return torch.zeros_like(near) if self.identity else near & ~self.empty

    @property
    def empty(self) -> Tensor:
        """Bool [B]: both sides of an inequality are zero up to rounding (equal policies, γ = 0): nothing is claimed."""
        zero = (self.left.abs() <= self.error) & (self.right.abs() <= self.error) & (self.error > 0)
        return torch.zeros_like(zero) if self.identity else zero

    @property
    def attained(self) -> Tensor:
        """Share left/right of the bound that is attained, where the right side is well above rounding; else NaN."""
        clear = self.right > CLEAR * self.error
        share = self.left / torch.where(clear, self.right, torch.ones_like(self.right))
        return torch.where(clear, share, torch.nan)


def mean_variation(states: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """E_{s∼d} TV(p(·|s), q(·|s)), shape [B]."""
    return (states * divergence.categorical_total_variation(p, q)).sum(-1)


def worst_variation(p: Tensor, q: Tensor) -> Tensor:
    """max_s TV(p(·|s), q(·|s)), shape [B]."""
    return divergence.categorical_total_variation(p, q).amax(-1)


def state_gains(policy: Tensor, gains: Tensor) -> Tensor:
    """Ā(s) = E_{a∼π} A(s, a), shape [B, S]."""
    return (policy * gains).sum(-1)


# (a) performance-difference identity ------------------------------------------------------------------------------


def performance_difference(
    x: Instance,
    *,
    states_of: Literal["current", "learner"] = "current",
    advantage_of: Literal["learner", "current"] = "learner",
    normalised: bool = True,
) -> Bound:
    """J(π) − J(π_T) = (1 − γ)⁻¹ E_{d^π, π}[A^{π_T}] (Kakade and Langford 2002, Lemma 6.1; the paper's Lemma 3.1)."""
    states = x.current_states if states_of == "current" else x.learner_states
    gains = x.learner_advantages if advantage_of == "learner" else advantages(x.mdp, x.current)
    weight = x.mdp.horizon if normalised else x.mdp.horizon**2
    right = weight * (states * state_gains(x.current, gains)).sum(-1)
    return Bound(x.current_performance - x.learner_performance, right, tolerance.surrogate_error(x.mdp), True)


# (e) how far the state distributions drift -------------------------------------------------------------------------


def state_drift(
    x: Instance,
    *,
    constant: float = 2.0,
    mean_over: Literal["behaviour", "uniform"] = "behaviour",
    normalised: bool = True,
) -> Bound:
    """‖d^π − d^β‖₁ ≤ 2γ/(1 − γ) · E_{d^β} TV(π, β) (Achiam et al. 2017, Lemma 3)."""
    gamma, horizon = x.mdp.discount, x.mdp.horizon
    left = (x.current_states - x.behaviour_states).abs().sum(-1) * (1.0 if normalised else horizon)
    uniform = torch.full_like(x.behaviour_states, 1.0 / x.mdp.states)
    states = x.behaviour_states if mean_over == "behaviour" else uniform
    factor = constant * gamma * horizon
    variation = mean_variation(states, x.current, x.behaviour)
    worst = worst_variation(x.current, x.behaviour)
    error = tolerance.solved(x.mdp) + factor * (tolerance.solved(x.mdp, worst) + tolerance.summation(x.mdp))
    return Bound(left, factor * variation, error)


def state_drift_coupled(x: Instance, *, constant: float = 2.0, worst_state: bool = True) -> Bound:
    """‖d^π − d^β‖₁ ≤ 2γα/(1 − γ + γα), α = max_s TV(π, β)(s): never above 2, and attained for every α.

    Two trajectories with the best coupling of actions separate at each step with probability at most α, so at time t
    they differ with probability at most 1 − (1 − α)ᵗ; sum with the weights (1 − γ)γᵗ.
    """
    gamma = x.mdp.discount
    left = (x.current_states - x.behaviour_states).abs().sum(-1)
    alpha = worst_variation(x.current, x.behaviour)
    if not worst_state:
        alpha = mean_variation(x.behaviour_states, x.current, x.behaviour)
    slope = gamma / (1.0 - gamma + gamma * alpha)
    error = tolerance.solved(x.mdp) + 2.0 * slope * tolerance.summation(x.mdp)
    return Bound(left, constant * slope * alpha, error)


# (b), (c), (i) performance bounds ----------------------------------------------------------------------------------


def _penalised(x: Instance, value: Tensor, constant: Tensor, factor: Tensor, lag: Tensor, worst: Tensor) -> Bound:
    """|J(π) − J(π_T) − value| ≤ factor · constant · lag, with the rounding of both sides."""
    left = (x.current_performance - x.learner_performance - value).abs()
    error = 3.0 * tolerance.surrogate_error(x.mdp)
    error = error + tolerance.penalty_error(x.mdp, factor, constant, lag, worst)
    return Bound(left, factor * constant * lag, error)


def _worst_gain(x: Instance, gains: Tensor) -> Tensor:
    """C = max_s |E_{a∼π} A(s, a)|, shape [B]."""
    return state_gains(x.current, gains).abs().amax(-1)


def cpo(x: Instance, *, constant: float = 2.0, worst_gain: bool = True, drop_gamma: bool = False) -> Bound:
    """|J(π) − J(π_T) − (1 − γ)⁻¹ E_{d^{π_T}, π}[A^{π_T}]| ≤ 2γε'/(1 − γ)² · E_{d^{π_T}} TV(π, π_T).

    Achiam et al. 2017, Corollaries 1 and 2, both sides at once; ε' = max_s |E_{a∼π} A^{π_T}(s, a)|.
    """
    gains = x.learner_advantages
    value = x.mdp.horizon * (x.learner_states * state_gains(x.current, gains)).sum(-1)
    worst = _worst_gain(x, gains)
    if not worst_gain:
        worst = (x.learner_states * state_gains(x.current, gains).abs()).sum(-1)
    gamma = x.mdp.discount if not drop_gamma else x.mdp.discount**2
    factor = constant * gamma * x.mdp.horizon**2
    lag = mean_variation(x.learner_states, x.current, x.learner)
    return _penalised(x, value, worst, factor, lag, worst_variation(x.current, x.learner))


def off_policy(
    x: Instance,
    *,
    constant: float = 2.0,
    ratio_over: Literal["behaviour", "learner"] = "behaviour",
    advantage_of: Literal["learner", "behaviour"] = "learner",
    lag_of: Literal["total", "forward", "split", "backward"] = "total",
    weight_sum: Literal["normalised", "discounted"] = "normalised",
) -> Bound:
    """The paper's setting: states and actions from β, advantage of π_T, ratio π/β, penalty TV(π, β).

    |J(π) − J(π_T) − (1 − γ)⁻¹ E_{d^β, β}[(π/β) A^{π_T}]| ≤ 2γC/(1 − γ)² · E_{d^β} TV(π, β) (Queeney et al. 2021,
    Theorem 1). ``lag_of="split"`` puts the sum of the forward and the backward lag in TV's place, the triangle
    inequality (i) of the norm. Ratios, lags and surrogate are computed by `vaco.objectives`.
    """
    weights = expect.joint(x.behaviour_states, x.behaviour)
    values, learner_values = expect.ratio(x.current, x.behaviour), expect.ratio(x.learner, x.behaviour)
    used = values if ratio_over == "behaviour" else expect.ratio(x.current, x.learner)
    gains = x.learner_advantages if advantage_of == "learner" else x.behaviour_advantages
    scale = x.mdp.horizon if weight_sum == "normalised" else x.mdp.horizon**2
    value = scale * expect.surrogate(used, gains, weights)
    one = torch.ones_like(values)
    lags = {
        "total": lambda: expect.total_variation(values, one, weights),
        "forward": lambda: expect.total_variation(values, learner_values, weights),
        "backward": lambda: expect.total_variation(learner_values, one, weights),
    }
    lag = lags["forward"]() + lags["backward"]() if lag_of == "split" else lags[lag_of]()
    worst = torch.maximum(worst_variation(x.current, x.behaviour), worst_variation(x.current, x.learner))
    worst = worst + worst_variation(x.learner, x.behaviour)
    factor = constant * x.mdp.discount * x.mdp.horizon**2
    return _penalised(x, value, _worst_gain(x, gains), factor, lag, worst)


def off_policy_mixture(
    x: Instance,
    *,
    constant: float = 2.0,
    ratio_over: Literal["own", "first"] = "own",
    penalty_of: Literal["mean", "least"] = "mean",
) -> Bound:
    """The bound when the data mix several behaviour policies, as a policy buffer makes them.

    |J(π) − J(π_T) − (1 − γ)⁻¹ Σ_i ν_i E_{d^{β_i}, β_i}[(π/β_i) A^{π_T}]| ≤ 2γC/(1 − γ)² Σ_i ν_i E_{d^{β_i}} TV(π, β_i):
    the bound of each component, averaged. Every sample keeps the ratio over the policy that drew it.
    """
    gains = x.learner_advantages
    value, lags = torch.zeros_like(x.mdp.discount), []
    for i in range(x.behaviours.shape[1]):
        beta = x.behaviours[:, i]
        weights = expect.joint(state_distribution(x.mdp, beta), beta)
        values = expect.ratio(x.current, beta)
        used = values if ratio_over == "own" else expect.ratio(x.current, x.behaviour)
        value = value + x.mixture[:, i] * x.mdp.horizon * expect.surrogate(used, gains, weights)
        lags.append(expect.total_variation(values, torch.ones_like(values), weights))
    stacked = torch.stack(lags, -1)
    lag = (x.mixture * stacked).sum(-1) if penalty_of == "mean" else stacked.amin(-1)
    worst = divergence.categorical_total_variation(x.current[:, None], x.behaviours).amax((-1, -2))
    factor = constant * x.mdp.discount * x.mdp.horizon**2
    return _penalised(x, value, _worst_gain(x, gains), factor, lag, worst)


def off_policy_coupled(x: Instance, *, constant: float = 2.0) -> Bound:
    """The off-policy bound with the coupled drift: penalty C/(1 − γ) · 2γα/(1 − γ + γα), α = max_s TV(π, β)(s).

    Never above the trivial 2C/(1 − γ), so it says something at every lag, where (c) stops at E TV = (1 − γ)/γ.
    """
    weights = expect.joint(x.behaviour_states, x.behaviour)
    value = x.mdp.horizon * expect.surrogate(expect.ratio(x.current, x.behaviour), x.learner_advantages, weights)
    alpha = worst_variation(x.current, x.behaviour)
    gamma = x.mdp.discount
    factor = constant * gamma * x.mdp.horizon / (1.0 - gamma + gamma * alpha)
    return _penalised(x, value, _worst_gain(x, x.learner_advantages), factor, alpha, alpha)


# (d) the trust-region bound ----------------------------------------------------------------------------------------


def trpo(
    x: Instance, *, constant: float = 4.0, distance: Literal["max", "mean"] = "max", signed_gain: bool = False
) -> Bound:
    """|J(π) − L(π)| ≤ 4εγ/(1 − γ)² α² with α = max_s TV(π, π_T)(s), ε = max|A^{π_T}| (Schulman et al. 2015, Thm 1)."""
    value = x.mdp.horizon * (x.learner_states * state_gains(x.current, x.learner_advantages)).sum(-1)
    alpha = worst_variation(x.current, x.learner)
    if distance == "mean":
        alpha = mean_variation(x.learner_states, x.current, x.learner)
    gain = x.learner_advantages.amax((1, 2)) if signed_gain else x.learner_advantages.abs().amax((1, 2))
    factor = constant * x.mdp.discount * x.mdp.horizon**2
    return _penalised(x, value, gain * alpha, factor, alpha, alpha)


def trpo_kl(x: Instance, *, constant: float = 2.0, distance: Literal["max", "mean"] = "max") -> Bound:
    """|J(π) − L(π)| ≤ 2εγ/(1 − γ)² max_s KL(π_T‖π)(s): the same with Pinsker's 2·TV² ≤ KL, half TRPO's constant."""
    value = x.mdp.horizon * (x.learner_states * state_gains(x.current, x.learner_advantages)).sum(-1)
    kl = divergence.categorical_kl(x.learner, x.current)
    distance_kl = kl.amax(-1) if distance == "max" else (x.learner_states * kl).sum(-1)
    gain = x.learner_advantages.abs().amax((1, 2))
    factor = constant * x.mdp.discount * x.mdp.horizon**2
    finite = torch.isfinite(distance_kl)
    bound = _penalised(x, value, gain, factor, torch.where(finite, distance_kl, 0.0), torch.ones_like(gain))
    return Bound(bound.left, torch.where(finite, bound.right, torch.inf), bound.error)


def truncation_bias(
    x: Instance,
    *,
    mass: Literal["missing", "backward lag"] = "missing",
    constant: float = 1.0,
    horizon: bool = True,
) -> Bound:
    """|J(π_ρ̄) − J(π_T)| ≤ (1 − γ)⁻¹ E_{s∼d^{π_ρ̄}}[m(s) · span A^{π_T}(s, ·)], m(s) = 1 − Σ_a min(ρ̄β, π_T).

    V-trace truncated at ρ̄ aligns to π_ρ̄ ∝ min(ρ̄β, π_T), and TV(π_ρ̄, π_T)(s) ≤ m(s), because
    π_T − π_ρ̄ ≤ (π_T − ρ̄β)⁺. With ``mass="backward lag"`` TV(π_T, β)(s) stands in m's place, which holds for every ρ̄
    (`vtrace.target_between`): the bias of realignment is at most proportional to the backward lag, and by the first
    form it is zero once ρ̄ ≥ max ρ_T.
    """
    target = truncated_policy(x.behaviour, x.learner, x.rho_bar)
    if mass == "missing":
        lost = 1.0 - torch.minimum(x.rho_bar[:, None, None] * x.behaviour, x.learner).sum(-1)
    else:
        lost = divergence.categorical_total_variation(x.learner, x.behaviour)
    taken = x.behaviour > 0
    span = torch.where(taken, x.learner_advantages, -torch.inf).amax(-1)
    span = span - torch.where(taken, x.learner_advantages, torch.inf).amin(-1)
    states = state_distribution(x.mdp, target)
    left = (performance(x.mdp, target) - x.learner_performance).abs()
    scale = constant * x.mdp.horizon if horizon else constant
    return Bound(left, scale * (states * lost * span).sum(-1), 4.0 * tolerance.surrogate_error(x.mdp))


def truncated_policy(behaviour: Tensor, learner: Tensor, rho_bar: Tensor) -> Tensor:
    """π_ρ̄ ∝ min(ρ̄β, π_T), the policy whose value is V-trace's fixed point, shape [B, S, A]."""
    overlap = torch.minimum(rho_bar[:, None, None] * behaviour, learner)
    return overlap / overlap.sum(-1, keepdim=True)
