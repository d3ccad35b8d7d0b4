"""The lock: of living, dead and distant holders, torn, without kernel locks, in a crowd, and waited for."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from folders import at, finish, holder, names

from vaco import cli
from vaco.errors import UserError
from vaco.runs.lock import HeldError, RunLock, waiting

QUICK = ("--env", "InvertedPendulum-v5", "--steps", "2048", "--eval-points", "1", "--eval-episodes", "1", "--quiet")
HOLD = """
import sys, time
from pathlib import Path
from vaco.runs.lock import RunLock
lock = RunLock(Path(sys.argv[1]) / "run.lock")
lock.acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
lock.release()
"""
DIE = """
import json, os, signal, sys
from pathlib import Path
from vaco.runs.lock import RunLock
if sys.argv[2] == "writing":
    json.dumps = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
lock = RunLock(Path(sys.argv[1]) / "run.lock")
lock.acquire()
if sys.argv[2] == "with a child":
    child = os.fork()
    if child == 0:
        os.close(1)
        while True:
            signal.pause()
    print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def hold(folder: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def die(folder: Path, how: str) -> str:
    done = subprocess.run([sys.executable, "-c", DIE, str(folder), how], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -9
    return done.stdout


def test_a_process_killed_before_it_could_write_the_lock_is_an_unknown_holder_until_it_is_silent(
    tmp_path: Path,
) -> None:
    die(tmp_path, "writing")
    lock = RunLock(tmp_path / "run.lock")
    with pytest.raises(HeldError, match="an unknown process"):
        lock.acquire()
    os.utime(lock.path, (time.time() - 605,) * 2)
    lock.acquire()
    assert lock.held()


def test_a_child_that_outlives_a_killed_holder_does_not_keep_its_lock(tmp_path: Path) -> None:
    child = int(die(tmp_path, "with a child"))
    try:
        RunLock(tmp_path / "run.lock").acquire()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_kernel_locks_the_file_and_its_silence_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        one, two = RunLock(tmp_path / "run.lock"), RunLock(tmp_path / "run.lock")
        one.acquire()
        with pytest.raises(HeldError, match=f"process {os.getpid()} on .*10 minutes of silence"):
            two.acquire()
        assert one.held() and not two.held()
    # Nor does it count when a later process, somehow, can lock the file: the holder never did.
    with pytest.raises(HeldError, match="10 minutes of silence"):
        two.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        one.release()
        two.acquire()
        os.utime(two.path, (time.time() - 605,) * 2)
        one.acquire()
        assert one.held() and not two.held()
    assert names(tmp_path) == ["run.lock"]


def test_a_lock_taken_with_the_kernels_help_counts_where_there_is_none_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(tmp_path, "at once")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(HeldError):
        RunLock(tmp_path / "run.lock").acquire()
    os.utime(tmp_path / "run.lock", (time.time() - 605,) * 2)
    RunLock(tmp_path / "run.lock").acquire()


def test_a_lock_on_nfs_is_the_kernels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS locks only what is open for writing."""
    flock = fcntl.flock

    def as_on_nfs(file: Any, how: int) -> None:
        if isinstance(file, int) or not file.writable():
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, how)

    die(tmp_path, "at once")
    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    lock = RunLock(tmp_path / "run.lock")
    lock.acquire()
    assert json.loads(lock.path.read_text())["locked"] is True
    with pytest.raises(HeldError, match=r"then run the same command again$"):
        RunLock(lock.path).acquire()


def test_a_held_lock_does_not_keep_a_disk_from_being_made_read_only(small_disk: Path) -> None:
    lock = RunLock(small_disk / "run.lock")
    lock.acquire()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    lock.heartbeat()
    assert lock.held()
    lock.release()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_a_full_disk_leaves_no_torn_lock(small_disk: Path) -> None:
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    with pytest.raises(UserError, match="the disk is full"):
        RunLock(small_disk / "run.lock").acquire()
    assert names(small_disk) == ["filler"]


def test_the_lock_says_who_holds_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "run.lock")
    lock.acquire()
    record = json.loads((tmp_path / "run.lock").read_text())
    assert record["pid"] == os.getpid() and record["host"] and record["since"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_a_second_process_says_who_holds_the_folder_and_exits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    process = hold(tmp_path, 60)
    started = time.monotonic()
    assert cli.run(["train", "--out", str(tmp_path), *QUICK]) == 2
    said = capsys.readouterr().err
    assert f"process {process.pid} on {os.uname().nodename}" in said and said.count("\n") == 1
    assert time.monotonic() - started < 20
    process.kill()
    process.wait()


def test_told_to_wait_it_trains_when_the_holder_has_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = hold(tmp_path, 3)
    assert cli.run(["train", "--out", str(tmp_path), *QUICK, "--wait", "60"]) == 0
    assert "waiting up to" in capsys.readouterr().err and (tmp_path / "manifest.json").exists()
    process.wait()


def test_it_waits_no_longer_than_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = hold(tmp_path, 60)
    started = time.monotonic()
    assert cli.run(["train", "--out", str(tmp_path), *QUICK, "--wait", "1"]) == 2
    assert 1 <= time.monotonic() - started < 20
    process.kill()
    process.wait()


def test_within_a_slurm_job_it_waits_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    process = hold(tmp_path, 3)
    assert cli.run(["train", "--out", str(tmp_path), *QUICK]) == 0
    assert "waiting up to 660 s" in capsys.readouterr().err
    process.wait()


def test_under_the_workflow_it_waits_for_what_a_killed_snakemake_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("VACO_WAIT", "90")
    process = hold(tmp_path, 3)
    assert cli.run(["train", "--out", str(tmp_path), *QUICK]) == 0
    assert "waiting up to" in capsys.readouterr().err
    process.wait()


def test_a_time_to_wait_that_is_no_number_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("VACO_WAIT", "long")
    with pytest.raises(UserError, match="VACO_WAIT is 'long', but a number of seconds"):
        waiting(None, lambda: None)


def test_sigterm_after_the_end_does_not_make_a_finished_run_a_failed_one(tmp_path: Path) -> None:
    """The signal comes when the interpreter shuts down, which takes a while with PyTorch."""
    script = (
        "import atexit, os, signal, sys\n"
        "from vaco.__main__ import main\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "main()"
    )
    arguments = ["train", "--out", str(tmp_path / "run"), *QUICK]
    assert subprocess.run([sys.executable, "-c", script, *arguments]).returncode == 0
    assert (tmp_path / "run" / "manifest.json").exists()


class TestHolders:
    def test_a_second_process_is_refused_and_told_who_holds_it(self, tmp_path: Path) -> None:
        with holder(tmp_path) as process:
            before = names(tmp_path)
            with pytest.raises(UserError) as refusal, at(tmp_path):
                pass
            assert f"in use by process {process.pid} on {os.uname().nodename} since 20" in str(refusal.value)
            assert names(tmp_path) == before == ["run.json", "run.lock"]
        with at(tmp_path):
            pass

    def test_the_same_process_is_refused_too(self, tmp_path: Path) -> None:
        with at(tmp_path):
            with pytest.raises(UserError, match=f"process {os.getpid()} on"), at(tmp_path):
                pass
            assert "run.lock" in names(tmp_path)

    @pytest.mark.parametrize("reaped", [False, True])
    def test_a_killed_holder_is_succeeded(self, tmp_path: Path, reaped: bool) -> None:
        with holder(tmp_path) as process:
            process.send_signal(signal.SIGKILL)
            if reaped:
                process.wait()
            else:
                # An unreaped child is a zombie: its pid is still there.
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert "run.lock" in names(tmp_path)
            with at(tmp_path) as folder:
                assert folder.status() == "new"
                record = json.loads((tmp_path / "run.lock").read_text())
                assert record["pid"] == os.getpid()

    def edit(self, lock: Path, **changes: Any) -> None:
        lock.write_text(json.dumps(json.loads(lock.read_text()) | changes))

    def foreign(self, tmp_path: Path, **changes: Any) -> Path:
        """A lock that this process wrote, altered; by default that of a dead process."""
        lock = RunLock(tmp_path / "run.lock")
        lock.acquire()
        self.edit(lock.path, **changes)
        return lock.path

    def test_on_this_machine_the_kernel_decides_whatever_the_pid_and_however_long_the_silence(
        self, tmp_path: Path
    ) -> None:
        lock = RunLock(tmp_path / "run.lock")
        lock.acquire()
        os.utime(lock.path, (0, 0))
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on .*then run the same command again$"):
            RunLock(lock.path).acquire()
        # Of a dead process whose pid, here, is a living one's.
        record = lock.path.read_text()
        lock.release()
        lock.path.write_text(record)
        with at(tmp_path):
            pass

    @pytest.mark.parametrize("kept", [False, True])
    @pytest.mark.parametrize(
        "changes",
        [{"host": "elsewhere"}, {"boot": "before the reboot"}, {"namespace": "pid:[1]"}, {"locked": False}, {}],
    )
    def test_a_holder_that_cannot_be_checked_is_respected_until_it_falls_silent(
        self, tmp_path: Path, changes: dict[str, Any], kept: bool
    ) -> None:
        lock = self.foreign(tmp_path, **changes)
        if not changes:
            lock.write_text("")
        if not kept:  # a copy, which the kernel has not locked, as on a file system that locks for one node alone
            text = lock.read_text()
            lock.unlink()
            lock.write_text(text)
        os.utime(lock, (time.time() - 595,) * 2)
        who = "an unknown process" if not changes else f"process {os.getpid()} on"
        match = f"in use by {who}.*taken over after 10 minutes of silence"
        with pytest.raises(UserError, match=match), at(tmp_path):
            pass
        assert names(tmp_path) == ["run.lock"]
        os.utime(lock, (time.time() - 605,) * 2)
        with at(tmp_path):
            assert names(tmp_path) == ["run.json", "run.lock"]
        assert names(tmp_path) == []

    def test_the_heartbeat_shows_life(self, tmp_path: Path) -> None:
        with at(tmp_path, stale_after=30) as folder:
            os.utime(tmp_path / "run.lock", (0, 0))
            folder.heartbeat()
            assert time.time() - (tmp_path / "run.lock").stat().st_mtime < 20
            self.edit(tmp_path / "run.lock", host="elsewhere")
            with pytest.raises(UserError, match="in use by"), at(tmp_path, stale_after=30):
                pass

    def test_a_holder_that_was_succeeded_learns_of_it_and_touches_nothing(self, tmp_path: Path) -> None:
        sleeper = at(tmp_path)
        sleeper.__enter__()
        self.edit(tmp_path / "run.lock", host="elsewhere")
        os.utime(tmp_path / "run.lock", (0, 0))
        with at(tmp_path):
            with pytest.raises(UserError, match=f"taken over by process {os.getpid()} on .*this process stops"):
                sleeper.heartbeat()
            with pytest.raises(UserError, match="taken over"):
                finish(sleeper)
            sleeper.__exit__(None, None, None)
            assert names(tmp_path) == ["run.json", "run.lock"]

    def test_a_holder_whose_lock_was_deleted_learns_of_it(self, tmp_path: Path) -> None:
        with at(tmp_path) as folder:
            (tmp_path / "run.lock").unlink()
            with pytest.raises(UserError, match="was removed: this process stops"):
                folder.heartbeat()

    def test_a_forked_child_does_not_release(self, tmp_path: Path) -> None:
        lock = RunLock(tmp_path / "run.lock")
        lock.acquire()
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert names(tmp_path) == ["run.lock"]
        lock.release()
        assert names(tmp_path) == []

    def test_processes_of_one_machine_look_one_after_the_other(
        self, tmp_path: Path, script: Callable[..., Any]
    ) -> None:
        done = script(
            """
import fcntl, os, subprocess, sys, time
guard = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(guard, fcntl.LOCK_EX)
source = "import sys; from pathlib import Path; from vaco.runs.lock import RunLock; "
source += "print('ready', flush=True); RunLock(Path(sys.argv[1], 'run.lock')).acquire()"
with subprocess.Popen([sys.executable, "-c", source, sys.argv[1]], stdout=subprocess.PIPE) as process:
    process.stdout.readline()
    time.sleep(0.3)
    print(os.listdir(sys.argv[1]))
    os.close(guard)
print(os.listdir(sys.argv[1]))
""",
            tmp_path,
        )
        assert done.stdout == "[]\n['run.lock']\n"

    def test_a_lock_replaced_meanwhile_is_put_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Two hosts, between which no kernel lock helps: the dead lock is replaced just before it is moved aside.
        path = self.foreign(tmp_path, host="elsewhere")
        os.utime(path, (0, 0))
        rename = Path.rename

        def late(self: Path, target: Path) -> Path:
            monkeypatch.setattr(Path, "rename", rename)
            record = json.loads(path.read_text()) | {"token": "theirs", "host": "another"}
            path.unlink()
            path.write_text(json.dumps(record))
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", late)
        with pytest.raises(UserError, match="on another"):
            RunLock(path).acquire()
        assert names(tmp_path) == ["run.lock"] and json.loads(path.read_text())["token"] == "theirs"


CROWD = """
import os, random, sys, time
from pathlib import Path
from vaco.errors import UserError
from vaco.runs.lock import RunLock
folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
random.seed(int(sys.argv[3]))
held = refused = 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(60):
    die = random.random() < 0.5
    child = os.fork()
    if child == 0:
        lock = RunLock(folder / "run.lock")
        try:
            lock.acquire()
        except UserError as error:
            os._exit(2 if "in use" in str(error) else 4)
        try:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            os._exit(3)
        time.sleep(0.002)
        inside.unlink()
        if not die:
            lock.release()
        os.kill(os.getpid(), 9)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (-9, 2), status
    held += status == -9
    refused += status == 2
print(held, refused)
"""


def test_of_a_crowd_that_dies_holding_the_lock_one_at_a_time_is_inside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", CROWD, str(folder), str(tmp_path / "inside")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen([*command, str(seed)], **pipes) for seed in range(4)]  # type: ignore[call-overload]
    for member in crowd:
        assert member.stdout.readline() == "ready\n"
    for member in crowd:
        member.stdin.write("go\n")
        member.stdin.flush()
    counts = [tuple(map(int, member.communicate(timeout=60)[0].split())) for member in crowd]
    assert [member.returncode for member in crowd] == [0] * 4
    # How often they met depends on the machine's other work; that they met at all makes the test one of contention.
    assert sum(held for held, _ in counts) > 20 and sum(refused for _, refused in counts) > 0, counts
    assert set(names(folder)) <= {"run.lock"}
