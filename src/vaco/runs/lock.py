"""One writer to a run folder: a lock file that outlives neither its process nor, for long, its machine.

The file names its holder (host, boot, pid namespace, process, since when). It is created with O_EXCL, which is
exclusive between hosts too, and for as long as it lives the holder keeps the kernel's lock (`flock`) on it. It is taken
over when

* the holder was on this machine (same host, boot and pid namespace) and the kernel has let go of its lock, as it does
  the moment a process ends, however it ends;
* the holder was anywhere else, is not named (a torn file), or is on a file system without kernel locks, and the file
  has not been touched for `STALE_AFTER` seconds. The holder touches it with `RunLock.heartbeat`. The kernel's lock does
  not count here: some cluster file systems keep it to one node, others keep that of a dead node.

A holder that was asleep for so long that another process took over learns of it at its next heartbeat and must stop.

The library `filelock` does not serve: its file is created by whoever asks, stays behind, and names nobody.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from vaco.errors import UserError
from vaco.runs import atomic

STALE_AFTER = 600.0
"""Seconds of silence after which a lock that cannot be checked from here is taken over."""

_KEPT: set[IO[bytes]] = set()


def _leave_to_parent() -> None:
    """In a forked child: close the lock files, or the kernel would keep the locks until the child ends too."""
    while _KEPT:
        _KEPT.pop().close()


os.register_at_fork(after_in_child=_leave_to_parent)


class HeldError(UserError):
    """Another process holds the folder; it may leave."""


class RunLock:
    """The lock of one folder.

    Args:
        path: the lock file; its folder must exist.
        stale_after: see `STALE_AFTER`.
    """

    def __init__(self, path: Path, stale_after: float = STALE_AFTER) -> None:
        self.path = path
        self.stale_after = stale_after
        self._token: str | None = None
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock, from a dead holder if need be.

        Raises:
            HeldError: another process holds it; the message says which.
            UserError: the folder is not writable.
        """
        token = uuid.uuid4().hex
        try:
            with _one_at_a_time(self.path.parent):
                if not self._create(token):
                    self._remove_dead()
                    if not self._create(token):
                        raise self._held(_holder(self.path))
        except OSError as error:
            raise atomic.write_error(self.path, error) from error
        self._token = token

    def held(self) -> bool:
        """Whether this process holds the lock, by what the file says now."""
        holder = _holder(self.path)
        return self._token is not None and holder.get("token") == self._token and holder.get("pid") == os.getpid()

    def release(self) -> None:
        """Give the lock back. Does nothing when it is not held, in a forked child, or after it was taken over."""
        if self.held():
            with suppress(OSError):
                self.path.unlink()
        if self._file is not None:
            _KEPT.discard(self._file)
            self._file.close()
        self._token = self._file = None

    def heartbeat(self) -> None:
        """Show other machines that this process lives; call it far more often than every `stale_after` seconds.

        Raises:
            UserError: the lock is no longer this process's, which must stop without writing anything.
        """
        if not self.held():
            holder = _holder(self.path)
            taker = f"taken over by {_describe(holder)}" if holder else "removed"
            raise UserError(
                f"the lock {self.path} of this run was {taker}: this process stops, run the command again to resume"
            )
        # A missed touch is harmless: the lock only looks older than it is.
        with suppress(OSError):
            os.utime(self.path)

    def _create(self, token: str) -> bool:
        """Create the lock file, locked, unless there is one; False says that there is."""
        try:
            empty = self.path.open("xb", buffering=0)
        except FileExistsError:
            return False
        file, locked = _open_locked(self.path)
        record = {"pid": os.getpid(), "since": datetime.now(timezone.utc).isoformat(timespec="seconds"), "token": token}
        text = json.dumps(record | _machine() | {"locked": locked is True}, sort_keys=True) + "\n"
        try:
            # At once, so that it is not seen torn. Not forced to disk: after a power failure it is of another boot.
            with empty:
                if empty.write(text.encode()) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self.path.unlink()
            file.close()
            raise
        _KEPT.add(file)
        self._file = file
        return True

    def _remove_dead(self) -> None:
        """Remove the lock of a dead holder.

        Raises:
            HeldError: the holder may be alive.
        """
        try:
            file, free = _open_locked(self.path)
        except FileNotFoundError:
            return
        with file:
            holder = _parse(file.read())
            alive = self._silence() < self.stale_after if free is None or not _is_watched(holder) else not free
            if alive:
                raise self._held(holder)
            # Another host may have replaced the dead lock by its own since we read it: moved aside and looked at again.
            aside = atomic.temporary_name(self.path)
            with suppress(FileNotFoundError):
                self.path.rename(aside)
                if _holder(aside) != holder:
                    with suppress(OSError):
                        os.link(aside, self.path)
                aside.unlink()

    def _silence(self) -> float:
        """Seconds since the lock was touched, by the clock of the file system: those of two hosts may differ."""
        with tempfile.TemporaryFile(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".tmp") as probe:
            now = os.fstat(probe.fileno()).st_mtime
        with suppress(FileNotFoundError):
            return now - self.path.stat().st_mtime
        return math.inf

    def _held(self, holder: dict[str, Any]) -> HeldError:
        """The refusal, saying by whom the folder is held and what to do."""
        way_out = "wait for it to end or stop it, then run the same command again"
        if not _is_watched(holder):
            way_out += f" (a lock from elsewhere is taken over after {self.stale_after / 60:g} minutes of silence)"
        return HeldError(f"the run folder {self.path.parent} is in use by {_describe(holder)}: {way_out}")


