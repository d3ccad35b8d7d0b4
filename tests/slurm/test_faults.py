"""What breaks under a campaign on real SLURM daemons: its node, its controller, its disk. Same bits, nothing twice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from places import Workplace, until
from test_array import at_work, locally, over, past, scontrol, states, submit
from test_slurm import LONGER, same_runs

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TIER = LONGER.replace("seeds: [0, 1, 2, 3]", "seeds: [0, 1]").replace("steps: 61440", "steps: 204800")
SLURM = Path(os.environ.get("VACO_SLURM_DIR", "/tmp/vaco-slurm"))
SBIN = os.environ | {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "VACO_SLURM_DIR": str(SLURM)}
NODE = socket.gethostname().partition(".")[0]


def told(place: Workplace) -> dict[str, int]:
    """How many runs are in which state, by `vaco status`, which asks no scheduler."""
    words = [sys.executable, "-m", "vaco", "status", "--tier", "trial", "--json"]
    done = subprocess.run(words, cwd=place.place, env=place.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {"running": 0, "finished": 0, "failed": 0} | json.loads(done.stdout)["totals"]


def node(state: str) -> None:
    """Set the node's state; it may have come back by itself before it is told to."""
    words = ["scontrol", "update", f"NodeName={NODE}", f"State={state}"]
    if state == "RESUME":
        subprocess.run(words, capture_output=True)
        until(lambda: subprocess.check_output(["sinfo", "-h", "-o", "%t"], text=True).strip() in ("idle", "mix"), "it")
    else:
        subprocess.run([*words, "Reason=a test"], check=True)


def beginning(array: str) -> bool:
    """Whether a requeued task waits no longer; SLURM holds it back for two minutes, unless told otherwise."""
    if states(array)["1"] == "PENDING":
        subprocess.run(["scontrol", "update", f"JobId={array}_1", "StartTime=now"], capture_output=True)
    return states(array)["1"] == "RUNNING"


@pytest.fixture(scope="module")
def undisturbed(workplace: Callable[[str, str], Workplace]) -> Workplace:
    place = workplace("faults-local", TIER)
    locally(place)
    return place


def test_a_drained_node_is_waited_for_and_a_dead_one_costs_no_bits(
    slurm: None, workplace: Callable[[str, str], Workplace], undisturbed: Workplace
) -> None:
    place = workplace("node", TIER)
    array = submit(place, 1)
    until(at_work(place, array, 1), "a run at work")
    try:
        # Drained while it works: the job works on. Preempted, it cannot come back until the node does.
        node("DRAIN")
        time.sleep(3)
        assert states(array) == {"1": "RUNNING"}
        scontrol("requeue", f"{array}_1")
        until(lambda: states(array)["1"] == "PENDING", "the task that was requeued")
        beginning(array)
        time.sleep(5)
        assert states(array) == {"1": "PENDING"} and told(place)["running"] == 0
        node("RESUME")
        until(lambda: beginning(array), "the task on the node that is back")
        until(at_work(place, array, 1), "a run at work again")
        # Dead: SLURM takes the task from it, and queues it again.
        node("DOWN")
        until(lambda: states(array)["1"] == "PENDING", "the task of the dead node")
    finally:
        node("RESUME")
    until(lambda: beginning(array), "the task on the node that lives again")
    until(lambda: over(array), "the end of the array", 600)
    assert states(array) == {"1": "COMPLETED"}
    assert same_runs(undisturbed, place) == 2
    outcomes = [one.outcome for tries in past(place).values() for one in tries]
    assert outcomes.count("complete") == 2 and set(outcomes) <= {"complete", "stopped", "vanished"}, outcomes
    assert len(outcomes) >= 3, outcomes  # the node may have died before the run had begun again


