"""Runs of language models are archived and verified like the others: whole, unaltered, of one code."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vaco import cli
from vaco.campaign.archives import from_folder
from vaco.campaign.kinds import CONTROL
from vaco.campaign.tiers import Tier
from vaco.campaign.verify import check_folder, kind_of_folder, verify_archive
from vaco.lm.config import build_lm
from vaco.lm.kind import KINDS, LANGUAGE, kind_of_tier, load_any_tier
from vaco.lm.tiers import LMTier, load_lm_tier

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))  # the helpers that invent runs

from folders import entry_of, reseal, rewrite, write_archive, write_run

TIER = """
tier: lm_mini
description: A tier for tests.
algorithms: [ppo, vaco]
minibatches: [1, 2]
lags: [1]
seeds: [0]
training: {updates: 8, eval_points: 2}
"""
ARCHIVE = Path("results/lm_mini/archive")


@pytest.fixture
def tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LMTier:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/lm_mini.yaml").write_text(TIER)
    return load_lm_tier("lm_mini")


@pytest.fixture
def run(tier: LMTier) -> Path:
    """One of the 4 good runs below `results/runs`."""
    return [write_run(run.config) for run in tier.runs][-1]


def test_good_runs_pass_as_folders_and_as_archive(tier: LMTier, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", "results"]) == 0
    assert "4 runs, 0 products: 0 errors, 0 warnings" in capsys.readouterr().out
    assert cli.run(["archive", "--tier", "lm_mini", "--out", str(ARCHIVE)]) == 0
    assert cli.run(["verify", "results/lm_mini"]) == 0
    assert "4 runs, 0 products: 0 errors, 0 warnings" in capsys.readouterr().out
    assert json.loads((ARCHIVE / "archive.json").read_text())["kind"] == "language"
    assert json.loads((ARCHIVE / "references.json").read_text()) == {}


def edit_table(folder: Path, name: str, **values: Any) -> None:
    frame = pd.read_parquet(folder / name)
    for column, value in values.items():
        frame.loc[1, column] = value
    frame.to_parquet(folder / name)


def swap(folder: Path) -> None:
    other = next(path for path in Path("results/runs").rglob("*-v1") if path != folder)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: edit_table(run, "evals.parquet", accuracy=0.9), "does not match its checksum"),
        (lambda run: (run / "evals.parquet").unlink(), "is missing"),
        (swap, "is the place of the run"),
        (
            lambda run: rewrite(run / "manifest.json", lambda r: r.update(schema=1, source_hash="0" * 64)),
            "training code that is no known version",
        ),
        (
            lambda run: rewrite(run / "manifest.json", lambda r: r["versions"].update(torch="1")),
            "error: results/runs: the runs mix versions of torch",
        ),
        (
            lambda run: rewrite(run / "manifest.json", lambda r: r["versions"].update(transformers="1")),
            "error: results/runs: the runs mix versions of transformers",
        ),
    ],
)
def test_damage_is_found_and_named(
    damage: Callable[[Path], object], words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run)
    assert cli.run(["verify", "results/runs"]) == 2
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("phases.parquet", {"update": 7}, "are not the 8 updates of the run in order"),
        ("evals.parquet", {"update": 3}, "does not hold the evaluation points"),
        ("evals.parquet", {"accuracy": 1.5}, "an accuracy that is not between 0 and 1"),
        ("evals.parquet", {"accuracy": float("nan")}, "an accuracy that is not between 0 and 1"),
    ],
)
def test_rows_are_read_behind_good_checksums(
    name: str, values: dict[str, Any], words: str, run: Path, tier: LMTier, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_table(run, name, **values)
    reseal(run)
    assert cli.run(["verify", "results/runs"]) == 2
    assert words in capsys.readouterr().out
    kept = [entry_of(planned.config) for planned in tier.runs if str(planned.config.run_id) != run.name]
    write_archive(tier, ARCHIVE, [*kept, from_folder(run, LANGUAGE)])
    (finding,) = verify_archive(ARCHIVE, tier, KINDS)[0]
    assert words in finding.text and finding.path.name == run.name


def test_a_smaller_archive_and_another_tier_are_noticed(tier: LMTier) -> None:
    write_archive(tier, ARCHIVE, [entry_of(run.config) for run in tier.runs[1:]])
    (finding,) = verify_archive(ARCHIVE, tier, KINDS)[0]
    assert "1 of the 4 runs of the tier 'lm_mini' are missing" in finding.text
    Path("config/lm_mini.yaml").write_text(TIER.replace("updates: 8", "updates: 8, learning_rate: 0.01"))
    texts = [finding.text for finding in verify_archive(ARCHIVE, load_any_tier("lm_mini"), KINDS)[0]]
    assert len(texts) == 4 and sum("asks for no such run" in text for text in texts) == 3


def test_both_kinds_of_tier_are_read_by_name(tier: LMTier) -> None:
    assert isinstance(load_any_tier("config/lm_mini.yaml"), LMTier) and kind_of_tier(tier) is LANGUAGE
    smoke = load_any_tier(Path(__file__).parents[2] / "config/smoke.yaml")
    assert isinstance(smoke, Tier) and kind_of_tier(smoke) is CONTROL and len(smoke.planned()) == 24
    assert build_lm({}).hash not in {run.config.hash for run in smoke.planned()}


def test_a_run_verified_alone_tells_its_kind(run: Path) -> None:
    assert kind_of_folder(run, KINDS) is LANGUAGE and kind_of_folder(Path("config"), KINDS) is CONTROL
    assert cli.run(["verify", str(run)]) == 0
    (finding,), _ = check_folder(run, CONTROL)
    assert "it is no run of MuJoCo policies" in finding.text