def _open_locked(path: Path, mode: str = "rb") -> tuple[IO[bytes], bool | None]:
    """Open a file and ask the kernel for its lock on it.

    For reading if that will do, since what is open for writing keeps a disk from being made read-only; NFS wants it
    open for writing.

    Returns:
        The file, and whether the lock is ours now; None if there are no such locks.
    """
    file = path.open(mode)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EBADF and mode == "rb" and os.access(path, os.W_OK):
            file.close()
            return _open_locked(path, "r+b")
        return file, False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return file, True


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the processes of one machine look at a lock and replace it one after the other, where it can be done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> dict[str, Any]:
    """Who a lock file says holds it; empty if there is no such file or it names nobody."""
    with suppress(OSError):
        return _parse(path.read_bytes())
    return {}


def _parse(data: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        record = json.loads(data)
        return record if isinstance(record, dict) else {}
    return {}


def _describe(holder: dict[str, Any]) -> str:
    """A holder in words."""
    if "pid" not in holder:
        return "an unknown process (its lock file cannot be read)"
    return f"process {holder['pid']} on {holder.get('host')} since {holder.get('since')}"


def silence(path: Path, now: float) -> float | None:
    """Seconds since the holder of a lock was heard of; None if nobody holds it who can be alive.

    The lock itself is not asked for, since asking could get in the way of who takes it at this moment.

    Args:
        path: of the lock file.
        now: seconds since the epoch.
    """
    try:
        silent = max(0.0, now - path.stat().st_mtime)
    except OSError:
        return None
    holder = _holder(path)
    here = _machine().items() <= holder.items()
    dead = silent >= STALE_AFTER or (here and not Path("/proc", str(holder.get("pid"))).exists())
    return None if dead else silent


def _is_watched(holder: dict[str, Any]) -> bool:
    """Whether a holder is on this machine and took the kernel's lock, so that the kernel knows whether it lives."""
    return holder.get("locked") is True and _machine().items() <= holder.items()


def _machine() -> dict[str, str]:
    """Where a process runs: host, boot and pid namespace (two containers may share the first two)."""
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}


def waiting(seconds: float | None, action: Callable[[], None]) -> None:
    """Do what needs a lock, again every few seconds for as long as another process holds it.

    Args:
        seconds: how long to wait. None is not at all; within a SLURM job it is long enough for the lock of a dead
            node to be recognised, whose job's successor may start while the old lock still counts; elsewhere under
            the workflow, as long as it says in `VACO_WAIT`.
        action: takes the lock.

    Raises:
        HeldError: the lock is still held when the time is up.
        UserError: that is no time to wait.
    """
    if seconds is None:
        seconds = STALE_AFTER + 60 if "SLURM_JOB_ID" in os.environ else _from_environment()
    if not 0.0 <= seconds < math.inf:
        raise UserError(f"cannot wait for {seconds} seconds: give a number of seconds, 0 or more")
    until = time.monotonic() + seconds
    while True:
        try:
            return action()
        except HeldError as held:
            left = until - time.monotonic()
            if left <= 0:
                raise
            print(f"vaco: {held}; waiting up to {left:.0f} s", file=sys.stderr, flush=True)
            time.sleep(min(5.0, left))


def _from_environment() -> float:
    """The seconds in `VACO_WAIT`, 0 without it."""
    given = os.environ.get("VACO_WAIT") or "0"
    try:
        return float(given)
    except ValueError:
        raise UserError(f"VACO_WAIT is '{given}', but a number of seconds is expected: set one, or unset it") from None
