"""Write a file so that, whenever the power fails, either the old content is there or the new one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vaco.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of a file in one step, see `writing`.

    Args:
        path: file to create or replace; its folder must exist.
        data: its whole content.

    Raises:
        UserError: as `writing`.
    """
    with writing(path) as stream:
        stream.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes that of a file in one step, once all is written.

    The bytes go to a temporary file in the same folder (a rename is atomic only within one file system), which is
    forced to disk before it takes the name, and the folder after; without the first, a crash could leave the new
    name on an empty file.

    Args:
        path: file to create or replace; its folder must exist.

    Raises:
        UserError: the disk is full, or the folder is missing or not writable. The temporary file is removed and what
            was at `path` is untouched.
    """
    temporary = temporary_name(path)
    try:
        try:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def temporary_name(path: Path) -> Path:
    """The name under which this process writes a file before it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_temporaries(folder: Path, stem: str = "") -> None:
    """Delete what killed processes left half written in a folder that only the caller may write to.

    Args:
        folder: where to look; it need not exist.
        stem: how the names of the intended files begin.
    """
    for leftover in folder.glob(f".{stem}*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Force a folder's list of names to disk, where its file system knows how.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot sync a folder; they order renames themselves.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> UserError:
    """Put a failure to write into words that say how to mend it."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return UserError(f"cannot write {path}, the disk is full ({reason}): make room and run the same command again")
    if error.errno == errno.EFBIG:
        return UserError(f"cannot write {path}, the limit on file sizes is too low ({reason}): raise 'ulimit -f'")
    return UserError(f"cannot write {path} ({reason}): its folder must exist and be writable")
