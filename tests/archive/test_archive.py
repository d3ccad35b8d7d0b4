"""The tracked form of finished runs: nothing is lost, nothing is added, and damage does not pass."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import entry_of, names, reference, rewrite, write_archive, write_run

from vaco import archive, cli
from vaco.archive import Archive, Entry, columns
from vaco.campaign import archives
from vaco.campaign.kinds import CONTROL
from vaco.campaign.tiers import Tier, load_tier
from vaco.campaign.verify import verify_folders
from vaco.errors import UserError
from vaco.lm.config import build_lm
from vaco.lm.kind import KINDS, LANGUAGE
from vaco.runs import tables

ROOT = Path(__file__).parents[2]
TIER = """
tier: mini
description: A tier for tests.
environments: [Hopper-v5]
algorithms: [ppo, vaco]
capacities: [1]
seeds: [0, 1]
steps: 8192
evaluation: {points: 2, episodes: 1}
reference: {episodes: 10, seed: 0}
"""
ARCHIVE = Path("results/mini/archive")
FILES = [
    *("README.md", "SHA256SUMS", "archive.json", "evals.parquet"),
    *("phases/part-000.parquet", "references.json", "runs.parquet"),
]


@pytest.fixture
def tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tier:
    """A tier in a working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/mini.yaml").write_text(TIER)
    return load_tier("mini")


def entries_of(tier: Tier) -> list[Entry]:
    return [entry_of(run.config) for run in tier.planned()]


def larger() -> Tier:
    """The tier with two more seeds."""
    Path("config/mini.yaml").write_text(TIER.replace("[0, 1]", "[0, 1, 2, 3]"))
    return load_tier("mini")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail and return its one sentence."""
    capsys.readouterr()
    assert cli.run(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("vaco: ") and said.count("\n") == 1, said
    return said


# --- Writing and reading


def made(run: str, **tables_of: dict[str, Any]) -> Entry:
    """A run with tables of the test's own."""
    identity = {"env": "E", "algorithm": "a", "lag": 1, "seed": 0}
    return Entry(run, {"identity": identity, "name": run}, lambda name: pa.table(tables_of[name]))


def write(folder: Path, *entries: Entry) -> Archive:
    archive.write(folder, entries, tier="t", kind="control", plan="p", planned=len(entries))
    return Archive(folder)


def test_values_come_back_bit_for_bit(tmp_path: Path) -> None:
    odd = np.array([np.nan, -0.0, np.inf, 1e-45, 3.4e38], np.float32)
    odd[:1].view(np.uint32)[0] |= 0x12345  # a NaN with a payload
    count = np.array([0, 1, -1, 2**62, -(2**63)], np.int64)
    double = np.array([0.1, np.nan, 5e-324, 1e308, -0.0])
    rows = {"odd": odd, "count": count, "double": double}
    less = {"count": count[:2], "all_nan": np.full(2, np.nan, np.float32)}
    entries = [made("a-v1", evals=rows, phases=rows), made("b-v1", evals=less, phases=less)]
    found = write(tmp_path / "x", *entries).entries
    for run, expected in (("a-v1", rows), ("b-v1", less)):
        assert found[run].manifest["name"] == run
        for table in archive.TABLES:
            read = found[run].table(table)
            # A run that lacks a column gets it back without, and a column of NaN is one.
            assert set(read.column_names) == set(expected)
            for name, values in expected.items():
                there = np.array(read[name])
                assert there.dtype == values.dtype and there.tobytes() == values.tobytes(), (run, name)


def test_the_same_runs_make_the_same_bytes(tier: Tier) -> None:
    write_archive(tier, Path("a"))
    write_archive(tier, Path("b"))
    assert contents(Path("a")) == contents(Path("b")) and sorted(contents(Path("a"))) == FILES
    write_archive(tier, Path("a"))
    assert contents(Path("a")) == contents(Path("b"))


