"""A process that is an actor: it pulls weights, collects, and hands its segments over through shared memory.

What may be killed or stopped at any moment must not be able to damage others: nothing here takes a lock. A segment is
written into memory of this actor's own, and only then announced by a message so short that the system writes it in one
piece. Weights are read from a board that the learner writes (`Board`), and a checksum tells whether it was read whole.
"""

from __future__ import annotations

import ctypes
import signal
import struct
import time
import zlib
from dataclasses import fields
from multiprocessing import connection, parent_process
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from vaco import stopwatch
from vaco.control.asynchronous.actor import Actor, Arrays, Segment
from vaco.control.collect import Batch
from vaco.control.policy import Snapshot
from vaco.errors import UserError
from vaco.runs.checkpoint import subset
from vaco.runs.config import RunConfig
from vaco.runs.preemption import SIGNALS
from vaco.runs.threads import one_thread

MESSAGE = struct.Struct("<cqqqqqdddd")
"""DONE; actor, incarnation, number of the segment, slot, bytes; when it was begun, by the monotonic clock; seconds that
the actor worked, waited before that, and was made slower."""
TROUBLE = struct.Struct("<cqq")
"""FAILED; actor, incarnation; behind it words."""
DONE, FAILED = b"d", b"f"
_BOARD = struct.Struct("<qQ")  # version and checksum, before the policy


class Board:
    """Memory in which the learner puts policies and from which actors read the newest, without locks.

    A policy goes into one of two places by turns, and its number of turns is announced last. A reader that was
    overtaken sees by the checksum that what it copied is no policy, and reads again.
    """

    def __init__(self, memory: Any, size: int) -> None:
        """Lay it out over shared memory.

        Args:
            memory: `bytes_needed(size)` bytes, zero at first.
            size: numbers of a policy, float32.
        """
        self.memory, self.size = memory, size
        self._announced = np.frombuffer(memory, np.int64, 1)
        length = _BOARD.size + 4 * size
        self._places = [view(memory)[8 + i * length : 8 + (i + 1) * length] for i in (0, 1)]

    @staticmethod
    def bytes_needed(size: int) -> int:
        """Of shared memory."""
        return 8 + 2 * (_BOARD.size + 4 * size)

    @property
    def turns(self) -> int:
        """How many policies have been put there."""
        return int(self._announced[0])

    def put(self, version: int, policy: bytes) -> None:
        """Let readers have a policy.

        Args:
            version: its version.
            policy: its `size` numbers.
        """
        turn = self.turns + 1
        place = self._places[turn % 2]
        place[: _BOARD.size] = _BOARD.pack(version, _checksum(version, policy))
        place[_BOARD.size :] = policy
        self._announced[0] = turn

    def get(self) -> tuple[int, int, bytes]:
        """The newest policy: turn, version, numbers. Something must have been put there."""
        while True:
            turn = self.turns
            copy = bytes(self._places[turn % 2])
            version, checksum = _BOARD.unpack(copy[: _BOARD.size])
            if _checksum(version, copy[_BOARD.size :]) == checksum:
                return turn, version, copy[_BOARD.size :]


def _checksum(version: int, policy: bytes) -> int:
    return zlib.crc32(policy, version & 0xFFFFFFFF)


def policy_bytes(snapshot: Snapshot) -> bytes:
    """The numbers of a policy for the board."""
    return np.concatenate([snapshot.flat, snapshot.shift, snapshot.scale]).astype(np.float32).tobytes()


def policy_of(version: int, numbers: bytes, observation_size: int, clip: float) -> Snapshot:
    """The inverse of `policy_bytes`."""
    flat = np.frombuffer(numbers, np.float32)
    shift, scale = flat[-2 * observation_size : -observation_size], flat[-observation_size:]
    return Snapshot(version, flat[: -2 * observation_size], shift, scale, clip)


def pack(segment: Segment) -> bytes:
    """A segment's arrays, as a buffer; whose it is stands in the message."""
    arrays: Arrays = {"versions": segment.versions, "unstable": np.array(segment.unstable)}
    for field in fields(Batch):
        value = getattr(segment.batch, field.name)
        if field.name != "ages" and value is not None:
            arrays[f"batch.{field.name}"] = np.ascontiguousarray(value)
    return safetensors.numpy.save(arrays)


def unpack(data: bytes, actor: int, incarnation: int, number: int) -> Segment:
    """The inverse of `pack`."""
    arrays = safetensors.numpy.load(data)
    parts: dict[str, Any] = subset(arrays, "batch.")
    batch = Batch(ages=arrays["versions"], **parts)
    return Segment(actor, incarnation, number, arrays["versions"], batch, int(arrays["unstable"]))


