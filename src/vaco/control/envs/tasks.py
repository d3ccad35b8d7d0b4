"""Observations, rewards and terminations of MuJoCo tasks, for a whole batch at once.

A task says which parts of a simulator it reads (`views`). The backend concatenates those of all E environments into
`features` [E, F], from which everything else is computed. The formulae are those of `gymnasium.envs.mujoco.*_v5`, in
the same order of operations; their constants are read from a Gymnasium environment, except the few that Gymnasium
itself writes as literals (both inverted pendulums).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_VELOCITY_LIMIT = 10.0
"""Gymnasium clips the velocities (and a constraint force) of three observations to ±10, a literal there too."""


def _clip(values: Floats, low: float, high: float) -> Floats:
    """`np.clip` by its two ufuncs, at half the cost on small arrays."""
    return np.minimum(np.maximum(values, low), high)


def _inside(values: Floats, low: float, high: float) -> Flags:
    """Whether values lie in an open interval; NaN does not."""
    return np.logical_and(low < values, values < high)


class Task(ABC):
    """How one task turns what it reads from the simulators into observations, rewards and terminations.

    Attributes:
        reads_contact_forces: whether mj_rnePostConstraint must follow every step, for `cfrc_ext`.
    """

    reads_contact_forces = False

    def __init__(self, env: Any) -> None:
        """Read the constants of an unwrapped Gymnasium MuJoCo environment."""
        self.positions = int(env.model.nq)
        self.velocities = int(env.model.nv)
        self.coordinates = self.positions + self.velocities

    def views(self, data: Any) -> list[Floats]:
        """Views into one MjData, each [n], to be concatenated into a row of features; qpos and qvel come first."""
        return [data.qpos, data.qvel]

    @abstractmethod
    def observe(self, features: Floats) -> Floats:
        """Observations [E, O] of the features [E, F]; fresh."""

    def position(self, features: Floats) -> Floats:
        """Where the body is along the track, [E], in metres: its change over a step, per second, is rewarded."""
        return features[:, 0]

    @abstractmethod
    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """Rewards and terminations of a step.

        Args:
            features: [E, F] after the step.
            velocities: [E], change of `position` over the step divided by its duration.
            actions: [E, A], clipped.

        Returns:
            rewards [E] and terminations [E], both fresh.
        """


class Runner(Task):
    """HalfCheetah and Swimmer: forward velocity less control cost, never terminated."""

    def __init__(self, env: Any) -> None:
        """Read weights and the number of positions that are not observed."""
        super().__init__(env)
        self.skipped = int(env.observation_structure["skipped_qpos"])
        self.forward_weight = env._forward_reward_weight
        self.control_weight = env._ctrl_cost_weight

    def observe(self, features: Floats) -> Floats:
        """Positions after the skipped ones, then velocities."""
        return features[:, self.skipped :].copy()

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`."""
        rewards = self.forward_weight * velocities - self.control_weight * np.vecdot(actions, actions)
        return rewards, np.zeros(len(features), dtype=np.bool_)


