"""The engine of Ray: every actor is a Ray actor, on this machine or on any node of a cluster.

The newest policy lies with one small Ray actor, from which the others pull it. The learner keeps one call more than
`queue` outstanding at each: the calls of an actor run one after the other, so those that are done wait for the learner,
and an actor whose calls are all done waits itself.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vaco import stopwatch
from vaco.control.acting import Networks
from vaco.control.asynchronous import processes, worker
from vaco.control.asynchronous.actor import Actor, Segment
from vaco.control.policy import Snapshot
from vaco.errors import UserError
from vaco.runs import silence
from vaco.runs.config import RunConfig
from vaco.runs.preemption import SIGNALS
from vaco.runs.threads import one_thread

STORE_BYTES = 200_000_000
"""Of the object store that a Ray of the run's own is given: a few segments, each of well below a megabyte."""


class Holder:
    """Has the newest policy."""

    def __init__(self, version: int, numbers: bytes) -> None:
        self.newest = version, numbers

    def put(self, version: int, numbers: bytes) -> None:
        """Replace it."""
        self.newest = version, numbers

    def get(self, known: int) -> tuple[int, bytes] | None:
        """Version and numbers; None if the caller knows that version."""
        return None if self.newest[0] == known else self.newest


class Remote:
    """An actor, as Ray runs it: `collect` in one thread, `alive` in another."""

    def __init__(self, config: RunConfig, width: int, number: int, incarnation: int, holder: Any) -> None:
        import ray

        stopwatch.stop()
        self.config, self.holder, self.fetch = config, holder, ray.get
        self.actor = Actor(self.config, width, number, incarnation)
        self.size = self.actor.collector.env.observation_size
        self.snapshot: Snapshot | None = None

    def alive(self) -> tuple[str, int]:
        """Node and process, which a process that hangs does not say."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def collect(self) -> bytes:
        """One more segment."""
        started = time.monotonic()
        with one_thread():
            segment = self.actor.collect(self._policy)
        if self.actor.slowness > 1.0:
            time.sleep((self.actor.slowness - 1.0) * (time.monotonic() - started))
        return worker.pack(segment)

    def _policy(self, step: int) -> Snapshot:
        if step == 0 or self.config.pull == "step":
            known = -1 if self.snapshot is None else self.snapshot.version
            newer: tuple[int, bytes] | None = self.fetch(self.holder.get.remote(known))
            if newer is not None:
                version, numbers = newer
                self.snapshot = worker.policy_of(version, numbers, self.size, self.config.observation_limit)
        assert self.snapshot is not None
        return self.snapshot


@dataclass
class _Handle:
    """A Ray actor, its outstanding calls, oldest first, and the last question whether it lives."""

    actor: Any
    incarnation: int
    calls: deque[Any]
    question: Any
    asked: float
    place: tuple[str, int] | None = None
    segments: int = 0


class RayActors:
    """Actors that Ray runs; see `engine.Engine`."""

    def __init__(
        self, config: RunConfig, snapshot: Snapshot, template: Networks, first: int, say: Callable[[str], None]
    ) -> None:
        """Start them, and Ray if there is none: where RAY_ADDRESS is set, that cluster serves.

        Args:
            config: the run's settings.
            snapshot: the policy that they begin with.
            template: networks of its shape.
            first: the incarnation of all of them.
            say: called with a sentence whenever one is replaced.

        Raises:
            UserError: Ray cannot be started or reached.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ray, self.config, self.say = ray, config, say
        self.width = config.num_envs // config.batch_segments
        self.replaced = 0
        self.seconds: dict[str, float] = {}
        self._failures = dict.fromkeys(range(config.actors), 0)
        self._actors: dict[int, _Handle] = {}
        self._own = not ray.is_initialized()
        self._turn = 0
        if self._own:
            self._begin()
        self._remote = ray.remote(num_cpus=1, max_restarts=0, concurrency_groups={"life": 1})(_with_life(ray))
        # On the learner's node: any other may leave.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        holder = ray.remote(num_cpus=0, scheduling_strategy=here)(Holder)
        self._holder = holder.remote(snapshot.version, worker.policy_bytes(snapshot))
        try:
            for number in range(config.actors):
                self._actors[number] = self._start(number, first)
        except BaseException:
            self.close()
            raise

    def publish(self, snapshot: Snapshot) -> None:
        """See `Engine.publish`; of all policies, every `broadcast`-th."""
        if snapshot.version % self.config.broadcast == 0:
            self._holder.put.remote(snapshot.version, worker.policy_bytes(snapshot))

    def next(self) -> tuple[Segment, int | None]:
        """See `Engine.next`.

        Raises:
            UserError: an actor cannot go on.
        """
        while True:
            self._watch()
            numbers = sorted(self._actors, key=lambda number: (number - self._turn) % len(self._actors))
            heads = [self._actors[number].calls[0] for number in numbers]
            ready, _ = self.ray.wait(heads, num_returns=1, timeout=0.25)
            for head in ready:
                number = numbers[heads.index(head)]
                handle = self._actors[number]
                try:
                    data = self.ray.get(head)
                except self.ray.exceptions.RayActorError:
                    self._replace(number, handle, "was lost")
                    continue
                except self.ray.exceptions.RayTaskError as error:
                    raise UserError(f"actor {number} cannot go on: {error.cause}") from error
                except self.ray.exceptions.RayError as error:  # its segment went with a node, and it may live
                    self._replace(number, handle, f"lost a segment ({type(error).__name__})")
                    continue
                handle.calls.popleft()
                handle.calls.append(handle.actor.collect.remote())
                self._failures[number] = 0
                handle.segments += 1
                self._turn = number + 1
                return worker.unpack(data, number, handle.incarnation, handle.segments - 1), None

    def close(self) -> None:
        """See `Engine.close`."""
        for handle in self._actors.values():
            self._kill(handle)
        self._actors.clear()
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(self._holder)
        if self._own:
            self.ray.shutdown()

    def _begin(self) -> None:
        import logging

        own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self.config.actors + 1}
        own |= {"object_store_memory": STORE_BYTES} if own else {}
        heard = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            self.ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (OSError, ValueError, RuntimeError, ConnectionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"Ray cannot be started or reached ({reason}): see that RAY_ADDRESS is a running head, or leave it "
                "unset, or use --engine processes"
            ) from error
        # Ray has put handlers of its own in their place, which end the process before it has saved.
        if threading.current_thread() is threading.main_thread():
            for number, handler in heard.items():
                signal.signal(number, handler)

    def _start(self, number: int, incarnation: int) -> _Handle:
        actor = self._remote.remote(self.config, self.width, number, incarnation, self._holder)
        calls = deque(actor.collect.remote() for _ in range(self.config.queue + 1))
        return _Handle(actor, incarnation, calls, actor.alive.remote(), time.monotonic())

    def _watch(self) -> None:
        """Replace actors that do not answer."""
        now = time.monotonic()
        for number, handle in list(self._actors.items()):
            answered, _ = self.ray.wait([handle.question], timeout=0)
            if answered:
                with suppress(self.ray.exceptions.RayError):  # it ended: its next segment will tell
                    handle.place = self.ray.get(handle.question)
                    if now - handle.asked > silence.SILENCE / 4:
                        handle.question, handle.asked = handle.actor.alive.remote(), now
            elif now - handle.asked > (silence.SILENCE if handle.place else silence.STARTING):
                self._replace(number, handle, "gave no sign of life")

    def _replace(self, number: int, handle: _Handle, how: str) -> None:
        self._kill(handle)
        self._failures[number] += handle.segments == 0
        if self._failures[number] >= processes.ATTEMPTS:
            raise UserError(
                f"actor {number} {how}, {processes.ATTEMPTS} times in a row before its first segment: look for what "
                "Ray says of it, or ask for fewer actors"
            )
        self.replaced += 1
        self._actors[number] = self._start(number, handle.incarnation + 1)
        self.say(f"actor {number} {how}; incarnation {handle.incarnation + 1} of it goes on from new episodes")

    def _kill(self, handle: _Handle) -> None:
        """End an actor for good; on this machine also one that is stopped and hears no request."""
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(handle.actor)
        if handle.place and handle.place[0] == self.ray.get_runtime_context().get_node_id():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(handle.place[1], signal.SIGKILL)


def _with_life(ray: Any) -> type:
    """`Remote`, with `alive` in a thread of its own."""
    methods = {"alive": ray.method(concurrency_group="life")(Remote.alive)}
    return type("Remote", (Remote,), methods)
