"""The figures of the studies, on a complete tier, on one with holes, and on one with a single run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_archive

from vaco.campaign.tiers import Tier, load_tier
from vaco.report.figures import factorial, sensitivity
from vaco.report.tables import aggregate, estimates
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables

STUDIES = """
tier: studied
description: A tier for tests, with every study.
environments: [Hopper-v5, HalfCheetah-v5]
algorithms: [ppo, spo, vaco]
capacities: [1, 16]
seeds: [0, 1, 2]
steps: 1000000
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
variants:
  vaco-delta0.4: {algorithm: vaco, training: {delta: 0.4}}
  ppo-clip0.4: {algorithm: ppo, training: {clip: 0.4}}
  vaco-epochs3: {algorithm: vaco, training: {epochs: 3}}
  ppo-epochs3: {algorithm: ppo, training: {epochs: 3}}
  vaco-trajectories: {algorithm: vaco, training: {minibatches: trajectories, advantage_normalisation: minibatch}}
studies:
  factorial:
    algorithms:
      [none+clip, none+tv, none+tv_total, once+clip, once+tv, continuous+clip, continuous+tv, vaco-trajectories]
    capacities: [16]
    seeds: [0, 1]
  contributions:
    algorithms: [none+clip, none+decoupled_clip, none+tv, once+clip, once+tv]
    capacities: [16]
    seeds: [0, 1, 2]
  sensitivity:
    environments: [Hopper-v5]
    algorithms: [vaco, vaco-delta0.4, ppo, ppo-clip0.4]
    capacities: [16]
    seeds: [0, 1]
  forward_lag:
    environments: [HalfCheetah-v5]
    algorithms: [vaco, vaco-epochs3, ppo, ppo-epochs3]
    capacities: [1, 16]
    seeds: [0]
"""
FIGURES = ("factorial", "contributions", "cost", "sensitivity", "forward_lag", "constraint", "rank_stability")
OLDER = ("aggregate_scores", "learning_curves", "task_curves", "task_scores", "diagnostics", "profiles", "improvement")


@pytest.fixture(scope="module")
def tier(tmp_path_factory: pytest.TempPathFactory) -> Tier:
    path = tmp_path_factory.mktemp("config") / "studied.yaml"
    path.write_text(STUDIES)
    return load_tier(path)


def make_tables(tier: Tier, root: Path, without: Collection[str] = ()) -> Path:
    archive = write_archive(tier, root / "archive", phases=10, without=without)
    aggregate.aggregate(read_plan(tier.plan()), archive, root / "tables")
    assert estimates.main(["--tables", str(root / "tables"), "--repetitions", "100"]) == 0
    return root / "tables"


@pytest.fixture(scope="module")
def complete(tier: Tier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tier, tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="module")
def holes(tier: Tier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One method is empty at K = 16, another has a single seed, and the continuous row of the factorial is empty."""
    patterns = ("*/spo/lag16/*", "*/vaco/lag16/seed[12]", "*/continuous+*/*/*", "*/vaco-epochs3/*/*")
    gone = [cell for cell in read_plan(tier.plan()).runs if any(fnmatch(cell, pattern) for pattern in patterns)]
    return make_tables(tier, tmp_path_factory.mktemp("holes"), gone)


