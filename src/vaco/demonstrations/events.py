"""A system of actors and a learner as a discrete-event simulation: seeded, hence reproducible, but a model.

Every actor has room for some segments of its own: it begins one when it has room, with the newest policy, and the room
is free again when the learner takes the segment. Actors draw gamma-distributed durations with a measured mean and
spread; the learner takes its measured mean; pulling, handing over and taking cost no time. What the operating system
does is not modelled, nor that processes share cores: durations must be those of processes that do.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEARNER = -1


class Simulation:
    """Actors, their finished segments, and a learner, in simulated time.

    Args:
        means: mean seconds a segment of each actor.
        spreads: standard deviation of the same, divided by the mean.
        update: seconds an update.
        batch: segments an update.
        queue: segments of one actor, finished or under way, before it waits.
        generator: source of the durations.

    Attributes:
        now: seconds so far.
        version: updates finished so far.
        busy: seconds that the learner has learnt.
        pulls: how many segments were begun.
    """

    def __init__(
        self,
        *,
        means: Sequence[float],
        spreads: Sequence[float],
        update: float,
        batch: int,
        queue: int,
        generator: np.random.Generator,
    ) -> None:
        self._shapes = [1.0 / spread**2 for spread in spreads]
        self._means, self._update, self._batch = means, update, batch
        self._generator = generator
        self._events: list[tuple[float, int]] = []  # time, and the actor that is done or LEARNER
        self._room = [queue] * len(means)
        self._pulled: list[int | None] = [None] * len(means)  # version that each actor collects with, if it does
        self._ready: deque[tuple[int, int]] = deque()  # actor and version of the finished segments
        self._hand: list[int] = []  # versions of the batch that the learner gathers
        self._learning = False
        self.now, self.version, self.busy, self.pulls = 0.0, 0, 0.0, 0
        self.ages: list[int] = []

    def run(self, updates: int) -> NDArray[np.int64]:
        """Simulate until the learner has begun that many updates; the age of every segment used, in order."""
        if not self.pulls:
            for actor in range(len(self._means)):
                self._begin(actor)
        while len(self.ages) < updates * self._batch:
            self.now, who = heapq.heappop(self._events)
            if who == LEARNER:
                self._learning = False
                self.version += 1
            else:
                version = self._pulled[who]
                assert version is not None
                self._pulled[who] = None
                self._ready.append((who, version))
                self._begin(who)
            self._take()
        return np.array(self.ages[: updates * self._batch])

    def _begin(self, actor: int) -> None:
        """An idle actor with room takes the newest policy and starts on a segment."""
        if self._pulled[actor] is not None or not self._room[actor]:
            return
        self._room[actor] -= 1
        self._pulled[actor] = self.version
        self.pulls += 1
        shape = self._shapes[actor]
        duration = self._generator.gamma(shape, self._means[actor] / shape)
        heapq.heappush(self._events, (self.now + duration, actor))

    def _take(self) -> None:
        """An idle learner takes what is there, which gives actors room; a full batch starts an update."""
        while not self._learning and self._ready:
            actor, version = self._ready.popleft()
            self._hand.append(version)
            self._room[actor] += 1
            self._begin(actor)
            if len(self._hand) == self._batch:
                self.ages += [self.version - version for version in self._hand]
                self._hand, self._learning = [], True
                self.busy += self._update
                heapq.heappush(self._events, (self.now + self._update, LEARNER))


def twin(measured: Mapping[str, Any], generator: np.random.Generator) -> Simulation:
    """The simulated twin of a measured system.

    Args:
        measured: one entry of `systems`, as `vaco.demonstrations.measure` wrote it.
        generator: source of the durations.
    """
    system = measured["system"]
    return Simulation(
        means=measured["seconds_per_segment"],
        spreads=measured["spread_of_segment"],
        update=measured["seconds_per_update"],
        batch=system["batch"],
        queue=system["queue"],
        generator=generator,
    )