class Walker(Runner):
    """Walker2d: a runner with a bonus while upright, terminated when not."""

    def __init__(self, env: Any) -> None:
        """Read the ranges of health."""
        super().__init__(env)
        self.healthy_reward = env._healthy_reward
        self.terminates = bool(env._terminate_when_unhealthy)
        self.height_range: tuple[float, float] = env._healthy_z_range
        self.angle_range: tuple[float, float] = env._healthy_angle_range

    def observe(self, features: Floats) -> Floats:
        """Positions after the skipped ones, then clipped velocities."""
        observations = features[:, self.skipped :].copy()
        velocities = observations[:, self.positions - self.skipped :]
        np.maximum(velocities, -_VELOCITY_LIMIT, out=velocities)
        np.minimum(velocities, _VELOCITY_LIMIT, out=velocities)
        return observations

    def healthy(self, features: Floats) -> Flags:
        """Whether height and angle lie inside their ranges, [E]."""
        return _inside(features[:, 1], *self.height_range) & _inside(features[:, 2], *self.angle_range)

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`."""
        healthy = self.healthy(features)
        rewards = self.forward_weight * velocities + healthy * self.healthy_reward
        rewards -= self.control_weight * np.vecdot(actions, actions)
        return rewards, ~healthy if self.terminates else np.zeros_like(healthy)


class Hopper(Walker):
    """Hopper: a walker whose whole state, less its first two positions, must lie in a range as well."""

    def __init__(self, env: Any) -> None:
        """Read the range of the state."""
        super().__init__(env)
        self.state_range: tuple[float, float] = env._healthy_state_range

    def healthy(self, features: Floats) -> Flags:
        """Whether height, angle and state lie inside their ranges, [E]."""
        return super().healthy(features) & _inside(features[:, 2:], *self.state_range).all(axis=1)


class Ant(Runner):
    """Ant: velocity of the torso, contact forces observed and paid for, terminated outside a range of heights."""

    reads_contact_forces = True

    def __init__(self, env: Any) -> None:
        """Read weights, ranges, and the body whose velocity is rewarded."""
        super().__init__(env)
        self.contact_weight = env._contact_cost_weight
        self.low_force, self.high_force = env._contact_force_range
        self.healthy_reward = env._healthy_reward
        self.terminates = bool(env._terminate_when_unhealthy)
        self.height_range: tuple[float, float] = env._healthy_z_range
        self.body = int(env.model.body(env._main_body).id)

    def views(self, data: Any) -> list[Floats]:
        """Adds all contact forces, 6 a body, and the position of the torso."""
        return [data.qpos, data.qvel, data.cfrc_ext.reshape(-1), data.xpos[self.body]]

    def position(self, features: Floats) -> Floats:
        """Position of the torso as MuJoCo last computed it, one substep before the positions of the joints."""
        return features[:, -3]

    def observe(self, features: Floats) -> Floats:
        """Positions after the skipped ones, velocities, clipped contact forces of every body but the world."""
        observations = np.empty((len(features), features.shape[1] - self.skipped - 6 - 3))
        split = self.coordinates - self.skipped
        observations[:, :split] = features[:, self.skipped : self.coordinates]
        forces = observations[:, split:]
        np.maximum(features[:, self.coordinates + 6 : -3], self.low_force, out=forces)
        np.minimum(forces, self.high_force, out=forces)
        return observations

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`."""
        height, (low, high) = features[:, 2], self.height_range
        finite = np.isfinite(features[:, : self.coordinates]).all(axis=1)
        healthy = finite & (low <= height) & (height <= high)
        forces = _clip(features[:, self.coordinates : -3], self.low_force, self.high_force)
        costs = self.control_weight * np.vecdot(actions, actions)
        costs += self.contact_weight * np.vecdot(forces, forces)
        rewards = velocities * self.forward_weight + healthy * self.healthy_reward - costs
        return rewards, ~healthy if self.terminates else np.zeros_like(healthy)


class Humanoid(Runner):
    """Humanoid: velocity of the centre of mass; inertias, velocities and forces of every body observed."""

    reads_contact_forces = True

    def __init__(self, env: Any) -> None:
        """Read weights, ranges and masses."""
        super().__init__(env)
        self.contact_weight = env._contact_cost_weight
        self.low_cost, self.high_cost = env._contact_cost_range
        self.healthy_reward = env._healthy_reward
        self.terminates = bool(env._terminate_when_unhealthy)
        self.height_range: tuple[float, float] = env._healthy_z_range
        self.masses: Floats = np.array(env.model.body_mass)
        self.total_mass = self.masses.sum()
        self.observed = int(env.observation_space.shape[0])

    def views(self, data: Any) -> list[Floats]:
        """Adds, in the order of the observation, what it shows of the bodies; then what only the reward reads."""
        observed = [data.cinert[1:], data.cvel[1:], data.qfrc_actuator[6:], data.cfrc_ext[1:]]
        rewarded = [data.cfrc_ext[0], data.xipos]
        return [data.qpos, data.qvel, *(part.reshape(-1) for part in observed + rewarded)]

    def position(self, features: Floats) -> Floats:
        """Centre of mass along the track, weighted by the masses of the bodies."""
        first = self.skipped + self.observed + 6
        return np.asarray(features[:, first::3] @ self.masses / self.total_mass)

    def observe(self, features: Floats) -> Floats:
        """Positions after the skipped ones, velocities, and the bodies."""
        return features[:, self.skipped : self.skipped + self.observed].copy()

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`."""
        healthy = _inside(features[:, 2], *self.height_range)
        last = self.skipped + self.observed + 6
        forces = features[:, last - len(self.masses) * 6 : last]
        contact = self.contact_weight * np.vecdot(forces, forces)
        costs = self.control_weight * np.vecdot(actions, actions) + _clip(contact, self.low_cost, self.high_cost)
        rewards = self.forward_weight * velocities + healthy * self.healthy_reward - costs
        return rewards, ~healthy if self.terminates else np.zeros_like(healthy)


