"""A tier as a job array on real SLURM daemons, without a process that watches: requeued, cancelled, out of time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT, Workplace, until
from test_slurm import HEAD, LONGER, same_runs

from vaco.runs.attempts import Attempt, history

pytestmark = pytest.mark.slurm

# At 40 thousand steps a second, which no machine here reached, more than two minutes of a core; fewer do on a busy one.
STEPS = int(os.environ.get("VACO_SLURM_LONG_STEPS", 4915200))
LONG = HEAD + f"algorithms: [ppo]\ncapacities: [1]\nseeds: [0]\nsteps: {STEPS}\n"


def submit(place: Workplace, shards: int, *flags: str) -> str:
    """Submit the tier as an array; its number."""
    command = ["sbatch", "--parsable", "--partition=test", f"--array=1-{shards}", *flags]
    done = subprocess.run(
        [*command, str(ROOT / "scripts/slurm-array.sh"), "trial", str(shards)],
        cwd=place.place,
        env=place.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def states(array: str) -> dict[str, str]:
    """State by the number of a task."""
    done = subprocess.run(
        ["squeue", "--states=all", "--noheader", f"--jobs={array}", "--array", "--format=%K|%T"],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("|") for line in done.stdout.splitlines())


def over(array: str) -> bool:
    return not set(states(array).values()) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], check=True)


def past(place: Workplace) -> dict[str, list[Attempt]]:
    """The attempts by run."""
    names = [path.name.removesuffix(".attempts.jsonl") for path in place.runs.rglob("*.attempts.jsonl")]
    folders = {path.name: path for path in place.runs.rglob("*-v1") if path.is_dir()}
    return {name: history(folders[name]) for name in names}


def at_work(place: Workplace, array: str, task: int) -> Callable[[], bool]:
    """Whether a task of the array has a run that has begun to train and is not finished."""
    log = place.place / "logs" / f"array-{array}_{task}.log"

    def working() -> bool:
        begun = [path.parent for path in place.runs.rglob("run.json")]
        jobs = {found[-1].job for folder in begun if (found := history(folder))}
        state = states(array)[str(task)]
        assert state in ("PENDING", "CONFIGURING", "RUNNING"), f"{state}: {log.read_text() if log.is_file() else ''}"
        return log.is_file() and bool(begun) and number(array, task) in jobs

    return working


def number(array: str, task: int) -> str:
    """SLURM's own number of a task, which is what its environment has as SLURM_JOB_ID."""
    done = subprocess.run(
        ["squeue", "--noheader", f"--jobs={array}_{task}", "--format=%A"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def locally(place: Workplace) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "vaco", "plan", "--tier", "trial", "--run", "--jobs", "2"]
    done = subprocess.run(words, cwd=place.place, env=place.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_an_array_is_requeued_and_cancelled_and_ends_with_the_bits_of_a_local_run(
    slurm: None, workplace: Callable[[str, str], Workplace]
) -> None:
    tier = LONGER.replace("steps: 61440", "steps: 409600")
    place, other = workplace("array", tier), workplace("array-local", tier)
    beside = threading.Thread(target=locally, args=(other,))
    beside.start()
    busy = [task for task in (1, 2, 3) if _planned(place, task)]
    array = submit(place, 3)
    # One of the tasks is preempted, as `scontrol requeue` does it, another is cancelled.
    first, second = busy[:2]
    until(at_work(place, array, first), "a run of the first task")
    scontrol("requeue", f"{array}_{first}")
    until(at_work(place, array, second), "a run of the second task")
    subprocess.run(["scancel", f"{array}_{second}"], check=True)
    until(lambda: states(array)[str(first)] == "PENDING", "the task that was requeued")
    scontrol("update", f"JobId={array}_{first}", "StartTime=now")
    until(lambda: over(array), "the end of the array", 600)
    ended = states(array)
    assert ended[str(second)] == "CANCELLED" and ended[str(first)] == "COMPLETED", ended
    left = [task for task in busy if _planned(place, task)]
    assert left == [second], "what was cancelled came back by itself, or what was requeued did not"
    # The same command does what is left, and no more.
    again = submit(place, 3)
    until(lambda: over(again), "the end of the second array", 600)
    assert set(states(again).values()) == {"COMPLETED"}
    beside.join()
    assert same_runs(other, place) == 4
    found = past(place)
    assert all([one.outcome for one in tries].count("complete") == 1 for tries in found.values()), found
    assert sum(len(tries) for tries in found.values()) == 6, found  # four, and two that were disturbed
    assert [one.outcome for tries in found.values() for one in tries].count("stopped") == 2, found


def _planned(place: Workplace, task: int) -> list[str]:
    words = [sys.executable, "-m", "vaco", "plan", "--tier", "trial", "--shard", f"{task}/3"]
    done = subprocess.run(words, cwd=place.place, env=place.environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_run_longer_than_its_limit_is_a_chain_of_jobs(
    slurm: None, workplace: Callable[[str, str], Workplace]
) -> None:
    """A limit of two minutes; each link saves, queues itself again, and the next goes on. No attempt is a failure."""
    place, other = workplace("chain", LONG), workplace("chain-local", LONG)
    beside = threading.Thread(target=locally, args=(other,))
    beside.start()
    array = submit(place, 1, "--time=2")
    until(lambda: over(array), "the end of the chain", 1800)
    beside.join()
    (tries,) = past(place).values()
    assert states(array) == {"1": "COMPLETED"}
    assert [one.outcome for one in tries] == ["stopped"] * (len(tries) - 1) + ["complete"], tries
    assert len(tries) >= 2, "it was over within one limit, so the test tests nothing: give it more steps"
    assert len({one.job for one in tries}) == 1, "another job rather than the same one again"
    before = [one.before for one in tries]
    assert before == sorted(before) and before[1] > 0 and before[1:] == [one.after for one in tries[:-1]]
    assert same_runs(other, place) == 1
    log = Path(place.place / "logs" / f"array-{array}_1.log").read_text()
    assert log.count("asked to stop with 1 runs left") == len(tries) - 1 and "could not be queued" not in log
