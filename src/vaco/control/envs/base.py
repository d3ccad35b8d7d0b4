"""What both backends share: the interface, action clipping, and the exact state of a MuJoCo simulation."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import ArrayLike, NDArray

from vaco.control.envs.instability import Watch
from vaco.control.envs.spaces import Actions, Observations
from vaco.control.envs.spec import EnvSpec
from vaco.control.envs.tasks import Flags, Floats
from vaco.errors import UserError

_STATE_KEYS = ("simulator", "xpos", "xipos", "generators", "elapsed", "pending", "observations")


class VectorStep(NamedTuple):
    """What one step of E environments returns; every array is fresh and belongs to the caller.

    Attributes:
        observations: [E, O] float64. Where an episode has just ended, its true final observation.
        rewards: [E] float64; 0 in dead slots.
        terminated: [E] bool, the task ended the episode: nothing is to be bootstrapped.
        truncated: [E] bool, the time limit ended it: the final observation is to be bootstrapped.
        dead: [E] bool, the action was ignored and the environment reset; the transition has no meaning.
    """

    observations: Floats
    rewards: Floats
    terminated: Flags
    truncated: Flags
    dead: Flags


class VectorEnv(ABC):
    """E copies of one task, stepped together.

    **Autoreset** is Gymnasium's NEXT_STEP. The step that ends an episode returns that episode's true final
    observation. The step after it ignores the action given for that environment, resets it from its own random
    stream, returns the first observation of the new episode with reward 0 and neither flag set, and marks the slot
    `dead`. The reason for the rule: ``observations[t + 1]`` always follows from ``observations[t]`` and
    ``actions[t]`` unless slot t is dead, so ``V(observations[t + 1])`` is the right bootstrap at every live slot
    (times zero where terminated), with no special case for final observations; and dead slots get weight 0.

    **A simulation that became unstable**, which MuJoCo puts back to its first pose as if nothing had been, ends its
    episode: the slot is `dead` (what it returns has no meaning, reward 0) and `truncated`, the next step resets it, and
    it is entered in `unstable`.

    **Actions** are clipped to the action space here, once, for both backends. They are float64 for the simulator
    and for the control cost alike: float32 actions pass unchanged, and rewards do not depend on a batched float32
    sum. The policy keeps its unclipped action for its log-probabilities. A discrete action is the number of its
    category, from 0, one column a component.

    **Arrays** returned by `reset` and `step` are fresh: nothing that is stepped later writes into them.

    Attributes:
        spec: which environment it is.
        env_id: its name.
        backend: `batched` or `gymnasium`.
        num_envs: E.
        observation_size: O.
        observation_shape: of an observation before it is flattened; (O,) where it is nested.
        indicators: [O] bool, features that are 0 or 1 because they stand for a discrete value.
        action_size: A.
        categories: how many values each component of a discrete action has, [A]; empty where actions are continuous.
        action_low: [A] float64, least action.
        action_high: [A] float64, greatest action.
        max_episode_steps: time limit in environment steps, None if the task has none.
        unstable: of every step so far that MuJoCo undid, the environment and what was not finite or huge in it.
        first: the number of the first environment, where these are some of a run's.
    """

    backend: str
    first = 0

    def __init__(self, spec: EnvSpec, num_envs: int, reference: gymnasium.Env[Any, Any]) -> None:
        self.spec, self.env_id = spec, spec.name
        self.num_envs = num_envs
        self._seen = Observations(self.env_id, reference.observation_space)
        self._done = Actions(self.env_id, reference.action_space)
        self.observation_size, self.indicators = self._seen.size, self._seen.indicators
        self.observation_shape: tuple[int, ...] = reference.observation_space.shape or (self.observation_size,)
        self.action_size, self.categories = self._done.size, self._done.categories
        self.action_low, self.action_high = self._done.low, self._done.high
        self.max_episode_steps = _time_limit_of(reference)
        self._shape = (num_envs, self.action_size)
        self._observations: Floats | None = None
        self._pending: Flags = np.zeros(num_envs, dtype=np.bool_)
        self._watch = Watch(())
        self.unstable: list[tuple[int, str]] = []

    @property
    def saved_exactly(self) -> bool:
        """Whether `state` and `set_state` serve: not for tasks whose whole state is unknown."""
        return self.spec.saved_exactly

    def random_actions(self, generator: np.random.Generator) -> Floats:
        """Uniformly random actions, [E, A] float64.

        Raises:
            UserError: actions have no bounds between which to draw.
        """
        if self.categories:
            return generator.integers(0, self.categories, self._shape).astype(np.float64)
        if not (np.isfinite(self.action_low).all() and np.isfinite(self.action_high).all()):
            raise UserError(
                f"actions of {self.env_id} have no finite bounds, between which random ones could be drawn: declare "
                "bounds in its action space, or do without random actions"
            )
        return generator.uniform(self.action_low, self.action_high, self._shape)

    def reset(self, seed: int) -> Floats:
        """Begin a new episode everywhere, from new random streams.

        Args:
            seed: environment i takes the seed ``seed + i``, as Gymnasium's vector environments do.

        Returns:
            [E, O] float64, the first observations.
        """
        observations = self._reset(seed)
        self._observations = observations.copy()
        return observations

    def step(self, actions: ArrayLike) -> VectorStep:
        """Advance every environment by one step, or reset it if its episode ended at the last one.

        Args:
            actions: [E, A], of any float type; clipped to the action space.

        Returns:
            The step; see `VectorStep`.

        Raises:
            RuntimeError: before the first `reset` or `set_state`.
            ValueError: if the shape is not [E, A].
            UserError: if an action is NaN, since MuJoCo would silently act with zeros instead.
        """
        if self._observations is None:
            raise RuntimeError("reset(seed) or set_state(arrays) must come before step")
        given = np.asarray(actions, dtype=np.float64)
        if given.shape != self._shape:
            raise ValueError(f"actions have shape {given.shape}, but {self._shape} was expected")
        clipped = np.minimum(np.maximum(given, self.action_low), self.action_high)
        total = np.vdot(clipped, clipped)
        if total != total:
            raise UserError(
                "the policy gave actions that are not numbers, where finite actions were expected: "
                "training has diverged, so lower the learning rate or the gradient clip"
            )
        step = self._step(clipped)
        broken = self._watch.unstable()
        if broken is not None:
            self._end_episodes(step, broken)
        self._observations = step.observations.copy()
        return step

    def _end_episodes(self, step: VectorStep, broken: Flags) -> None:
        """Make of a step what it is where MuJoCo undid it."""
        self.unstable += [(index, self._watch.what(index)) for index in np.flatnonzero(broken).tolist()]
        step.rewards[broken] = 0.0
        step.terminated[broken] = False
        step.truncated[broken] = True
        step.dead[broken] = True
        self._pending = self._pending | broken

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the future depends on, as plain arrays: the same ones whichever the backend.

        A state saved by one backend can be restored into the other, and into a new object.

        Returns:
            `simulator` [E, n] float64 (mjSTATE_INTEGRATION); `xpos` and `xipos` [E, bodies * 3] float64, positions
            that rewards compare with and that lag the simulator's state by one substep, so that mj_forward cannot
            recompute them; `generators` [n] uint8, JSON text; `elapsed` [E] int64, steps of the episode so far;
            `pending` [E] bool, slots to be reset by the next step; `observations` [E, O] float64, as last returned.

        Raises:
            RuntimeError: before the first `reset` or `set_state`.
            UserError: if the environment is not one of `TASKS`, whose hidden state is known.
        """
        if self._observations is None:
            raise RuntimeError("reset(seed) or set_state(arrays) must come before state")
        return {**self._save(), "observations": self._observations.copy()}

    def set_state(self, arrays: Mapping[str, NDArray[Any]]) -> Floats:
        """Continue exactly from a saved state.

        Args:
            arrays: from `state`, of the same task and number of environments.

        Returns:
            [E, O] float64, the observations that were last returned before the state was saved.

        Raises:
            UserError: if the arrays are of another task or number of environments.
        """
        missing = [key for key in _STATE_KEYS if key not in arrays]
        expected = (self.num_envs, self.observation_size)
        if missing or arrays["observations"].shape != expected:
            found = f"no {missing[0]}" if missing else f"observations of shape {arrays['observations'].shape}"
            raise UserError(
                f"the saved environment state has {found}, but {self.env_id} with {self.num_envs} environments "
                f"has observations of shape {expected}: restore it with the settings it was saved with"
            )
        self._load(arrays)
        self._observations = np.array(arrays["observations"], dtype=np.float64)
        return self._observations.copy()

    @abstractmethod
    def simulator_state(self) -> Floats:
        """The physical state of every environment, for comparing backends.

        Returns:
            [E, n] float64, MuJoCo's mjSTATE_FULLPHYSICS: time, positions, velocities, activations.

        Raises:
            UserError: if the environment is not one of `TASKS`.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the environments."""

    @abstractmethod
    def _reset(self, seed: int) -> Floats:
        """Begin new episodes; [E, O]."""

    @abstractmethod
    def _step(self, actions: Floats) -> VectorStep:
        """Advance by one step with clipped, finite actions [E, A]."""

    @abstractmethod
    def _save(self) -> dict[str, NDArray[Any]]:
        """The arrays of `state`, less the observations."""

    @abstractmethod
    def _load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back the arrays of `_save`."""


def time_limits(env: gymnasium.Env[Any, Any]) -> list[TimeLimit[Any, Any]]:
    """The wrappers that count the steps of the episode, the outermost first."""
    found, inner = [], env
    while isinstance(inner, gymnasium.Wrapper):
        found += [inner] if isinstance(inner, TimeLimit) else []
        inner = inner.env
    return found


def _time_limit_of(env: gymnasium.Env[Any, Any]) -> int | None:
    limits = [int(vars(wrapper)["_max_episode_steps"]) for wrapper in time_limits(env)]
    return min(limits, default=None)


def capture_simulators(model: Any, simulators: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Copy what the future of each simulator depends on.

    mjSTATE_INTEGRATION includes the solver's warm start, without which the next step differs in its last bits.

    Args:
        model: the MjModel.
        simulators: E MjData of that model.

    Returns:
        `simulator`, `xpos` and `xipos`, as in `VectorEnv.state`.
    """
    return {
        "simulator": read_states(model, simulators, mujoco.mjtState.mjSTATE_INTEGRATION),
        "xpos": np.stack([data.xpos.ravel() for data in simulators]),
        "xipos": np.stack([data.xipos.ravel() for data in simulators]),
    }


