"""Progress of long work: a bar on a terminal, one line a percent elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm


class Progress:
    """Shows how far a run is; use it in a ``with`` statement."""

    def __init__(
        self, name: str, total: int, done: int = 0, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        """Start showing.

        Args:
            name: what is running.
            total: units of work in all.
            done: units done by earlier processes.
            quiet: show nothing.
            stream: where to write; standard error by default.
        """
        self._stream = stream or sys.stderr
        self.name, self.total, self.done, self.quiet = name, total, done, quiet
        self._first, self._started = done, time.monotonic()
        self._percent = 100 * done // total
        self._bar: tqdm[Any] | None = None
        if not quiet and self._stream.isatty():
            self._bar = tqdm(total=total, initial=done, desc=name, unit=" steps", unit_scale=True, file=self._stream)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, units: int, facts: Mapping[str, str]) -> None:
        """Show that `units` more are done, with what is worth knowing now."""
        self.done += units
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=False)
            self._bar.update(units)
            return
        percent = 100 * self.done // self.total
        if percent == self._percent or self.quiet:
            return
        self._percent = percent
        rate = (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)
        remaining = (self.total - self.done) / max(rate, 1e-9)
        described = "  ".join(f"{key} {value}" for key, value in facts.items())
        print(
            f"{self.name}  {percent:3d} %  {described}  {rate:,.0f} steps/s  {remaining:.0f} s left",
            file=self._stream,
            flush=True,
        )