class Places(NamedTuple):
    """What an actor shares with the learner.

    Attributes:
        board: memory of the policies.
        slots: memory for its finished segments.
        beat: one number, which the actor counts up as long as it lives.
        free: brings numbers of slots that it may write.
        messages: to the learner, shared with all other actors.
    """

    board: Any
    slots: list[Any]
    beat: Any
    free: connection.Connection
    messages: connection.Connection


def main(config: RunConfig, width: int, number: int, incarnation: int, places: Places) -> None:
    """The process, until the learner ends it or is gone.

    Args:
        config: the run's settings.
        width: e.
        number: which actor.
        incarnation: which incarnation.
        places: what it shares with the learner.
    """
    for name in SIGNALS:  # the learner decides: a Ctrl-C reaches the whole group
        signal.signal(name, signal.SIG_IGN)
    try:
        stopwatch.stop()
        with one_thread():
            _Worker(config, width, number, incarnation, places).work()
    except UserError as trouble:
        _say(places, number, incarnation, str(trouble))
    except (OSError, EOFError):
        pass  # the learner is gone
    except Exception as error:
        _say(places, number, incarnation, f"{type(error).__name__}: {error}")
        raise


def _say(places: Places, number: int, incarnation: int, words: str) -> None:
    """Tell the learner, in one piece, why this actor cannot go on."""
    places.messages.send_bytes(TROUBLE.pack(FAILED, number, incarnation) + words.encode()[:2000])


class _Worker:
    def __init__(self, config: RunConfig, width: int, number: int, incarnation: int, places: Places) -> None:
        self.config, self.places = config, places
        self.actor = Actor(config, width, number, incarnation)
        self.size = self.actor.collector.env.observation_size
        self.board = Board(places.board, len(self.actor.collector.template.flat) + 2 * self.size)
        self.beat = np.frombuffer(places.beat, np.int64, 1)
        self.slots = [view(slot) for slot in places.slots]
        self.turn, self.snapshot = 0, self._pull()
        self.slept, self.last = 0.0, 0.0

    def work(self) -> None:
        """Collect and hand over, again and again."""
        while True:
            began = time.monotonic()
            slot = self._wait_for_slot()
            started = time.monotonic()
            self.slept, self.last = 0.0, started
            segment = self.actor.collect(self._policy)
            data = pack(segment)
            if len(data) > len(self.slots[slot]):
                raise UserError(f"a segment of {len(data)} bytes does not fit the {len(self.slots[slot])} kept for it")
            self.slots[slot][: len(data)] = data
            took = time.monotonic() - started - self.slept
            facts = (segment.actor, segment.incarnation, segment.number, slot, len(data))
            self.places.messages.send_bytes(MESSAGE.pack(DONE, *facts, started, took, started - began, self.slept))

    def _policy(self, step: int) -> Snapshot:
        """The snapshot to act with; and, between steps, a sign of life and the sleep of a straggler."""
        self.beat[0] += 1
        if self.actor.slowness > 1.0:
            pause = (self.actor.slowness - 1.0) * (time.monotonic() - self.last)
            time.sleep(pause)
            self.slept += pause
            self.last = time.monotonic()
        if (step == 0 or self.config.pull == "step") and self.board.turns != self.turn:
            self.snapshot = self._pull()
        return self.snapshot

    def _pull(self) -> Snapshot:
        self.turn, version, numbers = self.board.get()
        return policy_of(version, numbers, self.size, self.config.observation_limit)

    def _wait_for_slot(self) -> int:
        """Wait until the learner has room for one more segment of this actor.

        Raises:
            EOFError: the learner is gone.
        """
        parent = parent_process()
        gone: list[Any] = [parent.sentinel] if parent is not None else []
        while True:
            self.beat[0] += 1
            ready = connection.wait([self.places.free, *gone], timeout=0.5)
            if self.places.free in ready:
                return int.from_bytes(self.places.free.recv_bytes(), "little")
            if ready:
                raise EOFError


def view(memory: Any) -> memoryview:
    """The bytes of shared memory."""
    return np.frombuffer(memory, np.uint8).data


def shared(context: Any, size: int) -> Any:
    """Memory that processes of a context share, zero at first; it has no name and ends with the last of them."""
    return context.RawArray(ctypes.c_byte, size)


def ended(process: Any) -> str:
    """How a process ended, in words."""
    code = process.exitcode
    if code is None:
        return "gave no sign of life"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
