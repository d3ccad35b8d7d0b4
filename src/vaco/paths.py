"""Paths as users write them: on a command line or in a configuration file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vaco.errors import UserError


def user_path(written: str | Path) -> Path:
    """Make a path of what a user wrote.

    Args:
        written: as it stands on the command line or in a file; ``~`` and ``~name`` are home folders.

    Raises:
        UserError: it is empty, of a user who has no home, or leads through a link to nothing.
    """
    text = str(written)
    if not text.strip() or "\0" in text:
        raise UserError(f"the path {text!r} names no file and no folder: write one, '.' for the current folder")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"the path '{text}' starts with a home folder that is not known here: write it out") from None
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            raise UserError(
                f"the path '{text}' leads through {part}, a link to {part.readlink()}, where nothing is: mend the link "
                "or remove it"
            )
    return path


def told_apart(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that no other one has; of one that is there twice, the whole path.

    Args:
        paths: of files or folders.
    """
    parts = [path.resolve().parts for path in paths]
    found = []
    for own in parts:
        lengths = range(1, len(own) + 1)
        alone = (n for n in lengths if sum(other[-n:] == own[-n:] for other in parts) == 1)
        found.append("/".join(own[-next(alone, len(own)) :]))
    return found


def path_flag(written: str) -> Path:
    """The same as the ``type`` of a flag: argparse adds the flag's name to the complaint."""
    try:
        return user_path(written)
    except UserError as mistake:
        raise argparse.ArgumentTypeError(str(mistake)) from None
