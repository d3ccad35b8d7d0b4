"""Copies of the repository in which Snakemake works on SLURM, and the cluster it works on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vaco.campaign.tiers import load_tier

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "scripts" / "slurm-cluster.sh"
OMITTED = shutil.ignore_patterns("__pycache__", "*.egg-info")
PARTS = ("workflow", "profiles", "config", "src", "theory", "scripts")
# Set VACO_SLURM_TIER=smoke for the whole smoke tier, some twenty minutes on two cores.
TIER = os.environ.get("VACO_SLURM_TIER")
# Seconds that Snakemake may take. It only bounds a test that hangs: what the tests claim, they wait for by state, since
# a busy machine takes several times as long.
PATIENCE = float(os.environ.get("VACO_SLURM_TEST_PATIENCE", 3600 if TIER else 900))


def cluster(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(CLUSTER), command], capture_output=True, text=True)


def copy_repository(place: Path) -> None:
    """Copy what a workflow needs, once, so that an edit during the tests does not give two workplaces two sources."""
    place.mkdir(parents=True)
    for part in PARTS:
        shutil.copytree(ROOT / part, place / part, ignore=OMITTED)


class Workplace:
    """A copy of the repository, in which Snakemake works on the copy's own source."""

    def __init__(self, place: Path, tier: str, source: Path) -> None:
        self.place = place
        self.started: list[subprocess.Popen[str]] = []
        shutil.copytree(source, place)
        (place / "config" / "trial.yaml").write_text(tier)
        # The one file that a user edits, and the one line.
        profile = place / "profiles" / "slurm" / "config.yaml"
        text = profile.read_text()
        assert text.count("slurm_partition: PARTITION") == 1
        profile.write_text(text.replace("slurm_partition: PARTITION", "slurm_partition: test"))

    @property
    def runs(self) -> Path:
        return self.place / "results" / "runs"

    @property
    def tables(self) -> Path:
        return self.place / "build" / "results" / "trial" / "tables"

    def run(self, seed: int, name: str = "ppo", lag: int = 1, env: str = "InvertedPendulum-v5") -> str:
        """The path of a run's folder below `runs`."""
        return load_tier(self.place / "config" / "trial.yaml").find(env, name, lag, seed).config.place

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        # As in an activated environment: a script of ours calls `vaco`.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return inherited | {"PYTHONPATH": str(self.place / "src"), "OMP_NUM_THREADS": "1", "PATH": path}

    def append(self, text: str) -> None:
        """Add entries to the slurm profile."""
        with (self.place / "profiles" / "slurm" / "config.yaml").open("a") as stream:
            stream.write(text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake with the slurm profile, its polls shortened."""
        hurry = ["--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "4"]
        command = [sys.executable, "-m", "snakemake", *hurry, *arguments, "--config", "tier=trial", "runs=missing"]
        process = subprocess.Popen(
            [*command, "bootstrap={repetitions: 100}"],
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End every Snakemake that a failed test left at work; the cluster's jobs end with the cluster."""
        for process in self.started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def submit(self, *arguments: str) -> str:
        """Run Snakemake with the slurm profile to its end; what it printed."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said[-6000:] + self.logs()
        return said

    def locally(self, *arguments: str) -> None:
        """Run Snakemake without a cluster."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--cores",
            "2",
            *arguments,
            "--config",
            "tier=trial",
            "runs=missing",
        ]
        done = subprocess.run(
            [*command, "bootstrap={repetitions: 100}"],
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def logs(self) -> str:
        """The ends of all logs, for a message."""
        found = [*self.place.glob("logs/**/*.log"), *self.place.glob(".snakemake/slurm_logs/**/*.log")]
        return "".join(f"\n--- {path.relative_to(self.place)}\n{path.read_text()[-1500:]}" for path in found)

    def jobs(self) -> dict[str, list[tuple[str, str]]]:
        """(number, state) of every SLURM job of this folder, by the comment in which the plugin names rule and run."""
        done = subprocess.run(
            ["squeue", "--states=all", "--noheader", "--format=%A|%T|%Z|%k"], capture_output=True, text=True, check=True
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for line in done.stdout.splitlines():
            number, state, folder, comment = line.split("|", 3)
            if folder == str(self.place):
                found.setdefault(comment, []).append((number, state))
        return {comment: sorted(jobs, key=lambda job: int(job[0])) for comment, jobs in found.items()}


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.1)
