"""The workflow on real SLURM daemons: the same bits as without, whatever is cancelled, exceeded or killed on the way.

The clusters of others are not like this one: `profiles/slurm/README.md` says what is not tested here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from places import CLUSTER, PATIENCE, ROOT, TIER, Workplace, cluster, until

from vaco.runs.tables import read_parquet

pytestmark = pytest.mark.slurm

CLOCKS = {"wall_seconds", "collect_seconds", "align_seconds", "update_seconds"}
# What the tables make of them: times of a phase, and when a run was made.
CLOCKS |= {"collect_ms", "align_relative", "optimise_relative", "started", "finished"}
HEAD = """
tier: trial
description: A tier for tests.
environments: [InvertedPendulum-v5]
evaluation: {points: 2, episodes: 2}
reference: {episodes: 20, seed: 0}
"""
SMALL = HEAD + "algorithms: [ppo, vaco]\ncapacities: [1, 4]\nseeds: [0]\nsteps: 8192\n"
LONGER = HEAD + "algorithms: [ppo]\ncapacities: [1]\nseeds: [0, 1, 2, 3]\nsteps: 61440\n"
# On a busy machine a job needs minutes to start, so the rules' limits are lifted to the partition's.
PLENTY = "set-resources:\n  train:\n    runtime: 60\n"
# Attempt 1 of seed 1 gets less memory than a run needs.
TRAPS = PLENTY + """    mem_mb: "300 if ('/seed1/' in wildcards.run and attempt == 1) else 1000"\n"""


def same_runs(one: Workplace, other: Workplace) -> int:
    """Compare all runs bit for bit, clocks apart; how many there are."""
    folders = sorted(path.parent.relative_to(one.runs) for path in one.runs.rglob("manifest.json"))
    assert folders == sorted(path.parent.relative_to(other.runs) for path in other.runs.rglob("manifest.json"))
    for folder in folders:
        mine, theirs = one.runs / folder, other.runs / folder
        assert {path.name for path in mine.iterdir()} == {path.name for path in theirs.iterdir()}
        assert (mine / "policy.safetensors").read_bytes() == (theirs / "policy.safetensors").read_bytes()
        for name in ("phases.parquet", "evals.parquet"):
            left, right = read_parquet(mine / name), read_parquet(theirs / name)
            assert list(left) == list(right)
            for column in set(left) - CLOCKS:
                assert left[column].tobytes() == right[column].tobytes(), f"{folder}/{name}: {column}"
    return len(folders)


def same_tables(one: Workplace, other: Workplace) -> int:
    """Compare the tier's tables, clocks apart; how many there are."""
    tables = sorted(path.name for path in one.tables.glob("*.parquet"))
    assert tables == sorted(path.name for path in other.tables.glob("*.parquet"))
    for name in tables:
        left, right = (pd.read_parquet(place.tables / name) for place in (one, other))
        pd.testing.assert_frame_equal(
            left.drop(columns=CLOCKS, errors="ignore"), right.drop(columns=CLOCKS, errors="ignore"), check_exact=True
        )
    return len(tables)


def comment(place: Workplace, seed: int) -> str:
    """How the plugin names the job of a run of PPO."""
    return f"rule_train_wildcards_{place.run(seed).replace('/', '_')}"


def comment_of(place: Workplace, manifest: Path) -> str:
    return f"rule_train_wildcards_{manifest.parent.relative_to(place.runs).as_posix().replace('/', '_')}"