def test_pandas_reads_each_table(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART", 3)
    write_archive(tier, ARCHIVE)
    assert len(Archive(ARCHIVE).parts) == 2
    runs, evals, phases = (pd.read_parquet(ARCHIVE / name) for name in ("runs.parquet", "evals.parquet", "phases"))
    assert list(runs) == list(columns.RUNS) and len(runs) == 4 and set(runs["algorithm"]) == {"ppo", "vaco"}
    assert len(evals) == 4 * 3 and len(phases) == 4 * 4 and set(phases["run"]) == set(runs["run"]) == set(evals["run"])
    assert str(phases["env_steps"].dtype) == "int64"
    # A column of some runs is missing in the others, and NaN is no missing value of those that have it.
    assert phases["tv_statistic"].isna().sum() == 2 * 4


def test_checksums_are_those_of_sha256sum(tier: Tier) -> None:
    write_archive(tier, ARCHIVE)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=ARCHIVE, check=True)


def test_parts_are_kept_when_runs_are_added(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART", 2)
    write_archive(tier, ARCHIVE)
    before = contents(ARCHIVE / "phases")
    write_archive(larger(), ARCHIVE)
    after = contents(ARCHIVE / "phases")
    assert len(before) == 2 and len(after) == 4 and before.items() <= after.items()
    assert set(Archive(ARCHIVE).entries) == {str(run.config.run_id) for run in larger().planned()}
    # A run that is no longer wanted takes its part with it; the others keep theirs.
    write_archive(tier, ARCHIVE, entries_of(tier)[:3])
    kept = contents(ARCHIVE / "phases")
    assert len(kept) == 2 and len(set(kept.values()) & set(before.values())) == 1
    found = Archive(ARCHIVE).entries
    assert [found[run].table("phases").num_rows for run in found] == [4] * 3


def test_parts_are_rewritten_when_a_run_was_trained_again_or_a_column_added(tier: Tier) -> None:
    entries = entries_of(tier)
    write_archive(tier, ARCHIVE, entries)
    before = contents(ARCHIVE / "phases")
    other = entries[0].table("phases").set_column(2, "episode_return", pa.array(np.zeros(4, np.float32)))
    again = Entry(entries[0].run, {**entries[0].manifest, "started": "later"}, lambda name: other)
    write_archive(tier, ARCHIVE, [again, *entries[1:]])
    assert contents(ARCHIVE / "phases") != before
    assert Archive(ARCHIVE).entries[again.run].table("phases")["episode_return"].to_pylist() == [0.0] * 4
    write_archive(tier, ARCHIVE, entries)
    # An old part would hide the new column from those who read the folder.
    big = 2**53 + 1
    more = other.append_column("tokens", pa.array([big] * 4))
    fresh = Entry("f" * 16 + "-v1", entries[0].manifest, lambda name: more if name == "phases" else other)
    write_archive(tier, ARCHIVE, [*entries, fresh])
    assert contents(ARCHIVE / "phases") != before
    assert set(pq.read_table(ARCHIVE / "phases")["tokens"].drop_null().to_pylist()) == {big}
    assert "tokens" not in Archive(ARCHIVE).entries[entries[0].run].table("phases").column_names


def test_a_part_without_a_column_does_not_round_those_that_have_it(tmp_path: Path, monkeypatch: Any) -> None:
    """A folder is read with the types of its first file."""
    monkeypatch.setattr(archive, "PART", 1)
    big, plain = 2**53 + 1, {"x": np.zeros(1, np.float32)}
    has = plain | {"tokens": np.array([big])}
    write(tmp_path / "x", made("a-v1", evals=plain, phases=plain), made("b-v1", evals=plain, phases=has))
    assert pq.read_table(tmp_path / "x" / "phases")["tokens"].drop_null().to_pylist() == [big]


def test_what_is_no_archive_is_not_replaced(tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    """`--out results`, say, would lose all that is there."""
    for run in tier.planned():
        write_run(run.config)
    Path("reference.json").write_text(json.dumps(reference("Hopper-v5", 10)))
    command = ("archive", "--tier", "mini", "--references", "reference.json", "--out")
    before = contents(Path())
    assert "results holds something, but no archive" in refused(capsys, *command, "results")
    assert "cannot be written" in refused(capsys, *command, "config/mini.yaml/x")
    assert contents(Path()) == before
    assert cli.run([*command, str(ARCHIVE)]) == 0
    (ARCHIVE / "evals.parquet").write_bytes(b"PAR1")
    before = contents(Path())
    assert "is damaged" in refused(capsys, *command, str(ARCHIVE))
    assert contents(Path()) == before


def test_a_failure_leaves_the_old_archive(tier: Tier) -> None:
    write_archive(tier, ARCHIVE)
    before = contents(Path("results"))

    def fail(name: str) -> pa.Table:
        raise UserError("a table that cannot be read")

    with pytest.raises(UserError, match="cannot be read"):
        write_archive(tier, ARCHIVE, [*entries_of(tier), Entry("f" * 16 + "-v1", entries_of(tier)[0].manifest, fail)])
    assert contents(Path("results")) == before and names(ARCHIVE.parent) == ["archive"]


# --- Columns


def columns_written(config: Any, train: Callable[..., None], folder: Path) -> dict[str, set[str]]:
    train(config, folder, quiet=True)
    return {name: set(tables.read_parquet(folder / f"{name}.parquet")) for name in archive.TABLES}


@pytest.mark.parametrize("algorithm", ["vaco", "ppo_kl"])
def test_every_column_of_control_is_documented(algorithm: str, tmp_path: Path) -> None:
    from vaco.control.train import train
    from vaco.runs.config import build

    settings = {"env": "Hopper-v5", "algorithm": algorithm, "lag": 2, "steps": 4096}
    config = build(settings | {"eval_points": 1, "eval_episodes": 1, "epochs": 1})
    written = columns_written(config, train, tmp_path / "run")
    assert written["phases"] == set(columns.CONTROL_PHASES) - {"run"}
    assert written["evals"] == set(columns.CONTROL_EVALS) - {"run"}


def test_every_column_of_language_models_is_documented(tmp_path: Path) -> None:
    from vaco.lm.train import train

    config = build_lm(
        {
            "task_options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            "model_options": {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64},
            **{"warm_target": 0, "new_tokens": 8, "updates": 4, "minibatches": 2, "prompts": 2, "samples": 2},
            **{"eval_points": 1, "eval_problems": 4},
        }
    )
    written = columns_written(config, train, tmp_path / "run")
    assert written["phases"] == set(columns.LANGUAGE_PHASES) - {"run"}
    assert written["evals"] == set(columns.LANGUAGE_EVALS) - {"run"}


LATER = {"kl_total", "normaliser_lag", "cut_fraction", "signal_fraction", "dropped_signal"} | {
    "mismatch",
    "backward_lag",
    "skipped",
}


@pytest.mark.parametrize("tier", ["desk", "lm_desk"])
def test_the_tracked_tables_have_the_documented_columns(tier: str) -> None:
    folder = ROOT / "results" / tier / "archive"
    found = Archive(folder, tier)
    present = {}
    for name, documented in columns.TABLES[found.kind].items():
        path = folder / ("phases" if name == "phases" else f"{name}.parquet")
        present[name] = set(pd.read_parquet(path))
        assert present[name] <= set(documented), name
        # Columns that were added after some runs are there once a run has them.
        assert set(documented) - present[name] <= LATER, name
    text = (folder / "README.md").read_text()
    assert text == columns.readme(tier, found.kind, present["phases"] | present["evals"])


def test_a_readme_names_the_columns_that_are_there() -> None:
    """An archive of runs from before a column was recorded does not speak of it."""
    every = columns.readme("desk", "control", columns.CONTROL_PHASES)
    assert all(f"| `{name}` |" in every for name in columns.CONTROL_PHASES)
    older = columns.readme("desk", "control", set(columns.CONTROL_PHASES) - {"normaliser_lag"})
    assert set(every.splitlines()) - set(older.splitlines()) == {
        f"| `normaliser_lag` | {columns.CONTROL_PHASES['normaliser_lag']} |"
    }


# --- Replacing one

ONE, TWO = ({"x": np.full(1, value, np.float32)} for value in (1.0, 2.0))


def test_an_archive_is_back_where_its_successor_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x", made("a-v1", evals=ONE, phases=ONE))
    before, rename = contents(tmp_path), Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == ".x.new":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(UserError, match=r"x cannot be written \(Input/output error\)"):
        write(tmp_path / "x", made("b-v1", evals=TWO, phases=TWO))
    assert contents(tmp_path) == before


def test_what_a_killed_command_had_moved_aside_is_put_back_before_anything_is_lost(tmp_path: Path) -> None:
    folder, other = tmp_path / "x", made("b-v1", evals=TWO, phases=TWO)
    write(folder, made("a-v1", evals=ONE, phases=ONE))
    folder.rename(tmp_path / ".x.old")
    (tmp_path / ".x.new").mkdir()
    with pytest.raises(UserError, match=r"a command that was killed had moved .*x aside, and it is back: run this"):
        write(folder, other)
    assert set(Archive(folder).entries) == {"a-v1"} and not (tmp_path / ".x.old").exists()
    shutil.copytree(folder, tmp_path / ".x.old")  # killed a moment later
    assert set(write(folder, other).entries) == {"b-v1"} and names(tmp_path) == ["x"]


def test_two_commands_do_not_write_one_archive_at_a_time(tmp_path: Path) -> None:
    def late(name: str) -> pa.Table:
        with pytest.raises(UserError, match=f"another process writes an archive in {tmp_path}: wait"):
            write(tmp_path / "x", made("b-v1", evals=TWO, phases=TWO))
        return pa.table(ONE)

    first = made("a-v1", evals=ONE, phases=ONE)
    assert set(write(tmp_path / "x", Entry(first.run, first.manifest, late)).entries) == {"a-v1"}


# --- Damage

DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "cut off": lambda path, chance: path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size - 1)]),
    "one bit flipped": lambda path, chance: flip(path, chance),
    "removed": lambda path, chance: path.unlink(),
    "emptied": lambda path, chance: path.write_bytes(b""),
}


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good")
    (place / "mini.yaml").write_text(TIER)
    return write_archive(load_tier(place / "mini.yaml"), place / "archive")


