"""Generation beside training: rounds made by processes of their own, recorded, and made again from the record.

Every round has random streams of its own, hashed from the run's seed and the round's number, and one policy generates
it. So what it holds depends on that policy's version alone, not on when or by which process it was made: the version of
every round, the *schedule*, is enough to train the same run again in one process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vaco.errors import UserError
from vaco.lm.config import LMConfig
from vaco.lm.engines import Engine
from vaco.lm.sample import Abandoned, Responses
from vaco.lm.weights import Arrays

STREAMS = ("problems", "noise", "order")
_PURPOSE = 4  # of those for which a run's seed is hashed
ATTEMPTS = 3
"""How often in a row a generator's process may end before its round is finished."""
_PATIENCE = 0.2  # seconds between two looks at whether to stop
Columns = Mapping[str, NDArray[np.int64]]


def streams(seed: int, number: int) -> dict[str, np.random.Generator]:
    """The generators of one round, by what they draw."""
    parts = np.random.SeedSequence((seed, _PURPOSE, number)).spawn(len(STREAMS))
    return {name: np.random.default_rng(part) for name, part in zip(STREAMS, parts, strict=True)}


@dataclass(frozen=True)
class Made:
    """A round's responses, the policy that generated them, and which generator had it."""

    responses: Responses
    version: int
    weights: Arrays
    generator: int


class Source(Protocol):
    """Where rounds come from.

    Attributes:
        taken: by round, the version that generated it and its generator.
    """

    taken: list[tuple[int, int]]

    def publish(self, version: int, weights: Arrays) -> None:
        """Let generators have a newer policy."""

    def next(self, number: int, stop: Callable[[], bool] | None) -> Made:
        """The responses of a round.

        Raises:
            UserError: they cannot be generated.
            Abandoned: `stop` said so; the round is as good as never asked for.
        """

    def state(self) -> dict[str, NDArray[Any]]:
        """What a continuation needs."""

    def set_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned."""

    def close(self) -> None:
        """End what generates."""


Ask = Callable[[Engine, int, Callable[[], bool] | None], Responses]
"""Has an engine, which holds the weights, generate the round of that number."""


class Live:
    """Processes that generate, each driven by a thread: the next round that nobody has, with the newest policy."""

    def __init__(self, config: LMConfig, engines: Sequence[Engine], ask: Ask, say: Callable[[str], None]) -> None:
        """Prepare; generation begins with the first `next`.

        Args:
            config: of the run.
            engines: one a generator, processes of their own.
            ask: called from the threads, one at a time until an engine is at work.
            say: called with a sentence whenever a process is replaced.
        """
        self.config, self.replaced = config, 0
        self.taken: list[tuple[int, int]] = []
        self._engines, self._ask, self._say = engines, ask, say
        self._changed = threading.Condition()
        self._newest: tuple[int, Arrays] | None = None
        self._made: dict[int, Made] = {}
        self._following = 0  # the round that is generated next
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._closed = False

    def publish(self, version: int, weights: Arrays) -> None:
        """See `Source.publish`."""
        with self._changed:
            self._newest = version, weights
            self._changed.notify_all()

    def next(self, number: int, stop: Callable[[], bool] | None) -> Made:
        """See `Source.next`."""
        if not self._threads:
            self._following = number
            self._threads = [
                threading.Thread(target=self._work, args=(index,), name=f"generator {index}", daemon=True)
                for index in range(len(self._engines))
            ]
            for thread in self._threads:
                thread.start()
        with self._changed:
            while number not in self._made:
                if self._failure is not None:
                    raise self._failure
                if stop is not None and stop():
                    raise Abandoned
                self._changed.wait(_PATIENCE)
            made = self._made.pop(number)
            self.taken.append((made.version, made.generator))
            self._changed.notify_all()
        return made

    def state(self) -> dict[str, NDArray[Any]]:
        """See `Source.state`: what is generated and not taken is generated again."""
        return {"taken": np.array(self.taken, np.int64).reshape(-1, 2)}

    def set_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See `Source.set_state`."""
        self.taken = [(int(version), int(generator)) for version, generator in arrays["taken"]]

    def close(self) -> None:
        """See `Source.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for engine in self._engines:
            engine.close()

    def _work(self, index: int) -> None:
        """A generator's thread."""
        try:
            while (number := self._claim()) is not None:
                made = self._generate(index, number)
                with self._changed:
                    self._made[number] = made
                    self._changed.notify_all()
        except Abandoned:
            pass
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _claim(self) -> int | None:
        """Wait until a further round may be generated, and take it on; None at the end."""
        room = len(self._engines) * self.config.ahead
        with self._changed:
            while not self._closed:
                last = min(self.config.rounds, len(self.taken) + room)
                if self._newest is not None and self._following < last:
                    self._following += 1
                    return self._following - 1
                self._changed.wait()
        return None

    def _generate(self, index: int, number: int) -> Made:
        engine = self._engines[index]
        for attempt in range(1, ATTEMPTS + 1):
            with self._changed:
                assert self._newest is not None
                version, weights = self._newest
            engine.load(version, ((name, torch.from_numpy(value)) for name, value in weights.items()))
            try:
                return Made(self._ask(engine, number, lambda: self._closed), version, weights, index)
            except UserError as error:
                if self._closed:
                    raise Abandoned from None
                if attempt == ATTEMPTS:
                    raise UserError(f"generator {index}, {ATTEMPTS} times in a row: {error}") from error
                self.replaced += 1
                self._say(f"generator {index} failed in round {number} ({error}): another process begins it again")
        raise AssertionError