class Pendulum(Task):
    """InvertedPendulum: one a step while the pole is within 0.2 rad of upright."""

    def observe(self, features: Floats) -> Floats:
        """Positions, then velocities."""
        return features.copy()

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`; 0.2 is a literal in Gymnasium."""
        terminated = ~np.isfinite(features).all(axis=1) | (np.abs(features[:, 1]) > 0.2)
        return (~terminated).astype(np.float64), terminated


class DoublePendulum(Task):
    """InvertedDoublePendulum: a bonus while its tip is higher than 1 m, less penalties on distance and velocity."""

    def __init__(self, env: Any) -> None:
        """Read the bonus."""
        super().__init__(env)
        self.healthy_reward = env._healthy_reward

    def views(self, data: Any) -> list[Floats]:
        """Adds the force that keeps the cart on its track, and the position of the tip."""
        return [data.qpos, data.qvel, data.qfrc_constraint[:1], data.site_xpos[0]]

    def observe(self, features: Floats) -> Floats:
        """Position of the cart; sines, then cosines, of the angles; clipped velocities; clipped force."""
        # Contiguous, as in Gymnasium, so that NumPy chooses the same vectorised sine.
        angles = np.ascontiguousarray(features[:, 1 : self.positions])
        limited = _clip(features[:, self.positions : self.coordinates + 1], -_VELOCITY_LIMIT, _VELOCITY_LIMIT)
        return np.concatenate([features[:, :1], np.sin(angles), np.cos(angles), limited], axis=1)

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`; heights and penalties are literals in Gymnasium."""
        tip_x, tip_y = features[:, self.coordinates + 1], features[:, self.coordinates + 3]
        spin_1, spin_2 = features[:, self.positions + 1], features[:, self.positions + 2]
        terminated = tip_y <= 1
        rewards = self.healthy_reward * (~terminated).astype(np.float64)
        rewards -= 0.01 * tip_x**2 + (tip_y - 2) ** 2
        rewards -= 1e-3 * spin_1**2 + 5e-3 * spin_2**2
        return rewards, terminated


class Reacher(Task):
    """Reacher: the distance of the fingertip from its target, less control cost; never terminated."""

    def __init__(self, env: Any) -> None:
        """Read weights, and the bodies whose distance is rewarded."""
        super().__init__(env)
        self.distance_weight = env._reward_dist_weight
        self.control_weight = env._reward_control_weight
        self.fingertip, self.target = (int(env.model.body(name).id) for name in ("fingertip", "target"))

    def views(self, data: Any) -> list[Floats]:
        """Adds the positions of fingertip and target."""
        return [data.qpos, data.qvel, data.xpos[self.fingertip], data.xpos[self.target]]

    def observe(self, features: Floats) -> Floats:
        """Cosines, then sines, of the two joints; the target; the joints' velocities; where the target lies."""
        joints = np.ascontiguousarray(features[:, :2])
        speeds = features[:, self.positions : self.positions + 2]
        apart = features[:, -6:-3] - features[:, -3:]
        seen = [np.cos(joints), np.sin(joints), features[:, 2 : self.positions], speeds, apart[:, :2]]
        return np.concatenate(seen, axis=1)

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`."""
        rewards = -_length(features[:, -6:-3] - features[:, -3:]) * self.distance_weight
        rewards -= np.vecdot(actions, actions) * self.control_weight
        return rewards, np.zeros(len(features), dtype=np.bool_)


class Pusher(Task):
    """Pusher: the distances of an object from arm and goal, less control cost; never terminated."""

    def __init__(self, env: Any) -> None:
        """Read weights, and the bodies whose distances are rewarded."""
        super().__init__(env)
        self.near_weight = env._reward_near_weight
        self.distance_weight = env._reward_dist_weight
        self.control_weight = env._reward_control_weight
        self.bodies = [int(env.model.body(name).id) for name in ("tips_arm", "object", "goal")]

    def views(self, data: Any) -> list[Floats]:
        """Adds the positions of the arm's tip, the object and the goal."""
        return [data.qpos, data.qvel, *(data.xpos[body] for body in self.bodies)]

    def observe(self, features: Floats) -> Floats:
        """Angles of the arm's seven joints, their velocities, and the three positions; 7 is a literal in Gymnasium."""
        speeds = features[:, self.positions : self.positions + 7]
        return np.concatenate([features[:, :7], speeds, features[:, self.coordinates :]], axis=1)

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`."""
        arm, thing, goal = (features[:, self.coordinates + 3 * i : self.coordinates + 3 * i + 3] for i in range(3))
        rewards = -_length(thing - goal) * self.distance_weight
        rewards -= np.vecdot(actions, actions) * self.control_weight
        rewards -= _length(thing - arm) * self.near_weight
        return rewards, np.zeros(len(features), dtype=np.bool_)


class HumanoidStandup(Humanoid):
    """HumanoidStandup: the height of the torso, less costs of control and impact; never terminated."""

    def __init__(self, env: Any) -> None:
        """Read weights, the range of the cost of impact, and the duration of a substep."""
        Task.__init__(self, env)
        self.skipped = int(env.observation_structure["skipped_qpos"])
        self.observed = int(env.observation_space.shape[0])
        self.bodies = int(env.model.nbody)
        self.substep = float(env.model.opt.timestep)
        self.control_weight = env._ctrl_cost_weight
        self.contact_weight = env._impact_cost_weight
        self.low_cost, self.high_cost = env._impact_cost_range

    def position(self, features: Floats) -> Floats:
        """Not rewarded."""
        return features[:, 0]

    def outcome(self, features: Floats, velocities: Floats, actions: Floats) -> tuple[Floats, Flags]:
        """See `Task.outcome`; the 1 is a literal in Gymnasium."""
        last = self.skipped + self.observed + 6
        forces = features[:, last - self.bodies * 6 : last]
        impact = _clip(self.contact_weight * np.vecdot(forces, forces), self.low_cost, self.high_cost)
        rewards = features[:, 2] / self.substep - self.control_weight * np.vecdot(actions, actions) - impact + 1
        return rewards, np.zeros(len(features), dtype=np.bool_)


def _length(vectors: Floats) -> Floats:
    """Euclidean lengths [E] of vectors [E, 3]."""
    lengths: Floats = np.sqrt(np.vecdot(vectors, vectors))
    return lengths


TASKS: dict[str, type[Task]] = {
    "Ant-v5": Ant,
    "HalfCheetah-v5": Runner,
    "Hopper-v5": Hopper,
    "Humanoid-v5": Humanoid,
    "HumanoidStandup-v5": HumanoidStandup,
    "InvertedDoublePendulum-v5": DoublePendulum,
    "InvertedPendulum-v5": Pendulum,
    "Pusher-v5": Pusher,
    "Reacher-v5": Reacher,
    "Swimmer-v5": Runner,
    "Walker2d-v5": Walker,
}
"""The tasks of the batched backend, by their Gymnasium names."""
