"""Finished runs that today's code or settings would not make again are found, counted and named."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from vaco import cli
from vaco.runs.kinds import CONTROL
from vaco.runs.provenance import training_hash
from vaco.runs.stale import Stale, recorded, refusal, stale_runs, unrecorded
from vaco.runs.tiers import Tier, load_tier

TIER = """
tier: t
description: For tests.
environments: [Hopper-v5]
algorithms: [ppo, vaco]
capacities: [1]
seeds: [0, 1]
steps: 20480
evaluation: {points: 4, episodes: 2}
reference: {episodes: 10, seed: 0}
"""


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    """Four finished runs in ``results``, all made by the code that is installed."""
    (tmp_path / "t.yaml").write_text(TIER)
    tier = load_tier(tmp_path / "t.yaml")
    asked = CONTROL.asked(tier)
    for spec in tier.runs():
        config = asked[spec.folder].resolved()
        record = {
            "identity": {name: config[name] for name in ("env", "algorithm", "lag", "seed", "steps")},
            "config": config,
            "config_hash": asked[spec.folder].hash,
            "source_hash": training_hash(spec.algorithm),
        }
        folder = tmp_path / "results" / spec.folder
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(record))
    return tier


def change(manifest: Path, **entries: Any) -> None:
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | entries))


def test_runs_of_this_code_and_these_settings_are_not_stale(tier: Tier, tmp_path: Path) -> None:
    assert stale_runs(tier, CONTROL, tmp_path / "results") == []


def test_code_and_settings_that_differ_are_found_and_named(
    tier: Tier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "results/t/runs/Hopper-v5"
    change(runs / "vaco/lag1/seed0/manifest.json", source_hash="f" * 64)
    config = json.loads((runs / "ppo/lag1/seed1/manifest.json").read_text())["config"]
    change(runs / "ppo/lag1/seed1/manifest.json", config=config | {"epochs": 3}, config_hash="0" * 16)
    (runs / "ppo/lag1/seed0/manifest.json").write_text("no JSON: a matter for vaco verify")
    found = stale_runs(tier, CONTROL, tmp_path / "results")
    here = training_hash("vaco")[:12]
    assert {str(run.folder.relative_to(runs)): run.reason for run in found} == {
        "vaco/lag1/seed0": f"code of vaco ffffffffffff there and {here} here",
        "ppo/lag1/seed1": "epochs 3 there and 10 here",
    }
    assert cli.run(["stale", "--tier", str(tmp_path / "t.yaml"), "--results", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out.split() == [f"{run.folder}/manifest.json" for run in found]


def test_a_folder_that_is_not_there_does_not_read_as_nothing_stale(
    tier: Tier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["stale", "--tier", str(tmp_path / "t.yaml"), "--results", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["manifest.json", "phases.parquet", "evals.parquet"])
def test_what_snakemake_made_itself_is_left_to_it(lost: str, tmp_path: Path) -> None:
    made, rescued = Path("results/t/runs/a"), Path("results/t/runs", "b" * 200)
    for name in ("manifest.json", "phases.parquet", "evals.parquet"):
        for folder in (made, rescued):
            coded = base64.urlsafe_b64encode(f"{folder}/{name}".encode()).decode()
            # As Snakemake does: a long name is split; and of the rescued run one file is not recorded.
            place = Path(f"@{coded[:254]}", coded[254:]) if len(coded) > 254 else Path(coded)
            if folder == made or name != lost:
                path = tmp_path / "metadata" / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
    files = recorded(tmp_path)
    assert f"{made}/manifest.json" in files and len(files) == 5 and f"{rescued}/{lost}" not in files
    assert unrecorded([Stale(made, "code"), Stale(rescued, "code")], files) == [Stale(rescued, "code")]
    assert recorded(tmp_path / "nowhere") == set()


def test_the_refusal_says_how_many_and_what_to_do() -> None:
    stale = [Stale(Path(str(i)), "code of vaco a there and b here") for i in range(5)]
    stale += [Stale(Path("x"), f"epochs {i} there and 1 here") for i in range(2, 6)]
    said = refusal(stale, "desk")
    assert said.startswith("9 finished runs of the tier 'desk'") and "code of vaco a there and b here in 5" in said
    assert "2 differences more" in said and "vaco stale --tier desk | xargs rm" in said and "redraw_only=true" in said
