"""Gaussian log-probabilities and gradients, the normaliser, and acting with several snapshots at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaco.control.gaussian import kl_gradient, log_probability, policy_gradient, standard_score
from vaco.control.networks import ActorCritic
from vaco.control.policy import Actors, Normaliser, Snapshot, take_snapshot

GENERATOR = np.random.default_rng(0)


def gaussian(mean: torch.Tensor, log_std: torch.Tensor) -> Independent:
    return Independent(Normal(mean, log_std.exp()), 1)


def drawn(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def test_log_probability_equals_torch() -> None:
    actions, mean, log_std = drawn(9, 5), drawn(9, 5), drawn(5)
    ours = log_probability(standard_score(actions, mean, log_std), log_std)
    theirs = gaussian(*(torch.tensor(x.astype(np.float64)) for x in (mean, log_std)))
    np.testing.assert_allclose(ours, theirs.log_prob(torch.tensor(actions.astype(np.float64))), rtol=1e-12)
    assert ours.shape == (9,), "one number a sample: the joint action's density"


def test_policy_gradient_equals_autograd() -> None:
    actions, mean, log_std, coefficient = drawn(9, 5), drawn(9, 5), drawn(5), GENERATOR.standard_normal(9)
    d_mean, d_log_std = policy_gradient(standard_score(actions, mean, log_std), log_std, coefficient)
    m = torch.tensor(mean.astype(np.float64), requires_grad=True)
    s = torch.tensor(log_std.astype(np.float64), requires_grad=True)
    (gaussian(m, s).log_prob(torch.tensor(actions.astype(np.float64))) * torch.tensor(coefficient)).sum().backward()
    np.testing.assert_allclose(d_mean, m.grad, rtol=1e-10)
    np.testing.assert_allclose(d_log_std, s.grad, rtol=1e-10)


def test_kl_gradient_equals_autograd() -> None:
    mean, old_mean, log_std, old_log_std, weights = drawn(9, 5), drawn(9, 5), drawn(5), drawn(5), GENERATOR.random(9)
    d_mean, d_log_std = kl_gradient(mean, log_std, old_mean, old_log_std, weights)
    m = torch.tensor(mean.astype(np.float64), requires_grad=True)
    s = torch.tensor(log_std.astype(np.float64), requires_grad=True)
    old = gaussian(*(torch.tensor(x.astype(np.float64)) for x in (old_mean, old_log_std)))
    (kl_divergence(old, gaussian(m, s)) * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(d_mean, m.grad, rtol=1e-8)
    np.testing.assert_allclose(d_log_std, s.grad, rtol=1e-8)


def test_kl_gradient_of_many_old_policies_equals_autograd_and_of_equal_ones_that_of_one() -> None:
    mean, old_mean, log_std, weights = drawn(9, 5), drawn(9, 5), drawn(5), GENERATOR.random(9)
    old_log_std = drawn(9, 5)
    d_mean, d_log_std = kl_gradient(mean, log_std, old_mean, old_log_std, weights)
    m = torch.tensor(mean.astype(np.float64), requires_grad=True)
    s = torch.tensor(log_std.astype(np.float64), requires_grad=True)
    old = gaussian(*(torch.tensor(x.astype(np.float64)) for x in (old_mean, old_log_std)))
    (kl_divergence(old, gaussian(m, s)) * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(d_mean, m.grad, rtol=1e-8)
    np.testing.assert_allclose(d_log_std, s.grad, rtol=1e-8)
    one = kl_gradient(mean, log_std, old_mean, old_log_std[0], weights)
    many = kl_gradient(mean, log_std, old_mean, np.tile(old_log_std[0], (9, 1)), weights)
    np.testing.assert_array_equal(one[0], many[0])
    np.testing.assert_allclose(one[1], many[1], rtol=1e-12)


def test_normaliser_equals_the_statistics_of_all_data() -> None:
    normaliser, parts = Normaliser(3), [GENERATOR.standard_normal((n, 3)) * 5 + 2 for n in (1, 7, 100, 0, 33)]
    for part in parts:
        normaliser.update(part)
    everything = np.concatenate(parts)
    np.testing.assert_allclose(normaliser.mean, everything.mean(0))
    np.testing.assert_allclose(normaliser.variance, everything.var(0))
    restored = Normaliser(3)
    restored.set_state(normaliser.state())
    assert restored.count == 141
    np.testing.assert_array_equal(restored.variance, normaliser.variance)


def snapshots(count: int) -> tuple[ActorCritic, list[Snapshot]]:
    networks, taken = ActorCritic(6, 2, (16, 8)), []
    for version in range(count):
        networks.initialise(np.random.default_rng(version), log_std=-0.1 * version)
        networks.flat += 0.3 * drawn(len(networks.flat))
        normaliser = Normaliser(6)
        normaliser.update(GENERATOR.standard_normal((50, 6)) * (1 + version) + version)
        taken.append(take_snapshot(networks, normaliser, version, 3.0))
    return networks, taken


def slow_mean(networks: ActorCritic, snapshot: Snapshot, observations: np.ndarray) -> np.ndarray:
    networks.flat[:] = snapshot.flat
    return networks.forward(snapshot.standardise(observations))[0]


@pytest.mark.parametrize("steps", [None, 1, 5])
def test_every_actor_follows_its_own_snapshot(steps: int | None) -> None:
    networks, taken = snapshots(3)
    assigned = [taken[i] for i in (0, 2, 1, 2)]
    observations = 4 * drawn(4, 6) if steps is None else 4 * drawn(steps, 4, 6)
    actors = Actors(assigned, networks)
    together = actors.outputs(observations)
    for actor, snapshot in enumerate(assigned):
        alone = slow_mean(networks, snapshot, observations[..., actor, :].reshape(-1, 6))
        np.testing.assert_allclose(together[..., actor, :].reshape(-1, 2), alone, atol=1e-5)
        np.testing.assert_allclose(actors.log_std[actor], snapshot.flat[-2:])


@pytest.mark.parametrize("steps", [None, 3])
def test_one_snapshot_for_all_is_the_same_policy(steps: int | None) -> None:
    networks, taken = snapshots(1)
    observations = drawn(4, 6) if steps is None else drawn(steps, 4, 6)
    shared = Actors(taken * 4, networks)
    copies = [Snapshot(0, taken[0].flat, taken[0].shift, taken[0].scale, taken[0].clip) for _ in range(4)]
    separate = Actors(copies, networks)
    assert shared.shared and not separate.shared
    np.testing.assert_allclose(shared.outputs(observations), separate.outputs(observations), atol=1e-5)


def test_a_snapshot_is_frozen() -> None:
    networks, taken = snapshots(1)
    before = taken[0].flat.copy()
    networks.flat += 1.0
    np.testing.assert_array_equal(taken[0].flat, before)


def test_indicators_are_left_as_they_are() -> None:
    normaliser = Normaliser(3, np.array([False, True, False]))
    values = np.random.default_rng(3).uniform(0, 2, (50, 3))
    normaliser.update(values)
    shift, scale = normaliser.shift_and_scale()
    np.testing.assert_allclose(shift, [values[:, 0].mean(), 0, values[:, 2].mean()], rtol=1e-6)
    np.testing.assert_allclose(scale, [1 / values[:, 0].std(), 1, 1 / values[:, 2].std()], rtol=1e-6)
