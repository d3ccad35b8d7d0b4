"""The journal of attempts: what it says of each way to end, and what is concluded from it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vaco.errors import UserError
from vaco.runs import attempts, preemption
from vaco.runs.attempts import Attempt, fruitless, history, hungry, recorded
from vaco.runs.lock import HeldError
from vaco.runs.preemption import Preempted


@pytest.fixture(autouse=True)
def call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(attempts.CALL, "one")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def attempt(outcome: attempts.Outcome, before: int = 0, after: int | None = None, job: str = "") -> Attempt:
    return Attempt("", "one", job, before, after, outcome, "")


def checkpoint(folder: Path, progress: int) -> None:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / f"checkpoint-{progress:012d}.safetensors").touch()


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (None, "complete"),
        (Preempted("asked"), "stopped"),
        (HeldError("in use"), "held"),
        (UserError("a sentence"), "refused"),
        (KeyboardInterrupt(), "interrupted"),
        (ZeroDivisionError("no"), "crashed"),
    ],
)
def test_every_end_is_written_down(tmp_path: Path, end: BaseException | None, outcome: str) -> None:
    folder = tmp_path / "a" / "run"

    def attempt() -> None:
        with recorded(folder):
            checkpoint(folder, 7)
            print("something", file=sys.stderr)
            if end is not None:
                raise end

    if end is None:
        attempt()
    else:
        with pytest.raises(type(end)):
            attempt()
    (found,) = history(folder)
    assert (found.outcome, found.before, found.after, found.call) == (outcome, 0, 7, "one")
    assert found.reason == ("" if end is None else str(end) or type(end).__name__)
    text = attempts.log(folder).read_text()
    assert text.startswith("--- attempt 1: ") and "something\n" in text and outcome in text.splitlines()[-1]


def test_a_log_grows_by_attempts_and_can_be_read_while_one_is_at_work(tmp_path: Path) -> None:
    for number in (1, 2):
        with recorded(tmp_path / "run"):
            print(f"word {number}", file=sys.stderr)
            assert attempts.log(tmp_path / "run").read_text().endswith(f"word {number}\n")
            assert history(tmp_path / "run")[-1].outcome == "vanished"
    text = attempts.log(tmp_path / "run").read_text()
    assert text.index("word 1") < text.index("--- attempt 2") < text.index("word 2")


def test_without_a_call_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(attempts.CALL)
    with recorded(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == [] and history(tmp_path / "run") == []


def test_what_cannot_be_written_or_read_stops_nothing(tmp_path: Path) -> None:
    attempts.journal(tmp_path / "run").mkdir()
    attempts.log(tmp_path / "run").mkdir()
    with recorded(tmp_path / "run"):
        pass
    assert history(tmp_path / "run") == []
    torn = tmp_path / "torn"
    attempts.journal(torn).write_text('{"event": "began", "attempt": "a"}\n[1]\n\xff{"eve\n', encoding="latin-1")
    assert [one.outcome for one in history(torn)] == ["vanished"]


def slow_fruitless(past: list[Attempt], now: int) -> int:
    """By the words: the longest tail of failures in which nothing was gained."""
    failures = [one for one in past if one.outcome not in ("stopped", "held")]
    best = 0
    for length in range(1, len(failures) + 1):
        tail = failures[-length:]
        if all(one.outcome != "complete" and one.before >= now for one in tail):
            best = length
    return best


@pytest.mark.parametrize(
    ("past", "now", "expected"),
    [
        ([], 0, 0),
        ([attempt("refused")] * 2, 0, 2),
        ([attempt("refused", 0, 0), attempt("stopped", 0, 4), attempt("refused", 4, 4)], 4, 1),
        ([attempt("vanished", 0), attempt("vanished", 3)], 5, 0),
        ([attempt("crashed", 5), attempt("held", 5), attempt("crashed", 5)], 5, 2),
        ([attempt("complete", 0), attempt("refused", 0)], 0, 1),
    ],
)
def test_only_attempts_without_progress_count(past: list[Attempt], now: int, expected: int) -> None:
    assert fruitless(past, "one", now) == expected == slow_fruitless(past, now)
    assert fruitless(past, "another", now) == 0


def test_after_three_without_progress_no_further_one_of_that_call_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with recorded(tmp_path / "run"):
            raise UserError("the disk is full")

    for _ in range(attempts.PATIENCE):
        with pytest.raises(UserError, match=r"^the disk is full$"):
            fail()
    with pytest.raises(UserError, match=r"3 attempts at .* the last with: the disk is full; mend that"):
        fail()
    assert len(history(tmp_path / "run")) == 3
    monkeypatch.setenv(attempts.CALL, "two")
    with recorded(tmp_path / "run"):
        pass


def test_memory_grows_with_attempts_that_were_killed_and_not_with_those_that_came_back() -> None:
    assert hungry([]) == 0
    assert hungry([attempt("stopped", job="1"), attempt("refused", job="2"), attempt("held", job="3")]) == 0
    assert hungry([attempt("vanished", job="1"), attempt("complete", job="1")]) == 0  # the scheduler took it back
    assert hungry([attempt("vanished", job="1"), attempt("vanished", job="2")]) == 2
    assert hungry([attempt("vanished"), attempt("complete")]) == 1


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A stub of SLURM's commands."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    preemption.deadline.cache_clear()

    def stub(name: str, script: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    yield stub
    preemption.deadline.cache_clear()


@pytest.mark.parametrize(
    ("left", "seconds"), [("1:40", 80), ("10:00", 480), ("1-02:00:00", 93480), ("UNLIMITED", None)]
)
def test_the_time_is_up_a_while_before_the_job_ends(
    scheduler: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, left: str, seconds: float | None
) -> None:
    scheduler("squeue", f"echo {left}")
    monkeypatch.setattr(preemption.time, "time", lambda: 1000.0)
    assert preemption.deadline() == float("inf")  # no scheduler
    preemption.deadline.cache_clear()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    expected = float("inf") if seconds is None else pytest.approx(1000 + seconds)
    assert preemption.deadline() == expected and not preemption.out_of_time()
    preemption.deadline.cache_clear()
    monkeypatch.setenv("VACO_DEADLINE", "1000")
    assert preemption.out_of_time()


def test_a_job_is_queued_again_only_when_its_time_is_up(
    scheduler: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler("scontrol", f'echo "$@" >> {tmp_path}/asked')
    monkeypatch.setattr(preemption.time, "sleep", lambda _: None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("VACO_DEADLINE", "9999999999")
    monkeypatch.setenv(preemption.REQUEUE, "1")
    assert preemption.requeue() is None and not (tmp_path / "asked").exists()  # cancelled, or preempted
    preemption.deadline.cache_clear()
    monkeypatch.setenv("VACO_DEADLINE", "1000")
    monkeypatch.delenv(preemption.REQUEUE)
    assert preemption.requeue() is None and not (tmp_path / "asked").exists()
    monkeypatch.setenv(preemption.REQUEUE, "1")
    assert preemption.requeue() is None
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    scheduler("scontrol", "echo denied >&2; exit 1")
    assert preemption.requeue() == "the job could not be queued again (denied)"


def test_journals_are_lines_of_json(tmp_path: Path) -> None:
    with recorded(tmp_path / "run"):
        pass
    lines = [json.loads(line) for line in attempts.journal(tmp_path / "run").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["began", "ended"] and lines[0]["attempt"] == lines[1]["attempt"]
