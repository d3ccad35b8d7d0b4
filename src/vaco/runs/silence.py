"""Telling a process that hangs from one that is slow: for how long it has given no sign of life."""

from __future__ import annotations

import time

SILENCE = 8.0
"""Seconds without a sign of life after which a process is taken for hanging."""
STARTING = 120.0
"""The same for one that has not begun: it may have to wait for a core to load what it needs."""


class Silence:
    """One process's, from now on."""

    def __init__(self) -> None:
        self._heard = self._looked = time.monotonic()
        self._begun = False

    def too_long(self, sign: bool) -> bool:
        """Whether to take it for hanging; to be asked again and again.

        Args:
            sign: whether it has given a sign of life since this was last asked.
        """
        now = time.monotonic()
        self._begun |= sign
        patience = SILENCE if self._begun else STARTING
        if sign:
            self._heard = now
        elif now - self._looked > SILENCE / 2:
            # After a long time without a look (an update, a machine that slept) it has another second.
            self._heard = max(self._heard, now - patience + 1.0)
        self._looked = now
        return now - self._heard > patience
