"""Batched V, Q, A, d and J against slow, obvious loops; refusal of bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from theory import families, mdp, tolerance
from theory.instances import check_instance, from_json, random_instance, random_instances, select, to_json
from vaco.errors import UserError


@pytest.fixture(params=list(families.RANDOM))
def instance(request):
    rng = np.random.default_rng(7)
    return random_instance(rng, families.RANDOM[request.param](rng, 3, 4, 3), request.param)


def loop_solution(m, policy, steps):
    """V by repeated Bellman backups and d by adding up γᵗ Pr(s_t = s), one state at a time."""
    P, r, mu, gamma = (v[0].numpy() for v in (m.transition, m.reward, m.start, m.discount))
    pi = policy[0].numpy()
    S, A = r.shape
    V, d, here = np.zeros(S), np.zeros(S), mu.copy()
    for t in range(steps):
        V = np.array(
            [
                sum(pi[s, a] * (r[s, a] + gamma * sum(P[s, a, z] * V[z] for z in range(S))) for a in range(A))
                for s in range(S)
            ]
        )
        d += (1 - gamma) * gamma**t * here
        here = np.array([sum(here[s] * pi[s, a] * P[s, a, z] for s in range(S) for a in range(A)) for z in range(S)])
    Q = np.array([[r[s, a] + gamma * sum(P[s, a, z] * V[z] for z in range(S)) for a in range(A)] for s in range(S)])
    return V, d, Q, sum(mu[s] * V[s] for s in range(S))


def test_batched_solutions_equal_loops(instance):
    for index in range(instance.mdp.batch):
        x = select(instance, index)
        m = replace(x.mdp, discount=x.mdp.discount.clamp(max=0.9))
        V, d, Q, J = loop_solution(m, x.learner, 400)
        values = mdp.state_values(m, x.learner)
        np.testing.assert_allclose(values[0], V, atol=1e-12)
        np.testing.assert_allclose(mdp.state_distribution(m, x.learner)[0], d, atol=1e-12)
        np.testing.assert_allclose(mdp.action_values(m, values)[0], Q, atol=1e-12)
        np.testing.assert_allclose(mdp.advantages(m, x.learner)[0], Q - V[:, None], atol=1e-12)
        np.testing.assert_allclose(mdp.performance(m, x.learner)[0], J, atol=1e-12)


def test_state_distribution_is_normalised_even_near_one():
    rng = np.random.default_rng(1)
    m = families.dense(rng, 20, 6, 3)
    m = replace(m, discount=torch.full((20,), 0.999, dtype=torch.float64))
    x = random_instance(rng, m)
    off = (x.learner_states.sum(-1) - 1.0).abs()
    assert bool((off <= tolerance.solved(m)).all())


def test_condition_number_is_the_bound_it_claims():
    rng = np.random.default_rng(2)
    x = random_instance(rng, families.garnet(rng, 50, 5, 3))
    matrix = mdp.resolvent_matrix(x.mdp, x.learner)
    actual = torch.linalg.cond(matrix, float("inf"))
    assert bool((actual <= tolerance.condition(x.mdp.discount) * (1 + 1e-9)).all())


@pytest.mark.parametrize(
    "name,options", [("FrozenLake-v1", {"map_name": "4x4"}), ("CliffWalking-v1", {}), ("Taxi-v4", {})]
)
def test_library_tables_are_processes_with_an_absorbing_end(name, options):
    transition, reward, start = families.toy_text(name, **options)
    np.testing.assert_allclose(transition.sum(-1), 1.0, atol=1e-12)
    assert np.all(transition[-1, :, -1] == 1.0) and np.all(reward[-1] == 0.0)
    assert start.sum() == pytest.approx(1.0) and start[-1] == 0.0


def test_same_seed_same_instances_and_json_round_trip():
    first, second = (random_instances(np.random.default_rng(5), 200) for _ in range(2))
    assert all(torch.equal(a.current, b.current) for a, b in zip(first, second, strict=True))
    one = select(first[6], 2)
    again = from_json(to_json(one))
    assert torch.equal(again.mdp.transition, one.mdp.transition) and torch.equal(again.behaviours, one.behaviours)


def test_instances_reach_the_corners():
    xs = random_instances(np.random.default_rng(0), 3000)
    assert any(bool((x.current == x.learner).all((1, 2)).any()) for x in xs), "equal policies"
    assert any(bool((x.current.amax(-1) == 1.0).all(1).any()) for x in xs), "one-hot policies"
    assert any(bool((x.behaviour == 0).any()) for x in xs), "partial support"
    discounts = torch.cat([x.mdp.discount for x in xs])
    assert float(discounts.min()) == 0.0 and float(discounts.max()) == pytest.approx(0.999)


def good():
    rng = np.random.default_rng(0)
    return random_instance(rng, families.dense(rng, 2, 3, 2))


def spoil(tensor, value, index=(0, 0, 0)):
    copy = tensor.clone()
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda m: replace(m, transition=2.0 * m.transition), "row whose sum differs from 1"),
        (lambda m: replace(m, transition=spoil(m.transition, -0.5, (0, 0, 0, 0))), "negative entry"),
        (lambda m: replace(m, start=m.start * 0.5), "start distribution has a row whose sum"),
        (lambda m: replace(m, discount=torch.ones_like(m.discount)), "expected 0 <= γ < 1"),
        (lambda m: replace(m, discount=-0.1 + 0 * m.discount), "expected 0 <= γ < 1"),
        (lambda m: replace(m, reward=spoil(m.reward, float("nan"))), "the reward holds NaN"),
        (lambda m: replace(m, reward=m.reward[:, :, 0]), "the reward has shape"),
        (lambda m: replace(m, start=m.start[:, :2]), "the start has shape"),
    ],
)
def test_bad_process_is_one_clear_sentence(change, message):
    with pytest.raises(UserError, match=message) as caught:
        mdp.check_mdp(change(good().mdp))
    assert "\n" not in str(caught.value)


def test_bad_policies_are_one_clear_sentence():
    x = good()
    with pytest.raises(UserError, match="the current policy has a row whose sum differs"):
        check_instance(replace(x, current=0.9 * x.current))
    with pytest.raises(UserError, match="the learner policy has shape"):
        mdp.check_policy(x.mdp, x.learner[:, :2], "the learner policy")
    with pytest.raises(UserError, match="the learner policy holds NaN"):
        mdp.check_policy(x.mdp, spoil(x.learner, float("nan")), "the learner policy")
    one_hot = torch.zeros_like(x.behaviours)
    one_hot[..., 0] = 1.0
    with pytest.raises(UserError, match=r"never takes .* give the behaviour policy a positive probability"):
        check_instance(replace(x, behaviours=one_hot))


def test_bad_truncations_are_one_clear_sentence():
    x = good()
    with pytest.raises(UserError, match="expected 0 <= c_bar <= rho_bar"):
        check_instance(replace(x, c_bar=2.0 * x.rho_bar))
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        check_instance(replace(x, trace_decay=1.5 + 0.0 * x.trace_decay))
