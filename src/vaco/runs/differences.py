"""Where two finished runs differ, bit for bit, and whether one that is trained again differs from itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaco.errors import UserError
from vaco.runs import tables
from vaco.runs.folder import EVALS, MANIFEST, PHASES, POLICY, SCHEDULE
from vaco.runs.identity import recorded_id


def recorded_run(folder: Path, rebuild: Callable[[Mapping[str, Any]], Any]) -> tuple[dict[str, Any], Any]:
    """The manifest and configuration of a finished run that the code here would train the same.

    Args:
        folder: the run's.
        rebuild: makes the configuration of a record.

    Raises:
        UserError: it holds no finished run, or one of another training version.
    """
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds no finished run: give the folder of one")
    manifest = tables.read_json(folder / MANIFEST)
    config = rebuild(manifest["config"])
    if (theirs := recorded_id(manifest, rebuild)) != config.run_id:
        raise UserError(
            f"the run in {folder} is {theirs}, and the code here would train {config.run_id}: install the version of "
            "this package that trained it"
        )
    return manifest, config


def require_same(folder: Path, out: Path | None, again: Callable[[Path], None]) -> None:
    """Train a finished run again, and compare every bit.

    Args:
        folder: the run's.
        out: where to train it; None is a temporary folder.
        again: trains it into a folder.

    Raises:
        UserError: it does not come out the same, or cannot be trained again.
    """
    if out is not None and out.resolve() == folder.resolve():
        raise UserError(f"--out is {out}, the run itself: give it another folder")
    with tempfile.TemporaryDirectory() as temporary:
        place = out or Path(temporary, "run")
        again(place)
        found = differences(folder, place)
    if found:
        raise UserError(f"{folder} does not come out the same here: {'; '.join(found)}")
    print(f"{folder}: trained again, the same policy and the same tables, bit for bit")


def differences(first: Path, second: Path) -> list[str]:
    """Where two finished runs differ, measured times apart.

    Args:
        first: a run's folder, of which the policy may be missing: its checksum serves.
        second: another's.

    Returns:
        A clause for each file that differs; none if they agree bit for bit.
    """
    found = []
    ours, theirs = (tables.read_json(folder / MANIFEST)["checksums"] for folder in (first, second))
    for name in (PHASES, EVALS):
        columns, others = (tables.read_parquet(folder / name) for folder in (first, second))
        names = [n for n in {**columns, **others} if n not in tables.CLOCKS]
        changed = [n for n in names if not _same(columns.get(n), others.get(n))]
        if changed:
            row = min(_first_row(columns[n], others[n]) if n in columns and n in others else 0 for n in changed)
            found.append(f"{name} differs from row {row} on, in {', '.join(changed)}")
    found += [f"{name} differs" for name in (POLICY, SCHEDULE) if ours.get(name) != theirs.get(name)]
    return found


def _same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """Whether two columns have the same bits."""
    if first is None or second is None:
        return first is second
    return first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _first_row(first: np.ndarray, second: np.ndarray) -> int:
    """The first row in which two columns of a table differ."""
    length = min(len(first), len(second))
    unequal = [first[i : i + 1].tobytes() != second[i : i + 1].tobytes() for i in range(length)]
    return unequal.index(True) if True in unequal else length
