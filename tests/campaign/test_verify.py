"""Every way in which runs can be wrong is found, in folders and in archives, and good ones pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from folders import entry_of, manifest_of, reference, reseal, rewrite, rows_of, write_archive, write_run

from vaco import archive, cli
from vaco.archive import Entry
from vaco.campaign.archives import plan_hash, subjects
from vaco.campaign.tiers import Tier, load_tier
from vaco.campaign.verify import Finding, holds_products, sidecars, verify_archive, verify_folders
from vaco.errors import UserError
from vaco.lm.kind import KINDS
from vaco.runs import tables
from vaco.runs.identity import VERSIONS, Version

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
RUNS, ARCHIVE = Path("results/runs"), Path("results/mini/archive")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verify")
    (place / "config").mkdir()
    (place / "config" / "mini.yaml").write_text(TIER)
    tier = load_tier(place / "config" / "mini.yaml")
    for spec in tier.runs():
        write_run(spec.config, place / "results")
    write_archive(tier, place / ARCHIVE)
    return place


@pytest.fixture
def tier(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tier:
    """The tier, of which a working directory of the test's own holds 8 good runs as folders and as archive."""
    shutil.copytree(original, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return load_tier("mini")


@pytest.fixture
def run(tier: Tier) -> Path:
    """The folder of a run of vaco."""
    return RUNS / tier.find("Hopper-v5", "vaco", 8, 1).config.place


def folder_errors(root: Path = RUNS) -> list[Finding]:
    return [finding for finding in verify_folders(root, KINDS)[0] if finding.level == "error"]


def archive_errors(tier: Tier | None, **options: Any) -> list[Finding]:
    return [found for found in verify_archive(ARCHIVE, tier, KINDS, **options)[0] if found.level == "error"]


def test_good_runs_pass(tier: Tier) -> None:
    assert verify_folders(RUNS, KINDS) == ([], 8)
    assert verify_archive(ARCHIVE, tier, KINDS) == ([], 8)
    assert verify_archive(ARCHIVE, None, KINDS) == ([], 8)


def test_one_run_can_be_verified_alone(run: Path) -> None:
    assert verify_folders(run, KINDS) == ([], 1)


def test_a_place_without_runs_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError):
            verify_folders(place, KINDS)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (
        lambda run: (run / "phases.parquet").write_bytes((run / "phases.parquet").read_bytes()[:-1] + b"\0"),
        "does not match its checksum",
    ),
    "missing table": (lambda run: (run / "evals.parquet").unlink(), "is missing"),
    "altered policy": (lambda run: (run / "policy.safetensors").write_bytes(b"x"), "does not match its checksum"),
    "no manifest": (lambda run: (run / "manifest.json").unlink(), "has data files but no manifest.json"),
    "torn manifest": (lambda run: (run / "manifest.json").write_text('{"schema": 2'), "cannot be read"),
    "another schema": (lambda run: rewrite(run / "manifest.json", lambda r: r.update(schema=3)), "schema 3"),
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
    "unknown code": (
        lambda run: rewrite(run / "manifest.json", lambda r: r.update(schema=1, source_hash="f" * 64)),
        "training code that is no known version",
    ),
    "version of the future": (
        lambda run: rewrite(run / "manifest.json", lambda r: r.update(training_version=99)),
        "is of training version 99",
    ),
    "impossible setting": (
        lambda run: rewrite(run / "manifest.json", lambda r: r["config"].update(epochs=0)),
        "its configuration is none, epochs is 0",
    ),
    "unknown setting": (
        lambda run: rewrite(run / "manifest.json", lambda r: r["config"].update(epoch=1)),
        "its configuration is none, there is no setting 'epoch'",
    ),
    "stranger": (lambda run: (run / "thesis.tex").write_text("x"), "is no part of a run"),
    "fewer steps": (
        lambda run: rewrite(run / "manifest.json", lambda r: r.update(completed_steps=2048)),
        "says 2048 steps",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(damage: str, run: Path) -> None:
    inflict, words = DAMAGE[damage]
    inflict(run)
    found = folder_errors()
    assert found and all(str(run) in str(finding) for finding in found)
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
    table: str, change: Callable[[pd.DataFrame], pd.DataFrame], words: str, run: Path, tier: Tier
) -> None:
    path = run / f"{table}.parquet"
    changed = change(pd.read_parquet(path))
    changed.to_parquet(path, index=False)
    reseal(run)
    assert [(finding.path.parent, words in finding.text) for finding in folder_errors(run)] in (
        [(run, True)],
        [(run.parent, True)],
    )
    # The same in an archive, whose checksums are those of its own files.
    config = tier.find("Hopper-v5", "vaco", 8, 1).config
    rows = dict(zip(("phases", "evals"), map(pd.DataFrame, rows_of(config)), strict=True)) | {table: changed}
    # Not `from_pandas`, which takes NaN for a missing value.
    made = {name: pa.table({key: frame[key].to_numpy() for key in frame}) for name, frame in rows.items()}
    others = [entry_of(spec.config) for spec in tier.runs() if spec.config != config]
    manifest = manifest_of(config, checksums={"phases.parquet": "another"})
    write_archive(tier, ARCHIVE, [*others, Entry(str(config.run_id), manifest, made.__getitem__)])
    (finding,) = archive_errors(tier)
    # A run without a row is none of the table's.
    assert finding.path.name == str(config.run_id) and (words if len(changed) else "cannot be checked") in finding.text


