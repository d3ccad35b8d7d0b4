"""Ray in an allocation of real SLURM: two nodes of Ray's, a run that is taken back, goes on, and replays to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT, Workplace, until

from vaco.runs import schedule

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# Two tasks of two cores are room for three actors: the learner has a core of the first. So three are on both.
TRAIN = [
    *("train", "--env", "InvertedPendulum-v5", "--actors", "3", "--engine", "ray", "--steps", str(300 * 384)),
    *("--set", "num_envs=6", "--set", "phase_steps=64", "--set", "minibatch=64", "--set", "hidden=[8,8]"),
    *("--set", "eval_points=1", "--set", "eval_episodes=1", "--out", "run"),
]


def submit(place: Workplace, *command: str) -> str:
    words = ["sbatch", "--parsable", "--partition=test", "--ntasks=2", "--cpus-per-task=2", "--mem-per-cpu=1500"]
    done = subprocess.run(
        [*words, str(ROOT / "scripts/slurm-ray.sh"), *command],
        cwd=place.place,
        env=place.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(job: str) -> str:
    words = ["squeue", "--states=all", "--noheader", f"--jobs={job}", "--format=%T"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def over(job: str) -> bool:
    return state(job) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


def left(job: str) -> list[str]:
    """Command lines of a job's processes that are still there; what has ended and waits for its parent has none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        if f"SLURM_JOB_ID={job}".encode() in variables and any(words):
            found.append(b" ".join(words).decode(errors="replace"))
    return found


def test_a_run_on_two_ray_nodes_is_taken_back_goes_on_and_replays_to_the_bit(
    slurm: None, workplace: Callable[[str, str], Workplace]
) -> None:
    pytest.importorskip(
        "ray", reason='Ray is not installed, nor in the lock: pip install -r requirements.lock "ray>=2.40"'
    )
    place = workplace("ray", "tier: trial\n")
    run, told = place.place / "run", place.place / "places.json"
    job = submit(place, sys.executable, str(ROOT / "tests/slurm/ray_places.py"), str(told), *TRAIN)
    log = place.place / "logs" / f"ray-{job}.log"
    rows = run / "phases.csv"

    def training() -> bool:
        assert not over(job), place.logs()
        return rows.is_file() and rows.read_text().count("\n") > 5

    until(training, "some phases")
    subprocess.run(["scontrol", "requeue", job], check=True)
    until(lambda: state(job) == "PENDING", "the job that was requeued")
    assert "asked to stop at step" in log.read_text() and list((run / "checkpoints").iterdir()), place.logs()
    assert not (run / "manifest.json").exists(), "it was over before it was taken back: give it more steps"
    # Workers whose raylet was killed may be seen as they end.
    until(lambda: not left(job), "the end of all processes", 30)
    assert not list(Path("/tmp").glob(f"vaco-ray-{job}-*"))
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
    until(lambda: over(job), "the end of the run")
    assert state(job) == "COMPLETED" and log.read_text().count("Ray has 2 nodes on") == 2, place.logs()
    where = json.loads(told.read_text())
    homes = {actor: node for actor, (node, _) in where["places"].items()}
    assert len(where["nodes"]) == 2 and set(homes.values()) == set(where["nodes"]) and len(homes) == 3, where
    used = {entry.key[:2] for entry in schedule.read(run / "schedule.parquet").entries}
    assert used >= {(0, 1), (1, 1), (2, 1)} and 0 in {incarnation for _, incarnation in used}, used
    words = [sys.executable, "-m", "vaco", "replay", "run"]
    again = subprocess.run(words, cwd=place.place, env=place.environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    until(lambda: not left(job), "the end of all processes", 30)
    assert not list(Path("/tmp").glob(f"vaco-ray-{job}-*"))


def test_a_command_that_fails_takes_ray_with_it(slurm: None, workplace: Callable[[str, str], Workplace]) -> None:
    pytest.importorskip(
        "ray", reason='Ray is not installed, nor in the lock: pip install -r requirements.lock "ray>=2.40"'
    )
    place = workplace("ray-fails", "tier: trial\n")
    job = submit(place, "bash", "-c", "echo at $RAY_ADDRESS; exit 3")
    until(lambda: over(job), "the end of the job")
    code = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    assert "ExitCode=3:0" in code and "at " in (place.place / "logs" / f"ray-{job}.log").read_text(), (
        code + place.logs()
    )
    until(lambda: not left(job), "the end of all processes", 30)
    assert not list(Path("/tmp").glob(f"vaco-ray-{job}-*"))
