"""The measured system once more, as a discrete-event simulation: seeded, hence reproducible, but a model.

Actors draw gamma-distributed durations with the measured mean and spread; the learner takes its measured mean; pulling
and queueing take no time. What the operating system does is not modelled.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEARNER = -1


class Simulation:
    """Actors, a bounded queue and a learner, in simulated time.

    Args:
        means: mean seconds a segment of each actor.
        spreads: standard deviation of the same, divided by the mean.
        update: seconds an update.
        batch: segments an update.
        queue: segments that the queue holds; an actor that finds it full waits.
        generator: source of the durations.
    """

    def __init__(
        self,
        *,
        means: list[float],
        spreads: list[float],
        update: float,
        batch: int,
        queue: int,
        generator: np.random.Generator,
    ) -> None:
        self._shapes = [1.0 / spread**2 for spread in spreads]
        self._means, self._update, self._batch, self._limit = means, update, batch, queue
        self._generator = generator
        self._events: list[tuple[float, int]] = []  # time, and the actor that is done or LEARNER
        self._pulled = [0] * len(means)  # version that each actor collects with
        self._queue: deque[int] = deque()  # versions of the waiting segments
        self._waiting: deque[int] = deque()  # actors in front of a full queue
        self._hand: list[int] = []  # versions of the batch that the learner gathers
        self._learning = False
        self.version = 0
        self.ages: list[int] = []

    def run(self, updates: int) -> NDArray[np.int64]:
        """Simulate until the learner has begun that many updates; the age of every segment used, in order."""
        for actor in range(len(self._means)):
            self._pull(0.0, actor)
        while len(self.ages) < updates * self._batch:
            now, who = heapq.heappop(self._events)
            if who == LEARNER:
                self._learning = False
                self.version += 1
            elif len(self._queue) < self._limit:
                self._put(now, who)
            else:
                self._waiting.append(who)
            self._take(now)
        return np.array(self.ages[: updates * self._batch])

    def _pull(self, now: float, actor: int) -> None:
        """The actor takes the newest weights and starts on a segment."""
        self._pulled[actor] = self.version
        shape = self._shapes[actor]
        duration = self._generator.gamma(shape, self._means[actor] / shape)
        heapq.heappush(self._events, (now + duration, actor))

    def _put(self, now: float, actor: int) -> None:
        self._queue.append(self._pulled[actor])
        self._pull(now, actor)

    def _take(self, now: float) -> None:
        """An idle learner takes what is there, which lets waiting actors go on; a full batch starts an update."""
        while not self._learning and self._queue:
            self._hand.append(self._queue.popleft())
            if self._waiting:
                self._put(now, self._waiting.popleft())
            if len(self._hand) == self._batch:
                self.ages += [self.version - version for version in self._hand]
                self._hand, self._learning = [], True
                heapq.heappush(self._events, (now + self._update, LEARNER))


def ages(measured: Mapping[str, Any], *, updates: int, warm: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Ages in the simulated twin of a measured system.

    Args:
        measured: one entry of `systems`, as `vaco.schematic.measure` wrote it.
        updates: updates to simulate after the warm-up.
        warm: updates left out at the start.
        generator: source of the durations.

    Returns:
        Age of every segment used after the warm-up, in updates, shape [updates · batch].
    """
    system = measured["system"]
    simulation = Simulation(
        means=measured["seconds_per_segment"],
        spreads=measured["spread_of_segment"],
        update=measured["seconds_per_update"],
        batch=system["batch"],
        queue=system["queue"],
        generator=generator,
    )
    return simulation.run(warm + updates)[warm * system["batch"] :]