def test_a_run_in_the_place_of_another_is_found(run: Path, tier: Tier) -> None:
    other = RUNS / tier.find("Hopper-v5", "vaco", 8, 0).config.place
    shutil.rmtree(run)
    shutil.copytree(other, run)
    assert [f"is the place of the run {run.name}, but holds the run {other.name}" in found.text for found in
            folder_errors()] == [True]  # fmt: skip
    assert ["is the place of" in found.text for found in folder_errors(run)] == [True]


def test_a_run_elsewhere_may_have_any_name(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "mine")
    assert verify_folders(tmp_path / "mine", KINDS) == ([], 1)


def test_a_run_under_way_is_not_finished(run: Path) -> None:
    for name in ("manifest.json", "phases.parquet", "evals.parquet"):
        (run / name).unlink()
    (run / "run.json").write_text("{}")
    assert ["is not finished" in finding.text for finding in folder_errors()] == [True]


def test_leftovers_of_a_killed_process_are_a_warning(run: Path) -> None:
    (run / "checkpoints").mkdir()
    (finding,), _ = verify_folders(RUNS, KINDS)
    assert finding.level == "warning" and "leftovers" in finding.text


MIXED = [
    (lambda r: r["versions"].update(mujoco="3.3.7"), "error", "mix versions of mujoco: 3.3.7"),
    (lambda r: r["versions"].update(torch="2.0"), "warning", "mix versions of torch"),
    (lambda r: r["versions"].update(python="3.12.0"), "warning", "mix versions of python"),
    (lambda r: r.update(revision="a" * 40), "warning", "several commits"),
    (lambda r: r.update(dirty=True), "warning", "uncommitted changes"),
    (lambda r: r.update(cpu="abacus"), "warning", "kinds of processor"),
]


@pytest.mark.parametrize(("change", "level", "words"), MIXED)
def test_what_is_mixed_in_is_named(
    change: Callable[[dict[str, Any]], None], level: str, words: str, run: Path, tier: Tier
) -> None:
    rewrite(run / "manifest.json", change)
    found = [finding for finding in verify_folders(RUNS, KINDS)[0] if words in finding.text]
    assert [finding.level for finding in found] == [level] and str(run) in found[0].text
    entries = [entry_of(spec.config) for spec in tier.runs()]
    change(entries[-1].manifest)  # type: ignore[arg-type]
    write_archive(tier, ARCHIVE, entries)
    found = [finding for finding in verify_archive(ARCHIVE, tier, KINDS)[0] if words in finding.text]
    assert [finding.level for finding in found] == [level] and entries[-1].run in found[0].text


def second(algorithms: set[str]) -> dict[Any, Any]:
    first = VERSIONS["control"][0]
    return VERSIONS | {"control": (first, Version(2, "f" * 40, "a test", frozenset(algorithms)))}


