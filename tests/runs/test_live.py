"""Rows as they are made: complete up to the last one, the same after a resumption, and gone when the run is done."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaco.control import train as training
from vaco.control.train import train
from vaco.errors import UserError
from vaco.runs import live
from vaco.runs.config import RunConfig, build
from vaco.runs.lock import STALE_AFTER
from vaco.runs.preemption import Preempted
from vaco.runs.status import curves, status_of
from vaco.runs.tables import read_parquet

COLUMNS = {"phases": ("phase", "x"), "evals": ("env_steps", "mean")}
SMALL = {"env": "InvertedPendulum-v5", "num_envs": 4, "phase_steps": 32, "minibatch": 64, "steps": 640, "lag": 2}
SMALL |= {"eval_points": 2, "eval_episodes": 1}


def config(**settings: Any) -> RunConfig:
    return build(SMALL | settings)


class Stop:
    """In place of `termination_noticed`: a signal comes after so many questions."""

    def __init__(self, after: int) -> None:
        self.left = 2 * after  # asked twice a phase

    def __enter__(self) -> Any:
        def asked() -> bool:
            self.left -= 1
            return self.left < 2

        return asked

    def __exit__(self, *_: object) -> None:
        return None


def test_rows_are_there_as_soon_as_they_are_made(tmp_path: Path) -> None:
    table = live.LiveTables(tmp_path, COLUMNS, pytest.fail)
    table.begin({"phases": [{"phase": 1, "x": 0.1}], "evals": []})
    table.row("phases", {"phase": 2, "x": float("nan")})
    table.row("evals", {"env_steps": 7, "mean": 1 / 3})
    text = (tmp_path / "phases.csv").read_text()
    assert text == "phase,x\n1,0.1\n2,nan\n"
    read = live.read_live(tmp_path / "phases.csv")
    np.testing.assert_array_equal(read["x"], [0.1, np.nan])
    assert live.read_live(tmp_path / "evals.csv")["mean"].tolist() == [1 / 3]
    with (tmp_path / "phases.csv").open("a") as torn:
        torn.write("3,0.")
    assert live.read_live(tmp_path / "phases.csv")["phase"].tolist() == [1, 2]
    table.close()


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "phases.csv").write_text("")
    assert live.read_live(tmp_path / "phases.csv") == {}
    with pytest.raises(UserError, match="cannot read"):
        live.read_live(tmp_path / "nowhere.csv")


def test_a_full_disk_ends_the_showing_and_not_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    table = live.LiveTables(tmp_path, COLUMNS, said.append)
    table.begin({"phases": [], "evals": []})
    with Path("/dev/full").open("w") as full:
        table._files["phases"] = full
        table.row("phases", {"phase": 1, "x": 2.0})
    table.row("phases", {"phase": 2, "x": 2.0})
    table.close()
    assert len(said) == 1 and "the run itself goes on" in said[0]


def test_a_run_that_is_stopped_and_resumed_shows_what_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[str]] = {}

    def keep(name: str) -> None:
        rows = (tmp_path / name / "phases.csv").read_text().splitlines()
        shown[name] = [",".join(row.split(",")[:2] + row.split(",")[5:20]) for row in rows]  # clocks apart

    finish = training._finish
    for name, stops in (("whole", ()), ("stopped", (2, 1))):
        for after in stops:
            monkeypatch.setattr(training, "termination_noticed", lambda after=after: Stop(after))
            with pytest.raises(Preempted):
                train(config(), tmp_path / name, quiet=True)
            assert status_of(tmp_path / name).state == "stopped"
            with (tmp_path / name / "phases.csv").open("a") as more:
                more.write("99,99\n98")  # what a killed process may leave beyond its checkpoint
        monkeypatch.undo()
        monkeypatch.setattr(training, "_finish", lambda *a, name=name: (keep(name), finish(*a)))
        train(config(), tmp_path / name, quiet=True)
        assert not (tmp_path / name / "phases.csv").exists()
    assert shown["whole"] == shown["stopped"] and len(shown["whole"]) == 1 + 5
    phases, evals = curves(tmp_path / "whole")
    assert phases["phase"].tolist() == [1, 2, 3, 4, 5] and len(evals["mean"]) == 3


def test_a_diverged_run_leaves_its_curves_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    advance = training.Run.advance

    def diverge(run: Any) -> Any:
        if run.phase == 3:
            raise UserError("the gradient is no longer finite")
        return advance(run)

    monkeypatch.setattr(training.Run, "advance", diverge)
    with pytest.raises(UserError, match=r"stopped in phase 4 .*its rows so far are in"):
        train(config(), out, quiet=True)
    found = status_of(out)
    assert (found.state, found.steps, found.of) == ("diverged", 384, 640) and "no longer finite" in found.line()
    assert curves(out)[0]["phase"].tolist() == [1, 2, 3]
    monkeypatch.undo()
    with pytest.raises(UserError, match="of another configuration"):
        train(config(seed=1), out, quiet=True)
    train(config(), out, quiet=True)
    assert {path.name for path in out.iterdir()} == {
        *("manifest.json", "phases.parquet", "evals.parquet", "policy.safetensors")
    }


def test_status_knows_running_silent_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    out, states = tmp_path / "run", []
    advance = training.Run.advance

    def look(run: Any) -> Any:
        row = advance(run)
        if run.phase == 3:
            states.append(status_of(out))
            old = time.time() - STALE_AFTER - 60
            os.utime(out / "run.lock", (old, old))
            states.append(status_of(out))
        return row

    monkeypatch.setattr(training.Run, "advance", look)
    train(config(), out, quiet=True)
    running, silent = states
    assert (running.state, running.steps, running.of) == ("running", 256, 640) and running.rate > 0
    assert np.isfinite(running.score) and "steps/s" in running.line() and "40 %" in running.line()
    assert silent.state == "silent" and "11 min" in silent.note
    done = status_of(out)
    assert (done.state, done.steps, done.of, done.env) == ("complete", 640, 640, "InvertedPendulum-v5")
    with pytest.raises(UserError, match="holds no run"):
        status_of(tmp_path)


def test_csv_stays_below_log_and_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    train(config(), tmp_path / "run", quiet=True, log=["csv"])
    rows = live.read_live(tmp_path / "run" / "log" / "csv" / "phases.csv")
    final = read_parquet(tmp_path / "run" / "phases.parquet")
    assert list(rows) == list(final)
    for name in rows:
        np.testing.assert_array_equal(rows[name].astype(final[name].dtype), final[name])
    train(config(), tmp_path / "run", quiet=True)  # complete: nothing to do, nothing in the way
    with pytest.raises(UserError, match="no logger 'tensorbord': did you mean 'tensorboard'"):
        train(config(), tmp_path / "other", quiet=True, log=["tensorbord"])
    assert not (tmp_path / "other").exists()


def test_tensorboard_has_every_row(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config(), tmp_path / "run", quiet=True, log=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "run" / "log" / "tensorboard"))
    events.Reload()
    lag = events.Scalars("phases/backward_lag")
    assert [point.step for point in lag] == [128, 256, 384, 512, 640]
    final = read_parquet(tmp_path / "run" / "phases.parquet")["backward_lag"]
    np.testing.assert_allclose([point.value for point in lag], final, rtol=1e-6)
    assert [point.step for point in events.Scalars("evals/mean")] == [0, 384, 640]


def test_a_missing_logger_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vaco import cli

    monkeypatch.setitem(sys.modules, "wandb", None)
    words = [f"--set={name}={value}" for name, value in SMALL.items()]
    assert cli.run(["train", "--out", str(tmp_path / "run"), "--quiet", "--log", "wandb", *words]) == 2
    assert 'this needs wandb, which is not installed: pip install "vaco[log]"' in capsys.readouterr().err
