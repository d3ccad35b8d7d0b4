"""Every way in which a results tree can be wrong is found, and a good one passes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vaco import cli
from vaco.errors import UserError
from vaco.runs import tables
from vaco.runs.tiers import Tier, load_tier
from vaco.runs.verify import Finding, holds_products, sidecars, subjects, verify

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # the generator of synthetic run folders

from synthetic import write_tier

TIER = """
tier: mini
description: A tier for tests.
environments: [Hopper-v5]
algorithms: [ppo, vaco]
capacities: [1, 8]
seeds: [0, 1]
steps: 20480
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
"""
RUN = Path("runs/Hopper-v5/vaco/lag8/seed1")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verify")
    (place / "config").mkdir()
    (place / "config" / "mini.yaml").write_text(TIER)
    write_tier(load_tier(place / "config" / "mini.yaml"), place / "results" / "mini", phases=10)
    return place


@pytest.fixture
def root(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`results/mini` of a working directory of the test's own, with 8 good runs."""
    shutil.copytree(original, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Path("results/mini")


@pytest.fixture
def tier(root: Path) -> Tier:
    return load_tier("mini")


def errors(root: Path, tier: Tier | None, **options: Any) -> list[Finding]:
    return [finding for finding in verify(root, tier, **options)[0] if finding.level == "error"]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit a manifest and nothing else."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def reseal(folder: Path) -> None:
    """Make the checksums those of the files, as a forger would."""
    names = ("phases.parquet", "evals.parquet")
    sums = {name: tables.sha256_file(folder / name) for name in names}
    rewrite(folder / "manifest.json", lambda record: record["checksums"].update(sums))


def test_a_good_tree_passes(root: Path, tier: Tier) -> None:
    findings, runs = verify(root, tier)
    assert runs == 8 and not [finding for finding in findings if finding.level == "error"]
    # The synthetic runs name a source that is not the one installed.
    assert any("other training code" in finding.text for finding in findings)


def test_one_run_can_be_verified_alone(root: Path) -> None:
    assert verify(root / RUN)[1] == 1 and not errors(root / RUN, None)


def test_a_place_without_runs_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError):
            verify(place)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (
        lambda run: (run / "phases.parquet").write_bytes((run / "phases.parquet").read_bytes()[:-1] + b"\0"),
        "does not match its checksum",
    ),
    "missing table": (lambda run: (run / "evals.parquet").unlink(), "is missing"),
    "altered policy": (lambda run: (run / "policy.safetensors").write_bytes(b"x"), "does not match its checksum"),
    "no manifest": (lambda run: (run / "manifest.json").unlink(), "has data files but no manifest.json"),
    "torn manifest": (lambda run: (run / "manifest.json").write_text('{"schema": 1'), "cannot be read"),
    "another schema": (lambda run: rewrite(run / "manifest.json", lambda r: r.update(schema=2)), "schema 2"),
    "not complete": (lambda run: rewrite(run / "manifest.json", lambda r: r.update(status="new")), "'new' rather"),
    "no checksums": (lambda run: rewrite(run / "manifest.json", lambda r: r.pop("checksums")), "no 'checksums'"),
    "no algorithm": (
        lambda run: rewrite(run / "manifest.json", lambda r: r["identity"].update(algorithm=None)),
        "no 'algorithm' in its identity",
    ),
    "edited setting": (
        lambda run: rewrite(run / "manifest.json", lambda r: r["config"].update(epochs=11)),
        "config_hash is not that of its configuration",
    ),
    "edited identity": (lambda run: rewrite(run / "manifest.json", lambda r: r["identity"].update(seed=5)), "seed = 5"),
    "stranger": (lambda run: (run / "thesis.tex").write_text("x"), "is no part of a run"),
    "fewer steps": (
        lambda run: rewrite(run / "manifest.json", lambda r: r.update(completed_steps=2048)),
        "says 2048 steps",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(damage: str, root: Path, tier: Tier) -> None:
    inflict, words = DAMAGE[damage]
    inflict(root / RUN)
    found = errors(root, tier)
    assert found and all(str(root / RUN) in str(finding) for finding in found)
    assert any(words in finding.text for finding in found), found
    assert all("\n" not in str(finding) for finding in found)


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("phases", lambda t: t.iloc[:-1], "are not the 10 phases"),
        ("phases", lambda t: t.iloc[::-1], "are not the 10 phases"),
        ("phases", lambda t: pd.concat([t, t.tail(1)]), "are not the 10 phases"),
        ("evals", lambda t: t.iloc[:-1], "evaluation points"),
        ("evals", lambda t: t.iloc[1:], "evaluation points"),
        ("evals", lambda t: t.iloc[::-1], "evaluation points"),
        ("evals", lambda t: t.iloc[:0], "evaluation points"),
        ("evals", lambda t: t.assign(grid_steps=t["grid_steps"] + (t.index == 1)), "evaluation points"),
        ("evals", lambda t: t.assign(mean=np.float32(np.nan)), "not finite"),
        ("evals", lambda t: t.drop(columns="mean"), "cannot be checked"),
    ],
)
def test_rows_are_counted_behind_good_checksums(
    table: str, change: Callable[[pd.DataFrame], pd.DataFrame], words: str, root: Path, tier: Tier
) -> None:
    path = root / RUN / f"{table}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    reseal(root / RUN)
    assert [words in finding.text for finding in errors(root, tier)] == [True]


