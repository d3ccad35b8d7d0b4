"""One writer to a run folder: a lock file that outlives neither its process nor, for long, its machine.

The rule. The lock is a file, created by linking or with O_EXCL, that names its holder: host, boot, pid namespace, pid
and the moment the process started. Whoever finds one takes it over only when the holder is known to be gone:

* on this machine (same host, boot and pid namespace): when no process has that pid and that start time. A pid that
  was given to another process does not count, nor does a zombie;
* anywhere else (another host, a container, this host before a reboot, or a file that names nobody): when the file
  has not been touched for `STALE_AFTER` seconds. The holder touches it with `RunLock.heartbeat`.

A holder that was asleep for so long that another process took over learns of it at its next heartbeat and must stop.
Kernel locks alone would not do: cluster file systems often lack them, and workers forked from a dead process keep them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vaco.errors import UserError
from vaco.runs import atomic

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
STALE_AFTER = 600.0
"""Seconds of silence after which a lock that cannot be checked from here is taken over."""


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
                    self._remove_stale()
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
        if self._token is None:
            return
        if self.held():
            with suppress(OSError):
                self.path.unlink()
        self._token = None

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
        """Create the lock file, unless there is one; False says that there is.

        It is written under another name and then linked, which is as exclusive as O_EXCL and leaves no torn lock, which
        would name nobody and hold the folder until it is stale, if this process dies on the way.
        """
        record = _this_process() | {"token": token, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        text = json.dumps(record, sort_keys=True) + "\n"
        temporary = atomic.temporary_name(self.path)
        try:
            _write(temporary, text, os.O_TRUNC)
            try:
                os.link(temporary, self.path)
            except FileExistsError:
                return False
            except FileNotFoundError:
                # Whoever got the lock meanwhile has tidied up.
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return self._create_unlinked(text)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _create_unlinked(self, text: str) -> bool:
        """`_create` where the file system has no hard links."""
        try:
            _write(self.path, text, os.O_EXCL)
        except FileExistsError:
            return False
        return True

    def _remove_stale(self) -> None:
        """Remove the lock of a dead holder.

        Raises:
            HeldError: the holder may be alive.
        """
        holder = _holder(self.path)
        if _is_here(holder):
            started = _start_of(holder["pid"])
            alive = started is not None and started == holder.get("process_start")
        else:
            alive = self._silence() < self.stale_after
        if alive:
            raise self._held(holder)
        # Moved aside and looked at again before it is deleted: where `_one_at_a_time` cannot help (two hosts), another
        # process may have replaced the dead lock by its own since we read it.
        aside = atomic.temporary_name(self.path)
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        if _holder(aside) != holder:
            with suppress(OSError):
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)

    def _silence(self) -> float:
        """Seconds since the lock was touched, by the clock of the file system: those of two hosts may differ."""
        probe = self.path.with_name(f".{self.path.name}.{os.getpid()}.probe.tmp")
        with probe.open("wb") as stream:
            now = os.fstat(stream.fileno()).st_mtime
        probe.unlink(missing_ok=True)
        try:
            return now - self.path.stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _held(self, holder: dict[str, Any]) -> HeldError:
        """The refusal, saying by whom the folder is held and what to do."""
        way_out = "wait for it to end or stop it, then run the same command again"
        if not _is_here(holder):
            way_out += f" (a lock from elsewhere is taken over after {self.stale_after / 60:g} minutes of silence)"
        return HeldError(f"the run folder {self.path.parent} is in use by {_describe(holder)}: {way_out}")


def _write(path: Path, text: str, how: int) -> None:
    """Create a file and force it to disk; nothing is left of it if that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o644)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the processes of one machine look at a lock and replace it one after the other.

    Held for milliseconds, and a mere help: where the file system cannot lock a folder, `_remove_stale` looks twice.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> dict[str, Any]:
    """Who a lock file says holds it; empty if there is no such file or it names nobody."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    """A holder in words."""
    if "pid" not in holder:
        return "an unknown process (its lock file cannot be read)"
    return f"process {holder['pid']} on {holder.get('host')} since {holder.get('since')}"


def _is_here(holder: dict[str, Any]) -> bool:
    """Whether a holder's pid means something on this machine, under this boot, in this pid namespace."""
    here = _this_process()
    return all(holder.get(key) == here[key] for key in ("host", "boot", "namespace")) and "pid" in holder


def _this_process() -> dict[str, Any]:
    """What identifies this process among all others, past ones included."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "namespace": _namespace(),
        "pid": pid,
        "process_start": _start_of(pid),
    }


def _namespace() -> str:
    """The pid namespace: two containers may share host name and boot, but not their pids."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


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


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone, 0 if the system does not tell when."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0
    # The second field, the program's name, may itself hold blanks and parentheses.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields or fields[0] in "ZX":
        return None
    return int(fields[19])


def _read(path: str) -> str:
    """A small system file, or nothing where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
