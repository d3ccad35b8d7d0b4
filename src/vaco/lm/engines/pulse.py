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

from vaco.runs.silence import Silence

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
        silence = Silence()
        while child.poll() is None and not self.hung:
            sign = False
            with suppress(BlockingIOError):
                sign = bool(os.read(pipe, 65_536))
            if silence.too_long(sign):
                self.hung = True
                child.kill()
            time.sleep(_WATCH)
        os.close(pipe)
