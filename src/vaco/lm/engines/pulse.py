"""Noticing that a process hangs: it writes a byte a second into a pipe, and who gives none for long is killed.

A process that was killed ends its pipes, so whoever waits for it learns of it; a process that hangs, stopped or stuck
in a driver, says nothing, and its learner would wait for ever.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import suppress

SILENCE = 8.0
"""Seconds without a sign of life after which a process is taken for hanging and killed."""
STARTING = 120.0
"""The same for one that has not begun: it may have to wait for a core to load what it needs."""
_EVERY = 1.0
_WATCH = 0.25


def beat(pipe: int) -> None:
    """Have a thread of this process write into a pipe, until the reader is gone."""

    def write() -> None:
        with suppress(OSError):
            while True:
                os.write(pipe, b".")  # blocks once the pipe is full, when nobody has looked for hours
                time.sleep(_EVERY)

    threading.Thread(target=write, name="pulse", daemon=True).start()


class Watch:
    """A thread that kills a child that gives no sign of life; it ends with the child and closes the pipe.

    Args:
        child: the process.
        pipe: where its bytes arrive.

    Attributes:
        hung: whether it was killed for its silence.
    """

    def __init__(self, child: subprocess.Popen[bytes], pipe: int) -> None:
        self.hung = False
        os.set_blocking(pipe, False)
        threading.Thread(target=self._look, args=(child, pipe), name="pulse", daemon=True).start()

    def _look(self, child: subprocess.Popen[bytes], pipe: int) -> None:
        heard, patience = time.monotonic(), STARTING
        looked = heard
        while child.poll() is None and not self.hung:
            now = time.monotonic()
            with suppress(BlockingIOError):
                if os.read(pipe, 65_536):
                    heard, patience = now, SILENCE
            # After a long time without a look (a machine that slept) it has another second.
            if now - looked > SILENCE / 2:
                heard = max(heard, now - patience + 1.0)
            looked = now
            if now - heard > patience:
                self.hung = True
                child.kill()
            time.sleep(_WATCH)
        os.close(pipe)
