"""Evaluation against whole episodes in genuine Gymnasium environments."""

from __future__ import annotations

import gymnasium
import numpy as np

from vaco.control.envs import make_vector_env
from vaco.control.evaluate import evaluate, evaluate_random, random_observations
from vaco.control.networks import ActorCritic
from vaco.control.policy import Normaliser, Snapshot, take_snapshot


def learner() -> tuple[ActorCritic, Snapshot]:
    networks = ActorCritic(11, 3, (16,))
    networks.initialise(np.random.default_rng(0), log_std=-1.0)
    networks.flat += 0.3 * np.random.default_rng(1).standard_normal(len(networks.flat)).astype(np.float32)
    return networks, take_snapshot(networks, Normaliser(11), 0, 10.0)


def test_deterministic_returns_equal_whole_episodes() -> None:
    networks, snapshot = learner()
    env = make_vector_env("Hopper-v5", num_envs=6)
    result = evaluate(env, snapshot, networks, seed=5, generator=np.random.default_rng(2))
    expected = []
    for number in (3, 4, 5):  # the second half of the environments
        alone, total, done = gymnasium.make("Hopper-v5"), 0.0, False
        observation, _ = alone.reset(seed=5 + number)
        while not done:
            mean, _ = networks.forward(snapshot.standardise(observation[None].astype(np.float32)))
            observation, reward, terminated, truncated, _ = alone.step(np.clip(mean[0].astype(np.float64), -1, 1))
            total, done = total + float(reward), terminated or truncated
        expected.append(total)
    np.testing.assert_allclose(result.deterministic, expected, rtol=1e-4)


def test_stochastic_returns_depend_on_the_generator_and_repeat() -> None:
    networks, snapshot = learner()
    env = make_vector_env("Hopper-v5", num_envs=6)
    one, same, other = (evaluate(env, snapshot, networks, 5, np.random.default_rng(seed)) for seed in (2, 2, 3))
    np.testing.assert_array_equal(one.stochastic, same.stochastic)
    np.testing.assert_array_equal(one.deterministic, other.deterministic)
    assert not np.array_equal(one.stochastic, other.stochastic)
    summary = one.summary()
    assert summary["mean"] == one.stochastic.mean() and summary["deterministic_mean"] == one.deterministic.mean()
    assert summary["episodes"] == summary["deterministic_episodes"] == 3


def test_random_actions_fill_the_action_space() -> None:
    env = make_vector_env("InvertedPendulum-v5", num_envs=50)
    returns = evaluate_random(env, 0, np.random.default_rng(0))
    assert returns.shape == (50,) and 3 <= returns.mean() <= 15, "a random cart drops its pole within some steps"
    np.testing.assert_array_equal(returns, evaluate_random(env, 0, np.random.default_rng(0)))


def test_random_observations_are_what_each_environment_alone_would_meet() -> None:
    env, steps = make_vector_env("Hopper-v5", num_envs=3), 60
    met = random_observations(env, steps, 7, np.random.default_rng(1))
    assert met.shape == (steps, 3, 11) and met.dtype == np.float32
    generator, resets = np.random.default_rng(1), 0
    alone = [gymnasium.make("Hopper-v5") for _ in range(3)]
    current = [one.reset(seed=7 + i)[0] for i, one in enumerate(alone)]
    over = [False] * 3
    for t in range(steps):
        actions = generator.uniform(-1.0, 1.0, (3, 3))
        for i, one in enumerate(alone):
            np.testing.assert_array_equal(met[t, i], current[i].astype(np.float32))
            if over[i]:
                current[i], over[i], resets = one.reset()[0], False, resets + 1
            else:
                current[i], _, terminated, truncated, _ = one.step(actions[i])
                over[i] = terminated or truncated
    assert resets, "the test needs episodes that end"
