"""From synthetic run folders to tables: the numbers, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_run
from vaco.report.derive import TIDY

from vaco.errors import UserError
from vaco.report.aggregate import aggregate, references, thin, weak_references
from vaco.report.estimates import Estimator, curve_matrix, score_matrix
from vaco.report.plan import read_plan
from vaco.report.runs import find_runs
from vaco.runs.tiers import Tier


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    """A copy of the run folders that a test may damage."""
    return Path(shutil.copytree(results, tmp_path / results.name, ignore=shutil.ignore_patterns("tables")))


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet")


def test_one_row_a_run_and_one_a_point(small_tier: Tier, tables_folder: Path) -> None:
    runs = small_tier.runs()
    assert len(runs) == 2 * 3 * 2 * 3 + 2 * 2
    assert len(read(tables_folder, "scores")) == len(runs)
    assert len(read(tables_folder, "curves")) == len(runs) * 5


def test_scores_against_a_loop_over_folders(small_tier: Tier, results: Path, tables_folder: Path) -> None:
    scores = read(tables_folder, "scores").set_index(["env", "name", "lag", "seed"])
    for env in small_tier.environments:
        zero = json.loads((results / "references" / f"{env}.json").read_text())["mean"]
        finals = []
        for seed in (0, 1, 2):
            evals = pd.read_parquet(results / "runs" / env / "ppo" / "lag1" / f"seed{seed}" / "evals.parquet")
            finals.append(float(evals["mean"].iloc[-1]))
        one = sum(finals) / 3
        evals = pd.read_parquet(results / "runs" / env / "vaco" / "lag8" / "seed1" / "evals.parquet")
        curve = [(float(value) - zero) / (one - zero) for value in evals["mean"]]
        row = scores.loc[(env, "vaco", 8, 1)]
        assert row["score"] == pytest.approx(curve[-1])
        assert row["auc"] == pytest.approx(sum(curve[:-1]) / 4 + (curve[-1] - curve[0]) / 8)


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
    aggregate(read_plan(small_tier.plan()), results, tmp_path)
    for name in TIDY:
        assert (tmp_path / name).read_bytes() == (tables_folder / name).read_bytes(), name


def test_thinning_averages_equal_stretches() -> None:
    from vaco.report.aggregate import DIAGNOSTICS

    phases = pd.DataFrame(dict.fromkeys(DIAGNOSTICS, np.arange(10.0))).assign(env_steps=np.arange(1, 11) * 8)
    phases.loc[0, "ess"] = np.nan
    thinned = thin(phases, 80, stretches=5)
    assert thinned["kl"].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert thinned["progress"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert thinned["ess"].tolist()[0] == 1.0
    assert len(thin(phases, 80, stretches=100)) == 10


def test_missing_runs_are_listed(small_tier: Tier, copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "runs/Hopper-v5/spo/lag8/seed2")
    plan = read_plan(small_tier.plan())
    with pytest.raises(UserError, match=r"1 of 40 runs .* runs/Hopper-v5/spo/lag8/seed2; .*allow_missing"):
        aggregate(plan, copy, tmp_path)
    aggregate(plan, copy, tmp_path, allow_missing=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["missing"] == ["runs/Hopper-v5/spo/lag8/seed2"] and summary["runs"] == 39


def test_an_unfinished_run_is_a_missing_run(small_tier: Tier, copy: Path, tmp_path: Path) -> None:
    spec = small_tier.find("Hopper-v5", "vaco", 1, 0)
    write_run(spec, copy.parent / spec.folder, status="running")
    with pytest.raises(UserError, match="1 of 40 runs"):
        aggregate(read_plan(small_tier.plan()), copy, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"identity": {"env": "Hopper-v5", "algorithm": "spo", "lag": 1, "seed": 0, "steps": 40960}},
            "algorithm = vaco",
        ),
        ({"identity": {"env": "Hopper-v5", "algorithm": "vaco", "lag": 1, "seed": 9, "steps": 40960}}, "seed = 0"),
        ({"checksums": {"evals.parquet": "0", "phases.parquet": "0"}}, "does not match the checksum"),
        ({"versions": {"mujoco": "3.1.4"}}, "mix versions of MuJoCo"),
    ],
)
def test_what_does_not_belong_is_refused(
    small_tier: Tier, copy: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    spec = small_tier.find("Hopper-v5", "vaco", 1, 0)
    write_run(spec, copy.parent / spec.folder, **changes)
    with pytest.raises(UserError, match=message):
        aggregate(read_plan(small_tier.plan()), copy, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is no manifest of a run"),
        (b'{"status": "complete", "identity": {}, "config": 1}', "does not say the config of its run"),
        (b'{"status": "complete", "identity": {}, "config": {}, "checksums": {}, "versions": {}}', "env = Hopper-v5"),
    ],
)
def test_a_damaged_manifest_is_named(
    small_tier: Tier, copy: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    path = copy.parent / small_tier.find("Hopper-v5", "vaco", 1, 0).folder / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        aggregate(read_plan(small_tier.plan()), copy, tmp_path)


def test_a_variant_must_have_been_trained_as_its_name_says(small_tier: Tier, copy: Path, tmp_path: Path) -> None:
    plain, variant = (small_tier.find("Hopper-v5", name, 8, 0) for name in ("vaco", "vaco-delta0.4"))
    shutil.rmtree(copy.parent / variant.folder)
    shutil.copytree(copy.parent / plain.folder, copy.parent / variant.folder)
    with pytest.raises(UserError, match=r"delta = 0\.4, but its manifest says 0\.2"):
        aggregate(read_plan(small_tier.plan()), copy, tmp_path)


def test_mixed_sources_are_a_warning(small_tier: Tier, copy: Path, tmp_path: Path) -> None:
    spec = small_tier.find("Hopper-v5", "vaco", 1, 0)
    write_run(spec, copy.parent / spec.folder, source_hash="1" * 64, dirty=True)
    aggregate(read_plan(small_tier.plan()), copy, tmp_path)
    warnings = " ".join(json.loads((tmp_path / "summary.json").read_text())["warnings"])
    assert "vaco were made by more than one version of the training code" in warnings
    assert "1 of 40 runs were made from a working tree with uncommitted changes" in warnings


def test_without_synchronous_ppo_there_is_no_scale(small_tier: Tier, copy: Path, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        shutil.rmtree(copy / f"runs/Hopper-v5/ppo/lag1/seed{seed}")
    plan = read_plan(small_tier.plan())
    runs, _ = find_runs(plan, copy, allow_missing=True)
    with pytest.raises(UserError, match=r"no finished synchronous PPO \(ppo, K = 1\) on Hopper-v5"):
        references(plan, runs, copy)
    # While the tier is incomplete the task waits for its scale, and the other keeps its scores.
    aggregate(plan, copy, tmp_path, allow_missing=True)
    known = read(tmp_path, "scores").groupby("env")["score"].count()
    assert known["Hopper-v5"] == 0 and known["HalfCheetah-v5"] == 18
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["references"]["Hopper-v5"]["ppo"] is None
    assert any("On Hopper-v5 no synchronous PPO is finished" in warning for warning in summary["warnings"])


def test_a_unit_of_one_run_is_a_warning() -> None:
    known = {"random": 0.0, "random_error": 1.0, "random_episodes": 100, "ppo": 100.0, "ppo_error": 5.0, "ppo_seeds": 2}
    one = known | {"ppo_error": math.nan, "ppo_seeds": 1}
    assert weak_references({"A": known}) == []
    assert weak_references({"A": known, "B": one, "C": one}) == [
        "On B, C the unit of scores rests on a single run of synchronous PPO, so its own error is unknown."
    ]
    assert "mostly noise" in weak_references({"A": known | {"ppo": 10.0}})[0]


def test_a_missing_reference_says_how_to_make_it(small_tier: Tier, copy: Path, tmp_path: Path) -> None:
    (copy / "references/Hopper-v5.json").unlink()
    with pytest.raises(UserError, match="vaco evaluate --env Hopper-v5 --random"):
        aggregate(read_plan(small_tier.plan()), copy, tmp_path)
