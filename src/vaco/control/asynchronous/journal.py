"""The schedule of a run under way: in memory, and as a file in which nothing is lost that the learner took.

A checkpoint holds the schedule up to its update. Whatever ends the learner, the file says what it took after that too:
a resumed run enters it as lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaco.runs.atomic import write_bytes, write_error
from vaco.runs.schedule import COLUMNS, LOST, Columns, Entry, to_columns

NAME = "schedule.journal"
_FATE = COLUMNS.index("fate")
_KEY = [COLUMNS.index(name) for name in ("actor", "incarnation", "segment")]
Rows = NDArray[np.int64]


class Journal:
    """The rows of ``schedule.parquet`` so far."""

    def __init__(self) -> None:
        """Begin with none, in memory only."""
        self._blocks: list[Rows] = []
        self._segments = 0
        self._path: Path | None = None

    def add(self, entries: Sequence[Entry]) -> None:
        """Append segments, in memory and to the file.

        Raises:
            UserError: the file cannot be written.
        """
        rows = _rows(to_columns(entries))
        rows[:, 0] += self._segments
        self._blocks.append(rows)
        self._segments += len(entries)
        if self._path is None:
            return
        try:
            with self._path.open("ab") as stream:
                stream.write(rows.astype("<i8").tobytes())
        except OSError as error:
            raise write_error(self._path, error) from error

    def columns(self) -> Columns:
        """The table so far."""
        table = np.concatenate([np.empty((0, len(COLUMNS)), np.int64), *self._blocks])
        return {name: table[:, index].copy() for index, name in enumerate(COLUMNS)}

    def restore(self, columns: Columns) -> None:
        """Go back to what `columns` returned."""
        rows = _rows(columns)
        self._blocks, self._segments = [rows], int(rows[:, 0].max(initial=-1)) + 1

    def follow(self, folder: Path) -> int:
        """Go on in a folder's file, and enter as lost what it holds and the table does not.

        Args:
            folder: of checkpoints, created if needed.

        Returns:
            How many segments were lost.

        Raises:
            UserError: it cannot be read or written.
        """
        path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise write_error(path, error) from error
        size = 8 * len(COLUMNS)
        rows = np.frombuffer(data[: len(data) // size * size], "<i8").astype(np.int64).reshape(-1, len(COLUMNS))
        known = {tuple(key) for key in _rows(self.columns())[:, _KEY].tolist()}
        rows = rows[[tuple(key) not in known for key in rows[:, _KEY].tolist()]] if len(rows) else rows
        rows[:, _FATE] = LOST
        # Their own numbers may have been given again to others by an earlier resumption.
        rows[:, 0] = self._segments - 1 + np.cumsum(rows[:, COLUMNS.index("first_step")] == 0)
        lost = int(rows[-1, 0]) - self._segments + 1 if len(rows) else 0
        self._blocks.append(rows)
        self._segments += lost
        # Written anew: a half row at its end would shift all that follow.
        write_bytes(path, _rows(self.columns()).astype("<i8").tobytes())
        self._path = path
        return lost


def _rows(columns: Columns) -> Rows:
    return np.stack([columns[name] for name in COLUMNS], axis=1)
