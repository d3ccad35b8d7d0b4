"""A small study from Python: every combination once, in processes, and tables that say what each run was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vaco import UserError, load, sweep, train
from vaco.runs.tables import read_parquet

SMALL: dict[str, Any] = {"env": "CartPole-v1", "num_envs": 4, "phase_steps": 16, "minibatch": 32, "steps": 128}
SMALL |= {"hidden": (8,), "eval_points": 1, "eval_episodes": 1}


def test_a_study_of_two_methods_two_schedules_gives_data_frames(tmp_path: Path) -> None:
    """Ten lines, in a script without a guard against being imported, since every run is a process of its own."""
    script = tmp_path / "study.py"
    script.write_text(
        "from vaco import load, sweep\n"
        f"study = sweep('runs', algorithm=['vaco', 'ppo'], lag=[1, 'fifo:2'], seed=[3], **{SMALL!r})\n"
        "study.evals.to_csv('evals.csv', index=False)\n"
        "study.phases.to_csv('phases.csv', index=False)\n"
        "print(load(study.evals['run'].iloc[-1])([0, 0, 0, 0]))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    evals, phases = pd.read_csv(tmp_path / "evals.csv"), pd.read_csv(tmp_path / "phases.csv")
    assert evals.columns[:5].tolist() == ["env", "algorithm", "lag", "seed", "run"]
    assert len(evals) == 2 * 4 and len(phases) == 2 * 4 and evals["run"].nunique() == 4
    cells = evals.groupby(["algorithm", "lag", "seed"]).size()
    assert len(cells) == 4 and set(cells) == {2}
    assert set(evals["lag"].astype(str)) == {"1", "fifo:2"}
    for (algorithm, lag, seed), rows in phases.groupby(["algorithm", "lag", "seed"]):
        folder = tmp_path / rows["run"].iloc[0]
        config = json.loads((folder / "manifest.json").read_text())["config"]
        assert (config["algorithm"], config["seed"]) == (algorithm, seed)
        assert config["schedule"] == ("uniform" if str(lag) == "1" else "fifo:2") and config["hidden"] == [8]
        assert rows["value_loss"].tolist() == pytest.approx(read_parquet(folder / "phases.parquet")["value_loss"])


def test_a_run_trained_here_is_the_one_that_a_sweep_trains_and_both_are_read_again(tmp_path: Path) -> None:
    here = train(tmp_path / "one", lag=2, **SMALL)
    said: list[str] = []
    swept = sweep(tmp_path / "runs", lag=[2], learning_rate=[3e-4, 1e-3], say=said.append, **SMALL)
    assert len(said) == 2 and swept.evals.columns[:6].tolist() == [
        *("env", "algorithm", "lag", "seed", "learning_rate", "run")
    ]
    of_default = swept.phases[swept.phases["learning_rate"] == 3e-4].drop(columns="learning_rate")
    of_default = of_default.reset_index(drop=True).rename(columns={"learning_rate_of_phase": "learning_rate"})
    same = [name for name in here.phases if not name.endswith("seconds") and name != "run"]
    pd.testing.assert_frame_equal(here.phases[same], of_default[same])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    again = sweep(tmp_path / "runs", lag=[2], learning_rate=[3e-4, 1e-3], **SMALL)
    pd.testing.assert_frame_equal(again.evals, swept.evals)
    pd.testing.assert_frame_equal(train(tmp_path / "one", lag=2, **SMALL).evals, here.evals)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert load(tmp_path / "one")([0.0] * 4).shape == (1,)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"algorithm": ["vaco", "pp"]}, "unknown algorithm 'pp'|no algorithm 'pp'|'pp'"),
        ({"seed": []}, "seed is an empty list"),
        ({"lern_rate": [1]}, "lern_rate"),
        ({"jobs": 0}, "jobs is 0, but at least one"),
        ({"algorithm": "ppo", "delta": [0.1, 0.2]}, "delta is 0.1, but 'ppo' does not read it"),
        ({"imports": ["nowhere.rules"]}, "nowhere.rules"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(tmp_path: Path, settings: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sweep(tmp_path / "runs", **SMALL | settings)
    assert not (tmp_path / "runs").exists()


LOUD = """
import sys

import gymnasium


def make(broken=False):
    print("x" * 100_000, file=sys.stderr)
    if broken:
        raise RuntimeError("no luck")
    return gymnasium.make("CartPole-v1")
"""


def test_runs_that_say_much_end_as_others_do(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    settings = SMALL | {"env": "loud:make", "env_args": [("broken=true",), ()], "jobs": 2}
    (tmp_path / "study.py").write_text(f"from vaco import sweep\nsweep('runs', say=print, **{settings!r})\n")
    words = [sys.executable, "study.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ": complete" in done.stdout and "1 of 2 runs failed, the first" in done.stderr
    assert "(no luck)" in done.stderr


def test_as_many_runs_at_a_time_as_there_are_cores_where_the_system_tells_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[int] = []
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr("vaco.study._train_all", lambda commands, count, say: slots.append(count))
    monkeypatch.setattr("vaco.study._tables", lambda runs: None)
    sweep(tmp_path, **SMALL)
    assert slots == [3]


def test_a_run_that_fails_is_told_and_the_others_are_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 of 2 runs failed, the first .*unknown environment 'CartPole-v7'"):
        sweep(tmp_path / "runs", **SMALL | {"env": ["CartPole-v7", "CartPole-v1"]})
    assert len(list((tmp_path / "runs").rglob("policy.safetensors"))) == 1
