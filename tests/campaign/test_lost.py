"""Jobs that a scheduler forgets, with stub commands in place of SLURM's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vaco.campaign import lost

CALL = "vaco_1234"
RUN = "Hopper-v5/none+clip/lag1/seed0/0123456789abcdef-v1"
COMMENT = f"rule_train_wildcards_{RUN.replace('/', '_')}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, SLURM's commands as stubs, ours before them."""
    (tmp_path / "slurm").mkdir()
    stub(tmp_path, "sbatch", "cat number")
    stub(tmp_path, "squeue", "cat queue")
    (tmp_path / "queue").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}:{os.environ['PATH']}")
    monkeypatch.setenv(lost.HERE, "")
    monkeypatch.setenv(lost.PATIENCE, "0")
    lost.install(tmp_path / "ours")
    return tmp_path


def stub(place: Path, name: str, script: str) -> None:
    (place / "slurm" / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / "slurm" / name).chmod(0o755)


def submit(place: Path, number: int, comment: str = COMMENT) -> str:
    (place / "number").write_text(f"{number};cluster\n")
    words = ["sbatch", "--parsable", "--job-name", CALL, "--comment", comment, "--wrap=true"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def query() -> dict[str, str]:
    """As the plugin asks."""
    words = ["squeue", "--format=%i|%T", "--states=all", "--noheader", "--name", CALL]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return dict(line.split("|") for line in out.splitlines())


def test_a_job_that_the_queue_knows_is_left_to_it(place: Path) -> None:
    assert submit(place, 7) == "7;cluster\n"
    (place / "queue").write_text("7|RUNNING\n8|PENDING\n")
    assert query() == {"7": "RUNNING", "8": "PENDING"}


@pytest.mark.parametrize(
    ("there", "said"),
    [(None, "FAILED"), ("manifest.json", "COMPLETED"), ("run.lock", None), ("run.json", "FAILED")],
)
def test_of_one_that_it_forgot_the_run_says_how_it_is(place: Path, there: str | None, said: str | None) -> None:
    submit(place, 7)
    (place / "queue").write_text("7|RUNNING\n")
    assert query() == {"7": "RUNNING"}
    if there:
        (place / "results/runs" / RUN).mkdir(parents=True)
        (place / "results/runs" / RUN / there).touch()
    (place / "queue").write_text("")
    assert query() == ({"7": said} if said else {})


def test_a_run_that_has_been_silent_for_long_is_lost(place: Path) -> None:
    submit(place, 7)
    lock = place / "results/runs" / RUN / "run.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert query() == {}
    os.utime(lock, (time.time() - 700, time.time() - 700))
    assert query() == {"7": "FAILED"}


def test_one_that_was_never_seen_is_lost_too_and_so_is_one_of_another_rule(place: Path) -> None:
    submit(place, 7)
    submit(place, 9, "rule_archive_wildcards_trial")
    assert query() == {"7": "FAILED", "9": "FAILED"}


def test_it_must_be_missing_for_a_while_and_one_that_comes_back_is_not_lost(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(place, 7)
    monkeypatch.setenv(lost.PATIENCE, "400")
    found = [list(lost.verdicts(CALL, known, now)) for known, now in ((set(), 0.0), (set(), 399.0), (set(), 400.0))]
    assert found == [[], [], [("7", "FAILED")]]
    assert not list(lost.verdicts(CALL, {"7"}, 500.0))
    assert not list(lost.verdicts(CALL, set(), 600.0)) and not list(lost.verdicts(CALL, set(), 999.0))
    assert list(lost.verdicts(CALL, set(), 1000.0))


def test_failures_and_other_questions_are_passed_through(place: Path) -> None:
    submit(place, 7)
    stub(place, "squeue", 'echo "$@"; echo oh >&2; exit 3')
    done = subprocess.run(["squeue", "--me", "--format=%i|%T", "--name", CALL], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"--me --format=%i|%T --name {CALL}\n", "oh\n")
    stub(place, "squeue", 'echo "$@"')
    assert subprocess.run(["squeue", "--me"], capture_output=True, text=True).stdout == "--me\n"
    (place / "slurm" / "squeue").unlink()
    done = subprocess.run([str(place / "ours/squeue")], capture_output=True, text=True, env=os.environ | {"PATH": ""})
    assert done.returncode == 127


def test_asking_costs_little(place: Path) -> None:
    """A look at the queue happens every minute, a submission 1,440 times: neither loads what training needs."""
    code = "import sys, vaco.campaign.lost; print(sorted({'torch', 'pyarrow', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
