"""A tier from `sbatch --array` to its tables on real SLURM daemons: preempted, and its head process lost twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT, Workplace, until
from test_array import over, past, submit
from test_slurm import PLENTY, same_runs, same_tables

from vaco.campaign import status
from vaco.campaign.tiers import load_tier

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# The smoke tier, its runs three times as long, so that the preemption goes on for ten minutes on two busy cores.
STEPS = int(os.environ.get("VACO_SLURM_WHOLE_STEPS", 61440))
SHARDS = 3


class Preemption(threading.Thread):
    """Four times a minute a job of a folder, whoever submitted it, is requeued or, one time in five, cancelled."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.over, self.count = folder, threading.Event(), Counter[str]()
        self.start()

    def jobs(self, state: str) -> list[str]:
        command = ["squeue", f"--states={state}", "--noheader", "--array", "--format=%i|%Z"]
        rows = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        return [number for number, _, folder in (row.partition("|") for row in rows) if folder == str(self.folder)]

    def run(self) -> None:
        luck = random.Random(0)
        while not self.over.wait(luck.uniform(5, 25)):
            if running := self.jobs("RUNNING"):
                kind = luck.choice(["requeue"] * 4 + ["cancel"])
                words = ["scancel"] if kind == "cancel" else ["scontrol", "requeue"]
                done = subprocess.run([*words, luck.choice(running)], capture_output=True)
                self.count[kind] += done.returncode == 0
            # SLURM holds back for two minutes what was requeued.
            for job in self.jobs("PENDING"):
                subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)


class Head:
    """The process on the login node that ends in the tables: Snakemake, killed, recovered and started again."""

    def __init__(self, place: Workplace) -> None:
        self.place, self.killed = place, 0
        self.start()

    def start(self) -> None:
        self.process = self.place.start("tables", "--jobs", "3")
        # Nobody reads it meanwhile, and a full pipe would stop it.
        self.said: list[str] = []
        stream = self.process.stdout
        assert stream is not None
        threading.Thread(target=lambda: self.said.extend(stream), daemon=True).start()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.killed += 1
        self.again()

    def again(self) -> None:
        """What profiles/slurm/README.md says to do after Snakemake was killed, and the same command."""
        recovery = [sys.executable, "scripts/slurm-recover.py"]
        done = subprocess.run(
            recovery, cwd=self.place.place, env=self.place.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        self.start()

    def at_work_on(self, rule: str) -> bool:
        jobs = self.place.jobs().items()
        return any(name.startswith(f"rule_{rule}") and tries[-1][1] == "RUNNING" for name, tries in jobs)


def test_a_preempted_array_and_two_lost_heads_end_with_the_tables_of_a_local_run(
    slurm: None, workplace: Callable[[str, str], Workplace]
) -> None:
    text = (ROOT / "config/smoke.yaml").read_text()
    assert text.count("\nsteps: 20480\n") == 1
    tier = text.replace("tier: smoke", "tier: trial").replace("\nsteps: 20480\n", f"\nsteps: {STEPS}\n")
    place, other = workplace("whole", tier), workplace("whole-local", tier)
    place.append(PLENTY)
    beside = threading.Thread(target=other.locally, args=("tables",), daemon=True)
    beside.start()
    planned = load_tier(place.place / "config" / "trial.yaml")
    total = len(planned.planned())
    seen: dict[Path, bytes] = {}

    def watch() -> int:
        """Whoever trains: what is finished stays as it is, with the time of its making. How many runs are."""
        for path in place.runs.rglob("manifest.json"):
            content = path.read_bytes()
            assert seen.setdefault(path, content) == content, f"{path} was made twice"
        return len(seen)

    began, calls = time.monotonic(), 1
    array, preemption = submit(place, SHARDS), Preemption(place.place)
    try:
        # The array alone makes half of the runs; the same line again does what is left.
        while watch() < total / 2:
            if over(array):
                array, calls = submit(place, SHARDS), calls + 1
            time.sleep(1)
        subprocess.run(["scancel", array], check=True)
        until(lambda: over(array), "the end of the array")
        by_array, head = watch(), Head(place)
        # The rest is the head's, which is lost under way.
        while watch() < total:
            if not head.killed and watch() >= total * 3 / 4 and head.at_work_on("train"):
                head.kill()
            elif head.process.poll() is not None:
                head.again()  # a run was cancelled more often than Snakemake has retries
            time.sleep(1)
    finally:
        preemption.over.set()
        preemption.join()
    minutes = (time.monotonic() - began) / 60
    assert head.killed == 1

    def reporting() -> bool:
        assert not list(place.tables.glob("*.parquet")), "the tables were made before the head could be lost"
        for job in preemption.jobs("PENDING"):
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)
        if head.process.poll() is not None:
            head.again()
        return head.at_work_on("archive") or head.at_work_on("tables_of_tier")

    until(reporting, "the job that makes the archive")
    head.kill()
    until(lambda: head.process.poll() is not None, "the tables")
    assert head.process.returncode == 0, "".join(head.said)[-5000:] + place.logs()
    beside.join()
    assert watch() == same_runs(other, place) == total
    assert same_tables(other, place) >= 9
    found = status.campaign(planned, place.place / "results")
    assert Counter(run.state for run in found.runs) == {"finished": total}
    outcomes = Counter(one.outcome for tries in past(place).values() for one in tries)
    print(f"{total} runs, {by_array} by {calls} arrays, {dict(preemption.count)} within {minutes:.1f} minutes,")
    print(f"{head.killed} heads lost, attempts {dict(outcomes)}, {(time.monotonic() - began) / 60:.1f} minutes in all")
    assert outcomes["complete"] >= total and sum(outcomes.values()) > total and sum(preemption.count.values()) >= 5