@contextmanager
def no_controller() -> Iterator[None]:
    """Within it the controller is dead, killed at once; after it, it is back with what it had saved."""
    daemon = int((SLURM / "slurmctld.pid").read_text())
    os.kill(daemon, 9)
    until(lambda: not Path("/proc", str(daemon)).exists(), "the controller's end", 30)
    try:
        yield
    finally:
        subprocess.run(["slurmctld"], env=SBIN, check=True)
        until(lambda: "is UP" in subprocess.run(["scontrol", "ping"], capture_output=True, text=True).stdout, "it", 60)


def test_an_array_does_not_notice_that_the_controller_died(
    slurm: None, workplace: Callable[[str, str], Workplace], undisturbed: Workplace
) -> None:
    place = workplace("controller", TIER)
    array = submit(place, 1)
    until(at_work(place, array, 1), "a run at work")
    with no_controller():
        assert told(place)["running"] == 1
        # The task goes on from a run to the next meanwhile.
        until(lambda: list(place.runs.rglob("manifest.json")), "a run that ends without a controller", 300)
    until(lambda: over(array), "the end of the array", 600)
    assert states(array) == {"1": "COMPLETED"}
    assert same_runs(undisturbed, place) == 2
    assert [[one.outcome for one in tries] for tries in past(place).values()] == [["complete"], ["complete"]]


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


def test_a_full_disk_is_said_and_the_same_line_goes_on_when_there_is_room(
    slurm: None, workplace: Callable[[str, str], Workplace], undisturbed: Workplace
) -> None:
    place = workplace("full", TIER)
    place.runs.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place.runs))
    try:
        array = submit(place, 1)
        until(lambda: over(array), "the end of the array", 600)
        assert states(array) == {"1": "FAILED"}
        log = (place.place / "logs" / f"array-{array}_1.log").read_text()
        assert "the disk is full" in log and "make room and run the same command again" in log, log
        assert "Traceback" not in log and "2 runs failed" in log, log
        assert not list(place.runs.rglob("manifest.json")) and told(place)["failed"] == 2
        mount("-o", "remount,size=64m", str(place.runs))
        array = submit(place, 1)
        until(lambda: over(array), "the end of the second array", 600)
        assert states(array) == {"1": "COMPLETED"}
        assert same_runs(undisturbed, place) == 2
    finally:
        subprocess.run(["umount", "--lazy", str(place.runs)], check=True)


@contextmanager
def frozen(place: Path) -> Iterator[None]:
    """Within it whatever writes to a mounted file system waits, as on a server that hangs; reading works."""
    subprocess.run(["fsfreeze", "--freeze", str(place)], check=True, env=SBIN)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(place)], check=True, env=SBIN)


def test_a_file_system_that_hangs_is_waited_for(
    slurm: None, workplace: Callable[[str, str], Workplace], undisturbed: Workplace, tmp_path: Path
) -> None:
    place, image = workplace("hanging", TIER), tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(64 * 2**20)
    subprocess.run(
        ["mkfs.ext4", "-q", str(image)], check=True, env=os.environ | {"PATH": f"{os.environ['PATH']}:/sbin"}
    )
    place.runs.mkdir(parents=True)
    mount("-o", "loop", str(image), str(place.runs))
    watch = threading.Timer(180, subprocess.run, [["fsfreeze", "--unfreeze", str(place.runs)]], {"env": SBIN})
    watch.start()  # whatever happens to this test, nobody hangs for ever
    try:
        (place.runs / "lost+found").rmdir()
        array = submit(place, 1)
        until(at_work(place, array, 1), "a run at work")
        with frozen(place.runs):
            time.sleep(30)
            # Nothing is lost, nobody else begins, and whoever asks is answered.
            assert told(place)["running"] == 1 and states(array) == {"1": "RUNNING"}
        until(lambda: over(array), "the end of the array", 600)
        assert states(array) == {"1": "COMPLETED"}
        assert same_runs(undisturbed, place) == 2
        assert [[one.outcome for one in tries] for tries in past(place).values()] == [["complete"], ["complete"]]
    finally:
        watch.cancel()
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "--lazy", str(place.runs)], check=True)
