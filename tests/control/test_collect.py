"""One collection phase against a slow one: every actor alone, in a genuine Gymnasium environment."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal

from vaco.control.collect import Batch, Collector
from vaco.control.envs import make_vector_env
from vaco.control.networks import ActorCritic
from vaco.control.policy import Normaliser, Snapshot, take_snapshot
from vaco.lag import PolicyBuffer

ACTORS, STEPS, SEED = 5, 40, 11


def collected(phases: int = 1, capacity: int = 3, task: str = "Hopper-v5") -> tuple[ActorCritic, list[Snapshot], Batch]:
    env = make_vector_env(task, num_envs=ACTORS)
    networks, generator = ActorCritic(env.observation_size, env.action_size, (16, 16)), np.random.default_rng(0)
    buffer: PolicyBuffer[Snapshot] = PolicyBuffer(capacity)
    for version in range(capacity):
        networks.initialise(np.random.default_rng(version), log_std=-0.2 * version)
        networks.flat += 0.2 * generator.standard_normal(len(networks.flat)).astype(np.float32)
        normaliser = Normaliser(env.observation_size)
        normaliser.update(generator.standard_normal((30, env.observation_size)) * (1 + version))
        buffer.push(take_snapshot(networks, normaliser, version, 10.0))
    collector = Collector(env, networks, STEPS)
    collector.reset(SEED)
    for _ in range(phases):
        batch = collector.collect(buffer, generator, generator)
    return networks, list(buffer), batch


def test_the_data_are_what_each_actor_alone_would_see() -> None:
    _, _, batch = collected()
    for actor in range(ACTORS):
        env = gymnasium.make("Hopper-v5")
        observation, _ = env.reset(seed=SEED + actor)
        reset_next = False
        for t in range(STEPS):
            np.testing.assert_array_equal(batch.observations[t, actor], observation.astype(np.float32))
            assert batch.dead[t, actor] == reset_next
            if reset_next:
                observation, _ = env.reset()
                assert batch.rewards[t, actor] == 0.0 and not batch.terminated[t, actor]
                reset_next = False
                continue
            action = np.clip(batch.actions[t, actor].astype(np.float64), -1.0, 1.0)
            observation, reward, terminated, truncated, _ = env.step(action)
            assert abs(batch.rewards[t, actor] - float(reward)) < 1e-12
            assert (batch.terminated[t, actor], batch.truncated[t, actor]) == (terminated, truncated)
            reset_next = terminated or truncated
        np.testing.assert_array_equal(batch.observations[STEPS, actor], observation.astype(np.float32))
    assert batch.dead.any() and not batch.dead.all(), "the test needs episodes that end"


def test_the_density_is_that_of_the_snapshot_that_acted() -> None:
    networks, held, batch = collected()
    assert len(set(batch.ages.tolist())) > 1, "the test needs several snapshots at once"
    for actor in range(ACTORS):
        snapshot = held[-1 - int(batch.ages[actor])]
        networks.flat[:] = snapshot.flat
        mean, _ = networks.forward(snapshot.standardise(batch.observations[:-1, actor]))
        np.testing.assert_allclose(batch.behaviour_outputs[:, actor], mean, atol=1e-5)
        np.testing.assert_array_equal(batch.behaviour_log_std[actor], networks.parameters["log_std"])
        std = np.exp(networks.parameters["log_std"].astype(np.float64))
        policy = Independent(Normal(torch.tensor(mean.astype(np.float64)), torch.tensor(std)), 1)
        expected = policy.log_prob(torch.tensor(batch.actions[:, actor].astype(np.float64)))
        np.testing.assert_allclose(batch.behaviour_logp[:, actor], expected, atol=1e-4)


def test_actions_have_the_policy_s_spread() -> None:
    _, held, batch = collected(capacity=1, phases=20, task="HalfCheetah-v5")
    networks = ActorCritic(17, 6, (16, 16))
    networks.flat[:] = held[0].flat
    mean, _ = networks.forward(held[0].standardise(batch.observations[:-1].reshape(-1, 17)))
    noise = (batch.actions.reshape(-1, 6) - mean) / np.exp(networks.parameters["log_std"])
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1.0) < 0.1


def test_one_snapshot_for_all_actors_keeps_one_spread() -> None:
    _, held, batch = collected(capacity=1)
    assert batch.behaviour_outputs.shape == batch.actions.shape and batch.behaviour_log_std.shape == (1, 3)
    score = (batch.actions - batch.behaviour_outputs) / np.exp(batch.behaviour_log_std)
    wanted = -0.5 * (score.astype(np.float64) ** 2 + 2 * batch.behaviour_log_std + np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(batch.behaviour_logp, wanted, atol=1e-4)
    assert held


@pytest.mark.parametrize("phases", [1, 3])
def test_returns_of_finished_episodes(phases: int) -> None:
    """Against a loop over all rewards of all phases."""
    env = make_vector_env("Hopper-v5", num_envs=ACTORS)
    networks, generator = ActorCritic(env.observation_size, env.action_size, (8,)), np.random.default_rng(0)
    networks.initialise(generator, 0.0)
    buffer: PolicyBuffer[Snapshot] = PolicyBuffer(1)
    buffer.push(take_snapshot(networks, Normaliser(env.observation_size), 0, 10.0))
    collector, running = Collector(env, networks, STEPS), np.zeros(ACTORS)
    collector.reset(SEED)
    for _ in range(phases):
        batch, expected = collector.collect(buffer, generator, generator), []
        for t in range(STEPS):
            for actor in range(ACTORS):
                running[actor] += batch.rewards[t, actor]
                if batch.terminated[t, actor] or batch.truncated[t, actor]:
                    expected.append(running[actor])
                    running[actor] = 0.0
        assert expected
        np.testing.assert_allclose(batch.episode_returns, expected)
