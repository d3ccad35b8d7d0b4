"""Every statement once more, in fractions; those with logarithms in interval arithmetic.

A check takes a `Case` and returns its claims as (left, right) pairs, one or one a state. Names are those of the float
checks. Keywords drop assumptions, as in `theory.bounds`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np

from theory.rational import Case, Exact, Number, divide, fmpq, positive, signs, solve, variation, where

Claims = list[tuple[Number, Number]]
ExactCheck = Callable[[Case], Claims]


def _mean(x: Case, p: Exact, q: Exact) -> Number:
    return (x.states_behaviour * variation(p, q)).sum()


def performance_difference(x: Case, states: str = "states_current") -> Claims:
    """(a), an identity."""
    return [(x.improvement, x.horizon * (getattr(x, states) * x.bar).sum())]


def state_drift(x: Case, constant: int = 2) -> Claims:
    """(e)."""
    left = abs(x.states_current - x.states_behaviour).sum()
    return [(left, constant * x.discount * x.horizon * _mean(x, x.current, x.behaviour))]


def state_drift_coupled(x: Case, constant: int = 2) -> Claims:
    """(e) by coupling."""
    alpha = variation(x.current, x.behaviour).max()
    left = abs(x.states_current - x.states_behaviour).sum()
    return [(left, constant * x.discount * alpha / (1 - x.discount + x.discount * alpha))]


def cpo(x: Case, constant: int = 2) -> Claims:
    """(b)."""
    left = abs(x.improvement - x.horizon * (x.states_learner * x.bar).sum())
    lag = (x.states_learner * variation(x.current, x.learner)).sum()
    return [(left, constant * x.discount * x.horizon**2 * abs(x.bar).max() * lag)]


def _off_policy_gap(x: Case, ratio: Exact, gains: Exact) -> Number:
    return abs(x.improvement - x.horizon * (x.weights * ratio * gains).sum())


def off_policy(x: Case, constant: int = 2, split: bool = False, ratio: str = "behaviour", gains: str = "") -> Claims:
    """(c), and with the lag split (i)."""
    used = x.ratio if ratio == "behaviour" else divide(x.current, x.learner)
    advantage = x.advantages(x.behaviour) if gains == "behaviour" else x.gains
    lag = _mean(x, x.current, x.behaviour)
    if split:
        lag = _mean(x, x.current, x.learner) + _mean(x, x.learner, x.behaviour)
    worst = abs((x.current * advantage).sum(1)).max()
    return [(_off_policy_gap(x, used, advantage), constant * x.discount * x.horizon**2 * worst * lag)]


def off_policy_coupled(x: Case, constant: int = 2) -> Claims:
    """(c) with the coupled drift."""
    alpha = variation(x.current, x.behaviour).max()
    drift = constant * x.discount * alpha / (1 - x.discount + x.discount * alpha)
    return [(_off_policy_gap(x, x.ratio, x.gains), x.horizon * abs(x.bar).max() * drift)]


def off_policy_mixture(x: Case, constant: int = 2, own: bool = True) -> Claims:
    """(c) for several behaviour policies."""
    value, lag = fmpq(0), fmpq(0)
    for share, beta in zip(x.mixture, x.behaviours, strict=True):
        states = x.distribution(beta)
        ratio = divide(x.current, beta if own else x.behaviour)
        value += share * x.horizon * (states[:, None] * beta * ratio * x.gains).sum()
        lag += share * (states * variation(x.current, beta)).sum()
    right = constant * x.discount * x.horizon**2 * abs(x.bar).max() * lag
    return [(abs(x.improvement - value), right)]


def trpo(x: Case, constant: int = 4) -> Claims:
    """(d)."""
    left = abs(x.improvement - x.horizon * (x.states_learner * x.bar).sum())
    alpha = variation(x.current, x.learner).max()
    return [(left, constant * x.discount * x.horizon**2 * abs(x.gains).max() * alpha**2)]


def estimator_total(x: Case) -> Claims:
    """½E_β|ρ − 1| = E TV(π, β), an identity."""
    return [((x.weights * abs(x.ratio - 1)).sum() / 2, _mean(x, x.current, x.behaviour))]


def estimator_forward(x: Case, proximal: bool = False) -> Claims:
    """½E_β|ρ − ρ_T| = E TV(π, π_T), an identity."""
    deviation = divide(x.current, x.learner) - 1 if proximal else x.ratio - x.learner_ratio
    return [((x.weights * abs(deviation)).sum() / 2, _mean(x, x.current, x.learner))]


def estimator_bounded(x: Case) -> Claims:
    """E_β(1 − ρ)⁺ = E TV(π, β), an identity."""
    return [((x.weights * positive(1 - x.ratio)).sum(), _mean(x, x.current, x.behaviour))]


def lag_split(x: Case, forward: bool = True) -> Claims:
    """(i), upper."""
    right = _mean(x, x.learner, x.behaviour) + (_mean(x, x.current, x.learner) if forward else 0)
    return [(_mean(x, x.current, x.behaviour), right)]


def lag_split_reverse(x: Case) -> Claims:
    """(i), lower."""
    left = abs(_mean(x, x.current, x.learner) - _mean(x, x.learner, x.behaviour))
    return [(left, _mean(x, x.current, x.behaviour))]


def lag_chain(x: Case) -> Claims:
    """(i), along a buffer."""
    links = [x.current, x.learner, *x.behaviours]
    total = np.sum([variation(p, q) for p, q in itertools.pairwise(links)], axis=0)
    return list(zip(variation(links[0], links[-1]), total, strict=True))


def ratio_range(x: Case, constant: str = "1/2") -> Claims:
    """(j): TV ≤ ½ max|ρ − 1|."""
    deviation = where(x.behaviour != 0, abs(x.ratio - 1), fmpq(0)).max(1)
    half = fmpq(1, 2) if constant == "1/2" else fmpq(1, 4)
    return list(zip(variation(x.current, x.behaviour), half * deviation, strict=True))


def chi_squared(x: Case, constant: int = 4) -> Claims:
    """(j): 4(E TV)² ≤ χ²."""
    return [(constant * _mean(x, x.current, x.behaviour) ** 2, (x.weights * (x.ratio - 1) ** 2).sum())]


def effective_sample_size(x: Case, constant: int = 4) -> Claims:
    """(j): 4(E TV)² ≤ 1/ESS − 1."""
    share = (x.weights * x.ratio).sum() ** 2 / (x.weights * x.ratio**2).sum()
    return [(constant * _mean(x, x.current, x.behaviour) ** 2, 1 / share - 1)]


def binary_variation(x: Case) -> Claims:
    """(j): |π(a) − β(a)| ≤ TV."""
    return list(zip(abs(x.current - x.behaviour).max(1), variation(x.current, x.behaviour), strict=True))


def _factors(x: Case) -> tuple[Exact, Exact, Exact]:
    first, second = x.behaviours[0], x.behaviours[1]
    p = (x.current[:, :, None] * x.learner[:, None, :]).reshape(x.states, -1)
    q = (first[:, :, None] * second[:, None, :]).reshape(x.states, -1)
    return variation(p, q), variation(x.current, first), variation(x.learner, second)


def product_upper(x: Case) -> Claims:
    """(j): TV(⊗) ≤ Σ TV_j."""
    joint, first, second = _factors(x)
    return list(zip(joint, first + second, strict=True))


def product_lower(x: Case) -> Claims:
    """(j): Π(1 − TV_j) ≤ 1 − TV(⊗)."""
    joint, first, second = _factors(x)
    return list(zip((1 - first) * (1 - second), 1 - joint, strict=True))


def subgradient(x: Case, half: int = 1) -> Claims:
    """(g): TV(π) + ⟨g, π_T − π⟩ ≤ TV(π_T)."""
    slope = half * signs(x.ratio - 1) / 2
    left = _mean(x, x.current, x.behaviour) + (x.weights * slope * (x.learner_ratio - x.ratio)).sum()
    return [(left, _mean(x, x.learner, x.behaviour))]


# V-trace -----------------------------------------------------------------------------------------------------------


def _operator(x: Case, swap: bool = False) -> tuple[Exact, Exact, Exact]:
    """K, S(s) and Z(s); columns of K by one solve each."""
    rho_bar, c_bar = (x.rho_bar / 3, 3 * x.rho_bar) if swap else (x.rho_bar, x.c_bar)
    weighted, traced = np.minimum(rho_bar * x.behaviour, x.learner), np.minimum(c_bar * x.behaviour, x.learner)
    identity = np.array([[fmpq(int(i == j)) for j in range(x.states)] for i in range(x.states)], dtype=object)
    system = identity - x.discount * x.trace_decay * x.policy_transition(traced)
    mass = weighted.sum(1)
    inner = identity * mass[:, None] - x.discount * x.policy_transition(weighted)
    columns = [solve(system, inner[:, j]) for j in range(x.states)]
    return identity - np.stack(columns, 1), solve(system, mass), mass


def vtrace_monotone(x: Case, swap: bool = False) -> Claims:
    """(f): −min K ≤ 0."""
    return [(-_operator(x, swap)[0].min(), fmpq(0))]


def vtrace_row_sums(x: Case) -> Claims:
    """(f): K1 = 1 − (1 − γ)S, an identity."""
    matrix, visits, _ = _operator(x)
    return list(zip(matrix.sum(1), 1 - (1 - x.discount) * visits, strict=True))


def vtrace_contraction(x: Case, swap: bool = False) -> Claims:
    """(f): ‖K‖∞ ≤ 1 − (1 − γ)b."""
    matrix, _, mass = _operator(x, swap)
    return [(abs(matrix).sum(1).max(), 1 - (1 - x.discount) * mass.min())]


def _target(x: Case) -> Exact:
    overlap = np.minimum(x.rho_bar * x.behaviour, x.learner)
    return np.asarray(overlap / overlap.sum(1, keepdims=True))


def vtrace_fixed_point(x: Case, learner: bool = False) -> Claims:
    """(f): the expected correction vanishes at V^{π_ρ̄}, an identity."""
    values = x.values(x.learner if learner else _target(x))
    weighted = np.minimum(x.rho_bar * x.behaviour, x.learner)
    errors = x.reward + x.discount * (x.transition * values).sum(2) - values[:, None]
    return [(v, fmpq(0)) for v in (weighted * errors).sum(1)]


def target_between(x: Case) -> Claims:
    """(f): π_ρ̄ is within the backward lag of π_T and of β."""
    target, lag = _target(x), variation(x.learner, x.behaviour)
    nearest = np.maximum(variation(target, x.learner), variation(target, x.behaviour))
    return list(zip(nearest, lag, strict=True))


def truncation_bias(x: Case, lag: bool = False, halves: int = 2) -> Claims:
    """(f): bias of realignment."""
    target = _target(x)
    lost = variation(x.learner, x.behaviour) if lag else 1 - np.minimum(x.rho_bar * x.behaviour, x.learner).sum(1)
    taken = [[g for g, b in zip(gs, bs, strict=True) if b != 0] for gs, bs in zip(x.gains, x.behaviour, strict=True)]
    span = np.array([max(g) - min(g) for g in taken], dtype=object)
    left = abs(x.performance(target) - x.performance(x.learner))
    return [(left, halves * x.horizon * (x.distribution(target) * lost * span).sum() / 2)]


Row = tuple[str, ExactCheck, bool, dict[str, ExactCheck]]  # name, check, identity, controls

RATIONAL: list[Row] = [
    (
        "performance_difference",
        performance_difference,
        True,
        {"d^{π_T}": partial(performance_difference, states="states_learner")},
    ),
    ("state_drift", state_drift, False, {"half the constant": partial(state_drift, constant=1)}),
    (
        "state_drift_coupled",
        state_drift_coupled,
        False,
        {"half the constant": partial(state_drift_coupled, constant=1)},
    ),
    ("cpo", cpo, False, {"half the constant": partial(cpo, constant=1)}),
    (
        "off_policy",
        off_policy,
        False,
        {
            "half the constant": partial(off_policy, constant=1),
            "denominator π_T for β": partial(off_policy, ratio="learner"),
            "advantage of β for π_T": partial(off_policy, gains="behaviour"),
        },
    ),
    (
        "off_policy_split",
        partial(off_policy, split=True),
        False,
        {"half the constant": partial(off_policy, split=True, constant=1)},
    ),
    (
        "off_policy_mixture",
        off_policy_mixture,
        False,
        {"ratio over the first β": partial(off_policy_mixture, own=False)},
    ),
    ("off_policy_coupled", off_policy_coupled, False, {"half the constant": partial(off_policy_coupled, constant=1)}),
    ("trpo", trpo, False, {"half the constant": partial(trpo, constant=2)}),
    ("estimator_total", estimator_total, True, {}),
    ("estimator_forward", estimator_forward, True, {"|π/π_T−1| under β": partial(estimator_forward, proximal=True)}),
    ("estimator_bounded", estimator_bounded, True, {}),
    ("lag_split", lag_split, False, {"backward lag alone": partial(lag_split, forward=False)}),
    ("lag_split_reverse", lag_split_reverse, False, {}),
    ("lag_chain", lag_chain, False, {}),
    ("ratio_range", ratio_range, False, {"half the constant": partial(ratio_range, constant="1/4")}),
    ("chi_squared", chi_squared, False, {"twice the constant": partial(chi_squared, constant=8)}),
    (
        "effective_sample_size",
        effective_sample_size,
        False,
        {"twice the constant": partial(effective_sample_size, constant=8)},
    ),
    ("binary_variation", binary_variation, False, {}),
    ("product_upper", product_upper, False, {}),
    ("product_lower", product_lower, False, {}),
    ("subgradient", subgradient, False, {"without the half": partial(subgradient, half=2)}),
    ("vtrace_monotone", vtrace_monotone, False, {"c̄ > ρ̄": partial(vtrace_monotone, swap=True)}),
    ("vtrace_row_sums", vtrace_row_sums, True, {}),
    ("vtrace_contraction", vtrace_contraction, False, {"c̄ > ρ̄": partial(vtrace_contraction, swap=True)}),
    (
        "vtrace_fixed_point",
        vtrace_fixed_point,
        True,
        {"V^{π_T} for V^{π_ρ̄}": partial(vtrace_fixed_point, learner=True)},
    ),
    ("target_between", target_between, False, {}),
    ("truncation_bias", truncation_bias, False, {"half the constant": partial(truncation_bias, halves=1)}),
    (
        "truncation_bias_lag",
        partial(truncation_bias, lag=True),
        False,
        {"half the constant": partial(truncation_bias, lag=True, halves=1)},
    ),
]
