"""Where segments come from: the interface that every engine has, and the engine that follows a recorded schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vaco.control.asynchronous.actor import Actor, Segment
from vaco.control.policy import Snapshot
from vaco.runs.checkpoint import subset
from vaco.runs.config import RunConfig
from vaco.runs.schedule import LOST, Entry, Recording

Arrays = dict[str, NDArray[Any]]


class Engine(Protocol):
    """Actors, wherever they are.

    Attributes:
        replaced: how many were lost and replaced.
        seconds: what they spent working, waiting and being slowed, as far as they say.
    """

    replaced: int
    seconds: dict[str, float]

    def publish(self, snapshot: Snapshot) -> None:
        """Let actors have a newer policy."""

    def next(self) -> tuple[Segment, int | None]:
        """Wait for a segment; with its fate, if that is already known."""

    def close(self) -> None:
        """End all actors."""


class Recorded:
    """The actors of a recorded schedule, within this process: each collects when its segment was taken."""

    def __init__(self, config: RunConfig, recording: Recording, held: Callable[[], Iterable[Snapshot]]) -> None:
        """Begin before the schedule's first segment.

        Args:
            config: the run's settings.
            recording: the schedule.
            held: the policies that are held, the recording's capacity of them.
        """
        self.config, self.recording, self.held = config, recording, held
        self.width = config.num_envs // recording.segments
        self.taken: list[Entry] = []
        self._actors: dict[int, Actor] = {}

    def publish(self, snapshot: Snapshot) -> None:
        """Nothing: the policies are in `held`."""

    def next(self) -> tuple[Segment, int | None]:
        """Collect the segment that was taken next."""
        entry = self.recording.entries[len(self.taken)]
        while entry.fate == LOST:
            self.taken.append(entry)
            entry = self.recording.entries[len(self.taken)]
        self.taken.append(entry)
        snapshots = {snapshot.version: snapshot for snapshot in self.held()}
        versions = entry.versions()
        actor = self._actor(entry)
        segment = actor.collect(lambda step: snapshots[int(versions[step])])
        return segment, entry.fate

    def close(self) -> None:
        """Close the environments."""
        for actor in self._actors.values():
            actor.collector.env.close()

    def _actor(self, entry: Entry) -> Actor:
        actor = self._actors.get(entry.actor)
        if actor is None or actor.incarnation != entry.incarnation:
            if actor is not None:
                actor.collector.env.close()
            actor = self._actors[entry.actor] = Actor(self.config, self.width, entry.actor, entry.incarnation)
        return actor

    def state(self) -> Arrays:
        """What a bitwise continuation needs, the policies apart."""
        arrays: Arrays = {"taken": np.array(len(self.taken)), "alive": np.array(sorted(self._actors), np.int64)}
        for number, actor in self._actors.items():
            arrays |= {f"{number}.{name}": value for name, value in actor.state().items()}
        return arrays

    def set_state(self, arrays: Arrays) -> None:
        """Continue from what `state` returned."""
        self.taken = self.recording.entries[: int(arrays["taken"])]
        for number in arrays["alive"].tolist():
            own = subset(arrays, f"{number}.")
            actor = self._actors[number] = Actor(self.config, self.width, number, int(own["counts"][1]))
            actor.set_state(own)
