"""The `gymnasium` backend: the reference, a plain loop over genuine Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from vaco.control.envs.base import (
    VectorEnv,
    VectorStep,
    capture_simulators,
    decode_generators,
    encode_generators,
    make_gymnasium,
    read_states,
    restore_simulators,
)
from vaco.control.envs.tasks import TASKS, Flags, Floats
from vaco.errors import UserError


class GymnasiumVectorEnv(VectorEnv):
    """Any Gymnasium task with one-dimensional Box observations and actions.

    A loop rather than `gymnasium.vector.SyncVectorEnv`, whose autoreset flags cannot be saved and restored by
    public means; the rule is the same, and the tests compare the two.
    """

    backend = "gymnasium"

    def __init__(self, env_id: str, num_envs: int, reference: gymnasium.Env[Any, Any]) -> None:
        """Make E environments, of which `reference` is the first."""
        super().__init__(env_id, num_envs, reference)
        self._envs = [reference, *(make_gymnasium(env_id) for _ in range(num_envs - 1))]
        self._pending: Flags = np.zeros(num_envs, dtype=np.bool_)
        # The eight tasks compute in float64; other tasks may insist on the type of their action space.
        self._action_type = np.float64 if env_id in TASKS else reference.action_space.dtype

    def simulator_state(self) -> Floats:
        """See `VectorEnv.simulator_state`."""
        tasks = self._mujoco_tasks()
        return read_states(tasks[0].model, [task.data for task in tasks], mujoco.mjtState.mjSTATE_FULLPHYSICS)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    def _reset(self, seed: int) -> Floats:
        self._pending = np.zeros(self.num_envs, dtype=np.bool_)
        firsts = [env.reset(seed=seed + index)[0] for index, env in enumerate(self._envs)]
        return np.stack(firsts).astype(np.float64)

    def _step(self, actions: Floats) -> VectorStep:
        observations = np.empty((self.num_envs, self.observation_size))
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        dead = self._pending
        for index, (env, action) in enumerate(zip(self._envs, actions.astype(self._action_type), strict=True)):
            if dead[index]:
                observations[index] = env.reset()[0]
                continue
            observation, reward, ended, out_of_time, _ = env.step(action)
            observations[index] = observation
            rewards[index] = reward
            terminated[index], truncated[index] = ended, out_of_time
        self._pending = terminated | truncated
        return VectorStep(observations, rewards, terminated, truncated, dead)

    def _save(self) -> dict[str, NDArray[Any]]:
        tasks = self._mujoco_tasks()
        elapsed = [vars(_time_limit(env))["_elapsed_steps"] for env in self._envs]
        return {
            **capture_simulators(tasks[0].model, [task.data for task in tasks]),
            "generators": encode_generators([task.np_random for task in tasks]),
            "elapsed": np.array(elapsed, dtype=np.int64),
            "pending": self._pending.copy(),
        }

    def _load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        tasks = self._mujoco_tasks()
        generators = decode_generators(arrays["generators"])
        for env, task, generator, elapsed in zip(self._envs, tasks, generators, arrays["elapsed"], strict=True):
            # A new environment refuses to step before a reset; everything that this reset sets is replaced.
            env.reset(seed=0)
            task.np_random = generator
            vars(_time_limit(env))["_elapsed_steps"] = int(elapsed)
        restore_simulators(tasks[0].model, [task.data for task in tasks], arrays)
        self._pending = np.array(arrays["pending"], dtype=np.bool_)

    def _mujoco_tasks(self) -> list[Any]:
        """The unwrapped environments, if they are of a kind whose whole state is known."""
        if self.env_id not in TASKS:
            raise UserError(
                f"the state of {self.env_id} cannot be saved or restored exactly, which was expected of one of "
                f"{', '.join(sorted(TASKS))}: choose one of those, or do without saving"
            )
        return [env.unwrapped for env in self._envs]


def _time_limit(env: gymnasium.Env[Any, Any]) -> TimeLimit[Any, Any]:
    """Find the wrapper that counts the steps of the episode."""
    wrapper: Any = env
    while not isinstance(wrapper, TimeLimit):
        wrapper = wrapper.env
    return wrapper
