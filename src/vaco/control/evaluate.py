"""How good the current learner is: whole episodes on environments of their own, policy and normaliser frozen."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaco.control.acting import Networks, acting
from vaco.control.envs import VectorEnv
from vaco.control.gaussian import Doubles, Floats
from vaco.control.policy import Snapshot
from vaco.errors import UserError

PATIENCE = 100_000
"""Steps after which an episode without a time limit is taken for endless."""


class Evaluation(NamedTuple):
    """Undiscounted, unscaled episode returns, [M] each."""

    stochastic: Doubles
    deterministic: Doubles

    def summary(self) -> dict[str, float]:
        """The columns of ``evals.parquet`` that describe returns."""
        return {
            "mean": float(self.stochastic.mean()),
            "std": float(self.stochastic.std()),
            "episodes": float(len(self.stochastic)),
            "deterministic_mean": float(self.deterministic.mean()),
            "deterministic_std": float(self.deterministic.std()),
            "deterministic_episodes": float(len(self.deterministic)),
        }


def evaluate(
    env: VectorEnv, snapshot: Snapshot, template: Networks, seed: int, generator: np.random.Generator
) -> Evaluation:
    """Run one episode in each environment: sampled actions in the first half of them, mean actions in the rest.

    Args:
        env: an even number 2M of environments, used for nothing else.
        snapshot: the learner.
        template: networks of its shape.
        seed: seed of the first environment's reset.
        generator: source of the actions' noise.

    Returns:
        M stochastic and M deterministic returns.
    """
    half = env.num_envs // 2
    actors, distribution = acting([snapshot] * env.num_envs, template), template.distribution
    scale = np.zeros((env.num_envs, 1), np.float32)
    scale[:half] = 1.0

    def act(observations: Doubles) -> NDArray[np.float32]:
        noise = distribution.noise(generator, (env.num_envs,), actors.log_std)
        return distribution.act(actors.outputs(observations.astype(np.float32)), scale * noise)

    returns = _episodes(env, act, seed)
    return Evaluation(returns[:half], returns[half:])


def evaluate_random(env: VectorEnv, seed: int, generator: np.random.Generator) -> Doubles:
    """Return of one episode of uniformly random actions in each environment: the zero of normalised scores.

    Args:
        env: the environments; their action bounds must be finite.
        seed: seed of the first environment's reset.
        generator: source of the actions.

    Returns:
        Undiscounted returns, [E].

    Raises:
        UserError: actions have no bounds, or an episode does not end.
    """

    def act(_: Doubles) -> Doubles:
        return env.random_actions(generator)

    return _episodes(env, act, seed)


def random_observations(env: VectorEnv, steps: int, seed: int, generator: np.random.Generator) -> Floats:
    """Observations met by uniformly random actions.

    Args:
        env: the environments, which are reset; their action bounds must be finite.
        steps: T.
        seed: seed of the first environment's reset.
        generator: source of the actions.

    Returns:
        Raw, float32 [T, E, O]; as in a phase, those of dead slots included.
    """
    observations = np.empty((steps, env.num_envs, env.observation_size), np.float32)
    current = env.reset(seed)
    for t in range(steps):
        observations[t] = current
        current = env.step(env.random_actions(generator)).observations
    return observations


def _episodes(env: VectorEnv, act: Callable[[Doubles], NDArray[np.floating]], seed: int) -> Doubles:
    """Undiscounted return of the first episode of each environment, [E].

    Raises:
        UserError: one does not end.
    """
    observations = env.reset(seed)
    returns, running = np.zeros(env.num_envs), np.ones(env.num_envs, np.bool_)
    for taken in itertools.count():
        if not running.any():
            break
        if taken >= PATIENCE and env.max_episode_steps is None:
            raise UserError(
                f"an episode of {env.env_id} has not ended after {taken:,} steps, so it cannot be evaluated: give it a "
                "limit with --set time_limit=N"
            )
        step = env.step(act(observations))
        returns += step.rewards * running
        running &= ~(step.terminated | step.truncated)
        observations = step.observations
    return returns