def test_two_training_versions_of_one_algorithm_are_no_comparison(
    run: Path, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaco.runs.identity.VERSIONS", second({"once+tv"}))
    tier = load_tier("mini")
    write_run(tier.find("Hopper-v5", "ppo", 1, 0).config, Path("elsewhere"))  # whose version is the old one
    write_run(tier.find("Hopper-v5", "vaco", 8, 1).config)
    texts = [finding.text for finding in folder_errors()]
    assert len(texts) == 1 and "the runs of once+tv are of several training versions: training version 1" in texts[0]


def test_an_archive_of_an_older_version_is_whole_and_its_stale_runs_are_named(
    tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaco.runs.identity.VERSIONS", second({"once+tv"}))
    findings, runs = verify_archive(ARCHIVE, load_tier("mini"), KINDS)
    assert runs == 8 and [finding.level for finding in findings] == ["warning"] * 4
    assert all("is of another training version than the code here would make" in found.text for found in findings)


def test_missing_runs_are_errors_unless_allowed(tier: Tier) -> None:
    write_archive(tier, ARCHIVE, [entry_of(spec.config) for spec in tier.runs()[1:]])
    (finding,) = archive_errors(tier)
    assert "1 of the 8 runs of the tier 'mini' are missing: " + tier.runs()[0].config.place in finding.text
    assert not archive_errors(tier, allow_missing=True)
    assert verify_archive(ARCHIVE, tier, KINDS, allow_missing=True)[1] == 7


def test_runs_that_the_tier_does_not_ask_for_are_errors(tier: Tier) -> None:
    Path("config/mini.yaml").write_text(TIER.replace("[0, 1]", "[0]"))
    found = archive_errors(load_tier("mini"))
    assert len(found) == 4 and all("asks for no such run" in finding.text for finding in found)


def test_a_tier_that_was_changed_since_is_noticed(tier: Tier) -> None:
    Path("config/mini.yaml").write_text(TIER + "training: {epochs: 3}\n")
    texts = [finding.text for finding in archive_errors(load_tier("mini"))]
    assert len(texts) == 9 and sum("asks for no such run" in text for text in texts) == 8
    assert "8 of the 8 runs" in texts[0]


def test_a_manifest_that_contradicts_its_identity_is_found_in_an_archive(tier: Tier) -> None:
    entries = [entry_of(spec.config) for spec in tier.runs()]
    entries[0].manifest["config"]["epochs"] = 11  # type: ignore[index]
    entries[1] = Entry("0" * 16 + "-v1", entries[1].manifest, entries[1].table)
    write_archive(tier, ARCHIVE, entries)
    texts = {finding.path.name: finding.text for finding in archive_errors(None)}
    assert "config_hash is not that of its configuration" in texts[entries[0].run]
    assert f"its manifest says that it is {tier.runs()[1].config.run_id}" in texts[entries[1].run]


def test_a_damaged_archive_is_one_finding(tier: Tier) -> None:
    (ARCHIVE / "evals.parquet").write_bytes(b"PAR1")
    (finding,), runs = verify_archive(ARCHIVE, tier, KINDS)
    assert runs == 0 and finding.level == "error" and "evals.parquet does not match its checksum" in finding.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.clear(), "no measurement of the random policy on Hopper-v5"),
        (lambda r: r.update({"Hopper-v5": []}), "no measurement"),
        (lambda r: r["Hopper-v5"].update(env="Ant-v5"), "no measurement"),
        (lambda r: r["Hopper-v5"].update(mean=7.0), "mean that is not"),
        (lambda r: r["Hopper-v5"].update(seed=1), "the tier asks for"),
        (lambda r: r["Hopper-v5"].update(episodes=50), "the tier asks for"),
        (lambda r: r["Hopper-v5"]["returns"].pop(), "as many returns"),
    ],
)
def test_the_references_are_checked(change: Callable[[Any], object], words: str, tier: Tier) -> None:
    references = {"Hopper-v5": reference("Hopper-v5")}
    change(references)
    entries = [entry_of(spec.config) for spec in tier.runs()]
    plan = plan_hash(tier)
    archive.write(ARCHIVE, entries, tier="mini", kind="control", plan=plan, planned=8, references=references)
    assert [words in finding.text for finding in archive_errors(tier)] == [True]
    assert not archive_errors(None)


def test_a_stale_measurement_of_the_random_policy_is_named(tier: Tier) -> None:
    entries = [entry_of(spec.config) for spec in tier.runs()]
    for version, stale in (None, True), (1, True), (2, False):
        record = reference("Hopper-v5") | {"evaluation_version": version}
        if version is None:
            del record["evaluation_version"]
        references = {"Hopper-v5": record}
        plan = plan_hash(tier)
        archive.write(ARCHIVE, entries, tier="mini", kind="control", plan=plan, planned=8, references=references)
        found = [f for f in verify_archive(ARCHIVE, tier, KINDS)[0] if "of evaluation version 1, now 2" in f.text]
        assert [finding.level for finding in found] == ["warning"] * stale


# --- Figures and the command