def processes(place: Workplace, seed: int) -> list[int]:
    """The `vaco train` processes of a run of this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                inside = (entry / "cwd").readlink() == place.place
            except OSError:
                continue
            ours = inside and b"--run-id" in words and any(f"/seed{seed}/".encode() in word for word in words)
            if ours and Path(words[0].decode()).name.startswith("python"):
                found.append(int(entry.name))
    return found


def log(place: Workplace, seed: int) -> str:
    return (place.place / f"logs/train/{place.run(seed)}.log").read_text()


@pytest.fixture(scope="module")
def undisturbed(workplace: Callable[[str, str], Workplace]) -> Workplace:
    """The runs that get disturbed, made here without a cluster."""
    place = workplace("undisturbed", LONGER)
    place.locally("runs")
    return place


class Disturbance(threading.Thread):
    """Snakemake at work on runs that are disturbed, beside other tests, since most of its time is waiting."""

    def __init__(self, place: Workplace) -> None:
        super().__init__(daemon=True)
        self.place = place
        place.append(TRAPS)
        self.process = place.start("runs")
        self.said = ""
        self.problem: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            until(self.done, "the runs to disturb")
        except BaseException as problem:
            self.problem = problem
        self.said, _ = self.process.communicate()

    def done(self) -> bool:
        """Cancel seed 0 and stop seed 2 once they train; whether both were met."""
        assert self.process.poll() is None, self.place.logs()
        self.cancelled = self.cancelled or self.cancel()
        self.stalled = self.stalled or self.stall()
        return self.cancelled and self.stalled

    cancelled = stalled = False

    def cancel(self) -> bool:
        for number, state in self.place.jobs().get(comment(self.place, 0), []):
            if state == "RUNNING" and self.trains(0):
                subprocess.run(["scancel", number], check=True)
                return True
        return False

    def stall(self) -> bool:
        """A run that hangs is what a time limit is for, here one that is over at once: SIGCONT and SIGTERM follow."""
        for number, state in self.place.jobs().get(comment(self.place, 2), []):
            for pid in processes(self.place, 2):
                if state == "RUNNING" and self.trains(2):
                    os.kill(pid, signal.SIGSTOP)
                    subprocess.run(["scontrol", "update", f"JobId={number}", "TimeLimit=1"], check=True)
                    return True
        return False

    def trains(self, seed: int) -> bool:
        return (self.place.runs / self.place.run(seed) / "run.json").exists()

    def finish(self) -> str:
        """Wait for the end; what Snakemake said."""
        self.join(PATIENCE)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            self.join(60)
        if self.problem is not None:
            raise self.problem
        return self.said


@pytest.fixture(scope="module")
def disturbance(slurm: None, workplace: Callable[[str, str], Workplace]) -> Disturbance:
    return Disturbance(workplace("disturbed", LONGER))


def test_the_cluster_is_idempotent_and_refuses_a_strange_configuration(slurm: None, tmp_path: Path) -> None:
    assert "already up" in cluster("up").stdout
    done = subprocess.run(
        [str(CLUSTER), "up"],
        env={**os.environ, "VACO_SLURM_DIR": str(tmp_path / "other")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "is not ours" in done.stderr and not (tmp_path / "other").exists()
    assert cluster("status").returncode == 0


def test_what_the_cluster_would_refuse_is_one_sentence(slurm: None, workplace: Callable[[str, str], Workplace]) -> None:
    place = workplace("mistakes", SMALL)
    profile = place.place / "profiles" / "slurm" / "config.yaml"
    good = profile.read_text()

    def said(text: str, tier: str, **environment: str) -> str:
        profile.write_text(text)
        command = [sys.executable, "-m", "vaco", "doctor", "--quick", "--profile", "profiles/slurm", "--tier", tier]
        done = subprocess.run(
            command, cwd=place.place, env=place.environment | environment, capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stdout, done.stderr
        return done.stderr

    assert "names no partition" in said(good.replace("slurm_partition: test", ""), "trial")
    assert "names no partition" in said(good.replace("slurm_partition: test", "slurm_partition: PARTITION"), "trial")
    assert "did you mean 'test'" in said(good.replace("slurm_partition: test", "slurm_partition: tset"), "trial")
    assert "allows 60: write job_minutes: 60" in said(good, "paper")
    assert "at least 5" in said(good + "set-resources: {train: {runtime: 4}}\n", "trial")
    assert "no sbatch" in said(good, "trial", PATH=str(Path(sys.executable).parent))
    # Snakemake itself asks the same before it submits anything.
    profile.write_text(good.replace("slurm_partition: test", "slurm_partition: tset"))
    process = place.start("runs")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and "did you mean 'test'" in output and "Traceback" not in output
    assert not place.jobs() and not place.runs.exists()


def test_every_run_is_a_job_and_its_tables_are_those_of_a_local_run(
    slurm: None, disturbance: Disturbance, workplace: Callable[[str, str], Workplace]
) -> None:
    text = (ROOT / f"config/{TIER}.yaml").read_text().replace(f"tier: {TIER}", "tier: trial") if TIER else SMALL
    remote, local = workplace("remote", text), workplace("local", text)
    remote.append(PLENTY)
    # Snakemake dies when some runs have finished and others are at work; its jobs run on.
    killed = remote.start("tables", "--jobs", "2")

    def midway() -> bool:
        states = [jobs[-1][1] for run, jobs in remote.jobs().items() if run.startswith("rule_train")]
        return "COMPLETED" in states and "RUNNING" in states

    until(midway, "a finished run and one at work")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    recovery = subprocess.run(
        [sys.executable, "scripts/slurm-recover.py"],
        cwd=remote.place,
        env=remote.environment,
        capture_output=True,
        text=True,
    )
    assert recovery.returncode == 0 and "run the same snakemake command" in recovery.stdout, recovery.stderr
    before = remote.jobs()
    manifests = {path: path.stat().st_mtime_ns for path in remote.runs.rglob("manifest.json")}
    finished = {
        path: when for path, when in manifests.items() if before[comment_of(remote, path)][-1][1] == "COMPLETED"
    }
    assert finished and all(state != "RUNNING" for jobs in before.values() for _, state in jobs)
    remote.submit("tables")
    local.locally("tables")
    assert same_runs(local, remote) == len(list(local.runs.rglob("manifest.json"))) >= 4
    assert same_tables(local, remote) >= 9
    # What had finished was neither trained nor submitted again.
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    after = remote.jobs()
    for manifest in remote.runs.rglob("manifest.json"):
        run = comment_of(remote, manifest)
        if manifest in finished:
            assert after[run] == before[run] and len(after[run]) == 1
        else:
            # One that was cancelled as it finished is kept, and not submitted again.
            assert after[run][-1][1] == "COMPLETED" or manifest in manifests, after
            assert len(after[run]) <= 2, after


def test_cancelled_out_of_memory_and_out_of_time_end_with_the_same_bits(
    slurm: None, disturbance: Disturbance, undisturbed: Workplace
) -> None:
    """Four runs: seed 0 is cancelled, seed 1 exceeds its memory, seed 2 its time, seed 3 is left alone."""
    said, place = disturbance.finish(), disturbance.place
    assert disturbance.process.returncode == 0, said[-5000:] + place.logs()
    assert same_runs(undisturbed, place) == 4
    jobs = place.jobs()
    states = {seed: [state for _, state in jobs[comment(place, seed)]] for seed in range(4)}
    assert states[0][0] == "CANCELLED" and states[2][0] == "TIMEOUT", states
    # SLURM 22.05 reports FAILED for what its own poll killed, see shared facts.
    assert states[1][0] in ("FAILED", "OUT_OF_MEMORY") and len(states[1]) >= 2, states
    assert all(found[-1] == "COMPLETED" for found in states.values()), states
    assert states[3] == ["COMPLETED"], "a run that nobody disturbed was submitted twice"
    # The cancelled and the stalled run had time to save, and went on from there.
    for seed in (0, 2):
        assert "resuming" in log(place, seed), log(place, seed)