def damaged(folder: Path, match: str = "") -> None:
    """Reading refuses the archive in one sentence, whatever is asked for."""
    with pytest.raises(UserError, match=match) as caught:
        Archive(folder, "mini")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damage_to_any_file_is_refused(name: str, damage: str, good: Path, tmp_path: Path) -> None:
    chance = random.Random(f"{name} {damage}")
    for trial in range(5):
        folder = Path(shutil.copytree(good, tmp_path / str(trial)))
        DAMAGE[damage](folder / name, chance)
        damaged(folder)


def test_strange_files_other_tiers_and_other_formats_are_refused(good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "x"))
    Archive(folder), Archive(folder, "mini")
    with pytest.raises(UserError, match="is that of the tier 'mini', not of 'desk'"):
        Archive(folder, "desk")
    for name in ("notes.txt", "phases/part-001.parquet", ".hidden"):
        (folder / name).write_text("mine")
        damaged(folder, f"{name} is no part of it")
        (folder / name).unlink()
    rewrite(folder / "archive.json", lambda index: index.update(format=2))
    damaged(folder, "is of format 2, and this version reads format 1: install")
    for text in ("[]", "{}", "7", "{", '{"format": 1}'):
        (folder / "archive.json").write_text(text)
        damaged(folder, "archive.json cannot be read")
    shutil.rmtree(folder)
    damaged(folder, "there is no archive in")


