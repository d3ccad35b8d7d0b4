"""One collection phase: every actor runs the snapshot it was assigned, all step together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaco.control.acting import Acting, Networks, acting
from vaco.control.envs import VectorEnv
from vaco.control.gaussian import Doubles, Floats
from vaco.control.policy import Snapshot
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
        behaviour_outputs: what that snapshot's network put out (of a Gaussian, the mean actions), [T, E, M].
        behaviour_log_std: its log σ, [E, S], or [1, S] where all actors ran the same one, or [T, E, S] where
            they changed policies within the phase.
        rewards: unscaled, float64 [T, E].
        terminated: the step ended in a terminal state [T, E].
        truncated: the step met the time limit [T, E].
        dead: the step was a reset and no transition [T, E]; weight 0 everywhere.
        ages: policy age of each actor's snapshot in phases, int64 [E], the same for all its transitions of the phase,
            or [T, E] where they changed policies within it.
        episode_returns: unscaled returns of the episodes that ended in the phase.
        discounted: discounted returns before the first step [E], where the columns are not the same environments in
            every phase, so that the reward scaler cannot keep them.
        weights: ν of each column's phase, of mean one, [E]; None where all count alike. See `reuse`.
        newest: of data of several phases, those of this one, its first columns; None where it is all.
    """

    observations: Floats
    actions: Floats
    behaviour_logp: Doubles
    behaviour_outputs: Floats
    behaviour_log_std: Floats
    rewards: Doubles
    terminated: Flags
    truncated: Flags
    dead: Flags
    ages: NDArray[np.int64]
    episode_returns: Doubles
    discounted: Doubles | None = None
    weights: Doubles | None = None
    newest: Batch | None = None


class Collector:
    """The environments and what must survive from one phase to the next."""

    def __init__(self, env: VectorEnv, template: Networks, phase_steps: int) -> None:
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
        snapshots, ages = buffer.assign(self.env.num_envs, assignment)
        actors = acting(snapshots, self.template)
        return self.run(lambda step: actors, ages, noise)

    def run(self, policy: Callable[[int], Acting], ages: NDArray[np.int64], noise: np.random.Generator) -> Batch:
        """Run T steps.

        Args:
            policy: the policies of all actors at a step; the same object as long as they are the same.
            ages: as the batch has them.
            noise: generator of the actions' noise.

        Returns:
            The phase's data.
        """
        env, steps, count = self.env, self.phase_steps, self.env.num_envs
        distribution = self.template.distribution
        actions = np.empty((steps, count, env.action_size), np.float32)
        observations = np.empty((steps + 1, count, env.observation_size), np.float32)
        rewards = np.empty((steps, count))
        terminated, truncated, dead = (np.empty((steps, count), np.bool_) for _ in range(3))
        observations[0] = self.observations
        used: list[tuple[int, Acting]] = []  # from which step on
        for t in range(steps):
            actors = policy(t)
            if not used or actors is not used[-1][1]:
                used.append((t, actors))
                drawn = distribution.noise(noise, (steps - t, count), actors.log_std)
            actions[t] = distribution.act(actors.outputs(observations[t]), drawn[t - used[-1][0]])
            step = env.step(actions[t])
            observations[t + 1] = step.observations
            rewards[t], terminated[t], truncated[t], dead[t] = step.rewards, step.terminated, step.truncated, step.dead
        self.observations = observations[-1]
        outputs, log_std, logp = self._densities(actions, observations[:-1], used)
        finished = self._track_returns(rewards, terminated | truncated)
        return Batch(
            observations=observations,
            actions=actions,
            behaviour_logp=logp,
            behaviour_outputs=outputs,
            behaviour_log_std=log_std,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            dead=dead,
            ages=ages,
            episode_returns=finished,
        )

    def _densities(
        self, actions: Floats, observations: Floats, used: list[tuple[int, Acting]]
    ) -> tuple[Floats, Floats, Doubles]:
        """Outputs, log σ and log-densities of a phase.

        The density is evaluated once, on the actions as they were rounded to float32, with the snapshot that acted.

        Args:
            actions: [T, E, A].
            observations: [T, E, O].
            used: the policies, and the step from which each acted.
        """
        parts = []
        for (start, actors), end in zip(used, [*(first for first, _ in used[1:]), len(actions)], strict=True):
            outputs = actors.outputs(observations[start:end])
            density = self.template.distribution.density(actions[start:end], outputs, actors.log_std)
            parts.append((outputs, actors.log_std, density.logp))
        if len(parts) == 1:
            return parts[0]
        log_std = [np.broadcast_to(spread, (*logp.shape, spread.shape[-1])) for _, spread, logp in parts]
        outputs, logp = (np.concatenate([part[index] for part in parts]) for index in (0, 2))
        return outputs, np.concatenate(log_std), logp

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


def accumulate(returns: Doubles, batch: Batch, discount: float) -> Doubles:
    """Carry discounted returns through a phase.

    Args:
        returns: before the first step, [E]; overwritten by those after the last.
        batch: the phase's data.
        discount: γ.

    Returns:
        What they were at every step, [T, E].
    """
    ended = batch.terminated | batch.truncated
    history = np.empty_like(batch.rewards)
    for t, reward in enumerate(batch.rewards):
        returns *= discount
        returns += reward
        history[t] = returns
        returns[ended[t]] = 0.0
    return history


def require_finite(batch: Batch) -> None:
    """Refuse data with NaN or infinity, before it reaches the networks.

    Raises:
        UserError: naming the actor.
    """
    for name, values in (("observation", batch.observations), ("reward", batch.rewards)):
        if not np.isfinite(values).all():
            actor = int(np.argwhere(~np.isfinite(values))[0][1])
            raise UserError(f"the environment of actor {actor} returned a {name} that is not finite")
