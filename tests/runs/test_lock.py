"""The lock where `test_folder` does not look: no torn locks, file systems without links, and waiting for a holder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vaco import cli
from vaco.runs.lock import HeldError, RunLock

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
import os, signal, sys
from pathlib import Path
from vaco.runs.lock import RunLock
os.fsync = lambda descriptor: (os.ftruncate(descriptor, 5), os.kill(os.getpid(), signal.SIGKILL))
RunLock(Path(sys.argv[1]) / "run.lock").acquire()
"""


def hold(folder: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_process_killed_while_it_writes_the_lock_leaves_none(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIE, str(tmp_path)]).returncode == -9
    assert not (tmp_path / "run.lock").exists()
    lock = RunLock(tmp_path / "run.lock")
    lock.acquire()
    assert lock.held()


def test_without_hard_links_the_lock_is_as_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    one, two = RunLock(tmp_path / "run.lock"), RunLock(tmp_path / "run.lock")
    one.acquire()
    with pytest.raises(HeldError):
        two.acquire()
    assert one.held() and not two.held()
    one.release()
    two.acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


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