# --- Runs found by what they are


def test_restored_desk_runs_are_byte_for_byte_those_that_were_archived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "results/desk/archive", tmp_path / "desk/archive")
    (found,) = archives.published(tmp_path)
    sample = random.Random(0).sample(list(found.entries.values()), 12)
    for entry in sample:
        folder = archives.restore(entry, CONTROL, tmp_path)
        assert folder is not None and names(folder) == ["evals.parquet", "manifest.json", "phases.parquet"]
        manifest = tables.read_json(folder / "manifest.json")
        assert manifest == entry.manifest
        for name in ("evals.parquet", "phases.parquet"):
            assert tables.sha256_file(folder / name) == manifest["checksums"][name]
        assert folder.name == entry.run and archives.restore(entry, CONTROL, tmp_path) is None
        assert archives.from_folder(folder, CONTROL, entry.run).run == entry.run
    errors = [finding for finding in verify_folders(tmp_path / "runs", KINDS)[0] if finding.level == "error"]
    assert errors == []
    assert cli.run(["verify", str(tmp_path / "runs")]) == 0
    assert "12 runs, 0 products: 0 errors" in capsys.readouterr().out


def test_archived_runs_are_preferred_and_the_rest_is_found_in_folders(tier: Tier) -> None:
    first, second, third, fourth = [run.config for run in tier.planned()]
    entries = [entry_of(first, host="archived"), entry_of(second, host="archived")]
    write_archive(tier, Path("results/other/archive"), entries)  # of whatever tier
    for config in (second, third):
        write_run(config)
    found = archives.collect(tier, CONTROL, Path("results"))
    hosts = [entry.manifest["host"] for entry in found.entries]
    assert hosts[:2] == ["archived"] * 2 and hosts[2] != "archived"
    assert found.missing == [fourth.place]
    anew = archives.collect(tier, CONTROL, Path("results"), archives=False)
    assert [entry.run for entry in anew.entries] == [str(second.run_id), str(third.run_id)]
    assert anew.missing == [first.place, fourth.place]
    assert archives.everything(Path("results")) == {str(config.run_id) for config in (first, second, third)}
    assert {entry.run for entry in archives.finished(Path("results"), CONTROL)} == archives.everything(Path("results"))
    assert list(archives.finished(Path("results"), LANGUAGE)) == []