def test_a_run_in_the_place_of_another_is_found(root: Path, tier: Tier) -> None:
    other = root / "runs/Hopper-v5/vaco/lag8/seed0"
    shutil.rmtree(root / RUN)
    shutil.copytree(other, root / RUN)
    texts = [finding.text for finding in errors(root, tier)]
    assert any("place of seed 1" in text for text in texts) and any("other settings" in text for text in texts)
    assert any("place of seed 1" in finding.text for finding in errors(root, None))


@pytest.mark.parametrize(("name", "place"), [("env", "Ant-v5/vaco/lag8/seed1"), ("lag", "Hopper-v5/vaco/lag4/seed1")])
def test_every_part_of_a_path_is_compared_with_the_run(name: str, place: str, root: Path) -> None:
    shutil.copytree(root / RUN, root / "runs" / place)
    assert [f"place of {name} " in finding.text for finding in errors(root, None)] == [True]


def test_missing_runs_are_errors_unless_allowed(root: Path, tier: Tier) -> None:
    shutil.rmtree(root / RUN)
    assert ["1 of the 8 runs" in finding.text for finding in errors(root, tier)] == [True]
    assert not errors(root, tier, allow_missing=True)
    assert verify(root, tier, allow_missing=True)[1] == 7


def test_a_run_under_way_is_not_finished(root: Path, tier: Tier) -> None:
    for name in ("manifest.json", "phases.parquet", "evals.parquet"):
        (root / RUN / name).unlink()
    (root / RUN / "run.json").write_text("{}")
    assert any("is not finished" in finding.text for finding in errors(root, tier))
    assert not errors(root, tier, allow_missing=True)


def test_runs_that_the_tier_does_not_ask_for_are_errors(root: Path, tier: Tier) -> None:
    shutil.copytree(root / RUN, root / "runs/Hopper-v5/vaco/lag8/seed7")
    assert any("asks for no such run" in finding.text for finding in errors(root, tier))


