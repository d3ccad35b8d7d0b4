"""Runs of language models are verified like the others: whole, unaltered, in their place, of one code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from vaco.lm.verify import LANGUAGE, kind_of, load_any_tier

from vaco import cli
from vaco.lm.config import build_lm
from vaco.lm.tiers import LMTier, load_lm_tier
from vaco.report import lm_aggregate
from vaco.runs import provenance, tables
from vaco.runs.kinds import CONTROL
from vaco.runs.tiers import Tier
from vaco.runs.verify import run_folders, verify

TIER = """
tier: lm_mini
description: A tier for tests.
algorithms: [ppo, vaco]
minibatches: [1, 2]
lags: [1]
seeds: [0]
training: {updates: 8, eval_points: 2}
"""
RUN = Path("runs/chain_sum/vaco/lag1/n2/seed0")


def write_run(folder: Path, config: Any) -> None:
    """Files of a finished run that no training made."""
    folder.mkdir(parents=True)
    pd.DataFrame({"update": range(1, config.updates + 1), "reward": 0.5}).to_parquet(folder / "phases.parquet")
    points = [0, config.updates // 2, config.updates]
    pd.DataFrame({"update": points, "accuracy": [0.3, 0.4, 0.5]}).to_parquet(folder / "evals.parquet")
    manifest = provenance.manifest(
        identity=config.identity,
        config=config.resolved(),
        config_hash=config.hash,
        source_hash=provenance.language_hash(),
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00",
        wall_seconds=60.0,
        completed_steps=config.updates,
    )
    manifest["versions"]["transformers"] = "5"
    manifest |= {"warm_start": {"warm_accuracy": 0.3}, "parameters": 1000, "distinct_eval_problems": 9}
    manifest |= {"status": "complete", "checksums": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    reseal(folder)


def reseal(folder: Path) -> None:
    """Make the checksums those of the files, as a forger would."""
    names = ("phases.parquet", "evals.parquet")
    sums = {name: tables.sha256_file(folder / name) for name in names}
    rewrite(folder, lambda manifest: manifest["checksums"].update(sums))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LMTier:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/lm_mini.yaml").write_text(TIER)
    return load_lm_tier("lm_mini")


@pytest.fixture
def root(tier: LMTier) -> Path:
    """`results/lm_mini` with 4 good runs and the tables made of them."""
    for run in tier.runs:
        write_run(Path("results", run.folder), run.config)
    root = Path("results/lm_mini")
    lm_aggregate.write(json.loads(tier.plan()), root, root / "tables", allow_missing=False)
    return root


def test_a_good_tree_passes_and_its_tables_are_no_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", "results"]) == 0
    assert "4 runs, 0 products: 0 errors" in capsys.readouterr().out


def edit_table(root: Path, name: str, **values: Any) -> None:
    path = root / RUN / name
    frame = pd.read_parquet(path)
    for column, value in values.items():
        frame.loc[1, column] = value
    frame.to_parquet(path)


def swap(root: Path) -> None:
    (root / RUN).rename(root / "aside")
    shutil.copytree(root / "runs/chain_sum/vaco/lag1/n1/seed0", root / RUN)
    shutil.rmtree(root / "aside")


def test_a_variant_lies_under_a_name_that_begins_with_its_algorithm(root: Path) -> None:
    identity = tables.read_json(root / RUN / "manifest.json")["identity"]
    for name, misplaced in (("vaco-delta0.1", False), ("vacodelta", True), ("ppo-delta0.1", True)):
        place = root / str(RUN).replace("/vaco/", f"/{name}/")
        assert bool(list(LANGUAGE.misplaced(place, identity, "runs"))) == misplaced, name


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: edit_table(root, "evals.parquet", accuracy=0.9), "does not match its checksum"),
        (lambda root: (root / RUN / "evals.parquet").unlink(), "is missing"),
        (swap, "is the place of minibatches 2, but holds a run of minibatches 1"),
        (lambda root: shutil.rmtree(root / RUN), "1 of the 4 runs of the tier 'lm_mini' are missing"),
        (
            lambda root: shutil.copytree(root / RUN, root / RUN.with_name("seed7")),
            "the tier 'lm_mini' asks for no such run",
        ),
        (
            lambda root: rewrite(root / RUN, lambda manifest: manifest.update(source_hash="0" * 64)),
            "the runs of language models were made by several versions of the training code",
        ),
        (
            lambda root: rewrite(root / RUN, lambda manifest: manifest["versions"].update(torch="1")),
            "error: results/lm_mini: the runs mix versions of torch",
        ),
        (
            lambda root: rewrite(root / RUN, lambda manifest: manifest["versions"].update(transformers="1")),
            "error: results/lm_mini: the runs mix versions of transformers",
        ),
    ],
)
def test_damage_is_found_and_named(
    damage: Callable[[Path], object], words: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(root)
    assert cli.run(["verify", "results/lm_mini"]) == 2
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
    name: str, values: dict[str, Any], words: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_table(root, name, **values)
    reseal(root / RUN)
    assert cli.run(["verify", "results/lm_mini"]) == 2
    assert words in capsys.readouterr().out


def test_tables_must_be_what_the_runs_make(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "tables/evals.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "accuracy"] += 1e-6
    frame.to_parquet(path, index=False)
    assert cli.run(["verify", "results/lm_mini"]) == 2
    assert "evals.parquet: is not what the runs make" in capsys.readouterr().out


def test_tables_without_runs_are_no_run(root: Path, tier: LMTier) -> None:
    """Of the tables one is named like a run's; they are told by the runs beside them or by their summary."""
    summary = (root / "tables/summary.json").rename(root / "aside.json")
    assert len(list(run_folders(root))) == 4
    summary.rename(root / "tables/summary.json")
    shutil.rmtree(root / "runs")
    assert list(run_folders(root)) == []
    assert [finding.path for finding in verify(root, tier, kind=LANGUAGE)[0]] == [root]


