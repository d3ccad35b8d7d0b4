"""Real disks, users and processes for the tests of the run folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Script = Callable[..., "subprocess.CompletedProcess[str]"]

_AS_NOBODY = """
import os, sys
if os.getuid() == 0:
    import ctypes
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.fixture
def script() -> Script:
    """Run Python source in a process of its own, ``argv[1:]`` as given; fails unless it exits with 0."""

    def run(source: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", source, *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[str], str]:
    """Run source with a folder that cannot be written to as working directory (``.``); returns what it prints.

    Root may write anywhere, so a process started by root becomes ``nobody`` after its imports.
    """

    def run(imports: str, source: str, folder: Path) -> str:
        folder.chmod(0o555)
        try:
            command = [sys.executable, "-c", imports + _AS_NOBODY + source]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        finally:
            folder.chmod(0o755)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