def test_a_folder_that_holds_another_run_is_refused(tier: Tier) -> None:
    first, second, *_ = [run.config for run in tier.planned()]
    folder = write_run(first)
    (folder.parents[3] / second.place).parent.mkdir(parents=True, exist_ok=True)
    place = Path("results/runs") / second.place
    shutil.copytree(folder, place, dirs_exist_ok=True)
    with pytest.raises(UserError, match=f"should hold the run {second.run_id}, but its manifest says {first.run_id}"):
        archives.collect(tier, CONTROL, Path("results"))
    shutil.rmtree(place)
    for damage, words in (
        (lambda: (folder / "evals.parquet").write_bytes(b"x"), "does not match its checksum"),
        (lambda: (folder / "evals.parquet").unlink(), "is missing"),
        (lambda: rewrite(folder / "manifest.json", lambda r: r.update(status="new")), "is incomplete"),
        (lambda: (folder / "manifest.json").write_text("[]"), "its manifest says None"),
        (lambda: (folder / "manifest.json").write_text("{"), "a JSON file is expected"),
    ):
        damage()
        with pytest.raises(UserError, match=words) as caught:
            archives.collect(tier, CONTROL, Path("results"))
        assert "\n" not in str(caught.value)


def test_a_larger_tier_asks_only_for_what_exists_nowhere(tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    references = {"Hopper-v5": reference("Hopper-v5", 10)}
    plan, entries = archives.plan_hash(tier), entries_of(tier)
    archive.write(ARCHIVE, entries, tier="mini", kind="control", plan=plan, planned=4, references=references)
    before = contents(ARCHIVE)
    new = [run.config for run in larger().planned() if run.config.seed > 1]
    missing = archives.collect(larger(), CONTROL, Path("results")).missing
    assert missing == [config.place for config in new] and len(missing) == 4
    command = ("archive", "--tier", "mini", "--out", str(ARCHIVE))
    said = refused(capsys, *command)
    assert f"4 runs of the tier 'mini' are not finished, the first {missing[0]}" in said
    assert contents(ARCHIVE) == before and names(ARCHIVE.parent) == ["archive"]
    for config in new:
        write_run(config)
    assert "run folders only" not in refused(capsys, *command, "--anew")
    assert cli.run(command) == 0
    assert "8 of 8 runs" in capsys.readouterr().out
    found = Archive(ARCHIVE, "mini")
    assert found.index["plan"] == archives.plan_hash(larger()) and found.references == references
    assert (ARCHIVE / "phases/part-000.parquet").read_bytes() == before["phases/part-000.parquet"]
    assert cli.run(["verify", "results"]) == 0


def test_references_are_taken_from_files_then_from_archives(tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    for run in tier.planned():
        write_run(run.config)
    command = ("archive", "--tier", "mini", "--out", str(ARCHIVE))
    wanted = "no measurement of the random policy on Hopper-v5 with 10 episodes and seed 0: make it with vaco evaluate"
    assert wanted in refused(capsys, *command)
    Path("other.json").write_text(json.dumps(reference("Hopper-v5", 11)))
    assert wanted in refused(capsys, *command, "--references", "other.json")
    assert not ARCHIVE.parent.exists()
    Path("right.json").write_text(json.dumps(reference("Hopper-v5", 10)))
    assert cli.run([*command, "--references", "other.json", "right.json"]) == 0
    assert cli.run(command) == 0  # from what is archived now
    assert Archive(ARCHIVE).references == {"Hopper-v5": reference("Hopper-v5", 10)}


# --- The commands


def test_restore_lays_out_what_the_tier_asks_for(tier: Tier, capsys: pytest.CaptureFixture[str]) -> None:
    entries = entries_of(tier)
    write_archive(tier, ARCHIVE, entries[:3])
    command = ("restore", "--tier", "mini")
    assert cli.run(command) == 0
    printed = capsys.readouterr()
    assert "3 runs laid out below results/runs, 0 were there" in printed.out
    assert "1 runs of the tier 'mini' exist nowhere" in printed.err
    assert {path.parent.name for path in Path("results/runs").rglob("manifest.json")} == {e.run for e in entries[:3]}
    assert cli.run(command) == 0 and "0 runs laid out below results/runs, 3 were there" in capsys.readouterr().out
    assert cli.run(["verify", "results/runs"]) == 0
    shutil.rmtree("results/runs")
    Path("results/runs").write_text("a file")
    assert "cannot write" in refused(capsys, *command)
    (ARCHIVE / "runs.parquet").unlink()
    assert "runs.parquet is missing" in refused(capsys, *command)
    assert "did you mean 'mini'" in refused(capsys, "restore", "--tier", "mimi")


def test_stale_lists_the_runs_of_another_version(
    tier: Tier, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaco.runs import identity

    write_archive(tier, ARCHIVE, entries_of(tier)[:2])
    for run in tier.planned()[2:]:
        write_run(run.config)
    assert cli.run(["stale", "--tier", "mini"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "" and "0 of the 4 runs of the tier 'mini' are stale" in printed.err
    old = [str(run.config.run_id) for run in tier.planned() if run.config.algorithm == "vaco"]
    first = identity.VERSIONS["control"]
    monkeypatch.setitem(
        identity.VERSIONS, "control", (*first, identity.Version(2, "f" * 40, "a test", frozenset({"tv"})))
    )
    assert cli.run(["stale", "--tier", "mini"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 2 and "2 of the 4 runs" in printed.err
    assert {line.split("  wanted: ")[0] for line in lines} == set(old)
    assert all(line.split("  wanted: ")[1] == line.split("  ")[0].replace("-v1", "-v2") for line in lines)
    # They are to be trained again, and what is there of them is no substitute.
    fresh = load_tier("mini")
    missing = archives.collect(fresh, CONTROL, Path("results")).missing
    assert missing == [run.config.place for run in fresh.planned() if run.config.algorithm == "vaco"]
    assert "there is no folder nowhere" in refused(capsys, "stale", "--tier", "mini", "--results", "nowhere")
    assert "--tier" in refused(capsys, "stale")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("archive", "--tier", "mini"), "--out"),
        (("archive", "--out", "x"), "--tier"),
        (("archive", "--tier", "nonsense", "--out", "x"), "there is no tier 'nonsense'"),
        (("archive", "--tier", "lm_nonsense", "--out", "x"), "there is no language-model tier 'lm_nonsense'"),
        (("archive", "--tier", "mini", "--out", "x"), "4 runs of the tier 'mini' are not finished"),
        (("archive", "--tier", "mini", "--out", "x", "--allow-missing"), "no measurement of the random policy"),
        (
            ("archive", "--tier", "mini", "--out", "x", "--allow-missing", "--references", "r.json"),
            "nothing to archive",
        ),
        (("archive", "--tier", "mini", "--out", "x", "--allow-missing", "--references", "no.json"), "no.json"),
        (("archive", "--tier", "mini", "--out", "x", "--allow-missing", "--references", "list.json"), "list.json"),
        (("verify",), "DIR"),
        (("verify", "nowhere"), "there is no folder nowhere"),
        (("verify", "config"), "nothing was verified"),
    ],
)
def test_bad_commands_end_with_one_sentence_and_leave_nothing(
    arguments: tuple[str, ...], words: str, tier: Tier, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.json").write_text(json.dumps(reference("Hopper-v5", 10)))
    Path("list.json").write_text("[1]")
    before = contents(Path())
    assert words in refused(capsys, *arguments)
    assert contents(Path()) == before
