"""The engine of the standard library: a process for every actor on this machine, watched and replaced.

A server process that has loaded everything once forks the actors (`forkserver`): a further one costs little time and
memory, and the learner, which has threads, is never forked. What they share has no names in the file system and ends
with the last of them. See `worker` for what an actor does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaco.control.acting import Networks
from vaco.control.asynchronous import worker
from vaco.control.asynchronous.actor import Segment
from vaco.control.policy import Snapshot
from vaco.errors import UserError
from vaco.runs.config import RunConfig
from vaco.runs.silence import Silence

ATTEMPTS = 3
"""How often in a row an actor may end before its first segment."""
_WATCH = 0.25  # seconds between two looks at the actors


@dataclass
class _Waiting:
    """A segment that is finished and that the learner has not taken; with its bytes if its memory is no more."""

    actor: int
    incarnation: int
    number: int
    slot: int
    size: int
    span: tuple[float, float]
    data: bytes | None = None


@dataclass
class _Process:
    """An actor's process and what it shares with the learner."""

    process: Any
    incarnation: int
    slots: list[memoryview]
    beat: NDArray[np.int64]
    free: Connection
    silence: Silence = field(default_factory=Silence)
    seen: int = 0
    segments: int = 0


class Processes:
    """Actors in processes of their own; see `engine.Engine`."""

    def __init__(
        self, config: RunConfig, snapshot: Snapshot, template: Networks, first: int, say: Callable[[str], None]
    ) -> None:
        """Start them.

        Args:
            config: the run's settings.
            snapshot: the policy that they begin with.
            template: networks of its shape.
            first: the incarnation of all of them.
            say: called with a sentence whenever one is replaced.
        """
        self.config, self.say = config, say
        self.width = config.num_envs // config.batch_segments
        self.replaced = 0
        self.seconds: dict[str, float] = {"worked": 0.0, "waited": 0.0, "slowed": 0.0}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([worker.__name__])
        self._messages, self._theirs = self._context.Pipe(duplex=False)
        size = len(worker.policy_bytes(snapshot)) // 4
        self._memory = worker.shared(self._context, worker.Board.bytes_needed(size))
        self._board = worker.Board(self._memory, size)
        self._board.put(snapshot.version, worker.policy_bytes(snapshot))
        self._bytes = _segment_bytes(config, self.width, template)
        self._waiting: deque[_Waiting] = deque()
        self._failures = dict.fromkeys(range(config.actors), 0)
        self._looked = time.monotonic()
        self._actors: dict[int, _Process] = {}
        try:
            for number in range(config.actors):
                self._actors[number] = self._start(number, first)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes, by actor."""
        return [self._actors[number].process.pid for number in sorted(self._actors)]

    def publish(self, snapshot: Snapshot) -> None:
        """See `Engine.publish`; of all policies, every `broadcast`-th."""
        if snapshot.version % self.config.broadcast == 0:
            self._board.put(snapshot.version, worker.policy_bytes(snapshot))

    def next(self) -> tuple[Segment, int | None]:
        """See `Engine.next`.

        Raises:
            UserError: an actor cannot go on.
        """
        self._watch()
        self._receive()
        while not self._waiting:
            if self._messages.poll(_WATCH):
                self._receive()
            self._watch()
        first = self._waiting.popleft()
        data = self._taken(first)
        segment = worker.unpack(data, first.actor, first.incarnation, first.number)
        return replace(segment, span=first.span), None

    def close(self) -> None:
        """See `Engine.close`."""
        for actor in self._actors.values():
            _kill(actor)
        self._actors.clear()
        self._messages.close()
        self._theirs.close()

    def _start(self, number: int, incarnation: int) -> _Process:
        slots = [worker.shared(self._context, self._bytes) for _ in range(self.config.queue)]
        beat = worker.shared(self._context, 8)
        theirs, ours = self._context.Pipe(duplex=False)
        places = worker.Places(self._memory, slots, beat, theirs, self._theirs)
        process = self._context.Process(
            target=worker.main, args=(self.config, self.width, number, incarnation, places), daemon=True
        )
        process.start()
        theirs.close()
        for slot in range(len(slots)):
            ours.send_bytes(slot.to_bytes(4, "little"))
        views = [worker.view(slot) for slot in slots]
        return _Process(process, incarnation, views, np.frombuffer(beat, np.int64, 1), ours)

    def _receive(self) -> None:
        """Read all messages that have come.

        Raises:
            UserError: an actor says that it cannot go on.
        """
        while self._messages.poll():
            message = self._messages.recv_bytes()
            if message[:1] == worker.FAILED:
                _, number, _ = worker.TROUBLE.unpack(message[: worker.TROUBLE.size])
                words = message[worker.TROUBLE.size :].decode(errors="replace")
                raise UserError(f"actor {number} cannot go on: {words}")
            _, number, incarnation, segment, slot, size, begun, *seconds = worker.MESSAGE.unpack(message)
            actor = self._actors[number]
            if incarnation != actor.incarnation:
                continue  # of one that was given up and that yet went on
            actor.segments, self._failures[number] = actor.segments + 1, 0
            worked, waited, slowed = seconds
            for name, value in (("worked", worked), ("waited", waited), ("slowed", slowed)):
                self.seconds[name] += value
            span = (begun, begun + worked + slowed)
            self._waiting.append(_Waiting(number, incarnation, segment, slot, size, span))

    def _taken(self, waiting: _Waiting) -> bytes:
        """The bytes of a segment; its memory may be written again."""
        if waiting.data is not None:
            return waiting.data
        actor = self._actors[waiting.actor]
        data = bytes(actor.slots[waiting.slot][: waiting.size])
        with suppress(OSError):  # it ended meanwhile, which `_watch` will find
            actor.free.send_bytes(waiting.slot.to_bytes(4, "little"))
        return data

    def _watch(self) -> None:
        """Replace actors that ended or hang.

        Raises:
            UserError: one ends again and again before it has collected anything.
        """
        now = time.monotonic()
        if now - self._looked < _WATCH:
            return
        self._looked = now
        for number, actor in list(self._actors.items()):
            beat = int(actor.beat[0])
            hangs = actor.silence.too_long(beat != actor.seen)
            actor.seen = beat
            if actor.process.exitcode is not None or hangs:
                self._replace(number, actor)

    def _replace(self, number: int, actor: _Process) -> None:
        how = worker.ended(actor.process)
        _kill(actor)
        # Nothing more can come of it now: what it has finished is kept, its memory goes.
        self._receive()
        for waiting in self._waiting:
            if waiting.actor == number and waiting.data is None:
                waiting.data = bytes(actor.slots[waiting.slot][: waiting.size])
        self._failures[number] += actor.segments == 0
        if self._failures[number] >= ATTEMPTS:
            raise UserError(
                f"actor {number} {how}, {ATTEMPTS} times in a row before its first segment: look for what the system "
                "says of it (memory?), or ask for fewer actors"
            )
        self.replaced += 1
        self._actors[number] = self._start(number, actor.incarnation + 1)
        self.say(f"actor {number} {how}; incarnation {actor.incarnation + 1} of it goes on from new episodes")


def _kill(actor: _Process) -> None:
    """End a process for good and let go of what it shared."""
    # Of one that is known to have ended the number may be another's by now; 255 is what is said when nobody knows.
    if actor.process.exitcode in (None, 255):
        with suppress(ProcessLookupError):
            os.kill(actor.process.pid, signal.SIGKILL)
    actor.process.join(5.0)
    actor.free.close()


def _segment_bytes(config: RunConfig, width: int, template: Networks) -> int:
    """An upper bound on a packed segment: no array of a batch has numbers of more than eight bytes."""
    policy = template.distribution
    numbers = template.observation_size + policy.actions + policy.outputs + policy.spread + 8
    return 8 * (config.phase_steps + 1) * (width * numbers + 1) + 8192