class Recorded:
    """A schedule followed in one process: each round is generated when it is asked for, with the version that was."""

    def __init__(self, taken: Iterable[tuple[int, int]], generate: Callable[[int, int, Arrays], Responses]) -> None:
        """Begin before the first round.

        Args:
            taken: version and generator of every round.
            generate: round, version, weights to responses.
        """
        self.recorded = list(taken)
        self.taken: list[tuple[int, int]] = []
        self._generate = generate
        self._held: dict[int, Arrays] = {}

    def publish(self, version: int, weights: Arrays) -> None:
        """See `Source.publish`; kept as long as a later round needs it."""
        needed = {version for version, _ in self.recorded[len(self.taken) :]}
        self._held = {own: kept for own, kept in {**self._held, version: weights}.items() if own in needed}

    def next(self, number: int, stop: Callable[[], bool] | None) -> Made:
        """See `Source.next`."""
        version, generator = self.recorded[number]
        weights = self._held[version]
        made = Made(self._generate(number, version, weights), version, weights, generator)
        self.taken.append((version, generator))
        return made

    def state(self) -> dict[str, NDArray[Any]]:
        """See `Source.state`."""
        held = {f"held.{version}.{name}": a for version, arrays in self._held.items() for name, a in arrays.items()}
        return {"taken": np.array(self.taken, np.int64).reshape(-1, 2), **held}

    def set_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See `Source.set_state`."""
        self.taken = [(int(version), int(generator)) for version, generator in arrays["taken"]]
        for name, array in arrays.items():
            if name.startswith("held."):
                _, version, own = name.split(".", 2)
                self._held.setdefault(int(version), {})[own] = array

    def close(self) -> None:
        """Nothing to end."""


def to_columns(taken: Sequence[tuple[int, int]], minibatches: int) -> dict[str, NDArray[np.int64]]:
    """The schedule as ``schedule.parquet`` has it.

    Args:
        taken: version and generator by round.
        minibatches: N, gradient steps a round.

    Returns:
        `round`; `update`, gradient steps that were complete when the learner took it; `generator`; `version`, of the
        policy, in gradient steps that had made it: its age is update − version.
    """
    table = np.array(taken, np.int64).reshape(-1, 2)
    rounds = np.arange(len(table), dtype=np.int64)
    return {"round": rounds, "update": rounds * minibatches, "generator": table[:, 1], "version": table[:, 0]}


def from_columns(columns: Columns, config: LMConfig) -> list[tuple[int, int]]:
    """The inverse of `to_columns`.

    Raises:
        UserError: the table is not the schedule of such a run.
    """
    expected = {"round", "update", "generator", "version"}
    good = set(columns) == expected and np.array_equal(columns["round"], np.arange(config.rounds))
    if good:
        good = bool(
            (columns["version"] <= columns["update"]).all()
            and (columns["version"] >= 0).all()
            and (columns["version"] % config.minibatches == 0).all()
        )
    if not good:
        raise UserError("the schedule is not of this run: it needs one row a round, with the version that generated it")
    return list(zip(columns["version"].tolist(), columns["generator"].tolist(), strict=True))
