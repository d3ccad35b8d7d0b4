"""The tracked form of a tier's finished runs: a few tidy tables in one folder, `results/<tier>/archive`.

`write` makes it, `Archive` reads it after it has compared every file with its checksum. Phases are kept in parts of at
most `PART` runs. A part whose runs are all still wanted is kept byte for byte when runs are added, so that a repository
which tracks the archive grows by what is new.

Nothing here knows how runs are trained or what a tier is, so that both the commands that make archives and the report,
which loads no training code, can use it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vaco.archive import columns
from vaco.errors import UserError

FORMAT = 1
PART = 100
"""Runs a part of the phases: some 2.6 MB of runs of 1M steps."""
SUMS, INDEX, RUNS, EVALS, PHASES, REFERENCES = (
    "SHA256SUMS",
    "archive.json",
    "runs.parquet",
    "evals.parquet",
    "phases",
    "references.json",
)
TABLES = ("evals", "phases")


@dataclass(frozen=True)
class Entry:
    """A run to be archived.

    Attributes:
        run: its identity, as `str(RunId)`.
        manifest: its manifest.
        table: reads its `evals` or `phases`.
    """

    run: str
    manifest: Mapping[str, Any]
    table: Callable[[str], pa.Table]


class Archive:
    """An archive that is whole: every file is there and as it was written.

    Args:
        folder: such as `results/desk/archive`.
        tier: the tier whose it should be; None takes any.

    Raises:
        UserError: there is none, it is of an unknown version or another tier, or a file is missing or altered.
    """

    def __init__(self, folder: Path, tier: str | None = None) -> None:
        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise UserError(f"there is no archive in {folder}: train the tier, or get its archive from the repository")
        try:
            self.index: Mapping[str, Any] = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            known = self.index["format"]
            self.tier, self.kind = str(self.index["tier"]), str(self.index["kind"])
        except (ValueError, KeyError, TypeError):
            raise self._damaged(f"{INDEX} cannot be read") from None
        if known != FORMAT:
            raise UserError(
                f"the archive {folder} is of format {known!r}, and this version reads format {FORMAT}: install the "
                "version of this package that wrote it"
            )
        if tier is not None and self.tier != tier:
            raise UserError(f"the archive {folder} is that of the tier '{self.tier}', not of '{tier}': put it back")
        self._check_sums()

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """The runs by identity, in the order of the plan that the archive was made for."""
        table = pq.read_table(self.folder / RUNS, columns=["run", "manifest"]).to_pylist()
        return {row["run"]: Entry(row["run"], json.loads(row["manifest"]), self._reader(row["run"])) for row in table}

    @cached_property
    def references(self) -> dict[str, Any]:
        """Measurements of the random policy by task."""
        found: dict[str, Any] = json.loads((self.folder / REFERENCES).read_text(encoding="utf-8"))
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of the list of checksums: what products say that they were drawn from."""
        return _sha256(self.folder / SUMS)

    @property
    def parts(self) -> list[Path]:
        """The files of the phases."""
        return sorted((self.folder / PHASES).glob("part-*.parquet"))

    @cached_property
    def _slices(self) -> dict[str, dict[str, pa.Table]]:
        """By table and run, its rows, without the columns that only other runs have."""
        found: dict[str, dict[str, pa.Table]] = {}
        for name in TABLES:
            files = [self.folder / EVALS] if name == "evals" else self.parts
            found[name] = {run: rows for file in files for run, rows in _by_run(pq.read_table(file))}
        return found

    def _reader(self, run: str) -> Callable[[str], pa.Table]:
        return lambda name: self._slices[name][run]

    def _check_sums(self) -> None:
        """Compare every file with its checksum.

        Raises:
            UserError: one is missing, altered, or listed nowhere.
        """
        try:
            lines = (self.folder / SUMS).read_text(encoding="utf-8").splitlines()
            sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        except (OSError, ValueError):
            raise self._damaged(f"{SUMS} cannot be read") from None
        files = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
        for name in sorted({*sums, *files} - {SUMS}):
            if name not in sums:
                raise self._damaged(f"{name} is no part of it")
            if name not in files:
                raise self._damaged(f"{name} is missing")
            if _sha256(self.folder / name) != sums[name]:
                raise self._damaged(f"{name} does not match its checksum")

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"the archive {self.folder} is damaged, {reason}: get it again, with 'git checkout {self.folder}' say"
        )


