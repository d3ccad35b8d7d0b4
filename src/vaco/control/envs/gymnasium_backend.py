"""The `gymnasium` backend: the reference, a plain loop over genuine Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from vaco.control.envs.base import (
    VectorEnv,
    VectorStep,
    capture_simulators,
    decode_generators,
    encode_generators,
    read_states,
    restore_simulators,
    time_limits,
)
from vaco.control.envs.instability import Watch
from vaco.control.envs.spec import EnvSpec
from vaco.control.envs.tasks import TASKS, Floats
from vaco.errors import UserError


class GymnasiumVectorEnv(VectorEnv):
    """Any Gymnasium environment whose observations and actions are rows to `spaces`.

    A loop rather than `gymnasium.vector.SyncVectorEnv`, whose autoreset flags cannot be saved and restored by
    public means; the rule is the same, and the tests compare the two.
    """

    backend = "gymnasium"

    def __init__(self, spec: EnvSpec, num_envs: int, reference: gymnasium.Env[Any, Any]) -> None:
        """Make E environments, of which `reference` is the first.

        Raises:
            UserError: they differ in their spaces.
        """
        super().__init__(spec, num_envs, reference)
        self._envs = [reference, *(spec.make() for _ in range(num_envs - 1))]
        data = [getattr(env.unwrapped, "data", None) for env in self._envs]
        self._watch = Watch([one for one in data if isinstance(one, mujoco.MjData)])
        # The tasks of the other backend compute in float64; further ones may insist on the type of their action space.
        self._as_float64 = self.saved_exactly
        for env in self._envs[1:]:
            if (env.observation_space, env.action_space) != (reference.observation_space, reference.action_space):
                raise UserError(
                    f"two environments of {spec.name} have other spaces ({env.observation_space} and "
                    f"{reference.observation_space}, {env.action_space} and {reference.action_space}): make them alike"
                )

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
        firsts = [self._seen.flat(env.reset(seed=seed + index)[0]) for index, env in enumerate(self._envs)]
        return self._finite(np.stack(firsts))

    def _step(self, actions: Floats) -> VectorStep:
        observations = np.empty((self.num_envs, self.observation_size))
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        dead, flat, native = self._pending, self._seen.flat, self._done.native
        for index, (env, action) in enumerate(zip(self._envs, actions, strict=True)):
            if dead[index]:
                observations[index] = flat(env.reset()[0])
                continue
            given = action if self._as_float64 else native(action)
            observation, reward, ended, out_of_time, _ = env.step(given)
            observations[index] = flat(observation)
            rewards[index] = reward
            terminated[index], truncated[index] = ended, out_of_time
        self._pending = terminated | truncated
        return VectorStep(self._finite(observations), rewards, terminated, truncated, dead)

    def _finite(self, observations: Floats) -> Floats:
        """Refuse what no policy could act on.

        Raises:
            UserError: an observation is not finite.
        """
        if not np.isfinite(observations).all():
            actor = self.first + int(np.argwhere(~np.isfinite(observations))[0][0])
            raise UserError(
                f"the environment of actor {actor} returned an observation that is not finite: mend {self.env_id}, or "
                "give it a wrapper that does"
            )
        return observations

    def _save(self) -> dict[str, NDArray[Any]]:
        tasks = self._mujoco_tasks()
        elapsed = [vars(time_limits(env)[0])["_elapsed_steps"] for env in self._envs]
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
            vars(time_limits(env)[0])["_elapsed_steps"] = int(elapsed)
        restore_simulators(tasks[0].model, [task.data for task in tasks], arrays)
        self._pending = np.array(arrays["pending"], dtype=np.bool_)

    def _mujoco_tasks(self) -> list[Any]:
        """The unwrapped environments, if they are of a kind whose whole state is known."""
        if not self.saved_exactly:
            raise UserError(
                f"the state of {self.env_id} cannot be saved or restored exactly, which was expected of one of "
                f"{', '.join(sorted(TASKS))}, without wrappers: choose one of those, or do without saving"
            )
        return [env.unwrapped for env in self._envs]