def test_a_tier_that_was_changed_since_is_noticed(root: Path) -> None:
    Path("config/mini.yaml").write_text(TIER + "training: {epochs: 3}\n")
    found = errors(root, load_tier("mini"))
    assert len(found) == 8 and all("epochs is 10, asked for 3" in finding.text for finding in found)


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        (lambda r: r["versions"].update(mujoco="3.3.7"), "error", "mix versions of mujoco: 3.3.7"),
        (lambda r: r.update(source_hash="f" * 64), "error", "several versions of the training code"),
        (lambda r: r["versions"].update(torch="2.0"), "warning", "mix versions of torch"),
        (lambda r: r["versions"].update(python="3.12.0"), "warning", "mix versions of python"),
        (lambda r: r.update(revision="a" * 40), "warning", "several commits"),
        (lambda r: r.update(dirty=True), "warning", "uncommitted changes"),
        (lambda r: r.update(cpu="abacus"), "warning", "kinds of processor"),
    ],
)
def test_what_is_mixed_in_is_named(
    change: Callable[[dict[str, Any]], None], level: str, words: str, root: Path, tier: Tier
) -> None:
    rewrite(root / RUN / "manifest.json", change)
    found = [finding for finding in verify(root, tier)[0] if words in finding.text]
    assert [finding.level for finding in found] == [level]
    assert str(RUN) in found[0].text


def test_leftovers_of_a_killed_process_are_a_warning(root: Path, tier: Tier) -> None:
    (root / RUN / "checkpoints").mkdir()
    assert not errors(root, tier)
    assert any("leftovers" in finding.text for finding in verify(root, tier)[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("{"), "no measurement"),
        (lambda path: rewrite(path, lambda r: r.update(env="Ant-v5")), "no measurement"),
        (lambda path: rewrite(path, lambda r: r.update(mean=7.0)), "mean that is not"),
        (lambda path: rewrite(path, lambda r: r.update(seed=1)), "the tier asks for"),
        (lambda path: rewrite(path, lambda r: r.update(episodes=50)), "the tier asks for"),
        (lambda path: rewrite(path, lambda r: r["returns"].pop()), "as many returns"),
        (lambda path: rewrite(path, lambda r: r.update(source_hash="f" * 64)), "other environments"),
    ],
)
def test_the_references_are_checked(change: Callable[[Path], object], words: str, root: Path, tier: Tier) -> None:
    change(root / "references/Hopper-v5.json")
    assert [words in finding.text for finding in errors(root, tier)] == [True]


# --- Tables, figures and the command


@pytest.fixture
def aggregated(root: Path, tier: Tier) -> Path:
    from vaco.report.aggregate import aggregate
    from vaco.report.plan import read_plan

    aggregate(read_plan(tier.plan()), root, root / "tables")
    return root


