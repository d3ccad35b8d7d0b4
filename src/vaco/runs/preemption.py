"""Stopping politely: a cluster's SIGTERM ends a run with a checkpoint and a code that asks to be started again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TEMPORARY_FAILURE = 75
"""Exit code of a run that was asked to stop and can be continued by the same command (EX_TEMPFAIL of sysexits.h)."""


class Preempted(Exception):  # noqa: N818 (no error: the run stopped as asked)
    """The run was asked to stop and has saved its state."""


@contextmanager
def termination_noticed() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM instead of dying of it, within the ``with`` statement.

    Yields:
        A function that says whether the signal has come. Outside the main thread, where Python handles no signals,
        it always says no.
    """
    noticed = threading.Event()

    def note(_signal: int, _frame: FrameType | None) -> None:
        noticed.set()

    if threading.current_thread() is not threading.main_thread():
        yield noticed.is_set
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield noticed.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
