"""Stopping politely: a signal that asks for it ends a run with a checkpoint, and with a code that asks for more.

A run also stops by itself before its scheduler's time is up (`deadline`), since of a job that was ended by its limit
nothing can be queued again. A run of any length is then a chain of jobs.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TEMPORARY_FAILURE = 75
"""Exit code of a run that was asked to stop and can be continued by the same command (EX_TEMPFAIL of sysexits.h)."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""A cluster's request, the user's Ctrl-C, and a terminal or connection that is gone."""


DEADLINE = "VACO_DEADLINE"
"""Environment variable with the time, in seconds since 1970, at which a scheduler other than SLURM ends the job."""
REQUEUE = "VACO_REQUEUE"
"""Environment variable that has a SLURM job whose time is up queue itself again: set to 1 where a job is one run."""
MARGIN = 120.0
"""Seconds before the end at which a run stops; a fifth of the time that is left, where that is less."""


class Preempted(Exception):  # noqa: N818 (no error: the run stopped as asked)
    """The run was asked to stop and has saved its state."""


class Interrupted(KeyboardInterrupt):
    """Work was broken off at once; the message is a clause that says what of it is there."""


@contextmanager
def termination_noticed() -> Iterator[Callable[[], bool]]:
    """Note the `SIGNALS` instead of dying of them, and that the time is up, within the ``with`` statement.

    A second Ctrl-C breaks off at once. Signals that the process ignores, as under nohup, stay ignored.

    Yields:
        A function that says whether one has come, or the time is up. Outside the main thread, where Python handles no
        signals, it knows the time alone.
    """
    deadline()  # asked for now, before there is work to lose
    noticed = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and noticed.is_set():
            raise KeyboardInterrupt
        noticed.set()

    def asked() -> bool:
        return noticed.is_set() or out_of_time()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@functools.cache
def deadline() -> float:
    """When this process should stop, in seconds since 1970; never, without a scheduler that says so.

    From `VACO_DEADLINE`, else from SLURM: its environment, or the queue for versions that do not say it there.
    """
    end, now = _end_of_job(), time.time()
    return end - min(MARGIN, 0.2 * max(0.0, end - now)) if end is not None else float("inf")


def out_of_time() -> bool:
    """Whether it is time to stop."""
    return time.time() >= deadline()


def requeue() -> str | None:
    """Queue this SLURM job again, if its time is up and `VACO_REQUEUE` asks for it; it is ended at once.

    Only then: who cancels a job does not want it back, and a job that the scheduler takes back is queued by it.

    Returns:
        What went wrong, as a clause; None if nothing did, or nothing was asked for.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job or os.environ.get(REQUEUE) != "1" or not out_of_time():
        return None
    try:
        # SLURM lets it wait for two minutes before it may begin again.
        subprocess.run(
            ["scontrol", "requeue", job],
            check=True,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"the job could not be queued again ({' '.join(str(said).split())})"
    time.sleep(60)  # until the scheduler ends the job; going on would look like a failure
    return None


def _end_of_job() -> float | None:
    for name in (DEADLINE, "SLURM_JOB_END_TIME"):
        if os.environ.get(name, "").isdigit():
            return float(os.environ[name])
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        return None
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--jobs", job, "--format=%L"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    days, _, clock = done.stdout.strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in (*parts, days or "0")):
        return None  # UNLIMITED, or no such job
    hours, minutes, seconds = ([0, 0, 0] + [int(part) for part in parts])[-3:]
    return time.time() + ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
