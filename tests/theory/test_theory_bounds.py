"""Every bound against a slow loop, every statement without violation, every control failing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from theory import bounds, divergences, families, filter_guarantee, hard, vtrace
from theory.checks import all_checks
from theory.instances import random_instance, select
from theory.mdp import state_values
from theory.suite import make_instances, run_check, run_controls
from vaco.objectives import divergence

CHECKS = all_checks()


@pytest.fixture(scope="module")
def xs():
    return make_instances(1200, seed=11)


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    m = families.dense(rng, 12, 3, 3)
    m = replace(m, discount=m.discount.clamp(max=0.9))  # the loops take 1/(1 − γ) times as long
    return random_instance(rng, m, "dense")


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.name)
def test_no_violation(check, xs):
    row = run_check(check, xs)
    assert row["violations"] == 0
    assert row["instances"] >= 1200
    if check.identity:
        assert row["largest_rounding_used"] < 0.5, "the tolerance is derived, so an identity should stay well inside it"
    elif row["tightest"] is not None:
        assert row["tightest"] <= 1.0 + 1e-5


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.name)
def test_every_control_fails(check, xs):
    assert check.controls, "a check that nothing can make fail is a defect"
    for row in run_controls(check, xs):
        assert row["failed"], f"{row['dropped']} did not fail"


def loops(x):
    """Everything the performance bounds need, for a batch of one, by sums over states and actions."""
    P, r, mu = (v[0].numpy() for v in (x.mdp.transition, x.mdp.reward, x.mdp.start))
    gamma = float(x.mdp.discount[0])
    S, A = r.shape

    def solve(pi):
        V = np.zeros(S)
        for _ in range(math.ceil(40 / max(1e-3, 1 - gamma))):
            V = np.array([sum(pi[s, a] * (r[s, a] + gamma * P[s, a] @ V) for a in range(A)) for s in range(S)])
        d, here, weight = np.zeros(S), mu.copy(), 1 - gamma
        for _ in range(math.ceil(40 / max(1e-3, 1 - gamma))):
            d, here, weight = (
                d + weight * here,
                sum(here[s] * pi[s, a] * P[s, a] for s in range(S) for a in range(A)),
                weight * gamma,
            )
        gains = np.array([[r[s, a] + gamma * P[s, a] @ V - V[s] for a in range(A)] for s in range(S)])
        return V @ mu, d, gains

    return gamma, S, A, solve


def tv(p, q):
    return 0.5 * sum(abs(a - b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("index", range(4))
def test_performance_bounds_equal_loops(small, index):
    x = select(small, index)
    gamma, S, A, solve = loops(x)
    beta, learner, current = (v[0].numpy() for v in (x.behaviour, x.learner, x.current))
    (J_l, d_l, gains), (J_c, d_c, _), (_, d_b, _) = solve(learner), solve(current), solve(beta)
    bar = [sum(current[s, a] * gains[s, a] for a in range(A)) for s in range(S)]
    C = max(abs(v) for v in bar)

    def close(bound, left, right):
        np.testing.assert_allclose(float(bound.left[0]), left, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(float(bound.right[0]), right, rtol=1e-7, atol=1e-9)

    close(bounds.performance_difference(x), J_c - J_l, sum(d_c[s] * bar[s] for s in range(S)) / (1 - gamma))
    mean_tv = sum(d_b[s] * tv(current[s], beta[s]) for s in range(S))
    drift = sum(abs(d_c[s] - d_b[s]) for s in range(S))
    close(bounds.state_drift(x), drift, 2 * gamma / (1 - gamma) * mean_tv)
    alpha = max(tv(current[s], beta[s]) for s in range(S))
    close(bounds.state_drift_coupled(x), drift, 2 * gamma * alpha / (1 - gamma + gamma * alpha))
    scale = 2 * gamma * C / (1 - gamma) ** 2
    off = sum(
        d_b[s] * beta[s, a] * current[s, a] / beta[s, a] * gains[s, a] for s in range(S) for a in range(A) if beta[s, a]
    )
    gap = abs(J_c - J_l - off / (1 - gamma))
    close(bounds.off_policy(x), gap, scale * mean_tv)
    forward = sum(d_b[s] * tv(current[s], learner[s]) for s in range(S))
    backward = sum(d_b[s] * tv(learner[s], beta[s]) for s in range(S))
    close(bounds.off_policy(x, lag_of="split"), gap, scale * (forward + backward))
    close(bounds.off_policy_coupled(x), gap, C / (1 - gamma) * 2 * gamma * alpha / (1 - gamma + gamma * alpha))
    on = sum(d_l[s] * bar[s] for s in range(S)) / (1 - gamma)
    gap_on = abs(J_c - J_l - on)
    close(bounds.cpo(x), gap_on, scale * sum(d_l[s] * tv(current[s], learner[s]) for s in range(S)))
    top = max(tv(current[s], learner[s]) for s in range(S))
    close(bounds.trpo(x), gap_on, 4 * gamma * np.abs(gains).max() * top**2 / (1 - gamma) ** 2)
    mixed, lag = 0.0, 0.0
    for i in range(3):
        b, nu = x.behaviours[0, i].numpy(), float(x.mixture[0, i])
        _, d, _ = solve(b)
        mixed += (
            nu * sum(d[s] * current[s, a] * gains[s, a] for s in range(S) for a in range(A) if b[s, a]) / (1 - gamma)
        )
        lag += nu * sum(d[s] * tv(current[s], b[s]) for s in range(S))
    close(bounds.off_policy_mixture(x), abs(J_c - J_l - mixed), scale * lag)


def test_vtrace_operator_equals_value_iteration(small):
    for index in range(4):
        x = select(small, index)
        values = torch.zeros(1, 3, dtype=torch.float64)
        for _ in range(4000):
            new = vtrace.apply(x, values)
            if float((new - values).abs().max()) < 1e-13:
                break
            values = new
        target = bounds.truncated_policy(x.behaviour, x.learner, x.rho_bar)
        np.testing.assert_allclose(values[0], state_values(x.mdp, target)[0], atol=1e-6)


def test_divergence_bounds_equal_loops(small):
    bound = divergences.pinsker(small)
    for i in range(small.mdp.batch):
        shares = []
        for s in range(3):
            p, q = small.current[i, s].numpy(), small.behaviour[i, s].numpy()
            kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
            shares.append((2 * tv(p, q) ** 2, kl))
        assert any(abs(float(bound.left[i]) - a) < 1e-12 and abs(float(bound.right[i]) - b) < 1e-12 for a, b in shares)


def test_gradient_of_total_variation_by_finite_differences(small):
    x = select(small, 1)
    logits = x.current.log()
    weights = x.behaviour_states[:, :, None] * x.behaviour
    ratio = x.current / x.behaviour
    coefficient = divergence.total_variation_coefficient(ratio, 1.0) * weights / weights.sum()
    built = coefficient - x.current * coefficient.sum(-1, keepdim=True)

    def variation(z):
        return float(bounds.mean_variation(x.behaviour_states, torch.softmax(z, -1), x.behaviour)[0])

    for s in range(3):
        for a in range(3):
            nudge = torch.zeros_like(logits)
            nudge[0, s, a] = 1e-6
            assert (variation(logits + nudge) - variation(logits - nudge)) / 2e-6 == pytest.approx(
                float(built[0, s, a]), abs=1e-8
            )


def test_hand_made_instances_attain_the_constants():
    drift = bounds.state_drift(hard.leaver(0.9, 0.5, 1e-6, leak=1e-12))
    assert float(drift.attained[0]) == pytest.approx(1.0, abs=1e-5)
    coupled = bounds.state_drift_coupled(hard.leaver(0.9, 0.5, 1e-6, leak=1e-12))
    assert float(coupled.attained[0]) == pytest.approx(1.0, abs=1e-5)
    assert float(bounds.off_policy(hard.leaver(0.9, 0.1, 1e-5)).attained[0]) > 0.99
    assert float(bounds.trpo(hard.leaver(0.9, 1e-3, 1e-3, flat=True)).attained[0]) > 0.99


def test_softmax_counterexample_in_floats():
    trap = hard.hard_instances()[-1]
    assert trap.family == "softmax trap"
    f = filter_guarantee.filtered(trap)
    assert f.kept_advantage[0, 0].tolist() == [0.0, -1.0, 0.0]
    assert bool(filter_guarantee.softmax_any(trap).violated[0])
    assert not bool(filter_guarantee.natural(trap).violated[0])
    assert not bool(filter_guarantee.direct(trap).violated[0])
