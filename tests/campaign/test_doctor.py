"""What the doctor says of machines, allocations and clusters that are made up here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vaco import cli
from vaco.campaign import cluster, doctor, pace
from vaco.campaign.tiers import Tier, load_tier
from vaco.errors import UserError

TIER = """
tier: long
description: A tier for tests.
environments: [Hopper-v5]
algorithms: [ppo]
capacities: [1]
seeds: [0]
steps: 12000000
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
"""
ASKED = 10 + 600  # a start, and half as much again as 12M steps at 0.002 s
SLURM = {"executor": "slurm", "default-resources": {"slurm_partition": "long", "slurm_account": "me"}}


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "measured", lambda: {"Hopper-v5": 0.002})


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    (tmp_path / "long.yaml").write_text(TIER)
    return load_tier(tmp_path / "long.yaml")


def status(checks: list[doctor.Check], name: str) -> str:
    (check,) = (check for check in checks if check.name == name)
    return check.status


def test_it_reports_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--results", str(tmp_path / "results")]) == 0
    printed = capsys.readouterr().out
    for word in ("python", "torch", "mujoco", "backend", "cores", "memory", "disk", "locks", "repeats to the bit  yes"):
        assert word in printed
    assert list(tmp_path.iterdir()) == []


def test_other_versions_need_fixing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "3.3.7" if name == "mujoco" else real(name))
    checks = doctor.examine(tmp_path, train=False)
    assert status(checks, "mujoco") == "fix" and status(checks, "numpy") == "ok"


def test_a_full_disk_needs_fixing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = doctor.shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage)
    assert status(doctor.examine(tmp_path, train=False), "disk") == "fix"


def test_a_place_that_cannot_be_written_needs_fixing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(check.status == "fix" for check in doctor.examine(Path("/proc/results"), train=False))


def test_cores_of_an_affinity_a_container_and_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(32)))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "_cgroup_cores", lambda: None)
    assert doctor.cores() == (32, "the process's affinity")
    monkeypatch.setattr(doctor, "_cgroup_cores", lambda: 7.5)
    assert doctor.cores()[0] == 7
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert doctor.cores() == (2, "SLURM_CPUS_PER_TASK")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "400000", "cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_quotas_of_both_versions_of_cgroups(
    files: dict[str, str], found: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    places = {name: [str(tmp_path / name)] for name in files}
    monkeypatch.setattr(doctor, "_cgroup_files", lambda controller, name: places.get(name, []))
    assert doctor._cgroup_cores() == found


def test_too_little_memory_needs_fixing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "300")
    assert doctor.memory() == (300, "SLURM_MEM_PER_NODE")
    assert status(doctor.examine(tmp_path, train=False), "memory") == "fix"


def test_runs_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    count = 0

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        nonlocal count
        count += 1
        out = Path(command[command.index("--out") + 1])
        out.mkdir()
        (out / "policy.safetensors").write_text(str(count))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert doctor.repeats().status == "fix"
    monkeypatch.setattr(subprocess, "run", lambda c, **o: subprocess.CompletedProcess(c, 2, "", "vaco: no\n"))
    assert "vaco: no" in doctor.repeats().found


# --- Clusters


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30:00", 30), ("1:00:00", 60), ("2-00:00:00", 2880), ("1-12:30:00", 2190), ("infinite", None), ("n/a", None)],
)
def test_time_limits_are_read_as_slurm_prints_them(text: str, minutes: int | None) -> None:
    assert cluster.minutes(text) == minutes


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM that only answers `sinfo`."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("sbatch", "srun", "squeue", "sinfo", "scancel"):
        (place / name).write_text("#!/bin/sh\nexit 0\n")
        (place / name).chmod(0o755)
    answer(place, "short|30:00\nlong|2-00:00:00")
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    return place


def answer(commands: Path, partitions: str) -> None:
    (commands / "sinfo").write_text(f"#!/bin/sh\ncat <<'END'\n{partitions}\nEND\n")


def profile(partition: str | None, **more: object) -> dict[str, object]:
    given = {} if partition is None else {"slurm_partition": partition}
    return {"executor": "slurm", "default-resources": given, **more}


def test_a_profile_that_fits(commands: Path, tier: Tier) -> None:
    assert cluster.check(profile("long"), tier) == []
    assert cluster.check(profile("short,long"), tier) == []
    assert cluster.check({"executor": "slurm", "default-resources": ["slurm_partition='long'"]}, tier) == []
    assert cluster.check({"cores": "all"}, tier) == []


@pytest.mark.parametrize("partition", [None, "PARTITION", ""])
def test_a_cluster_that_needs_a_partition(partition: str | None, commands: Path, tier: Tier) -> None:
    (problem,) = cluster.check(profile(partition), tier)
    assert "names no partition" in problem and "short, long" in problem


def test_a_default_partition_is_enough_but_the_placeholder_is_not(commands: Path) -> None:
    answer(commands, "short*|30:00\nlong|2-00:00:00")
    assert cluster.check(profile(None)) == []
    assert len(cluster.check(profile("PARTITION"))) == 1


def test_the_time_limit_of_a_default_partition_counts(commands: Path, tier: Tier) -> None:
    answer(commands, "short*|30:00\nlong|2-00:00:00")
    (problem,) = cluster.check(profile(None), tier)
    assert f"asks for {ASKED} minutes" in problem and "partition 'short' allows 30" in problem


def test_of_several_partitions_one_without_a_limit_is_enough(commands: Path, tier: Tier) -> None:
    answer(commands, "short|30:00\nopen|infinite")
    assert cluster.check(profile("short,open"), tier) == []


def test_an_unknown_partition_names_the_nearest(commands: Path) -> None:
    (problem,) = cluster.check(profile("lonk"))
    assert "did you mean 'long'?" in problem


def test_time_limits(commands: Path, tier: Tier) -> None:
    (problem,) = cluster.check(profile("short"), tier)
    assert f"asks for {ASKED} minutes" in problem and "allows 30" in problem and "write job_minutes: 30" in problem
    (problem,) = cluster.check(profile("long", **{"set-resources": {"train": {"runtime": 4}}}), tier)
    assert "at least 5" in problem
    (problem,) = cluster.check(
        {"executor": "slurm", "default-resources": ["slurm_partition=long", "job_minutes=4"]}, tier
    )
    assert "at least 5" in problem
    # The advice, followed: of a run that takes longer there is a chain of jobs.
    for followed in ({"slurm_partition": "short", "job_minutes": 30}, ["slurm_partition='short'", "job_minutes=30"]):
        assert cluster.check({"executor": "slurm", "default-resources": followed}, tier) == []
    assert cluster.check(profile("short", **{"set-resources": {"train": {"runtime": 30}}}), tier) == []
    assert cluster.check(profile("short", **{"set-resources": ["train:runtime=30"]}), tier) == []
    # What is computed for each job cannot be checked beforehand; the rule's own time, which it replaces, is too long.
    assert cluster.check(profile("short", **{"set-resources": {"train": {"runtime": "attempt * 10"}}}), tier) == []


@pytest.mark.parametrize(
    ("spoken", "minutes"), [("2d", 2880), ("3h", 180), ("90 min", 90), (15, 15), ("1.5 h", 90), ("1w", 10080)]
)
def test_times_of_a_profile_are_read_as_snakemake_reads_them(spoken: str | int, minutes: float) -> None:
    assert cluster._set_runtime({"set-resources": {"train": {"runtime": spoken}}}) == minutes


def test_the_rule_and_the_check_agree_on_the_time(tier: Tier) -> None:
    """`Dag.minutes`, which the rule asks, and the check of a profile ask the same function."""
    (run,) = {run.config.steps: run for run in tier.runs()}.values()
    assert cluster.ask_minutes(run.config) == cluster.ask_minutes(tier) == ASKED
    assert cluster.ask_minutes(tier, 30) == cluster.ask_minutes(run.config, 30) == 30
    assert cluster.ask_minutes(tier, 10**6) == ASKED


def test_the_longest_job_of_a_profile_is_found_among_default_resources() -> None:
    class Resource:
        raw = "2h"

    assert cluster.longest({"job_minutes": Resource()}) == 120 and cluster.longest({"job_minutes": 30}) == 30
    assert cluster.longest({}) is None and cluster.longest(None) is None
    assert cluster.longest({"job_minutes": "input.size"}) is None


def test_without_a_cluster(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (commands / "sinfo").write_text("#!/bin/sh\necho 'slurm_load_partitions: Unable to contact' >&2\nexit 1\n")
    (problem,) = cluster.check(profile("long"))
    assert "does not answer sinfo (slurm_load_partitions: Unable to contact)" in problem
    (commands / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(commands))
    (problem,) = cluster.check(profile("long"))
    assert "no sbatch" in problem


@pytest.mark.parametrize("text", ["[", "text", "- list", "a: 2024-99-99", "a: !!bool x", "a: !!timestamp x", None])
def test_a_profile_that_cannot_be_read_is_one_sentence(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError):
        cluster.read_profile(tmp_path)


def test_resources_of_snakemake_become_plain() -> None:
    class Resource:
        raw = "long"

    assert cluster.plain({"a": Resource(), "b": 3, "c": lambda wildcards: 1}) == {"a": "long", "b": 3}
    assert cluster.plain(None) == {}


@pytest.mark.parametrize("name", ["slurm", "slurm-short", "default"])
def test_the_profiles_of_the_project_are_read_and_explained(name: str) -> None:
    root = Path(__file__).parents[2] / "profiles"
    found = cluster.read_profile(root / name)
    explained = (root / ("README.md" if name == "default" else "slurm/README.md")).read_text()
    assert found and all(f"`{key}`" in explained or f"`{key}:" in explained for key in found), "not explained"
    if name == "slurm":
        assert cluster._default(found, "slurm_partition") == cluster.EMPTY
        assert found["rerun-incomplete"] is True and "params" in found["rerun-triggers"]


def test_a_tier_without_a_profile_is_refused(tmp_path: Path, tier: Tier) -> None:
    with pytest.raises(UserError, match="give --profile"):
        doctor.examine(tmp_path, tier=tier, train=False)


def test_the_doctor_checks_a_profile(commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("executor: slurm\n")
    assert cli.run(["doctor", "--quick", "--results", str(tmp_path), "--profile", str(tmp_path)]) == 2
    assert "names no partition" in capsys.readouterr().err
