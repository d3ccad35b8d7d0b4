"""Snakemake on real SLURM daemons: a job that the scheduler forgets, and a run that is longer than its jobs may be."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from places import PATIENCE, Workplace, until
from test_array import LONG
from test_slurm import LONGER, PLENTY, comment, log, same_runs

from vaco.runs.attempts import Attempt, history

pytestmark = pytest.mark.slurm

# SLURM's own, but for the jobs whose numbers are in a file: of these it says nothing any more.
FORGETFUL = """#!/bin/sh
{real} "$@" | grep -v -E "^($(paste -s -d '|' {forgotten}))[|]" || true
"""


def past(place: Workplace, seed: int) -> list[Attempt]:
    return history(place.runs / place.run(seed))


def test_a_job_that_slurm_forgets_is_submitted_again(
    slurm: None, workplace: Callable[[str, str], Workplace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = LONGER.replace("seeds: [0, 1, 2, 3]", "seeds: [0, 1]").replace("steps: 61440", "steps: 204800")
    place, other = workplace("lost", tier), workplace("lost-local", tier)
    real = subprocess.run(["which", "squeue"], capture_output=True, text=True, check=True).stdout.strip()
    forgotten, stub = tmp_path / "forgotten", tmp_path / "bin" / "squeue"
    stub.parent.mkdir()
    forgotten.write_text("none\n")
    stub.write_text(FORGETFUL.format(real=real, forgotten=forgotten))
    stub.chmod(0o755)
    monkeypatch.setenv("VACO_LOST_AFTER", "5")
    place.append(PLENTY)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{stub.parent}:{path}")
    process = place.start("runs")
    monkeypatch.setenv("PATH", path)

    def training() -> bool:
        assert process.poll() is None, place.logs()
        return (place.runs / place.run(0) / "run.json").exists()

    until(training, "a run at work")
    (number, _), *_ = place.jobs()[comment(place, 0)]
    forgotten.write_text(f"{number}\n")
    subprocess.run(["scancel", "--signal=KILL", "--full", number], check=True)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said[-5000:] + place.logs()
    assert f"'{number}' failed, SLURM status is: 'FAILED'" in said, said[-3000:]
    assert len(place.jobs()[comment(place, 0)]) == 2 and len(place.jobs()[comment(place, 1)]) == 1
    first, second = past(place, 0)
    # What was killed first, the run or the shell about it, decides whether it could say a word.
    assert first.outcome in ("vanished", "stopped") and second.outcome == "complete" and first.job != second.job
    assert "attempt 2" in (place.runs / f"{place.run(0)}.log").read_text()
    other.locally("runs")
    assert same_runs(other, place) == 2


@pytest.mark.slow
def test_a_run_longer_than_its_jobs_costs_no_retry(slurm: None, workplace: Callable[[str, str], Workplace]) -> None:
    """With no retries at all, and a limit of two minutes that no attempt changes."""
    place, other = workplace("long", LONG), workplace("long-local", LONG)
    # Computed, so that it is not refused beforehand as being of no use.
    place.append('set-resources:\n  train:\n    runtime: "2 if attempt < 9 else 9"\n')
    beside = threading.Thread(target=other.locally, args=("runs",))
    beside.start()
    process = place.start("runs", "--retries", "0")
    said, _ = process.communicate(timeout=1800)
    beside.join()
    assert process.returncode == 0, said[-5000:] + place.logs()
    jobs, tries = place.jobs()[comment(place, 0)], past(place, 0)
    assert len(jobs) == 1 and jobs[0][1] == "COMPLETED", jobs
    assert len(tries) >= 2 and [one.outcome for one in tries] == ["stopped"] * (len(tries) - 1) + ["complete"]
    assert len({one.job for one in tries}) == 1 and len({one.call for one in tries}) == 1
    assert "asked to stop" in (place.runs / f"{place.run(0)}.log").read_text() and "resuming" in log(place, 0)
    assert same_runs(other, place) == 1
