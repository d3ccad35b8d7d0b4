"""One collection phase: every actor runs the snapshot it was assigned, all step together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaco.control.envs import VectorEnv
from vaco.control.networks import ActorCritic, Floats
from vaco.control.policy import Actors, Doubles, Snapshot, log_probability, standard_score
from vaco.errors import UserError
from vaco.lag import PolicyBuffer

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """The data of one phase: T steps of E actors.

    Attributes:
        observations: raw, float32 [T + 1, E, O]; the last row is the successor of the last step.
        actions: as sampled, before the environment clips them, float32 [T, E, A].
        behaviour_logp: log β(a|s) under the snapshot that acted, float64 [T, E].
        behaviour_means: that snapshot's mean actions, [T, E, A].
        behaviour_log_std: its log σ, [E, A], or [1, A] where all actors ran the same one.
        rewards: unscaled, float64 [T, E].
        terminated: the step ended in a terminal state [T, E].
        truncated: the step met the time limit [T, E].
        dead: the step was a reset and no transition [T, E]; weight 0 everywhere.
        ages: policy age of each actor's snapshot in phases, int64 [E], the same for all its transitions of the phase.
        episode_returns: unscaled returns of the episodes that ended in the phase.
    """

    observations: Floats
    actions: Floats
    behaviour_logp: Doubles
    behaviour_means: Floats
    behaviour_log_std: Floats
    rewards: Doubles
    terminated: Flags
    truncated: Flags
    dead: Flags
    ages: NDArray[np.int64]
    episode_returns: Doubles


class Collector:
    """The environments and what must survive from one phase to the next."""

    def __init__(self, env: VectorEnv, template: ActorCritic, phase_steps: int) -> None:
        """Wrap environments that the caller has reset or will restore.

        Args:
            env: the vector environment.
            template: networks of the policy's shape.
            phase_steps: T, steps per phase.
        """
        self.env, self.template, self.phase_steps = env, template, phase_steps
        self.observations: Floats = np.zeros((env.num_envs, env.observation_size), np.float32)
        self.running_returns: Doubles = np.zeros(env.num_envs)

    def reset(self, seed: int) -> None:
        """Start the first episode of every actor."""
        self.observations = self.env.reset(seed).astype(np.float32)
        self.running_returns[:] = 0.0

    def collect(
        self, buffer: PolicyBuffer[Snapshot], assignment: np.random.Generator, noise: np.random.Generator
    ) -> Batch:
        """Assign a buffered snapshot to every actor and run T steps.

        Args:
            buffer: the policy buffer, at least one snapshot.
            assignment: generator of the assignment of snapshots.
            noise: generator of the actions' noise.

        Returns:
            The phase's data.
        """
        env, steps, count = self.env, self.phase_steps, self.env.num_envs
        snapshots, ages = buffer.assign(count, assignment)
        actors = Actors(snapshots, self.template)
        actions = noise.standard_normal((steps, count, env.action_size), np.float32)
        actions *= actors.std
        observations = np.empty((steps + 1, count, env.observation_size), np.float32)
        rewards = np.empty((steps, count))
        terminated, truncated, dead = (np.empty((steps, count), np.bool_) for _ in range(3))
        observations[0] = self.observations
        for t in range(steps):
            actions[t] += actors.mean(observations[t])
            step = env.step(actions[t])
            observations[t + 1] = step.observations
            rewards[t], terminated[t], truncated[t], dead[t] = step.rewards, step.terminated, step.truncated, step.dead
        self.observations = observations[-1]
        # The density is evaluated once, on the actions as they were rounded to float32, with the snapshot that acted.
        means = actors.mean(observations[:-1])
        score = standard_score(actions, means, actors.log_std)
        logp = log_probability(score, actors.log_std)
        finished = self._track_returns(rewards, terminated | truncated)
        return Batch(
            observations=observations,
            actions=actions,
            behaviour_logp=logp,
            behaviour_means=means,
            behaviour_log_std=actors.log_std,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            dead=dead,
            ages=ages,
            episode_returns=finished,
        )

    def _track_returns(self, rewards: Doubles, ended: Flags) -> Doubles:
        """Returns of the episodes that ended, in order of time, then actor; carries the unfinished ones over."""
        finished: list[float] = []
        running, start = self.running_returns, 0
        for t in np.flatnonzero(ended.any(1)).tolist():
            running += rewards[start : t + 1].sum(0)
            finished.extend(running[ended[t]])
            running[ended[t]] = 0.0
            start = t + 1
        running += rewards[start:].sum(0)
        return np.asarray(finished)


def require_finite(batch: Batch) -> None:
    """Refuse data with NaN or infinity, before it reaches the networks.

    Raises:
        UserError: naming the actor.
    """
    for name, values in (("observation", batch.observations), ("reward", batch.rewards)):
        if not np.isfinite(values).all():
            actor = int(np.argwhere(~np.isfinite(values))[0][1])
            raise UserError(f"the environment of actor {actor} returned a {name} that is not finite")