def test_tables_must_be_what_the_runs_make(aggregated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", "results"]) == 0
    assert "8 runs, 0 products: 0 errors" in capsys.readouterr().out
    scores = aggregated / "tables" / "scores.parquet"
    good, table = scores.read_bytes(), pd.read_parquet(scores)
    table.loc[3, "score"] += 1e-9
    table.to_parquet(scores, index=False)
    assert cli.run(["verify", "results/mini"]) == 2
    printed = capsys.readouterr()
    assert "scores.parquet" in printed.err and "is not what the runs make" in printed.out
    assert printed.err.count("\n") == 1
    # The same values in other bytes are the same table.
    scores.write_bytes(good)
    configs = aggregated / "tables" / "configs.json"
    configs.write_text(json.dumps(json.loads(configs.read_text())))
    assert cli.run(["verify", "results/mini"]) == 0
    rewrite(aggregated / "tables" / "summary.json", lambda record: record.update(core_hours=1.0))
    assert cli.run(["verify", "results/mini"]) == 2


def test_figures_must_name_the_tables_that_are_there(aggregated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = Path("paper/figures/mini")
    figures.mkdir(parents=True)
    table = aggregated / "tables" / "scores.parquet"
    sidecar = {"name": "figure3", "tables": {table.as_posix(): tables.sha256_file(table)}}
    (figures / "figure3.json").write_text(json.dumps(sidecar))
    (figures / "figure3.pdf").write_bytes(b"%PDF")
    assert holds_products(figures) and not holds_products(aggregated)
    assert sidecars(figures, Path()) == ([], 1)
    assert cli.run(["verify", "results", str(figures)]) == 0
    (figures / "torn.json").write_text('{"tables"')
    assert [finding.text for finding in sidecars(figures, Path())[0]] == ["is not JSON: draw the product again"]
    (figures / "torn.json").unlink()
    for suffix in ("json", "pdf"):  # a name is no pattern
        shutil.copy(figures / f"figure3.{suffix}", figures / f"figure[x].{suffix}")
    assert sidecars(figures, Path()) == ([], 2)
    (figures / "figure[x].json").unlink()
    (figures / "figure3.pdf").unlink()
    assert "not there" in sidecars(figures, Path())[0][0].text
    table.write_bytes(b"PAR1")
    assert any("has changed since" in finding.text for finding in sidecars(figures, Path())[0])
    table.unlink()
    assert any("is not there" in finding.text for finding in sidecars(figures, Path())[0])
    assert cli.run(["verify", str(figures)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_of_tiers_stands_for_each(root: Path) -> None:
    shutil.copytree(root, root.parent / "other")
    assert list(subjects([root.parent, root])) == [root, root.parent / "other", root]


def test_nothing_is_not_a_success(aggregated: Path, tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no run is there, all runs of the tier are missing, and without a tier nothing was verified."""
    shutil.rmtree(aggregated / "runs")
    assert list(subjects([aggregated.parent])) == [aggregated]
    assert ["8 of the 8 runs" in finding.text for finding in errors(aggregated, tier)] == [True]
    assert not errors(aggregated, tier, allow_missing=True)
    # Without a run to make them of, the tables are not held against anything.
    assert cli.run(["verify", str(aggregated), "--allow-missing"]) == 0
    assert "0 runs, 0 products: 0 errors, 1 warnings" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing was verified"):
        verify(aggregated)
    assert cli.run(["verify", str(aggregated), "--tier", "mini"]) == 2
    assert "0 runs, 0 products: 1 errors" in capsys.readouterr().out


def test_a_part_of_a_tier_is_compared_with_that_part(root: Path, tier: Tier) -> None:
    for place in (root / "runs", root / "runs/Hopper-v5/vaco", root / RUN):
        assert not errors(place, tier)
    shutil.rmtree(root / RUN)
    assert ["1 of the 4 runs" in finding.text for finding in errors(root / "runs/Hopper-v5/vaco", tier)] == [True]
    # A part that the tier does not have is not taken for one of which nothing is missing.
    (root / "runs/Ant-v5").mkdir()
    assert ["8 of the 8 runs" in finding.text for finding in errors(root / "runs/Ant-v5", tier)] == [True]


def test_folders_that_bear_the_names_of_a_tiers_are_no_tiers(
    aggregated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tests/runs").mkdir(parents=True)
    Path("paper/tables/mini").mkdir(parents=True)
    table = aggregated / "tables" / "scores.parquet"
    sidecar = {"name": "t", "tables": {table.as_posix(): tables.sha256_file(table)}}
    Path("paper/tables/mini/t.json").write_text(json.dumps(sidecar))
    Path("paper/tables/mini/t.tex").write_text("t")
    assert list(subjects([Path("paper")])) == [Path("paper")] and holds_products(Path("paper"))
    assert cli.run(["verify", "paper"]) == 0
    assert "0 runs, 1 products: 0 errors" in capsys.readouterr().out
    assert cli.run(["verify", "tests"]) == 2
    # Of several tiers further down none is guessed.
    assert list(subjects([Path()])) == [Path()]
    shutil.copytree(aggregated, "results/other")
    with pytest.raises(UserError, match="holds several tiers, such as results/mini and results/other"):
        list(subjects([Path()]))


def test_a_tree_of_another_tier_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config/else.yaml").write_text(TIER.replace("mini", "else").replace("20480", "40960"))
    assert cli.run(["verify", "results/mini", "--tier", "else"]) == 2
    assert "steps is 20480, asked for 40960" in capsys.readouterr().out
    assert cli.run(["verify", "nowhere"]) == 2


def test_an_unfinished_tree_verifies_with_allow_missing(root: Path) -> None:
    shutil.rmtree(root / RUN)
    assert cli.run(["verify", "results/mini"]) == 2
    assert cli.run(["verify", "results/mini", "--allow-missing"]) == 0