def restore_simulators(model: Any, simulators: Sequence[Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put back what `capture_simulators` copied.

    Args:
        model: the MjModel.
        simulators: E MjData of that model, overwritten.
        arrays: from `capture_simulators`.
    """
    for index, data in enumerate(simulators):
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, arrays["simulator"][index], mujoco.mjtState.mjSTATE_INTEGRATION)
        data.xpos[:] = arrays["xpos"][index].reshape(data.xpos.shape)
        data.xipos[:] = arrays["xipos"][index].reshape(data.xipos.shape)


def read_states(model: Any, simulators: Sequence[Any], signature: Any) -> Floats:
    """Read a vector of state from each simulator: [E, n] float64, its parts chosen by an mjtState `signature`."""
    states = np.empty((len(simulators), mujoco.mj_stateSize(model, signature)))
    for row, data in zip(states, simulators, strict=True):
        mujoco.mj_getState(model, data, row, signature)
    return states


def encode_generators(generators: Sequence[np.random.Generator]) -> NDArray[np.uint8]:
    """The bytes of a JSON list of the generators' states, one per environment."""
    states = [generator.bit_generator.state for generator in generators]
    return np.frombuffer(json.dumps(states).encode(), np.uint8).copy()


def decode_generators(text: NDArray[np.uint8]) -> list[np.random.Generator]:
    """New generators that continue exactly where those given to `encode_generators` stood."""
    states = json.loads(text.tobytes())
    generators = [np.random.default_rng(0) for _ in states]  # without a seed NumPy would ask for entropy
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state
    return generators
