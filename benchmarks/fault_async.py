"""Faults of runs with actors of their own: whoever is killed or hangs, the replay of the schedule must be the run.

No two such runs agree, so there is no undisturbed run to compare with: `identical` means that ``vaco replay`` of the
finished run, in one process, ends with the same tables and the same policy bit for bit.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from fault_kinds import fault
from fault_stage import ENDED_FIRST, PATIENCE, Process, SkippedError, Stage, require

from vaco.control.asynchronous import journal, processes
from vaco.runs import schedule, tables
from vaco.runs.folder import SCHEDULE

UPDATES = 600
SETTINGS = {
    "env": "InvertedPendulum-v5",
    "num_envs": 4,
    "phase_steps": 64,
    "minibatch": 64,
    "epochs": 2,
    "eval_points": 2,
    "eval_episodes": 1,
    "actors": 3,
    "segments": 2,
    "slowness": "[1.0, 2.0]",
}
ROW = 8 * len(schedule.COLUMNS)
NOTICED = 2.0
"""Seconds of silence after which an actor is taken for hanging here, so that a case takes seconds and not half a
minute; `processes.SILENCE` otherwise."""


def start(stage: Stage, updates: int = UPDATES) -> Process:
    """Start, or continue, the run."""
    words = ["train", "--out", str(stage.out), "--quiet", "--checkpoint-seconds=0.2"]

    def impatient() -> None:
        processes.SILENCE = NOTICED

    settings = SETTINGS | {"steps": 256 * updates}
    flags = [f"--set={name}={value}" for name, value in settings.items()]
    return Process([*words, *flags], stage.place / f"said{time.monotonic_ns()}", impatient)


def taken(out: Path) -> int:
    """Rows that the schedule's journal has: pieces of segments that the learner took."""
    with suppress(OSError):
        return (out / "checkpoints" / journal.NAME).stat().st_size // ROW
    return 0


def at_random(stage: Stage, process: Process, last: float = 0.8) -> None:
    """Wait until the learner has taken a random number of further segments.

    Raises:
        SkippedError: the run ended before.
    """
    done = taken(stage.out)
    wanted = done + stage.random.randint(1, max(1, int(last * (2 * UPDATES - done))))
    until = time.monotonic() + PATIENCE
    while taken(stage.out) < wanted:
        if process.poll() is not None:
            raise SkippedError(ENDED_FIRST)
        require(time.monotonic() < until, f"the learner took {taken(stage.out)} segments in {PATIENCE:.0f} s")
        time.sleep(0.002)


def actors(learner: int) -> list[int]:
    """The processes of the actors, which a server process between the learner and them has forked."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(place.parent.name)] = int(place.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    servers = {pid for pid, parent in parents.items() if parent == learner}
    return sorted(pid for pid, parent in parents.items() if parent in servers)


def victim(stage: Stage, process: Process) -> int:
    """One of the actors that are at work.

    Raises:
        SkippedError: the run has just ended.
    """
    found = actors(process.pid)
    if not found or process.poll() is not None:
        raise SkippedError(ENDED_FIRST)
    return stage.random.choice(found)


def judged(stage: Stage, process: Process) -> str:
    """Wait for the run's end, and replay it."""
    code = process.wait()
    require(code == 0, f"the run ended with {code}: {process.words[-300:]}")
    again = Process(["replay", str(stage.out), "--quiet"], stage.place / "said-replay")
    code = again.wait()
    require("Traceback" not in again.words, again.words[-300:])
    return "identical" if code == 0 else f"SILENT DIFFERENCE: {again.words[-300:]}"


def counted(out: Path) -> str:
    """What became of the run's segments, and how many incarnations its actors had."""
    columns = tables.read_parquet(out / SCHEDULE)
    fates = np.bincount(columns["fate"][columns["first_step"] == 0], minlength=3)
    return f"{fates[0]} used, {fates[2]} lost, {int(columns['incarnation'].max())} later incarnations"


@fault(
    "actor_killed", 12, "actors in processes: SIGKILL of one at a random moment, up to three in succession; replayed"
)
def _actor_killed(stage: Stage) -> tuple[str, str]:
    process, kills = start(stage), stage.random.randint(1, 3)
    for _ in range(kills):
        at_random(stage, process, 0.4)
        os.kill(victim(stage, process), signal.SIGKILL)
    return judged(stage, process), f"{kills} kills, {counted(stage.out)}"


@fault("actor_hangs", 6, "actors in processes: one stands still; it is noticed and replaced; replayed")
def _actor_hangs(stage: Stage) -> tuple[str, str]:
    process = start(stage, 4 * UPDATES)  # a quick machine ends the others before the silence is noticed
    at_random(stage, process, 0.1)
    stopped = victim(stage, process)
    os.kill(stopped, signal.SIGSTOP)
    result = judged(stage, process)
    if "gave no sign of life" not in process.words:
        raise SkippedError(ENDED_FIRST)
    require(not Path(f"/proc/{stopped}").exists(), "what stood still is still there")
    return result, counted(stage.out)


@fault("learner_killed", 12, "actors in processes: SIGKILL of the learner at a random moment, up to twice; replayed")
def _learner_killed(stage: Stage) -> tuple[str, str]:
    process, kills = start(stage), stage.random.randint(1, 2)
    for _ in range(kills):
        at_random(stage, process, 0.5)
        orphans = actors(process.pid)
        process.kill()
        until = time.monotonic() + 30.0
        while any(Path(f"/proc/{pid}").exists() for pid in orphans):
            require(time.monotonic() < until, "actors outlived their learner by 30 s")
            time.sleep(0.05)
        process = start(stage)
    return judged(stage, process), f"{kills} kills, {counted(stage.out)}"


@fault("both_killed", 6, "actors in processes: SIGKILL of an actor, and of the learner a moment later; replayed")
def _both_killed(stage: Stage) -> tuple[str, str]:
    process = start(stage)
    at_random(stage, process, 0.7)
    os.kill(victim(stage, process), signal.SIGKILL)
    time.sleep(stage.random.uniform(0.0, 0.6))
    if process.poll() is not None:
        raise SkippedError(ENDED_FIRST)
    process.kill()
    return judged(stage, start(stage)), counted(stage.out)
