"""Environments shared out over processes, for those whose steps take longer than a message: the same bits as in one.

Each process holds consecutive environments on an ordinary backend, with the seeds that they have in one process. Arrays
pass through shared memory, and a pipe says when to go: per step a byte to each process and one back.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import itertools
import json
import multiprocessing
import signal
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from vaco.control.envs.base import VectorEnv, VectorStep
from vaco.control.envs.batched import BatchedVectorEnv
from vaco.control.envs.gymnasium_backend import GymnasiumVectorEnv
from vaco.control.envs.spec import EnvSpec
from vaco.control.envs.tasks import Flags, Floats
from vaco.errors import UserError
from vaco.runs.preemption import SIGNALS

Kind = type[BatchedVectorEnv] | type[GymnasiumVectorEnv]
RESET, STEP, SAVE, LOAD, SIMULATORS = b"r", b"s", b"g", b"l", b"m"
DONE, MISTAKE, FAILED = b"d", b"u", b"f"
_PATIENCE = 5.0  # seconds that a process has to close its environments


class Places(NamedTuple):
    """Memory that all processes share, a row an environment."""

    actions: Floats
    observations: Floats
    rewards: Floats
    flags: Flags  # terminated, truncated, dead: [3, E]

    @classmethod
    def of(cls, memory: Sequence[Any], count: int, actions: int, observations: int) -> Places:
        """The arrays in four pieces of memory, as `sizes` has them."""
        shapes = ((count, actions), (count, observations), (count,), (3, count))
        types = (np.float64, np.float64, np.float64, np.bool_)
        return cls(*(np.frombuffer(m, t).reshape(s) for m, t, s in zip(memory, types, shapes, strict=True)))

    def part(self, rows: slice) -> Places:
        """Those of some environments."""
        return Places(self.actions[rows], self.observations[rows], self.rewards[rows], self.flags[:, rows])

    @staticmethod
    def sizes(count: int, actions: int, observations: int) -> tuple[int, ...]:
        """Bytes of each piece."""
        return 8 * count * actions, 8 * count * observations, 8 * count, 3 * count


class ShardedVectorEnv(VectorEnv):
    """E environments in some processes; see `VectorEnv`, all of which holds."""

    def __init__(
        self, spec: EnvSpec, num_envs: int, reference: gymnasium.Env[Any, Any], *, kind: Kind, processes: int
    ) -> None:
        """Start the processes; `reference` is closed.

        Args:
            spec: which environment.
            num_envs: E.
            reference: one of them, for its spaces.
            kind: the backend of each process.
            processes: how many, at most E.

        Raises:
            UserError: the environment cannot be made there.
        """
        super().__init__(spec, num_envs, reference)
        reference.close()
        self.backend = kind.backend
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        shape = (num_envs, self.action_size, self.observation_size)
        memory = [context.RawArray(ctypes.c_byte, size) for size in Places.sizes(*shape)]
        self._places = Places.of(memory, *shape)
        edges = np.linspace(0, num_envs, processes + 1).round().astype(int).tolist()
        self._rows = [slice(*pair) for pair in itertools.pairwise(edges)]
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._end = functools.partial(_end, self._pipes, self._processes)
        atexit.register(self._end)  # before multiprocessing waits for its processes, which heed no signal
        try:
            for rows in self._rows:
                ours, theirs = context.Pipe()
                arguments = (theirs, spec, kind.backend, rows.start, rows.stop, memory, shape)
                process = context.Process(target=work, args=arguments, daemon=True)
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
            self._answers()
        except BaseException:
            self.close()
            raise

    def simulator_state(self) -> Floats:
        """See `VectorEnv.simulator_state`."""
        return np.concatenate([safetensors.numpy.load(data)["states"] for data in self._asked(SIMULATORS)])

    def close(self) -> None:
        """End the processes."""
        atexit.unregister(self._end)
        self._end()

    def _reset(self, seed: int) -> Floats:
        self._asked(RESET + str(seed).encode())
        return self._places.observations.copy()

    def _step(self, actions: Floats) -> VectorStep:
        places = self._places
        places.actions[...] = actions
        for said in self._asked(STEP):
            if said:
                self.unstable += [(int(index), what) for index, what in json.loads(said)]
        terminated, truncated, dead = (row.copy() for row in places.flags)
        return VectorStep(places.observations.copy(), places.rewards.copy(), terminated, truncated, dead)

    def _save(self) -> dict[str, NDArray[Any]]:
        parts = [safetensors.numpy.load(data) for data in self._asked(SAVE)]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        texts = [json.loads(part["generators"].tobytes()) for part in parts]
        arrays["generators"] = _text([one for text in texts for one in text])
        del arrays["observations"]  # which the caller adds
        return arrays

    def _load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        generators = json.loads(arrays["generators"].tobytes())
        for pipe, rows in zip(self._pipes, self._rows, strict=True):
            part = {name: np.ascontiguousarray(array[rows]) for name, array in arrays.items() if name != "generators"}
            pipe.send_bytes(LOAD + safetensors.numpy.save(part | {"generators": _text(generators[rows])}))
        self._answers()

    def _asked(self, command: bytes) -> list[bytes]:
        """What all processes answer to a command."""
        for index, pipe in enumerate(self._pipes):
            try:
                pipe.send_bytes(command)
            except OSError as error:
                raise self._gone(index) from error
        return self._answers()

    def _answers(self) -> list[bytes]:
        """One answer of each process, all of them read before any is judged.

        Raises:
            UserError: a process says that something is wrong with its environments, or is gone.
            RuntimeError: an environment raised something else.
        """
        answers = []
        for index, pipe in enumerate(self._pipes):
            try:
                answers.append(pipe.recv_bytes())
            except (EOFError, OSError) as error:
                raise self._gone(index) from error
        for answer in answers:
            if answer[:1] == MISTAKE:
                raise UserError(answer[1:].decode())
            if answer[:1] == FAILED:
                raise RuntimeError(f"in a process of environments:\n{answer[1:].decode()}")
        return [answer[1:] for answer in answers]

    def _gone(self, index: int) -> UserError:
        self._processes[index].join(_PATIENCE)
        code = self._processes[index].exitcode
        return UserError(
            f"process {index + 1} of {len(self._processes)} that step {self.env_id} has ended (code {code}): look for "
            "what the system says of it (memory?), or ask for fewer processes; the same command continues"
        )


def work(
    pipe: Connection,
    spec: EnvSpec,
    backend: str,
    first: int,
    last: int,
    memory: Sequence[Any],
    shape: tuple[int, int, int],
) -> None:
    """A process: do as the pipe says until it is closed.

    Args:
        pipe: to the process that asks.
        spec: which environment.
        backend: that steps it.
        first: the number of its first environment.
        last: the number behind that of its last one.
        memory: as `Places.of` takes it.
        shape: E of all processes, A and O.
    """
    for name in SIGNALS:  # the other process decides: a Ctrl-C reaches the whole group
        signal.signal(name, signal.SIG_IGN)
    from vaco.control.envs import make_vector_env  # which imports this module

    env = None
    with threadpool_limits(1), suppress(EOFError, OSError):
        try:
            command, env = b"", make_vector_env(spec, num_envs=last - first, backend=backend)
            env.first = first
            places = Places.of(memory, *shape).part(slice(first, last))
            while True:
                pipe.send_bytes(DONE + _obey(env, command, places))
                command = pipe.recv_bytes()
        except UserError as mistake:
            pipe.send_bytes(MISTAKE + str(mistake).encode())
        except (EOFError, OSError):
            raise
        except Exception:
            pipe.send_bytes(FAILED + traceback.format_exc().encode())
    if env is not None:
        env.close()


def _obey(env: VectorEnv, command: bytes, places: Places) -> bytes:
    """Carry out a command; what is answered besides."""
    verb, data = command[:1], command[1:]
    if verb == STEP:
        step = env.step(places.actions)
        places.observations[...], places.rewards[...] = step.observations, step.rewards
        places.flags[...] = step.terminated, step.truncated, step.dead
        broken = [(env.first + index, what) for index, what in env.unstable]
        env.unstable.clear()
        return json.dumps(broken).encode() if broken else b""
    if verb == RESET:
        places.observations[...] = env.reset(int(data) + env.first)
    elif verb == LOAD:
        places.observations[...] = env.set_state(safetensors.numpy.load(data))
    elif verb == SAVE:
        return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in env.state().items()})
    elif verb == SIMULATORS:
        return safetensors.numpy.save({"states": env.simulator_state()})
    return b""


def _text(states: Sequence[Any]) -> NDArray[np.uint8]:
    """The states of generators as `base.encode_generators` writes them."""
    return np.frombuffer(json.dumps(states).encode(), np.uint8).copy()


def _end(pipes: list[Connection], processes: list[Any]) -> None:
    """Close the pipes, upon which the processes end; those that do not are killed."""
    while pipes:
        pipes.pop().close()
    while processes:
        process = processes.pop()
        process.join(_PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
