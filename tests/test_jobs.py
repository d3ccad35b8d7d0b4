"""How jobs are called: words of a command, what the environment tells them, and mistakes as one sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vaco import jobs
from vaco.campaign.tiers import load_tier
from vaco.errors import UserError
from vaco.runs import provenance

ROOT = Path(__file__).parents[1]


def test_the_words_of_a_command() -> None:
    got = jobs.words("vaco archive", tier="a b", seed=0, references=["x", "y"], none=[], anew=False, quiet=True)
    assert got == ["vaco", "archive", "--tier", "a b", "--seed", "0", "--references", "x", "y", "--quiet"]


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def twice(x: int, *, plus: int = 0) -> int:
        if x < 0:
            raise UserError("x is negative:\n give another")
        return 2 * x + plus

    said = jobs.say(twice)
    assert said(2, plus=1) == 5 and said.__wrapped__ is twice  # type: ignore[attr-defined]  # Snakemake looks there
    with pytest.raises(SystemExit) as end:
        said(-1)
    assert end.value.code == 2 and capsys.readouterr().err == "vaco: x is negative: give another\n"
    with pytest.raises(ZeroDivisionError):  # a mistake of ours is no sentence
        jobs.say(lambda: 1 // 0)()


def snakemake(method: str = "") -> SimpleNamespace:
    """What is read of Snakemake's own object."""
    methods = [SimpleNamespace(name=method)] if method else []
    return SimpleNamespace(deployment_settings=SimpleNamespace(deployment_method=methods))


def test_what_jobs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/usr/bin", "OMP_NUM_THREADS": "3"})
    monkeypatch.chdir(ROOT)
    jobs.prepare(load_tier("desk"))
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin" and os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["VACO_DISCARD_OTHER"] == "1" and float(os.environ["VACO_WAIT"]) > 600
    assert os.environ[provenance.PLANNED] == provenance.source_digest()
    assert os.environ["VACO_SOURCE"] == str(ROOT) and os.environ["VACO_ATTEMPTS"].startswith("snakemake-")
    assert "VACO_REQUEUE" not in os.environ
    os.environ[provenance.PLANNED] = "of the Snakemake that submitted this job"
    jobs.prepare(load_tier("desk"))
    assert os.environ[provenance.PLANNED] == "of the Snakemake that submitted this job"


def test_a_job_of_several_runs_does_not_queue_itself_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/usr/bin", "VACO_REQUEUE": "1", "VACO_ATTEMPTS": "of the call"})
    monkeypatch.chdir(ROOT)
    jobs.prepare(load_tier("desk"), ["snakemake", "--target-jobs", "train:run=a", "--cores", "1"])
    assert os.environ["VACO_REQUEUE"] == "1" and os.environ["VACO_ATTEMPTS"] == "of the call"
    jobs.prepare(load_tier("desk"), ["snakemake", "--target-jobs", "train:run=a", "train:run=b", "--cores", "2"])
    assert os.environ["VACO_REQUEUE"] == "0"


def test_a_container_that_is_asked_for_must_be_named() -> None:
    assert jobs.image("none", snakemake()) is None and jobs.image("a.sif", snakemake()) == "a.sif"
    assert jobs.image("a.sif", snakemake(method="APPTAINER")) == "a.sif"
    with pytest.raises(UserError, match="container=FILE"):
        jobs.image("none", snakemake(method="APPTAINER"))


def test_a_cluster_without_the_partition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sinfo", "sbatch", "srun", "squeue", "scancel"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'debug*|1:00:00'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def workflow(executor: str, partition: str) -> SimpleNamespace:
        resources = {"slurm_partition": SimpleNamespace(raw=partition)}
        return SimpleNamespace(
            executor_plugin=SimpleNamespace(name=executor),
            resource_settings=SimpleNamespace(default_resources=resources, overwrite_resources=None),
        )

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VACO_REQUEUE", raising=False)
    jobs.check_cluster(workflow("local", "gone"), None)
    assert "VACO_REQUEUE" not in os.environ
    jobs.check_cluster(workflow("slurm", "debug"), None)
    assert os.environ["VACO_REQUEUE"] == "1" and os.environ["PATH"].startswith(str(tmp_path / ".snakemake/queue"))
    monkeypatch.delenv("VACO_REQUEUE")
    monkeypatch.delenv("VACO_QUEUE")
    with pytest.raises(UserError, match="this cluster has no partition 'gone'"):
        jobs.check_cluster(workflow("slurm", "gone"), None)
