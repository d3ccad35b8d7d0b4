"""The `batched` backend: many MjData of one model stepped in a tight loop, everything else done for the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from vaco.control.envs.base import (
    VectorEnv,
    VectorStep,
    capture_simulators,
    decode_generators,
    encode_generators,
    read_states,
    restore_simulators,
)
from vaco.control.envs.instability import Watch
from vaco.control.envs.spec import EnvSpec
from vaco.control.envs.tasks import TASKS, Floats


class BatchedVectorEnv(VectorEnv):
    """The MuJoCo tasks of `TASKS`, stepped as Gymnasium steps them but without its cost per environment.

    One genuine Gymnasium environment is kept. Its model is stepped; its constants give observations, rewards and
    terminations (`vaco.control.envs.tasks`); and its own `reset` begins every episode, lent the simulator and the
    random generator of the environment that is to be reset, so that no reset rule is written twice.
    """

    backend = "batched"

    def __init__(self, spec: EnvSpec, num_envs: int, reference: gymnasium.Env[Any, Any]) -> None:
        """Make E simulators of the model of `reference`, which this object closes."""
        super().__init__(spec, num_envs, reference)
        self._reference = reference
        lender: Any = reference.unwrapped
        self._lender = lender
        self._model = lender.model
        self._task = TASKS[spec.name](lender)
        self._frame_skip = int(lender.frame_skip)
        self._dt = float(lender.dt)
        limit = self.max_episode_steps
        self._limit = np.iinfo(np.int64).max if limit is None else limit
        self._simulators = [mujoco.MjData(self._model) for _ in range(num_envs)]
        # Views into the simulators' memory, made once: asking MjData for an attribute costs more than copying it.
        self._controls = [data.ctrl for data in self._simulators]
        self._sources = [view for data in self._simulators for view in self._task.views(data)]
        self._generators: list[np.random.Generator] = []
        self._positions: Floats = np.zeros(num_envs)
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._watch = Watch(self._simulators)

    def simulator_state(self) -> Floats:
        """See `VectorEnv.simulator_state`."""
        return read_states(self._model, self._simulators, mujoco.mjtState.mjSTATE_FULLPHYSICS)

    def close(self) -> None:
        """Close the Gymnasium environment that was kept."""
        self._reference.close()

    def _reset(self, seed: int) -> Floats:
        self._generators = [seeding.np_random(seed + index)[0] for index in range(self.num_envs)]
        for index in range(self.num_envs):
            self._begin_episode(index)
        self._elapsed[:] = 0
        self._pending = np.zeros(self.num_envs, dtype=np.bool_)
        features = self._read_features()
        self._positions = self._task.position(features)
        return self._task.observe(features)

    def _step(self, actions: Floats) -> VectorStep:
        dead = self._pending
        any_dead = np.count_nonzero(dead) > 0
        self._elapsed += 1
        if any_dead:
            live = np.flatnonzero(~dead)
            for index in np.flatnonzero(dead):
                self._begin_episode(int(index))
            self._simulate([self._simulators[i] for i in live], [self._controls[i] for i in live], actions[live])
            self._elapsed[dead] = 0
        else:
            self._simulate(self._simulators, self._controls, actions)
        features = self._read_features()
        positions = self._task.position(features)
        velocities = (positions - self._positions) / self._dt
        rewards, terminated = self._task.outcome(features, velocities, actions)
        if any_dead:
            rewards[dead] = 0.0
            terminated[dead] = False
        truncated = self._elapsed >= self._limit
        self._positions = positions
        self._pending = terminated | truncated
        return VectorStep(self._task.observe(features), rewards, terminated, truncated, dead)

    def _simulate(self, simulators: list[Any], controls: list[Floats], actions: Floats) -> None:
        """Set the controls and step the physics of the given simulators; actions has one row for each."""
        step, model, substeps = mujoco.mj_step, self._model, self._frame_skip
        if not self._task.reads_contact_forces:
            for data, control, action in zip(simulators, controls, actions, strict=True):
                control[...] = action
                step(model, data, substeps)
            return
        # Gymnasium calls mj_rnePostConstraint in every task. It writes forces and accelerations that the next step
        # does not read, so it is left out where no observation needs them.
        compute_forces = mujoco.mj_rnePostConstraint
        for data, control, action in zip(simulators, controls, actions, strict=True):
            control[...] = action
            step(model, data, substeps)
            compute_forces(model, data)

    def _read_features(self) -> Floats:
        """Copy what the task reads out of every simulator: [E, F], fresh."""
        return np.concatenate(self._sources).reshape(self.num_envs, -1)

    def _begin_episode(self, index: int) -> None:
        """Reset one simulator by Gymnasium's own code."""
        self._lender.data = self._simulators[index]
        self._lender.np_random = self._generators[index]
        self._lender.reset()

    def _save(self) -> dict[str, NDArray[Any]]:
        return {
            **capture_simulators(self._model, self._simulators),
            "generators": encode_generators(self._generators),
            "elapsed": self._elapsed.copy(),
            "pending": self._pending.copy(),
        }

    def _load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        restore_simulators(self._model, self._simulators, arrays)
        self._generators = decode_generators(arrays["generators"])
        self._elapsed[:] = arrays["elapsed"]
        self._pending = np.array(arrays["pending"], dtype=np.bool_)
        self._positions = self._task.position(self._read_features())
