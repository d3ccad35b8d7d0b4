"""From synthetic archives to tables: the numbers, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import write_archive

from vaco.archive import Archive
from vaco.campaign.tiers import Tier
from vaco.errors import UserError
from vaco.report.tables import aggregate as command
from vaco.report.tables.aggregate import aggregate, references, thin, weak_references
from vaco.report.tables.caption import caveats
from vaco.report.tables.estimates import Estimator, curve_matrix, score_matrix
from vaco.report.tables.plan import read_plan
from vaco.report.tables.runs import configurations, find_runs

CELL = "Hopper-v5/vaco/lag1/seed0"
VACO = [f"{env}/vaco/lag{lag}/seed{s}" for env in ("Hopper-v5", "HalfCheetah-v5") for lag in (1, 8) for s in (0, 1, 2)]
VERSIONS = {"python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0", "mujoco": "4.0.0", "gymnasium": "1.4.0"}


def summary_of(tier: Tier, folder: Path, **damage: Any) -> dict[str, Any]:
    """Aggregate an archive of the tier, of which `damage` says what is other than it should be."""
    aggregate(read_plan(tier.plan()), write_archive(tier, folder / "archive", **damage), folder)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet")


def test_one_row_a_run_and_one_a_point(small_tier: Tier, tables_folder: Path) -> None:
    runs = small_tier.runs()
    assert len(runs) == 2 * 3 * 2 * 3 + 2 * 2
    assert len(read(tables_folder, "scores")) == len(runs)
    assert len(read(tables_folder, "curves")) == len(runs) * 5


@pytest.mark.parametrize(("points", "last"), [(4, 1), (8, 2), (20, 5)])
def test_scores_against_a_loop_over_the_archive(small_tier: Tier, tmp_path: Path, points: int, last: int) -> None:
    """The final return is the mean of the last quarter of the evaluation points."""
    tier = replace(small_tier, points=points)
    archive = write_archive(tier, tmp_path / "archive")
    aggregate(read_plan(tier.plan()), archive, tmp_path / "tables")
    scores = read(tmp_path / "tables", "scores").set_index(["env", "name", "lag", "seed"])
    assert json.loads((tmp_path / "tables/summary.json").read_text())["evaluation"]["final"] == last
    means: dict[str, list[float]] = {}
    for row in read(tmp_path / "archive", "evals").itertuples():
        means.setdefault(row.run, []).append(float(row.mean))
    for env in tier.environments:
        zero = archive.references[env]["mean"]
        ppo = [means[str(tier.find(env, "ppo", 1, seed).config.run_id)] for seed in (0, 1, 2)]
        one = sum(sum(curve[-last:]) / last for curve in ppo) / 3
        found = means[str(tier.find(env, "vaco", 8, 1).config.run_id)]
        curve = [(value - zero) / (one - zero) for value in found]
        row = scores.loc[(env, "vaco", 8, 1)]
        assert len(found) == points + 1
        assert row["final"] == pytest.approx(sum(found[-last:]) / last)
        assert row["score"] == pytest.approx(sum(curve[-last:]) / last)
        assert row["auc"] == pytest.approx(sum(curve[:-1]) / points + (curve[-1] - curve[0]) / (2 * points))


def test_synchronous_ppo_scores_one_on_average(tables_folder: Path) -> None:
    scores = read(tables_folder, "scores")
    ppo = scores[(scores["name"] == "ppo") & (scores["lag"] == 1)]
    assert ppo.groupby("env")["score"].mean().tolist() == pytest.approx([1.0, 1.0])


def test_the_score_matrix_is_runs_by_tasks(tables_folder: Path) -> None:
    scores = read(tables_folder, "scores")
    rows = scores[(scores["name"] == "spo") & (scores["lag"] == 8)]
    matrix, seeds = score_matrix(rows, "score", ["HalfCheetah-v5", "Hopper-v5"])
    assert matrix.shape == (3, 2) and seeds == [0, 1, 2]
    assert matrix[2, 0] == rows[(rows["env"] == "HalfCheetah-v5") & (rows["seed"] == 2)]["score"].item()
    incomplete = rows[~((rows["env"] == "Hopper-v5") & (rows["seed"] == 1))]
    matrix, seeds = score_matrix(incomplete, "score", ["HalfCheetah-v5", "Hopper-v5"])
    assert matrix.shape == (2, 2) and seeds == [0, 2]


def test_the_curve_matrix_ends_in_the_score_matrix(tables_folder: Path) -> None:
    scores, curves = read(tables_folder, "scores"), read(tables_folder, "curves")
    tasks = ["Hopper-v5", "HalfCheetah-v5"]
    matrix, _ = score_matrix(scores[(scores["name"] == "vaco") & (scores["lag"] == 1)], "score", tasks)
    array, steps = curve_matrix(curves[(curves["name"] == "vaco") & (curves["lag"] == 1)], tasks)
    assert array.shape == (3, 2, 5) and steps[-1] == 40960
    assert np.array_equal(array[:, :, -1], matrix)


def test_estimates_know_their_grid(tables_folder: Path) -> None:
    table = read(tables_folder, "aggregates")
    main = table[table["grid"] == "main"]
    assert len(main) == 3 * 2 * 5 and (main["runs"] == 3).all() and (main["tasks"] == 2).all()
    study = table[table["grid"] == "sensitivity"]
    assert set(study["name"]) == {"vaco", "vaco-delta0.4", "once+clip"}
    assert (study["runs"] == 2).all() and (study["tasks"] == 1).all()
    assert (table["low"] <= table["point"]).all() and (table["point"] <= table["high"]).all()


def test_estimates_repeat_exactly(tables_folder: Path) -> None:
    grids = json.loads((tables_folder / "summary.json").read_text())["grids"]
    scores, curves = read(tables_folder, "scores"), read(tables_folder, "curves")
    makers = [Estimator(scores, curves, grids, repetitions=50, seed=1) for _ in range(2)]
    for name in ("aggregates", "improvement", "iqm_curves"):
        pd.testing.assert_frame_equal(getattr(makers[0], name)(), getattr(makers[1], name)(), check_exact=True)


def test_improvement_mirrors(tables_folder: Path) -> None:
    table = read(tables_folder, "improvement").set_index(["grid", "lag", "name", "opponent"])
    forth, back = table.loc[("main", 8, "vaco", "spo")], table.loc[("main", 8, "spo", "vaco")]
    assert forth["point"] == pytest.approx(1 - back["point"]) and forth["low"] == pytest.approx(1 - back["high"])


def test_tables_are_the_same_bytes_again(small_tier: Tier, results: Path, tables_folder: Path, tmp_path: Path) -> None:
    aggregate(read_plan(small_tier.plan()), Archive(results / "archive"), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    tables = [f"{name}.parquet" for name in ("curves", "diagnostics", "lags", "runs", "scores")]
    assert names == sorted([*tables, "configs.json", "summary.json"])
    for name in names:
        assert (tmp_path / name).read_bytes() == (tables_folder / name).read_bytes(), name


def test_the_tables_say_which_archive_they_are_of(results: Path, tables_folder: Path) -> None:
    summary = json.loads((tables_folder / "summary.json").read_text())
    assert summary["archive"] == Archive(results / "archive").digest
    assert summary["missing"] == [] and summary["warnings"] == []


def test_thinning_averages_equal_stretches() -> None:
    from vaco.report.tables.aggregate import DIAGNOSTICS

    phases = pd.DataFrame(dict.fromkeys(DIAGNOSTICS, np.arange(10.0))).assign(env_steps=np.arange(1, 11) * 8)
    phases.loc[0, "ess"] = np.nan
    thinned = thin(phases, 80, stretches=5)
    assert thinned["kl"].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert thinned["progress"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert thinned["ess"].tolist()[0] == 1.0
    assert len(thin(phases, 80, stretches=100)) == 10


def test_missing_runs_are_listed(small_tier: Tier, tmp_path: Path) -> None:
    gone = ["Hopper-v5/spo/lag8/seed2", "HalfCheetah-v5/vaco/lag1/seed0"]
    summary = summary_of(small_tier, tmp_path, without=gone)
    assert summary["missing"] == gone and (summary["runs"], summary["planned_runs"]) == (38, 40)
    progress = summary["progress"]["main"]
    assert (progress["finished"], progress["planned"]) == (34, 36) and progress["seeds"]["2"] == [11, 12]
    assert len(read(tmp_path, "scores")) == 38


def test_without_any_run_of_the_tier_there_is_nothing_to_tell(small_tier: Tier, tmp_path: Path) -> None:
    plan = read_plan(small_tier.plan())
    strange = {cell: {"config_hash": f"{number:016x}"} for number, cell in enumerate(plan.runs)}
    with pytest.raises(UserError, match="holds no run of the tier 'small': train some first"):
        summary_of(small_tier, tmp_path, changed=strange)


def test_a_run_fills_the_cell_whose_settings_it_has(small_tier: Tier, tmp_path: Path) -> None:
    """A variant's run that was trained otherwise is none of the tier's, and no run fills two cells."""
    variant = "Hopper-v5/vaco-delta0.4/lag8/seed0"
    summary = summary_of(small_tier, tmp_path, changed={variant: {"config_hash": "0" * 16}})
    assert summary["missing"] == [variant]
    scores = read(tmp_path, "scores")
    assert len(scores) == 39 and len(scores[scores["name"] == "vaco-delta0.4"]) == 1


def test_the_archive_of_another_tier_is_refused(small_tier: Tier, results: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(json.loads(small_tier.plan()) | {"tier": "large"}))
    out = tmp_path / "tables"
    with pytest.raises(UserError, match="is that of the tier 'small', not of 'large'"):
        command.main(["--plan", str(plan), "--archive", str(results / "archive"), "--out", str(out)])
    assert not out.exists()


def test_versions_of_mujoco_are_not_mixed(small_tier: Tier, tmp_path: Path) -> None:
    changed = {CELL: {"versions": VERSIONS | {"mujoco": "3.1.4"}}}
    with pytest.raises(UserError, match=rf"mix versions of MuJoCo.*3\.1\.4: {CELL}"):
        summary_of(small_tier, tmp_path, changed=changed)
    assert not (tmp_path / "scores.parquet").exists()


def test_training_versions_of_one_algorithm_are_not_mixed(small_tier: Tier, tmp_path: Path) -> None:
    """A variant is its algorithm."""
    for cell in (CELL, "Hopper-v5/vaco-delta0.4/lag8/seed0"):
        with pytest.raises(
            UserError, match=r"the runs of vaco are of several training versions \(v0, v1\).*vaco stale"
        ):
            summary_of(small_tier, tmp_path / cell, changed={cell: {"training_version": 0}})


def test_an_older_training_version_is_a_warning(small_tier: Tier, tmp_path: Path) -> None:
    """Other algorithms have versions of their own."""
    old = [*VACO, *(f"Hopper-v5/vaco-delta0.4/lag8/seed{seed}" for seed in (0, 1))]
    summary = summary_of(small_tier, tmp_path, changed={cell: {"training_version": 0} for cell in old})
    assert summary["missing"] == []
    assert summary["warnings"] == [
        "Runs of vaco, vaco-delta0.4 are of an older training version than the code here.",
    ]
    versions = read(tmp_path, "runs").groupby("name")["training_version"].unique()
    assert versions["vaco"].tolist() == ["v0"] and versions["ppo"].tolist() == ["v1"]


def test_what_a_reader_should_know_is_a_warning(small_tier: Tier, tmp_path: Path) -> None:
    change = {"dirty": True, "versions": VERSIONS | {"torch": "2.12.0"}}
    summary = summary_of(small_tier, tmp_path, changed={CELL: change})
    assert summary["warnings"] == [
        "Runs mix versions of torch: 2.12.0, 2.13.0.",
        "1 of 40 runs were made from a working tree with uncommitted changes.",
    ]
    assert summary["versions"]["torch"] == ["2.12.0", "2.13.0"]
    assert (read(tmp_path, "runs")["dirty"] == "True").sum() == 1


def test_captions_say_how_often_episodes_were_restarted(small_tier: Tier, tmp_path: Path) -> None:
    change = {CELL: {"episodes_restarted": 2}, CELL.replace("lag1", "lag8"): {"episodes_restarted": 0}}
    summary = summary_of(small_tier, tmp_path, changed=change)
    (said,) = summary["warnings"]
    assert said.startswith("Of 40 runs 1 were interrupted") and "their episodes restarted up to 2 times a run" in said
    assert said in caveats(summary)
    change[CELL] = {"episodes_restarted": 0}
    assert not summary_of(small_tier, tmp_path / "none", changed=change)["warnings"]


def test_runs_of_one_name_have_the_same_settings(small_tier: Tier, tmp_path: Path) -> None:
    config = small_tier.find("Hopper-v5", "vaco", 1, 0).config.resolved()
    with pytest.raises(UserError, match=rf"runs of 'vaco' differ in clip: 0\.5 in {CELL}, {config['clip']} in"):
        summary_of(small_tier, tmp_path, changed={CELL: {"config": config | {"clip": 0.5}}})


def test_a_run_of_before_a_setting_existed_agrees_with_later_ones(small_tier: Tier, tmp_path: Path) -> None:
    config = small_tier.find("Hopper-v5", "vaco", 1, 0).config.resolved()
    early = {key: value for key, value in config.items() if key != "clip"}
    plan, archive = read_plan(small_tier.plan()), write_archive(small_tier, tmp_path, changed={CELL: {"config": early}})
    assert configurations(find_runs(plan, archive)[0])["vaco"]["clip"] == config["clip"]


def test_without_synchronous_ppo_there_is_no_scale(small_tier: Tier, tmp_path: Path) -> None:
    # While the tier is incomplete the task waits for its scale, and the other keeps its scores.
    summary = summary_of(small_tier, tmp_path, without=[f"Hopper-v5/ppo/lag1/seed{seed}" for seed in (0, 1, 2)])
    known = read(tmp_path, "scores").groupby("env")["score"].count()
    assert known["Hopper-v5"] == 0 and known["HalfCheetah-v5"] == 18
    assert summary["references"]["Hopper-v5"]["ppo"] is None
    assert any("On Hopper-v5 no synchronous PPO is finished" in warning for warning in summary["warnings"])


def test_a_finished_tier_without_synchronous_ppo_is_refused(small_tier: Tier, results: Path) -> None:
    content = json.loads(small_tier.plan())
    content["grids"]["main"]["capacities"] = [8]
    plan, archive = read_plan(json.dumps(content)), Archive(results / "archive")
    runs, missing = find_runs(plan, archive)
    assert not missing
    with pytest.raises(UserError, match=r"no finished synchronous PPO \(ppo, K = 1\) on Hopper-v5"):
        references(plan, runs, archive.references)


def test_a_unit_of_one_run_is_a_warning() -> None:
    known = {"random": 0.0, "random_error": 1.0, "random_episodes": 100, "ppo": 100.0, "ppo_error": 5.0, "ppo_seeds": 2}
    one = known | {"ppo_error": math.nan, "ppo_seeds": 1}
    assert weak_references({"A": known}) == []
    assert weak_references({"A": known, "B": one, "C": one}) == [
        "On B, C the unit of scores rests on a single run of synchronous PPO, so its own error is unknown."
    ]
    assert "mostly noise" in weak_references({"A": known | {"ppo": 10.0}})[0]


def test_a_missing_reference_is_named(small_tier: Tier, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not measure the random policy on Hopper-v5: make it again"):
        summary_of(small_tier, tmp_path, unmeasured=["Hopper-v5"])
