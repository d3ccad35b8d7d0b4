"""Real asynchrony, measured: actor processes that pull weights when they please, and a learner behind a queue.

`python -m vaco.schematic.measure --out FILE.json` runs two small systems for some seconds each. Every actor is a
process with a pace of its own: it pulls the newest weights, collects a segment of a linear-quadratic problem, and puts
it into one bounded queue. The learner takes `batch` segments as they come, makes one REINFORCE update and publishes the
weights. A segment's *age* is the number of updates completed between the pull and the update that uses it.

Collecting and learning are made slower by sleeping, as a real environment or a larger network would make them; when
which process runs is up to the operating system. So no two runs agree, and the result, with machine and date, is
tracked in git. `vaco.schematic.asynchrony` simulates the same system by discrete events, reproducibly.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaco.errors import UserError
from vaco.schematic.files import run, write

Array = NDArray[np.float64]
_SIZE, _STEPS, _NOISE = 3, 16, 0.3  # size of state and action, steps a segment, deviation of the Gaussian policy
_WARM = 40  # updates before ages are counted: all actors have started by then
_WINDOW = 26  # updates whose events are kept for the drawing
_PATIENCE = 30.0  # seconds without a segment after which the actors are taken for dead


@dataclass(frozen=True)
class System:
    """A small asynchronous system.

    Attributes:
        name: what the figure calls it.
        paces: mean duration of a segment of each actor, seconds.
        update: duration of an update, seconds.
        batch: segments an update.
        queue: segments that the queue holds at most; a full queue makes the actors wait.
        updates: updates to make.
    """

    name: str
    paces: tuple[float, ...]
    update: float
    batch: int
    queue: int
    updates: int


_PACES = (0.020, 0.024, 0.030, 0.040, 0.060, 0.100)
SYSTEMS = (
    System("learner waits for actors", _PACES, update=0.002, batch=2, queue=12, updates=600),
    System("actors wait for learner", _PACES, update=0.016, batch=2, queue=12, updates=600),
)


class Segment(NamedTuple):
    """What an actor hands over: who, with which version, when pulled and done (seconds), and a gradient."""

    actor: int
    version: int
    pulled: float
    done: float
    gradient: Array


def collect(weights: Array, generator: np.random.Generator) -> Array:
    """One segment: x' = x + 0.3 u, u = Wx + noise, reward −‖x‖² − 0.1‖u‖².

    Args:
        weights: W, shape [size, size].
        generator: of the actor.

    Returns:
        Σ R_t ∇log π(u_t|x_t), with R_t the centred rewards to go, shape [size, size].
    """
    x = generator.normal(size=_SIZE)
    scores, rewards = np.zeros((_STEPS, _SIZE, _SIZE)), np.zeros(_STEPS)
    for t in range(_STEPS):
        noise = _NOISE * generator.normal(size=_SIZE)
        u = weights @ x + noise
        scores[t] = np.outer(noise, x) / _NOISE**2
        rewards[t] = -(x @ x) - 0.1 * (u @ u)
        x = x + 0.3 * u
    to_go = np.cumsum(rewards[::-1])[::-1]
    return np.asarray(np.einsum("t,tij->ij", to_go - to_go.mean(), scores))


def act(index: int, pace: float, shared: Any) -> None:
    """An actor process: pull, collect, put, until told to stop."""
    weights, version, lock, queue, ready, stop = shared
    generator = np.random.default_rng(index)
    ready.wait()
    while not stop.is_set():
        pulled = time.monotonic()
        with lock:
            used, mine = version.value, np.array(weights[:]).reshape(_SIZE, _SIZE)
        gradient = collect(mine, generator)
        # Durations vary as those of episodes do: a gamma distribution with a third of its mean as deviation.
        time.sleep(max(0.0, generator.gamma(9.0, pace / 9.0) - (time.monotonic() - pulled)))
        queue.put(Segment(index, used, pulled, time.monotonic(), gradient))


def learn(system: System, shared: Any) -> tuple[list[dict[str, Any]], list[tuple[float, float]]]:
    """The learner: take segments, update, publish.

    Returns:
        One record a segment (actor, version, pulled, done, taken, update, age), and start and end of every update.
    """
    weights, version, lock, queue, _, _ = shared
    mine, records, spans = np.zeros((_SIZE, _SIZE)), [], []
    for update in range(system.updates):
        batch = []
        for _ in range(system.batch):
            segment: Segment = queue.get(timeout=_PATIENCE)
            batch.append((segment, time.monotonic()))
        start = time.monotonic()
        step = np.mean([segment.gradient for segment, _ in batch], axis=0)
        mine = mine + 3e-4 * step / (1.0 + np.linalg.norm(step) / 100.0)
        time.sleep(max(0.0, system.update - (time.monotonic() - start)))
        with lock:
            weights[:] = mine.ravel()
            version.value = update + 1
        spans.append((start, time.monotonic()))
        records += [
            {"actor": s.actor, "version": s.version, "pulled": s.pulled, "done": s.done, "taken": taken}
            | {"update": update, "age": update - s.version}
            for s, taken in batch
        ]
    return records, spans


def measure(system: System) -> dict[str, Any]:
    """Run a system in processes of its own and summarise it.

    Raises:
        UserError: the actors do not deliver.
    """
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Barrier(len(system.paces) + 1)
    shared = (
        context.Array("d", _SIZE * _SIZE, lock=False),
        context.Value("q", 0, lock=False),
        context.Lock(),
        context.Queue(system.queue),
        ready,
        stop,
    )
    actors = [context.Process(target=act, args=(i, p, shared), daemon=True) for i, p in enumerate(system.paces)]
    for actor in actors:
        actor.start()
    try:
        ready.wait(timeout=_PATIENCE)
        records, spans = learn(system, shared)
    except Exception as problem:
        raise UserError(
            f"the actors of '{system.name}' delivered nothing for {_PATIENCE:g} s ({type(problem).__name__}): "
            "free a core and measure again"
        ) from problem
    finally:
        stop.set()
        for actor in actors:
            actor.terminate()
            actor.join()
    return summarise(system, records, spans)


def summarise(system: System, records: list[dict[str, Any]], spans: list[tuple[float, float]]) -> dict[str, Any]:
    """Ages after the warm-up, mean durations for the discrete-event simulation, and the events of a short window."""
    steady = [record for record in records if record["update"] >= _WARM]
    ages = np.array([record["age"] for record in steady])
    durations = np.array([[record["actor"], record["done"] - record["pulled"]] for record in steady])
    lengths = np.array([end - start for start, end in spans[_WARM:]])
    chosen = range(_WARM, min(_WARM + _WINDOW, len(spans)))
    zero = spans[_WARM][0]
    return {
        "system": asdict(system),
        "counts": np.bincount(ages).tolist(),
        "mean_age": float(ages.mean()),
        "mean_age_of_actor": [
            float(np.mean([r["age"] for r in steady if r["actor"] == i])) for i in range(len(system.paces))
        ],
        "segments": len(ages),
        "seconds_per_segment": [float(durations[durations[:, 0] == i, 1].mean()) for i in range(len(system.paces))],
        "spread_of_segment": [
            float(np.std(durations[durations[:, 0] == i, 1]) / durations[durations[:, 0] == i, 1].mean())
            for i in range(len(system.paces))
        ],
        "seconds_per_update": float(lengths.mean()),
        "seconds": spans[-1][1] - spans[0][0],
        "window": {
            "updates": [[i, spans[i][0] - zero, spans[i][1] - zero] for i in chosen],
            "segments": [
                [r["actor"], r["version"], r["pulled"] - zero, r["done"] - zero, r["taken"] - zero, r["update"]]
                for r in records
                if r["update"] in chosen
            ],
        },
    }


def machine() -> dict[str, Any]:
    """What the measurement ran on, and when."""
    model = platform.processor() or "unknown"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m vaco.schematic.measure", description="Measure real asynchrony.")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    described = machine()
    write(given.out, {"machine": described, "systems": [measure(system) for system in SYSTEMS]})
    return 0


if __name__ == "__main__":
    run(main)