@pytest.fixture(scope="module")
def single(tier: Tier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first run of a campaign, on a task without a synchronous PPO: nothing has a score yet."""
    others = read_plan(tier.plan()).runs.keys() - {"Hopper-v5/vaco/lag16/seed0"}
    return make_tables(tier, tmp_path_factory.mktemp("single"), others)


def draw(name: str, tables: Path, out: Path) -> str:
    main = importlib.import_module(f"vaco.report.figures.{name}").main
    assert main(["--tables", str(tables), "--out", str(out / name)]) == 0
    assert (out / f"{name}.pdf").stat().st_size > 1000
    return str(json.loads((out / f"{name}.json").read_text())["caption"])


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_draws_twice_the_same(name: str, complete: Path, tmp_path: Path) -> None:
    text = draw(name, complete, tmp_path / "a")
    draw(name, complete, tmp_path / "b")
    for suffix in ("pdf", "png", "json"):
        first, second = (tmp_path / side / f"{name}.{suffix}" for side in "ab")
        assert first.read_bytes() == second.read_bytes(), suffix
    assert "1,000,000 environment steps" in text and "So far" not in text and "Incomplete" not in text


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_with_holes_draws_and_says_what_is_missing(name: str, holes: Path, tmp_path: Path) -> None:
    text = draw(name, holes, tmp_path)
    assert "So far" in text and "cells are empty" in text and "Incomplete" in text


@pytest.mark.parametrize("name", FIGURES + OLDER)
def test_after_the_first_run_every_figure_draws(name: str, single: Path, tmp_path: Path) -> None:
    text = draw(name, single, tmp_path)
    assert "no synchronous PPO is finished" in text and "single differences are no evidence" in text


def test_progress_counts_runs_cells_and_seeds(complete: Path, holes: Path) -> None:
    before, after = (Tables(folder).summary["progress"] for folder in (complete, holes))
    assert before["main"]["finished"] == before["main"]["planned"] == 36 and before["main"]["empty"] == 0
    assert after["main"]["finished"] == 36 - 6 - 4 and after["main"]["empty"] == 2
    assert (after["main"]["fewest"], after["main"]["most"]) == (0, 3)
    # spo at K = 16 is missing everywhere, VACO's seeds 1 and 2 at K = 16 too.
    assert after["main"]["seeds"] == {"0": [10, 12], "1": [8, 12], "2": [8, 12]}


def test_a_task_without_its_reference_has_returns_and_no_scores(single: Path) -> None:
    scores = pd.read_parquet(single / "scores.parquet")
    assert np.isfinite(scores["final"]).all() and scores["score"].isna().all()
    table = pd.read_parquet(single / "task_scores.parquet").set_index(["grid", "metric"])
    assert np.isfinite(table.loc[("main", "final"), "point"]) and np.isnan(table.loc[("main", "score"), "point"])
    assert pd.read_parquet(single / "aggregates.parquet").empty


def test_the_map_places_methods_by_their_pair(complete: Path) -> None:
    tables = Tables(complete)
    spot = factorial.places(tables.grid("factorial")["algorithms"], tables.methods)
    assert spot["ppo"] == ("none", "clip") and spot["vaco"] == ("once", "tv")
    assert spot["continuous+clip"] == ("continuous", "clip")
    assert spot["vaco-trajectories"] == ("once\n(control)", "tv")


def test_a_study_uses_its_own_seeds_only(complete: Path) -> None:
    table = pd.read_parquet(complete / "task_scores.parquet")
    runs = table[(table["name"] == "vaco") & (table["lag"] == 16) & (table["env"] == "Hopper-v5")].groupby("grid")[
        "runs"
    ]
    assert runs.max().to_dict() == {"main": 3, "factorial": 2, "contributions": 3, "sensitivity": 2}


def test_thresholds_are_those_of_the_variants(complete: Path) -> None:
    found = sensitivity.thresholds(Tables(complete))
    assert found == {"vaco": 0.2, "vaco-delta0.4": 0.4, "ppo": 0.2, "ppo-clip0.4": 0.4}


def test_where_the_trigger_compares_with_the_behaviour_policy_its_stops_are_not_known(complete: Path) -> None:
    table = pd.read_parquet(complete / "runs.parquet").groupby("name")
    assert table["trigger_fraction"].count()["none+tv_total"] == table["trigger_fraction"].size()["none+tv_total"]
    assert table["trigger_stops"].count()["none+tv_total"] == 0 and table["trigger_stops"].count()["none+tv"] > 0


def test_the_cost_shows_the_benchmark_when_there_is_one(complete: Path, tmp_path: Path) -> None:
    from vaco.report.figures import cost

    clean = tmp_path / "throughput.json"
    clean.write_text(
        json.dumps({"align_ms": {"none": 0.5, "once": 0.6, "continuous": 8.0}, "phase_ms": {"collect": 50.0}})
    )
    for name, more in (("without", []), ("with", ["--benchmark", str(clean)])):
        assert cost.main(["--tables", str(complete), "--out", str(tmp_path / name), *more]) == 0
    sidecars = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("without", "with")]
    assert "continuous 0.160" not in sidecars[0]["caption"] and "continuous 0.160" in sidecars[1]["caption"]
    assert clean.as_posix() in sidecars[1]["tables"]
