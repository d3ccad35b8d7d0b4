"""What a workflow may delete of a finished run, kept beside its folder within a job of SLURM, and brought back.

Snakemake deletes the declared files of a job that failed, and of one that begins again. A job that SLURM takes back
between the end of its run and its own end is both, so that the run would be trained twice. `FOLDER.kept` holds these
files again, as hard links where the file system has them. They count only for a folder whose policy is still that of
the run: a folder that somebody deleted is trained anew.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from vaco.runs import atomic
from vaco.runs.folder import EVALS, MANIFEST, PHASES, POLICY
from vaco.runs.tables import sha256_file

_FILES = (PHASES, EVALS, MANIFEST)  # the manifest, which says that all is there, last


def place(folder: Path) -> Path:
    """Where the files of a run's folder are kept; none has the name that it has there, by which a run is known."""
    return folder.with_name(f"{folder.name}.kept")


def keep(folder: Path) -> None:
    """Keep the files of a finished run; what cannot be kept stops nothing."""
    with suppress(OSError):
        if (folder / MANIFEST).is_file():
            place(folder).mkdir(exist_ok=True)
            for name in _FILES:
                _copy(folder / name, place(folder) / f"{name}.kept")


def bring_back(folder: Path) -> bool:
    """Lay out again what was deleted of a finished run whose policy is still there; whether that was so.

    Raises:
        UserError: the files cannot be written.
    """
    held = {name: place(folder) / f"{name}.kept" for name in _FILES}
    try:
        if (folder / MANIFEST).exists():
            return False
        record = json.loads(held[MANIFEST].read_bytes())
        right = {**held, POLICY: folder / POLICY}
        if any(sha256_file(right[name]) != record["checksums"][name] for name in (PHASES, EVALS, POLICY)):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    try:
        for name in _FILES:
            _copy(held[name], folder / name)
    except OSError as error:
        raise atomic.write_error(folder, error) from error
    return True


def _copy(source: Path, target: Path) -> None:
    """Make a file the same as another in one step, as a hard link if that can be."""
    temporary = atomic.temporary_name(target)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
    # Of two names of one file, the rename is none: both stay.
    temporary.unlink(missing_ok=True)