@pytest.fixture
def figures(tier: Tier) -> Path:
    folder = Path("paper/figures/mini")
    folder.mkdir(parents=True)
    sidecar = {"name": "aggregate_scores", "tier": "mini", "archive": tables.sha256_file(ARCHIVE / "SHA256SUMS")}
    (folder / "aggregate_scores.json").write_text(json.dumps(sidecar))
    (folder / "aggregate_scores.pdf").write_bytes(b"%PDF")
    return folder


def test_figures_must_name_the_archive_that_is_there(
    figures: Path, tier: Tier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert holds_products(figures) and not holds_products(RUNS) and not holds_products(Path("results/mini"))
    assert sidecars(figures, Path()) == ([], 1)
    assert cli.run(["verify", "results", str(figures)]) == 0
    assert "16 runs, 1 products: 0 errors" in capsys.readouterr().out
    (figures / "torn.json").write_text('{"archive"')
    assert [finding.text for finding in sidecars(figures, Path())[0]] == ["is not JSON: draw the product again"]
    (figures / "torn.json").unlink()
    for suffix in ("json", "pdf"):  # a name is no pattern
        shutil.copy(figures / f"aggregate_scores.{suffix}", figures / f"figure[x].{suffix}")
    assert sidecars(figures, Path()) == ([], 2)
    (figures / "figure[x].json").unlink()
    (figures / "aggregate_scores.pdf").unlink()
    assert "describes a product that is not there" in sidecars(figures, Path())[0][0].text
    write_archive(tier, ARCHIVE, [entry_of(tier.runs()[0].config)])
    assert any("has changed since" in finding.text for finding in sidecars(figures, Path())[0])
    shutil.rmtree(ARCHIVE)
    assert any("is not there" in finding.text for finding in sidecars(figures, Path())[0])
    assert cli.run(["verify", str(figures)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match="there is no folder"):
        sidecars(Path("nowhere"), Path())


def test_a_folder_stands_for_the_archives_and_the_runs_below_it(tier: Tier) -> None:
    results = Path("results")
    shutil.copytree(ARCHIVE, results / "other" / "archive")
    shutil.copytree(ARCHIVE, results / "other" / ".archive.new")  # which a killed process left
    shutil.copytree(ARCHIVE, "copy")
    assert list(subjects([results])) == [ARCHIVE, results / "other" / "archive", RUNS]
    assert list(subjects([results / "mini", RUNS, ARCHIVE])) == [ARCHIVE, RUNS, ARCHIVE]
    assert list(subjects([Path("copy")])) == [Path("copy")]
    with pytest.raises(UserError, match="there is no folder nowhere"):
        list(subjects([Path("nowhere")]))


@pytest.mark.parametrize("name", ["archive.json", "SHA256SUMS"])
@pytest.mark.parametrize("given", ["results", "results/mini", "results/mini/archive"])
def test_an_archive_that_lost_a_file_is_not_passed_over(
    name: str, given: str, tier: Tier, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ARCHIVE, "results/other/archive")
    (ARCHIVE / name).unlink()
    assert cli.run(["verify", given]) == 2
    printed = capsys.readouterr()
    assert "results/mini/archive" in printed.err and printed.err.count("\n") == 1


def test_an_archive_under_another_name_is_verified(tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ARCHIVE, "copy")
    assert cli.run(["verify", "copy"]) == 0
    assert "8 runs, 0 products: 0 errors" in capsys.readouterr().out


def test_nothing_is_not_a_success(tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    for given in ("empty", "config", "nowhere"):
        assert cli.run(["verify", given]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match="no run of the tier 'mini' is finished"):
        write_archive(tier, ARCHIVE, [])
    assert verify_archive(ARCHIVE, tier, KINDS) == ([], 8)  # which is still there


def test_an_archive_of_another_tier_is_refused(tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config/else.yaml").write_text(TIER.replace("mini", "else"))
    assert cli.run(["verify", "results/mini", "--tier", "else"]) == 2
    assert "is that of the tier 'mini', not of 'else'" in capsys.readouterr().out
    assert cli.run(["verify", "results/mini", "--tier", "mini"]) == 0
    # By the name of its folder, too.
    Path("results/mini").rename("results/else")
    assert cli.run(["verify", "results/else"]) == 2


def test_numbers_are_what_numpy_reads(tier: Tier, run: Path) -> None:
    """A column of the archive has the type of the run's own."""
    found = archive.Archive(ARCHIVE).entries[run.name].table("phases")
    for name, values in tables.read_parquet(run / "phases.parquet").items():
        assert np.array(found[name]).tobytes() == values.tobytes(), name