def test_other_settings_than_the_tiers_are_named(root: Path) -> None:
    Path("config/lm_mini.yaml").write_text(TIER.replace("updates: 8", "updates: 8, delta: 0.3"))
    findings, runs = verify(root, load_any_tier("lm_mini"), kind=LANGUAGE)
    texts = [finding.text for finding in findings if finding.level == "error"]
    assert runs == 4 and len(texts) == 4
    assert all("delta is 0.2, asked for 0.3" in text for text in texts)


def test_other_code_than_is_installed_is_a_warning(root: Path, tier: LMTier) -> None:
    for run in tier.runs:
        rewrite(Path("results", run.folder), lambda manifest: manifest.update(source_hash="0" * 64))
    findings = [finding for finding in verify(root, tier, kind=LANGUAGE)[0] if "other training code" in finding.text]
    assert [finding.level for finding in findings] == ["warning"] and "4 runs of language models" in findings[0].text


def test_both_kinds_of_tier_are_read_by_name(tier: LMTier) -> None:
    assert {config.hash for config in LANGUAGE.asked(tier).values()} == {run.config.hash for run in tier.runs}
    assert isinstance(load_any_tier("config/lm_mini.yaml"), LMTier)
    repository = Path(__file__).parents[2]
    smoke = load_any_tier(repository / "config/smoke.yaml")
    assert isinstance(smoke, Tier) and len(CONTROL.asked(smoke)) == 72
    assert build_lm({}).hash not in {config.hash for config in CONTROL.asked(smoke).values()}


def test_a_run_verified_alone_tells_its_kind(root: Path, tier: LMTier) -> None:
    assert kind_of(root / RUN, None) is LANGUAGE and kind_of(Path("config"), None) is CONTROL
    assert cli.run(["verify", str(root / RUN)]) == 0
    texts = [finding.text for finding in verify(root / RUN, kind=CONTROL)[0]]
    assert any("it is no run of MuJoCo policies" in text for text in texts)