def write(
    folder: Path,
    entries: Sequence[Entry],
    *,
    tier: str,
    kind: str,
    plan: str,
    planned: int,
    references: Mapping[str, Any] | None = None,
) -> None:
    """Write an archive, in place of the one that is there.

    Args:
        folder: where; made if need be.
        entries: the runs, in the order of the plan, each once.
        tier: whose runs they are.
        kind: "control" or "language".
        plan: hash of the tier's plan.
        planned: how many runs it asks for.
        references: measurements of the random policy by task.

    Raises:
        UserError: there is no run, or the folder holds something else or a damaged archive, is being written, or cannot
            be; it is as it was then. Or an interrupted command had moved the archive away, and it is back.
    """
    folder = Path(folder)
    if not entries:
        raise UserError(f"no run of the tier '{tier}' is finished, so there is nothing to archive: train some first")
    _refuse_strangers(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(folder) as made:
            (made / PHASES).mkdir(parents=True)
            recorded = _write_parts(folder, made, entries)
            evals = _joined(entries, "evals")
            recorded |= set(evals.column_names)
            _write_table(evals, made / EVALS)
            _write_table(pa.Table.from_pylist([_row(entry) for entry in entries]), made / RUNS)
            index = {"format": FORMAT, "tier": tier, "kind": kind, "plan": plan}
            index |= {"planned": planned, "runs": len(entries)}
            _write_text(made / INDEX, json.dumps(index, indent=2) + "\n")
            _write_text(made / REFERENCES, json.dumps(dict(references or {}), indent=1, sort_keys=True) + "\n")
            _write_text(made / "README.md", columns.readme(tier, kind, recorded))
            files = sorted(path for path in made.rglob("*") if path.is_file())
            sums = "".join(f"{_sha256(path)}  {path.relative_to(made).as_posix()}\n" for path in files)
            _write_text(made / SUMS, sums)
    except OSError as error:
        raise UserError(
            f"the archive {folder} cannot be written ({error.strerror}): make room, or give another"
        ) from error


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A place beside a folder, which takes its name when it is written; until then the folder is as it was.

    Raises:
        UserError: another process is writing it, or one that was killed had moved it aside.
        OSError: it cannot be written.
    """
    made, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    # A lock of the kernel's, which ends with its process; of the folder above, so that no file is left.
    lock = os.open(folder.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process writes an archive in {folder.parent}: wait for it to end, and run this again"
            ) from None
        except OSError:
            pass  # no such locks on this file system
        if old.exists() and not folder.exists():
            # Its runs may be nowhere else, and were not among those that were looked for.
            old.rename(folder)
            raise UserError(f"a command that was killed had moved {folder} aside, and it is back: run this again")
        shutil.rmtree(made, ignore_errors=True)
        try:
            yield made
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            made.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    finally:
        os.close(lock)


def _refuse_strangers(folder: Path) -> None:
    """Refuse to replace what is no archive: most likely the path is a mistake, such as `results`.

    Raises:
        UserError: it is none.
    """
    if folder.is_dir() and not (folder / INDEX).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something, but no archive, which would be lost: give a new or empty folder")


def _write_parts(old: Path, made: Path, entries: Sequence[Entry]) -> set[str]:
    """Keep the parts whose runs are all wanted still, put the others' rows into new ones, and return the columns."""
    waiting = {entry.run: entry for entry in entries}
    types = {field.name: field.type for entry in entries for field in entry.table("phases").schema}
    names = {"run", *types}
    count = 0
    # Snakemake deletes the file that it was told of before it makes it again.
    if (old / INDEX).is_file() and (old / SUMS).is_file():
        archive = Archive(old)
        for part in archive.parts:
            held = pq.read_table(part, columns=["run"])["run"].unique().to_pylist()
            same = all(run in waiting and waiting[run].manifest == archive.entries[run].manifest for run in held)
            # A folder is read with the columns of its first file, so all parts have the same.
            if same and set(pq.read_schema(part).names) == names:
                shutil.copyfile(part, made / PHASES / f"part-{count:03d}.parquet")
                count += 1
                for run in held:
                    del waiting[run]
    left = list(waiting.values())
    for first in range(0, len(left), PART):
        table = _joined(left[first : first + PART], "phases")
        for name in sorted(names - set(table.column_names)):
            table = table.append_column(name, pa.nulls(table.num_rows, types[name]))
        _write_table(table, made / PHASES / f"part-{count:03d}.parquet")
        count += 1
    return names


def _joined(entries: Iterable[Entry], name: str) -> pa.Table:
    """The rows of several runs, with the run in the first column; null where a run lacks a column."""
    parts = []
    for entry in entries:
        rows = entry.table(name)
        parts.append(rows.add_column(0, "run", pa.array([entry.run] * rows.num_rows, pa.string())))
    return pa.concat_tables(parts, promote_options="default") if parts else pa.table({"run": pa.array([], pa.string())})


def _by_run(table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """A table cut where its run changes."""
    runs = table["run"].combine_chunks()
    ends = runs.dictionary_encode() if not pa.types.is_dictionary(runs.type) else runs
    codes = pd.Series(ends.indices.to_numpy())
    starts = [0, *codes.index[codes.diff().fillna(0) != 0].tolist(), len(codes)]
    for start, end in pairwise(starts):
        if end > start:
            rows = table.slice(start, end - start)
            kept = [name for name in rows.column_names if name != "run" and rows[name].null_count < rows.num_rows]
            yield str(rows["run"][0]), rows.select(kept).combine_chunks()


def _row(entry: Entry) -> dict[str, Any]:
    """A run's row of `runs.parquet`."""
    manifest, identity = entry.manifest, entry.manifest["identity"]
    own = {"task": identity.get("env", identity.get("task")), "minibatches": identity.get("minibatches")}
    own |= {name: identity[name] for name in ("algorithm", "lag", "seed")}
    own |= {name: manifest.get(name) for name in ("completed_steps", "wall_seconds", "started", "finished")}
    own |= {name: manifest.get(name) for name in ("cpu", "revision")}
    values = own | {"run": entry.run, "manifest": json.dumps(manifest, sort_keys=True, ensure_ascii=False)}
    return {name: values[name] for name in columns.RUNS}


def _write_table(table: pa.Table, path: Path) -> None:
    """Write parquet, small and the same bytes for the same table: near-constant counters, incompressible floats."""
    kinds = {field.name: field.type for field in table.schema}
    encoding = {n: "BYTE_STREAM_SPLIT" for n, kind in kinds.items() if pa.types.is_floating(kind)}
    encoding |= {n: "DELTA_BINARY_PACKED" for n, kind in kinds.items() if pa.types.is_integer(kind)}
    words = [name for name in kinds if name not in encoding and kinds[name] == pa.string()]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=15,
        use_dictionary=words,
        column_encoding=encoding,
        row_group_size=max(1, table.num_rows),
        write_statistics=False,
        store_schema=False,
    )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
