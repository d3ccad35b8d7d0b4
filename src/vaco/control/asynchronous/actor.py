"""An actor: some environments, a generator of its own, and what it collects, one segment after the other.

All that an actor does follows from the run's settings, its number, its incarnation and the snapshots that it is given:
the same segments come from a process beside the learner and, later, from an actor within a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaco.control.acting import Acting, acting, networks_of
from vaco.control.collect import Batch, Collector, accumulate
from vaco.control.envs import make_vector_env, spec_of
from vaco.control.envs.base import decode_generators, encode_generators
from vaco.control.policy import Snapshot
from vaco.runs.checkpoint import subset
from vaco.runs.config import RunConfig
from vaco.runs.schedule import Entry, pieces

Arrays = dict[str, NDArray[Any]]
_STREAM = 6
"""Of the purposes for which a run's seed is hashed."""


@dataclass(frozen=True)
class Segment:
    """T steps of one actor.

    Attributes:
        actor: whose.
        incarnation: which incarnation of it.
        number: of the segment within the incarnation, from 0.
        versions: of the policy at every step, int64 [T].
        batch: the data; its ages are not known before it is used, and hold the versions, [T].
        unstable: steps that MuJoCo undid.
        span: when it was begun and finished, seconds of this machine's monotonic clock; nothing is decided by it.
    """

    actor: int
    incarnation: int
    number: int
    versions: NDArray[np.int64]
    batch: Batch
    unstable: int = 0
    span: tuple[float, float] | None = None

    def entry(self, update: int, fate: int) -> Entry:
        """What a schedule says of it, where it was taken after so many updates."""
        return Entry(update, self.actor, self.incarnation, self.number, pieces(self.versions), fate)


class Actor:
    """One incarnation of an actor."""

    def __init__(self, config: RunConfig, width: int, number: int, incarnation: int) -> None:
        """Begin its first episodes.

        Args:
            config: the run's settings.
            width: e, how many environments it has.
            number: which actor.
            incarnation: 0, or more if it replaces an actor that was lost.
        """
        self.number, self.incarnation, self.segments = number, incarnation, 0
        self.discount = config.discount
        self.slowness = config.slowness[number] if number < len(config.slowness) else 1.0
        env = make_vector_env(spec_of(config), num_envs=width, backend=config.backend)
        resets, noise = np.random.SeedSequence((config.seed, _STREAM, number, incarnation)).spawn(2)
        self.collector = Collector(env, networks_of(config, env), config.phase_steps)
        self.collector.reset(int(resets.generate_state(1)[0] >> 1))
        self.noise = np.random.default_rng(noise)
        self.discounted = np.zeros(width)
        self._acting: tuple[Snapshot, Acting] | None = None

    def collect(self, policy: Callable[[int], Snapshot]) -> Segment:
        """Run T steps.

        Args:
            policy: the snapshot to use at a step; called with 0, ..., T − 1.
        """
        collector, width = self.collector, self.collector.env.num_envs
        versions = np.empty(collector.phase_steps, np.int64)

        def used(step: int) -> Acting:
            snapshot = policy(step)
            versions[step] = snapshot.version
            if self._acting is None or self._acting[0] is not snapshot:
                self._acting = snapshot, acting([snapshot] * width, collector.template)
            return self._acting[1]

        before = self.discounted.copy()
        batch = collector.run(used, versions, self.noise)
        accumulate(self.discounted, batch, self.discount)
        unstable = len(collector.env.unstable)
        collector.env.unstable.clear()
        self.segments += 1
        batch = replace(batch, discounted=before)
        return Segment(self.number, self.incarnation, self.segments - 1, versions, batch, unstable)

    def state(self) -> Arrays:
        """Everything that its future depends on, the snapshot that it used last apart."""
        return {
            **{f"env.{name}": value for name, value in self.collector.env.state().items()},
            "observations": self.collector.observations,
            "returns": self.collector.running_returns,
            "discounted": self.discounted,
            "noise": encode_generators([self.noise]),
            "counts": np.array([self.number, self.incarnation, self.segments]),
        }

    def set_state(self, arrays: Arrays) -> None:
        """Continue from what `state` returned."""
        self.collector.env.set_state(subset(arrays, "env."))
        self.collector.observations = arrays["observations"]
        self.collector.running_returns = arrays["returns"]
        self.discounted = arrays["discounted"]
        (self.noise,) = decode_generators(arrays["noise"])
        self.segments = int(arrays["counts"][2])


def join(segments: Sequence[Segment], phase: int) -> Batch:
    """One batch of some segments, side by side.

    Args:
        segments: of equal length.
        phase: updates completed, from which ages count.

    Returns:
        The batch; its ages are [E], or [T, E] if policies changed within a segment.
    """
    batches = [segment.batch for segment in segments]
    widths = [batch.dead.shape[1] for batch in batches]
    changing = any(len(np.unique(segment.versions)) > 1 for segment in segments)
    steps = batches[0].dead.shape[0]
    ages = [phase - (s.versions if changing else s.versions[:1]) for s in segments]
    log_std = [
        np.broadcast_to(b.behaviour_log_std, (*((steps,) if changing else ()), width, b.behaviour_log_std.shape[-1]))
        for b, width in zip(batches, widths, strict=True)
    ]
    joined_ages = np.concatenate([np.repeat(a[:, None], w, axis=1) for a, w in zip(ages, widths, strict=True)], axis=1)

    def side_by_side(name: str) -> Any:
        return np.concatenate([getattr(batch, name) for batch in batches], axis=1)

    return Batch(
        observations=side_by_side("observations"),
        actions=side_by_side("actions"),
        behaviour_logp=side_by_side("behaviour_logp"),
        behaviour_outputs=side_by_side("behaviour_outputs"),
        behaviour_log_std=np.concatenate(log_std, axis=-2),
        rewards=side_by_side("rewards"),
        terminated=side_by_side("terminated"),
        truncated=side_by_side("truncated"),
        dead=side_by_side("dead"),
        ages=joined_ages if changing else joined_ages[0],
        episode_returns=np.concatenate([batch.episode_returns for batch in batches]),
        discounted=np.concatenate([batch.discounted for batch in batches if batch.discounted is not None]),
    )
