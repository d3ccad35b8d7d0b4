"""Where one run is: read from its folder, without a lock and without loading any learner.

`status_of` reads any folder of `RunFolder`'s, of a process here or on another machine, and changes nothing in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vaco.errors import UserError
from vaco.runs import asynchrony, checkpoint, lock, tables
from vaco.runs.folder import CHECKPOINTS, EVALS, LOCK, MANIFEST, MARKER, PHASES
from vaco.runs.live import LIVE, read_live

State = Literal["complete", "running", "silent", "stopped", "diverged"]
Columns = Mapping[str, NDArray[Any]]

RECENT = 20
"""Phases over which the speed is measured."""


@dataclass(frozen=True)
class RunStatus:
    """What can be said of a run.

    Attributes:
        path: its folder.
        state: complete; running (a process holds its lock, see `lock.silence`); silent (it has a lock whose holder is
            dead or long silent); stopped (no process, the same command continues it);
            diverged.
        env: its task, empty where the folder does not say.
        algorithm: its algorithm.
        asynchrony: what makes its data old, see `asynchrony.word`.
        seed: its seed.
        steps: environment steps done, as far as rows say.
        of: environment steps asked for.
        rate: environment steps a second of the last phases, NaN if unknown.
        score: mean return of the last evaluation, NaN if there was none.
        note: what else there is to say, a clause; empty if nothing.
    """

    path: Path
    state: State
    env: str
    algorithm: str
    asynchrony: str
    seed: int
    steps: int
    of: int
    rate: float
    score: float
    note: str

    @property
    def seconds_left(self) -> float:
        """At that speed; NaN if unknown."""
        return (self.of - self.steps) / self.rate if self.rate > 0 else np.nan

    def line(self) -> str:
        """The status in one line."""
        facts = [f"{self.state:8}", f"{self.steps:,} of {self.of:,} steps"]
        if self.of:
            facts.append(f"{100 * self.steps // self.of} %")
        if np.isfinite(self.score):
            facts.append(f"return {self.score:.1f}")
        if self.state == "running" and np.isfinite(self.seconds_left):
            facts += [f"{self.rate:,.0f} steps/s", f"{_duration(self.seconds_left)} left"]
        name = f"{self.env} {self.algorithm} {self.asynchrony} seed{self.seed}"
        return f"{self.path}: {'  '.join(facts)}  ({name}){f': {self.note}' if self.note else ''}"


def status_of(path: Path) -> RunStatus:
    """Where the run of a folder is.

    Raises:
        UserError: it holds no run.
    """
    manifest, marker = path / MANIFEST, path / MARKER
    complete = manifest.is_file()
    if not complete and not marker.is_file():
        raise UserError(f"{path} holds no run, complete or under way: give the --out of a 'vaco train'")
    record = tables.read_json(manifest if complete else marker)
    config = record.get("config") if isinstance(record, dict) else None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a run whose {manifest.name if complete else marker.name} cannot be read")
    phases, evals = curves(path)
    steps = int(phases["env_steps"][-1]) if len(phases.get("env_steps", ())) else 0
    state: State = "complete"
    restarts = record.get("episodes_restarted") or 0
    note = f"its episodes were restarted {restarts} times, so its bits are its own" if restarts else ""
    if not complete:
        state, note = _under_way(path, record)
    return RunStatus(
        path=path,
        state=state,
        env=str(config.get("env", "")),
        algorithm=str(config.get("algorithm", "")),
        asynchrony=_asynchrony(config),
        seed=int(config.get("seed", 0)),
        steps=int(record.get("completed_steps", steps)) if complete else steps,
        of=int(record["completed_steps"]) if complete else _asked(config),
        rate=_rate(phases),
        score=float(evals["mean"][-1]) if len(evals.get("mean", ())) else np.nan,
        note=note,
    )


def curves(path: Path) -> tuple[Columns, Columns]:
    """The tables of phases and of evaluations of a run, complete or under way; without columns where there are none.

    Raises:
        UserError: a file is there but cannot be read.
    """
    found: list[Columns] = []
    for final, live in zip((PHASES, EVALS), LIVE, strict=True):
        if (path / MANIFEST).is_file() and (path / final).is_file():
            found.append(tables.read_parquet(path / final))
        elif (path / live).is_file():
            found.append(read_live(path / live))
        else:
            found.append({})
    return found[0], found[1]


def _under_way(path: Path, record: Mapping[str, Any]) -> tuple[State, str]:
    """State and note of a run that is not complete."""
    holder, now = None, time.time()
    with suppress(OSError, UserError):
        holder = tables.read_json(path / LOCK)
    who = f"process {holder.get('pid')} on {holder.get('host')}" if isinstance(holder, dict) else "a process"
    if lock.silence(path / LOCK, now) is not None:
        return "running", who
    with suppress(OSError):
        silent = _duration(now - (path / LOCK).stat().st_mtime)
        return "silent", f"{who} has not been heard of for {silent}; the same command continues it"
    if record.get("stopped"):
        return "diverged", str(record["stopped"])
    if checkpoint.exists(path / CHECKPOINTS):
        return "stopped", "the same command continues it"
    return "stopped", "no checkpoint yet: the same command starts it again"


def _asynchrony(config: Mapping[str, Any]) -> str:
    """What makes the data of a recorded configuration old, in the word of its path."""
    schedule = str(config.get("schedule", asynchrony.DEFAULT_SCHEDULE))
    return asynchrony.word(int(config.get("actors", 0)), schedule, int(config.get("lag", 0)))


def _asked(config: Mapping[str, Any]) -> int:
    """Environment steps of all phases of a run of a control task; 0 where its settings do not say."""
    try:
        batch = int(config["num_envs"]) * int(config["phase_steps"])
        return int(config["steps"]) // batch * batch
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0


def _rate(phases: Columns) -> float:
    """Environment steps a second of training time, over the last phases."""
    if not {"env_steps", "wall_seconds"} <= phases.keys() or len(phases["env_steps"]) < 2:
        return np.nan
    last = slice(-RECENT - 1, None)
    steps, seconds = phases["env_steps"][last], phases["wall_seconds"][last]
    taken = float(seconds[-1] - seconds[0])
    return float(steps[-1] - steps[0]) / taken if taken > 0 else np.nan


def _duration(seconds: float) -> str:
    """A duration for people: 42 s, 3 min, 1.5 h, 2.1 days."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}" if unit < 3600 else f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86_400:.1f} days"
