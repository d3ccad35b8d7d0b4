"""What can be watched while a run is under way: its rows as they are made, and other people's loggers.

``phases.csv`` and ``evals.csv`` grow by a line whenever the run has a row, so that `tail`, a plot or `vaco status` can
follow it. They are no part of the result: when a run is resumed they are written anew from its checkpoint, and when it
ends ``phases.parquet`` and ``evals.parquet`` take their place.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vaco.errors import UserError, nearest

LOGS = "log"
"""Folder of a run where loggers leave their files, which stay."""
LOGGERS = ("csv", "tensorboard", "wandb")
TABLES = ("phases", "evals")
LIVE = tuple(f"{table}.csv" for table in TABLES)

Row = Mapping[str, float]


class Sink(Protocol):
    """Something that is told of every row."""

    def begin(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Take what the run has already: nothing at its start, else what its checkpoint held."""

    def row(self, table: str, row: Row) -> None:
        """Take a new row of a table."""

    def close(self) -> None:
        """Nothing more will come."""


class LiveTables:
    """The tables as CSV, complete up to the last row."""

    def __init__(self, folder: Path, columns: Mapping[str, Sequence[str]], warn: Callable[[str], None]) -> None:
        """Write into a folder, which must exist.

        Args:
            folder: where.
            columns: of each table of `TABLES`.
            warn: called with a sentence if the files cannot be written; the run goes on without.
        """
        self._folder, self._columns, self._warn = folder, columns, warn
        self._files: dict[str, IO[str]] = {}

    def begin(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """See `Sink.begin`; files of an earlier process are written over in place, so that a reader keeps them."""
        try:
            for table, columns in self._columns.items():
                self._files[table] = (self._folder / f"{table}.csv").open("w", encoding="utf-8", newline="")
                self._write(table, columns)
                for row in rows[table]:
                    self._write(table, [_number(row.get(name)) for name in columns])
            self._flush()
        except OSError as error:
            self._give_up(error)

    def row(self, table: str, row: Row) -> None:
        """See `Sink.row`."""
        if table in self._files:
            try:
                self._write(table, [_number(row.get(name)) for name in self._columns[table]])
                self._flush()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """See `Sink.close`."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._files.clear()

    def _write(self, table: str, cells: Sequence[str]) -> None:
        self._files[table].write(",".join(cells) + "\n")

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def _give_up(self, error: OSError) -> None:
        self._warn(f"rows cannot be shown as they are made ({error.strerror}); the run itself goes on")
        self.close()


class TensorBoard:
    """Scalars by environment steps, ``phases/…`` and ``evals/…``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def begin(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """See `Sink.begin`; what an earlier process wrote beyond the checkpoint is marked as void."""
        from torch.utils.tensorboard.writer import SummaryWriter

        last = int(rows["phases"][-1]["env_steps"]) if rows["phases"] else -1
        self._writer = SummaryWriter(str(self._folder), purge_step=last + 1)

    def row(self, table: str, row: Row) -> None:
        """See `Sink.row`."""
        for name, value in row.items():
            if name not in ("phase", "env_steps"):
                self._writer.add_scalar(f"{table}/{name}", value, int(row["env_steps"]))
        self._writer.flush()

    def close(self) -> None:
        """See `Sink.close`."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """The same scalars to Weights & Biases, one run there for one run here; WANDB_MODE and the like are its own."""

    def __init__(self, folder: Path, name: str, run: str, config: Mapping[str, Any]) -> None:
        self._folder, self._name, self._id, self._config = folder, name, run, dict(config)
        self._run: Any = None

    def begin(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """See `Sink.begin`."""
        import wandb

        self._run = wandb.init(
            project="vaco", name=self._name, id=self._id, dir=str(self._folder), config=self._config, resume="allow"
        )

    def row(self, table: str, row: Row) -> None:
        """See `Sink.row`."""
        self._run.log({f"{table}/{name}": value for name, value in row.items()}, step=int(row["env_steps"]))

    def close(self) -> None:
        """See `Sink.close`."""
        if self._run is not None:
            self._run.finish()


def sinks(
    asked: Sequence[str],
    folder: Path,
    columns: Mapping[str, Sequence[str]],
    *,
    name: str,
    run: str,
    config: Mapping[str, Any],
    warn: Callable[[str], None],
) -> list[Sink]:
    """The live tables of a run's folder, and the loggers that were asked for.

    Args:
        asked: names of `LOGGERS`.
        folder: the run's; loggers write below `LOGS` in it.
        columns: of each table.
        name: of the run, for people.
        run: its identity.
        config: its settings.
        warn: called with a sentence if the tables cannot be written.

    Raises:
        UserError: there is no such logger.
    """
    made: list[Sink] = [LiveTables(folder, columns, warn)]
    for logger in dict.fromkeys(asked):
        if logger not in LOGGERS:
            raise UserError(f"there is no logger '{logger}': {nearest(logger, LOGGERS)}")
        own = folder / LOGS / logger
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {own} ({error.strerror}): make room, or leave out --log") from error
        if logger == "csv":
            made.append(LiveTables(own, columns, warn))
        elif logger == "tensorboard":
            made.append(TensorBoard(own))
        else:
            made.append(WeightsAndBiases(own, name, run, config))
    return made


def read_live(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a live table, as far as it is written: a line that is not whole yet is left out.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): a table of a run under way is expected") from error
    whole = text[: text.rfind("\n") + 1].splitlines()
    names, *rows = list(csv.reader(whole)) or [[]]
    cells = [row for row in rows if len(row) == len(names)]
    return {name: np.array([float(row[index]) for row in cells]) for index, name in enumerate(names)}


def _number(value: float | None) -> str:
    return "nan" if value is None else repr(float(value)) if not isinstance(value, int) else str(value)


@contextmanager
def watched(told: Sequence[Sink], phases: Sequence[Row], evals: Sequence[Row]) -> Iterator[Callable[[], None]]:
    """Show a run's rows as they are made, within the ``with`` statement.

    Args:
        told: from `sinks`.
        phases: the run's list of rows, at its beginning, or as its checkpoint has it; it grows.
        evals: that of its evaluations.

    Yields:
        A function that shows the rows that are new.
    """
    tables = dict(zip(TABLES, (phases, evals), strict=True))
    shown = {table: len(rows) for table, rows in tables.items()}

    def show() -> None:
        for table, rows in tables.items():
            for row in rows[shown[table] :]:
                for sink in told:
                    sink.row(table, row)
            shown[table] = len(rows)

    try:
        for sink in told:
            sink.begin(tables)
        yield show
    finally:
        for sink in told:
            sink.close()
