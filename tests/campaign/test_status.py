"""How far a campaign is: every state from what runs write, and the sums."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vaco import cli
from vaco.campaign import status
from vaco.campaign.tiers import Tier, load_tier
from vaco.lm.kind import load_any_tier
from vaco.runs import attempts
from vaco.runs.lock import STALE_AFTER, RunLock

ROOT = Path(__file__).parents[2]
TIER = """
tier: trial
description: A tier for tests.
environments: [Hopper-v5]
algorithms: [ppo, vaco, impala]
capacities: [1, 4]
seeds: [0, 1]
steps: 204800
evaluation: {points: 2, episodes: 1}
reference: {episodes: 20, seed: 0}
"""  # 12 runs of 100 phases of 2,048 steps


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    (tmp_path / "trial.yaml").write_text(TIER)
    return load_tier(tmp_path / "trial.yaml")


@pytest.fixture
def folders(tier: Tier, tmp_path: Path) -> list[Path]:
    found = [tmp_path / "results" / "runs" / run.config.place for run in tier.planned()]
    for folder in found:
        folder.mkdir(parents=True)
    return found


def checkpoint(folder: Path, phase: int, age: float) -> None:
    (folder / "checkpoints").mkdir(exist_ok=True)
    path = folder / "checkpoints" / f"checkpoint-{phase:012d}.safetensors"
    path.write_bytes(b"x" * 1000)
    os.utime(path, (time.time() - age, time.time() - age))


def finish(folder: Path, seconds: float) -> None:
    (folder / "manifest.json").write_text(json.dumps({"status": "complete", "wall_seconds": seconds}))


def ended(folder: Path, outcome: str, reason: str = "") -> None:
    lines = [
        {"event": "began", "attempt": "a", "call": "c", "progress": 0},
        {"event": "ended", "attempt": "a", "outcome": outcome, "reason": reason, "progress": 0},
    ]
    kept = lines if outcome != "vanished" else lines[:1]
    attempts.journal(folder).write_text("".join(json.dumps(line) + "\n" for line in kept))


def elsewhere(folder: Path, silent: float) -> None:
    """A lock of another machine, last touched so many seconds ago."""
    lock = folder / "run.lock"
    lock.write_text(json.dumps({"pid": 1, "host": "other", "boot": "x", "namespace": "y", "locked": True}))
    os.utime(lock, (time.time() - silent, time.time() - silent))


def test_every_state_is_told_from_the_others(tier: Tier, folders: list[Path], tmp_path: Path) -> None:
    finish(folders[0], 3600)
    held = RunLock(folders[1] / "run.lock")
    held.acquire()
    checkpoint(folders[1], 20, age=30)
    checkpoint(folders[1], 40, age=10)
    elsewhere(folders[2], silent=200)
    elsewhere(folders[3], silent=STALE_AFTER + 1)
    checkpoint(folders[3], 50, age=700)
    ended(folders[4], "refused", "the disk is full")
    ended(folders[5], "vanished")
    ended(folders[6], "stopped", "asked to stop")
    ended(folders[7], "held", "in use")
    dead = folders[8] / "run.lock"
    dead.write_text(json.dumps({**json.loads((folders[1] / "run.lock").read_text()), "pid": 2**22 + 1}))
    (folders[9] / "run.lock").write_text("torn")
    found = status.campaign(tier, tmp_path / "results")
    states = [run.state for run in found.runs]
    assert states == [
        *("finished", "running", "running", "waiting", "failed", "failed"),
        *("waiting", "waiting", "waiting", "running", "waiting", "waiting"),
    ]
    first, reasons = found.runs[1], [run.reason for run in found.of("failed")]
    # 20 phases of 2,048 steps in 20 seconds, 60 phases to go.
    assert (
        first.done == 0.4 and first.rate == pytest.approx(2048, rel=0.01) and first.left == pytest.approx(60, rel=0.01)
    )
    assert reasons == ["the disk is full", status.KILLED]
    assert found.runs[2].silent == pytest.approx(200, abs=5) and found.runs[2].rate is None
    held.release()


def test_hours_are_those_that_finished_runs_took_and_of_the_others_in_proportion(
    tier: Tier, folders: list[Path], tmp_path: Path
) -> None:
    finish(folders[0], 3600)
    finish(folders[1], 7200)
    finish(folders[2], 3600)
    checkpoint(folders[3], 50, age=10)  # half of it is done
    found = status.campaign(tier, tmp_path / "results")
    assert found.used_hours == pytest.approx(4 + 0.5)
    assert found.hours_to_go == pytest.approx(0.5 + 8)
    assert found.runs[3].size == 1000 and found.runs[4].size == 0


def test_without_finished_runs_hours_come_from_archives(tier: Tier, folders: list[Path], tmp_path: Path) -> None:
    found = status.campaign(tier, tmp_path / "results")
    assert found.hours_to_go == pytest.approx(12 * 204800 / 500 / 3600)  # nothing was ever measured here
    assert status.campaign(load_tier(ROOT / "config/desk.yaml"), ROOT / "results").hours_to_go == 0


def test_of_language_models_hours_come_from_their_own_tier_or_are_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step of another model, or of a MuJoCo policy, says nothing of theirs."""
    tier = load_any_tier(ROOT / "config/lm_smollm.yaml")
    shutil.copytree(ROOT / "results/desk/archive", tmp_path / "desk/archive")
    assert math.isnan(status.campaign(tier, tmp_path).hours_to_go)
    flags = ["status", "--tier", str(ROOT / "config/lm_smollm.yaml"), "--results", str(tmp_path)]
    assert cli.run(flags) == 0 and "how much to go is unknown" in capsys.readouterr().out
    assert cli.run([*flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["core_hours_to_go"] is None
    begun = tmp_path / "runs" / tier.planned()[0].config.place
    begun.mkdir(parents=True)
    checkpoint(begun, 48, age=10)
    found = status.campaign(tier, tmp_path)
    assert found.runs[0].done == 0.25 and found.used_hours == 0, "not counted, rather than NaN"
    shutil.copytree(ROOT / "results/lm_smollm/archive", tmp_path / "own/lm_smollm/archive")
    found = status.campaign(tier, tmp_path / "own")
    one = replace(found.runs[0], state="waiting", done=0.0)
    assert found.hours_to_go == 0 and 0.1 < replace(found, runs=(one,)).hours_to_go < 1


def test_the_screen_and_the_machine_readable_form(
    tier: Tier, folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(folders[0], 3600)
    elsewhere(folders[1], silent=300)
    for folder in folders[2:5]:
        ended(folder, "refused", f"{folder} cannot be written, the disk is full")
    flags = ["status", "--tier", str(tmp_path / "trial.yaml"), "--results", str(tmp_path / "results")]
    assert cli.run(flags) == 0
    said = capsys.readouterr().out
    assert "finished         1" in said and "failed           3" in said and "silent for 5.0 min" in said
    assert (
        said.count("3 x ") == 1 and str(attempts.log(folders[2])) in said and str(attempts.log(folders[3])) not in said
    )
    assert cli.run([*flags, "--all"]) == 0 and str(attempts.log(folders[3])) in capsys.readouterr().out
    assert cli.run([*flags, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["totals"]["failed"] == 3 and len(content["runs"]) == 12


def test_without_a_tier_all_folders_are_looked_at(tier: Tier, folders: list[Path], tmp_path: Path) -> None:
    config = tier.planned()[0].config.resolved()
    (folders[0] / "run.json").write_text(json.dumps({"config": config}))
    checkpoint(folders[0], 25, age=1)
    (folders[1] / "manifest.json").write_text(json.dumps({"config": config, "wall_seconds": 7}))
    (folders[2] / "run.json").write_text(json.dumps({"config": {"task": "chain_sum", "updates": 10}}))
    found = status.folders(tmp_path / "results")
    assert {run.state: run.done for run in found.runs if run.task == "Hopper-v5"} == {"waiting": 0.25, "finished": 1.0}
    assert len(found.runs) == 3
    assert cli.run(["status", "--results", str(tmp_path / "nowhere")]) == 2


def test_1440_runs_are_looked_at_in_a_second(tmp_path: Path) -> None:
    tier = load_tier(ROOT / "config/paper.yaml")
    planned = tier.planned()
    for number, run in enumerate(planned):
        folder = tmp_path / "runs" / run.config.place
        folder.mkdir(parents=True)
        if number % 3 == 0:
            finish(folder, 7.0)
        elif number % 3 == 1:
            elsewhere(folder, 10)
            checkpoint(folder, 10, 20)
            checkpoint(folder, 20, 1)
        else:
            ended(folder, "refused", "no")
    began = time.process_time()
    found = status.campaign(tier, tmp_path)
    took = time.process_time() - began
    assert [len(found.of(state)) for state in ("finished", "running", "failed")] == [480, 480, 480]
    assert took < 4, took  # a second where the machine is quiet; processor time, but that grows, too, on a busy one
