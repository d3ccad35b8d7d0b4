"""A run whose phases come from an engine: the same `Run`, another origin of data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vaco.control.asynchronous.actor import Segment, join
from vaco.control.asynchronous.engine import Engine, Recorded
from vaco.control.asynchronous.journal import Journal
from vaco.control.asynchronous.processes import Processes
from vaco.control.collect import Batch
from vaco.control.policy import Snapshot
from vaco.control.train import Arrays, Run
from vaco.errors import UserError
from vaco.lag import FILE, Schedule, Uniform
from vaco.runs.checkpoint import subset
from vaco.runs.config import RunConfig
from vaco.runs.folder import SCHEDULE
from vaco.runs.schedule import DROPPED, USED, Entry, Recording, read_pinned, to_columns


class RecordedRun(Run):
    """A run that follows a schedule: that of a file, or the one that it recorded itself when it was trained."""

    def __init__(
        self, config: RunConfig, say: Callable[[str], None] = print, recording: Recording | None = None
    ) -> None:
        """Build the run at its very beginning.

        Args:
            config: the configuration.
            say: called with each sentence for the user.
            recording: the schedule; by default the one that the configuration names.

        Raises:
            UserError: the schedule cannot be read, or is of another shape than the run.
        """
        self.recording = recording or read_pinned(config.schedule.removeprefix(f"{FILE}:"))
        _require_shape(config, self.recording)
        self.engine = Recorded(config, self.recording, lambda: self.buffer)
        super().__init__(config, say)

    def stop(self) -> None:
        """See `Run.stop`."""
        super().stop()
        self.engine.close()

    def more_tables(self) -> dict[str, Arrays]:
        """The schedule, as far as the run followed it."""
        return {SCHEDULE: dict(to_columns(self.engine.taken))}

    def notes(self) -> dict[str, Any]:
        """See `Run.notes`."""
        return {"schedule": self.recording.digest}

    def _prepare_collection(self) -> Schedule:
        return Uniform(self.recording.capacity)  # the capacity alone matters: the engine chooses

    def _collect(self) -> Batch:
        chosen: list[Segment] = []
        while len(chosen) < self.recording.segments:
            segment, fate = self.engine.next()
            note_unstable(self, segment)
            if fate == USED:
                chosen.append(segment)
        return join(chosen, self.phase)

    def _collection_state(self) -> Arrays:
        if not self.eval_env.saved_exactly:
            return {}
        return {f"engine.{name}": value for name, value in self.engine.state().items()}

    def _restore_collection(self, arrays: Arrays) -> None:
        if not self.eval_env.saved_exactly:
            raise UserError(
                f"{self.config.env} cannot be saved, so a run that follows a schedule cannot be continued: delete its "
                "folder and run the same command again"
            )
        self.engine.set_state(subset(arrays, "engine."))


class LiveRun(Run):
    """A run whose actors are processes of their own; it records the schedule that they and the system make."""

    def __init__(self, config: RunConfig, say: Callable[[str], None] = print) -> None:
        """Build the run at its very beginning; the actors begin with `start`.

        Args:
            config: the configuration, with actors.
            say: called with each sentence for the user.

        Raises:
            UserError: as `Run`.
        """
        self.engine: Engine | None = None
        self.journal = Journal()
        super().__init__(config, say)

    def start(self, folder: Path) -> None:
        """See `Run.start`."""
        if lost := self.journal.follow(folder):
            self.say(f"{lost} segments that an interrupted process took after the last checkpoint are lost")
        first = 1 + int(self.journal.columns()["incarnation"].max(initial=-1))
        self.engine = _engine(self.config)(self.config, self.snapshot, self.networks, first, self.say)

    def stop(self) -> None:
        """See `Run.stop`."""
        super().stop()
        if self.engine is not None:
            self.engine.close()

    def more_tables(self) -> dict[str, Arrays]:
        """The schedule."""
        return {SCHEDULE: dict(self.journal.columns())}

    def notes(self) -> dict[str, Any]:
        """See `Run.notes`; seconds and replacements are those of this process."""
        assert self.engine is not None
        columns = self.journal.columns()
        fates = columns["fate"][columns["first_step"] == 0]  # a row a segment
        counts = dict(zip(("used", "dropped", "lost"), np.bincount(fates, minlength=3).tolist(), strict=True))
        seconds = {name: round(value, 3) for name, value in self.engine.seconds.items()}
        return {"asynchrony": {"segments": counts, "replaced": self.engine.replaced, "actor_seconds": seconds}}

    def _prepare_collection(self) -> Schedule:
        return Uniform(1)

    def _push(self) -> Snapshot:
        snapshot = super()._push()
        if self.engine is not None:
            self.engine.publish(snapshot)
        return snapshot

    def _collect(self) -> Batch:
        assert self.engine is not None
        chosen: list[Segment] = []
        entries: list[Entry] = []
        while len(chosen) < self.config.batch_segments:
            segment, _ = self.engine.next()
            note_unstable(self, segment)
            entry = segment.entry(self.phase, USED)
            if 0 < self.config.max_staleness < entry.oldest:
                entry = replace(entry, fate=DROPPED)
            else:
                chosen.append(segment)
            entries.append(entry)
        self.journal.add(entries)
        return join(chosen, self.phase)

    def _collection_state(self) -> Arrays:
        return {f"schedule.{name}": column for name, column in self.journal.columns().items()}

    def _restore_collection(self, arrays: Arrays) -> None:
        self.journal.restore(subset(arrays, "schedule."))


def _engine(config: RunConfig) -> Callable[..., Engine]:
    if config.engine == "processes":
        return Processes
    from vaco.control.asynchronous.ray_engine import RayActors

    return RayActors


def note_unstable(run: Run, segment: Segment) -> None:
    """Count the steps that MuJoCo undid in a segment, and say when the first was."""
    if segment.unstable and not run.unstable["training"]:
        run.say(
            f"in phase {run.phase + 1} the simulation of actor {segment.actor} became unstable: the step is left out "
            "and the episode ended, as all further ones are, which the manifest counts"
        )
    run.unstable["training"] += segment.unstable


def _require_shape(config: RunConfig, recording: Recording) -> None:
    """Refuse a schedule that the run cannot follow.

    Raises:
        UserError: saying which setting would do.
    """
    if recording.steps != config.phase_steps:
        raise UserError(
            f"the schedule has segments of {recording.steps} steps, but phase_steps is {config.phase_steps}: add "
            f"--set phase_steps={recording.steps}"
        )
    if config.num_envs % recording.segments:
        fitting = recording.segments * max(1, config.num_envs // recording.segments)
        raise UserError(
            f"the schedule has {recording.segments} segments a batch, which do not divide num_envs = "
            f"{config.num_envs}: add --set num_envs={fitting}"
        )
    if recording.updates < config.phases:
        raise UserError(
            f"the schedule is of {recording.updates} updates, but {config.steps} steps are {config.phases}: ask for at "
            f"most {recording.updates * config.batch} steps"
        )
