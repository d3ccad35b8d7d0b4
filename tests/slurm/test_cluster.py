"""The throw-away cluster itself: it refuses what is not its own, and leaves nothing behind, however it ends.

The room's conftest has it run before the tests that need the cluster to be up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import CLUSTER, cluster, until

pytestmark = pytest.mark.slurm
CONFIGURATION = Path("/etc/slurm/slurm.conf")
DAEMONS = ("slurmctld", "slurmd", "munged")


@pytest.fixture(autouse=True)
def down() -> Iterator[None]:
    """No cluster before and after: one that a developer keeps up is not touched."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if cluster("status").returncode == 0:
        pytest.skip("a cluster is up: bring it down with scripts/slurm-cluster.sh down")
    assert not CONFIGURATION.exists() and not CONFIGURATION.is_symlink(), "this machine belongs to a cluster"
    # Or the packages would be installed within a test that counts on quick starts.
    done = cluster("prepare")
    assert done.returncode == 0, done.stderr
    yield
    assert cluster("status").returncode == 3


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that others may enter, as munge asks of its socket's; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="vaco-slurm-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def place(base: Path) -> Iterator[Path]:
    """The cluster's folder, whatever a failed test left of the cluster removed."""
    yield base / "cluster"
    call(base / "cluster", "down")


def heedful() -> None:
    """Undo what a shell in the background does to its children: a shell cannot trap what was ignored when it began."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def calls(place: Path, *commands: str, **environment: str) -> list[subprocess.Popen[str]]:
    """Call the script once for each command, all at once, with its files in a folder of the test's."""
    return [
        subprocess.Popen(
            [str(CLUSTER), command],
            env={**os.environ, "VACO_SLURM_DIR": str(place), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heedful,
        )
        for command in commands
    ]


def call(place: Path, command: str, **environment: str) -> tuple[int, str, str]:
    (process,) = calls(place, command, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def daemons(place: Path) -> list[str]:
    """Daemons that were started for a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            name = (entry / "comm").read_text().strip()
            if name in DAEMONS and f"VACO_SLURM_DIR={place}\0".encode() in (entry / "environ").read_bytes():
                found.append(name)
        except OSError:
            continue
    return sorted(found)


def nothing_left(place: Path) -> bool:
    return not (daemons(place) or place.exists() or CONFIGURATION.exists() or CONFIGURATION.is_symlink())


def stub(folder: Path, name: str, script: str) -> str:
    """A search path on which a command is another; the real one stays further behind."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_up_and_down_twice(place: Path) -> None:
    for _ in range(2):
        for already in (False, True):
            code, out, err = call(place, "up")
            assert code == 0 and ("already up" in out) == already, err
        assert daemons(place) == sorted(DAEMONS) and call(place, "status")[0] == 0
        for _ in range(2):
            assert call(place, "down")[0] == 0
            assert nothing_left(place)
        assert call(place, "status")[0] == 3


def test_two_at_once_wait_for_each_other(place: Path) -> None:
    said = []
    for process in calls(place, "up", "up", "up"):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        said.append("already up" in out)
    assert sorted(said) == [False, True, True]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_a_configuration_of_others_is_left_alone(kind: str, base: Path, place: Path) -> None:
    other = base / "other.conf"
    had_folder = CONFIGURATION.parent.is_dir()
    CONFIGURATION.parent.mkdir(exist_ok=True)
    if kind == "file":
        CONFIGURATION.write_text("ClusterName=theirs\n")
    else:
        CONFIGURATION.symlink_to(other)
        if kind == "link":
            other.write_text("ClusterName=theirs\n")
    try:
        for command, expected in (("up", 1), ("prepare", 3), ("down", 0)):
            code, _, err = call(place, command)
            assert code == expected
            assert command == "down" or (err.count("\n") == 1 and "is not ours" in err), err
        assert CONFIGURATION.is_symlink() == (kind != "file") and not place.exists()
        assert kind == "dangling link" or CONFIGURATION.read_text() == "ClusterName=theirs\n"
    finally:
        CONFIGURATION.unlink()
        if not had_folder:
            CONFIGURATION.parent.rmdir()


def test_a_folder_of_others_is_left_alone(base: Path) -> None:
    (base / "precious").write_text("keep me")
    code, _, err = call(base, "up")
    assert code == 1 and "is not ours" in err
    assert call(base, "down")[0] == 0
    assert (base / "precious").read_text() == "keep me"


@pytest.mark.parametrize("broken", ["munged", "slurmctld", "slurmd", "srun"])
def test_a_failed_start_leaves_nothing(broken: str, base: Path, place: Path) -> None:
    hosts = Path("/etc/hosts").read_bytes()
    path = stub(base / "bin", broken, "echo the stub fails >&2; exit 7")
    code, _, err = call(place, "up", PATH=path, VACO_SLURM_PATIENCE="5")
    assert code != 0 and "the stub fails" in err
    assert nothing_left(place) and Path("/etc/hosts").read_bytes() == hosts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "script"])
def test_an_interrupted_start_leaves_nothing(number: signal.Signals, group: bool, base: Path, place: Path) -> None:
    met = base / "met"
    path = stub(base / "bin", "srun", f"touch {met}; exec sleep 50")
    (process,) = calls(place, "up", PATH=path)
    until(lambda: met.exists() or process.poll() is not None, "the first job", 100)
    assert daemons(place) == sorted(DAEMONS)
    asked = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    process.communicate(timeout=100)
    assert process.returncode == 128 + number
    assert nothing_left(place) and time.monotonic() - asked < 45, "it waited for the job instead of being interrupted"


def test_what_a_killed_start_left_is_removed(base: Path, place: Path) -> None:
    met = base / "met"
    (process,) = calls(place, "up", PATH=stub(base / "bin", "srun", f"echo $$ >{met}; exec sleep 50"))
    until(lambda: (met.exists() and met.read_text()) or process.poll() is not None, "the first job", 100)
    os.killpg(process.pid, signal.SIGKILL)
    os.kill(int(met.read_text()), signal.SIGKILL)  # `timeout` gave it a group of its own
    process.communicate(timeout=100)
    for name in ("slurmd", "munged"):  # as if it had been killed before they wrote them
        (place / f"{name}.pid").unlink()
    assert daemons(place) == sorted(DAEMONS)
    assert call(place, "up")[0] == 0 and daemons(place) == sorted(DAEMONS)
    assert call(place, "down")[0] == 0 and nothing_left(place)


def test_without_root_the_reason_is_said(base: Path, place: Path) -> None:
    path = stub(base / "bin", "id", "echo 1000")
    for command, expected in (("up", 1), ("prepare", 3)):
        code, _, err = call(place, command, PATH=path)
        assert code == expected and err.count("\n") == 1 and "needs root" in err
    assert nothing_left(place)


def test_what_escaped_from_a_job_ends_with_the_cluster(base: Path, place: Path) -> None:
    assert call(place, "up")[0] == 0
    mark = base / "escaped"
    script = f"setsid sh -c 'echo $$ >{mark}; exec sleep 600' >/dev/null 2>&1 & while ! test -s {mark}; do :; done"
    done = subprocess.run(
        ["sbatch", "--wait", "--partition=test", "--output=/dev/null", f"--wrap={script}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    process = Path("/proc", mark.read_text().strip())
    assert process.exists(), "SLURM ended it, so the test tests nothing"
    assert call(place, "down")[0] == 0 and nothing_left(place)
    until(lambda: not process.exists(), "the end of the process", 20)
