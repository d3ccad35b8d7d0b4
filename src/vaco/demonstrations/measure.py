"""Real asynchrony, measured in training: which policy collected what, when, and into which update it went.

`python -m vaco.demonstrations.measure --out FILE.json` trains VACO on HalfCheetah for some hundred updates, with 2, 4
and 8 actors in processes of their own, and with 4 of which one is made slower: runs of `vaco train --actors N`, which
also note when each segment was begun, finished and taken, and when each update began and ended. A segment's *age* is
the number of updates completed between its beginning and the update that uses it.

When which process runs is up to the operating system, and all share the machine's cores. So no two runs agree, and the
result, with machine and date, is tracked in git. `vaco.demonstrations.asynchrony` simulates the same systems by
discrete events, reproducibly.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np

from vaco.command import Parser, run_command
from vaco.control.asynchronous.actor import Segment
from vaco.control.asynchronous.run import LiveRun
from vaco.control.asynchronous.worker import policy_bytes
from vaco.control.collect import Batch
from vaco.control.policy import Snapshot
from vaco.control.train import collecting
from vaco.demonstrations.files import write
from vaco.paths import path_flag
from vaco.runs.config import RunConfig, build
from vaco.runs.threads import one_thread

WARM = 20  # updates before anything is counted: all actors have started by then
WINDOW = 16  # updates whose events are kept for the drawing
SETTINGS: Mapping[str, Any] = {"env": "HalfCheetah-v5", "algorithm": "vaco", "segments": 2, "eval_points": 1}


@dataclass(frozen=True)
class System:
    """An asynchronous system, and how long it is watched.

    Attributes:
        name: what the figure calls it.
        actors: how many.
        slowness: how many times slower the first actors are made.
        batch: segments an update.
        queue: segments of one actor, finished or under way, before it waits.
        updates: updates to make.
    """

    name: str
    actors: int
    slowness: tuple[float, ...] = ()
    batch: int = 2
    queue: int = 1
    updates: int = 220


SYSTEMS = (
    System("4 actors alike", 4),
    System("4 actors, one 4 times slower", 4, (4.0,)),
    System("2 actors alike", 2),
    System("8 actors alike", 8),
)


class WatchedRun(LiveRun):
    """A run that notes when what happened, in seconds of the monotonic clock."""

    def __init__(self, config: RunConfig) -> None:
        """As `LiveRun`."""
        self.records: list[dict[str, float]] = []
        self.spans: list[tuple[float, float]] = []
        super().__init__(config, say=lambda _: None)

    def start(self, folder: Path) -> None:
        """See `LiveRun.start`."""
        super().start(folder)
        assert self.engine is not None
        following = self.engine.next

        def watched() -> tuple[Segment, int | None]:
            segment, fate = following()
            pulled, done = cast(tuple[float, float], segment.span)
            events = {"pulled": pulled, "done": done, "taken": time.monotonic()}
            where = {"actor": segment.actor, "version": int(segment.versions[0]), "update": self.phase}
            self.records.append(where | events | {"age": self.phase - int(segment.versions[0])})
            return segment, fate

        self.engine.next = watched  # type: ignore[method-assign]

    def _collect(self) -> Batch:
        batch = super()._collect()
        self._learning = time.monotonic()
        return batch

    def _push(self) -> Snapshot:
        snapshot = super()._push()
        if self.phase:
            self.spans.append((self._learning, time.monotonic()))
        return snapshot


def measure(system: System, settings: Mapping[str, Any] = SETTINGS) -> dict[str, Any]:
    """Train with a system's actors and summarise what happened.

    Args:
        system: the actors.
        settings: of the run, besides.

    Raises:
        UserError: an actor cannot go on.
    """
    own = {"actors": system.actors, "segments": system.batch, "queue": system.queue, "slowness": list(system.slowness)}
    config = build({**settings, **own, "steps": 10_000_000})
    run = WatchedRun(config)
    with one_thread(), tempfile.TemporaryDirectory() as folder, collecting(run, Path(folder)):
        for _ in range(system.updates):
            run.advance()
    facts = {"env": config.env, "segment_steps": config.batch // system.batch}
    facts |= {"policy_bytes": len(policy_bytes(run.snapshot))}
    return facts | summarise(system, run.records, run.spans)


def summarise(
    system: System, records: Sequence[Mapping[str, Any]], spans: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Ages after the warm-up, durations for the discrete-event simulation, and the events of a short window.

    Args:
        system: what was watched.
        records: one a segment: `actor`, `version`, `pulled`, `done`, `taken`, `update`, `age`.
        spans: beginning and end of every update.
    """
    steady = [record for record in records if record["update"] >= WARM]
    ages = np.array([record["age"] for record in steady])
    durations = [[r["done"] - r["pulled"] for r in steady if r["actor"] == i] for i in range(system.actors)]
    lengths = np.array([end - start for start, end in spans[WARM:]])
    elapsed = spans[-1][1] - spans[WARM - 1][1]
    chosen = range(WARM, min(WARM + WINDOW, len(spans)))
    zero = spans[WARM][0]
    return {
        "system": asdict(system),
        "counts": np.bincount(ages).tolist(),
        "mean_age": float(ages.mean()),
        "segments": len(ages),
        "seconds_per_segment": [float(np.mean(own)) for own in durations],
        "spread_of_segment": [float(np.std(own) / np.mean(own)) for own in durations],
        "seconds_per_update": float(lengths.mean()),
        "learner_busy": float(lengths.sum() / elapsed),
        "updates_per_second": len(lengths) / elapsed,
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
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.demonstrations.measure", description="Measure real asynchrony.")
    parser.add_argument("--out", type=path_flag, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    described = machine()
    write(given.out, {"machine": described, "systems": [measure(system) for system in SYSTEMS]})
    return 0


if __name__ == "__main__":
    run_command(main)
