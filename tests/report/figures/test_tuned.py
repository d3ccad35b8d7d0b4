"""Tuned beside nominal: which runs count, means and differences against a loop, what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from synthetic import write_archive

from vaco.archive import Archive
from vaco.campaign.tiers import Tier, load_tier
from vaco.errors import UserError
from vaco.report.figures import tuned
from vaco.report.prose import tuned_numbers
from vaco.report.prose.tuned_numbers import from_comparison
from vaco.report.tables.aggregate import aggregate
from vaco.report.tables.choice import choose
from vaco.report.tables.methods import centred_label
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables

ROOT = Path(__file__).parents[3]
TASKS = ("Hopper-v5", "HalfCheetah-v5")
TIER = """
tier: mini
description: A tier with tuned methods, for tests.
environments: [Hopper-v5, HalfCheetah-v5]
algorithms: [vaco-16, beta-16, kl-16, clip-16]
capacities: [16]
seeds: [10, 11, 12]
steps: 40960
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
variants:
  vaco-16: {algorithm: once+tv, training: {delta: 0.4}}
  beta-16: {algorithm: once+tv_total, training: {delta: 0.1}}
  kl-16: {algorithm: none+kl, training: {kl_target: 0.03}}
  clip-16: {algorithm: none+proximal_clip, training: {clip: 0.4}}
  vaco-64: {algorithm: once+tv, training: {delta: 0.8}}
  kl-64: {algorithm: none+kl, training: {kl_target: 0.08}}
studies:
  older: {algorithms: [vaco-64, kl-64], capacities: [64]}
  nominal: {algorithms: [vaco, once+tv_total, ppo_kl, none+proximal_clip], capacities: [16, 64], seeds: [0, 1]}
  unit: {algorithms: [ppo], capacities: [1], seeds: [0, 1]}
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("tuned")
    (root / "mini.yaml").write_text(TIER)
    tier: Tier = load_tier(root / "mini.yaml")
    aggregate(read_plan(tier.plan()), write_archive(tier, root / "archive"), root / "tables")
    return Tables(root / "tables")


def scored(scores: pd.DataFrame, name: str, lag: int, env: str, seed: int) -> float:
    chosen = (scores["name"] == name) & (scores["lag"] == lag) & (scores["env"] == env) & (scores["seed"] == seed)
    return float(scores[chosen]["score"].item())


def test_the_standings_are_of_both_kinds_of_settings_at_every_capacity(tables: Tables) -> None:
    scores = tables.read("scores")
    table = tuned.standings(tuned.cells(scores, tables))
    kinds = {(row.algorithm, row.lag, row.tuned): row for row in table.itertuples()}
    of = {"vaco", "once+tv_total", "ppo_kl", "none+proximal_clip"}
    expected = {(one, lag, False) for one in of for lag in (16, 64)} | {(one, 16, True) for one in of}
    assert kinds.keys() == expected | {("vaco", 64, True), ("ppo_kl", 64, True)}
    row = kinds["ppo_kl", 16, True]
    total, spread, freedom = 0.0, 0.0, 0.0
    for env in TASKS:
        values = [scored(scores, "kl-16", 16, env, seed) for seed in (10, 11, 12)]
        mean = sum(values) / 3
        total += mean / 2
        term = sum((value - mean) ** 2 for value in values) / 2 / 3
        spread += term
        freedom += term**2 / 2
    assert row.point == pytest.approx(total) and row.runs == 3
    reach = stats.t.ppf(0.975, spread**2 / freedom) * spread**0.5 / 2
    assert (row.low, row.high) == pytest.approx((total - reach, total + reach))


def test_differences_are_of_tuned_methods_and_corrected_for_their_number(tables: Tables) -> None:
    scores = tables.read("scores")
    apart = tuned.differences(tuned.cells(scores, tables))
    pairs = {(row.reading, row.opponent, row.lag) for row in apart.itertuples()}
    assert pairs == {
        ("vaco", "ppo_kl", 16),
        ("vaco", "none+proximal_clip", 16),
        ("once+tv_total", "ppo_kl", 16),
        ("once+tv_total", "none+proximal_clip", 16),
        ("vaco", "ppo_kl", 64),
    }
    row = apart[(apart["reading"] == "vaco") & (apart["lag"] == 64)].iloc[0]
    total, spread, freedom = 0.0, 0.0, 0.0
    for env in TASKS:
        for name, sign in (("vaco-64", 1), ("kl-64", -1)):
            values = [scored(scores, name, 64, env, seed) for seed in (10, 11, 12)]
            mean = sum(values) / 3
            total += sign * mean / 2
            term = sum((value - mean) ** 2 for value in values) / 2 / 3
            spread += term
            freedom += term**2 / 2
    assert row["difference"] == pytest.approx(total)
    for low, level in (("low", 0.05), ("wide_low", 0.01)):
        reach = stats.t.ppf(1 - level / 2, spread**2 / freedom) * spread**0.5 / 2
        assert row["difference"] - row[low] == pytest.approx(reach)


def test_a_method_that_lacks_a_task_is_left_out(tables: Tables) -> None:
    scores = tables.read("scores")
    less = scores[~((scores["name"] == "kl-16") & (scores["env"] == "Hopper-v5"))]
    made = tuned.cells(less, tables)
    assert ("ppo_kl", 16, True) not in made and ("ppo_kl", 16, False) in made
    apart = tuned.differences(made)
    assert set(apart[apart["lag"] == 16]["opponent"]) == {"none+proximal_clip"}
    names = ["vaco-16", "beta-16", "kl-16", "clip-16", "vaco-64", "kl-64"]
    none = tuned.standings(tuned.cells(scores[~scores["name"].isin(names)], tables))
    assert not none["tuned"].any()


def test_runs_of_other_seeds_do_not_count(tables: Tables) -> None:
    scores = tables.read("scores")
    whole = tuned.standings(tuned.cells(scores, tables))
    more = pd.concat([scores, scores.assign(seed=99, score=50.0)])
    assert tuned.standings(tuned.cells(more, tables)).equals(whole)


def test_the_figure_draws_points_where_they_are_and_counts_them(tables: Tables, tmp_path: Path) -> None:
    made = tuned.cells(tables.read("scores"), tables)
    table, apart = tuned.standings(made), tuned.differences(made)
    drawn = tuned.draw(tables)
    left, right = drawn.figure.axes[:2]
    points = sorted(float(line.get_xdata()[0]) for line in left.get_lines())
    assert points == pytest.approx(sorted(table[table["lag"] == 16]["point"]))
    shown = sorted(float(x) for line in right.get_lines()[:2] for x in line.get_xdata())
    assert shown == pytest.approx(sorted(apart[apart["lag"] == 16]["difference"]))
    assert "the 5 comparisons" in drawn.caption and "VACO (π_T) is ahead of" in drawn.caption
    assert (
        "Of its study 'older', K in {64}, 12 of 12 runs are finished, 3 seeds a cell. Of its study 'nominal'"
        in drawn.caption
    )
    assert tuned.main(["--tables", str(tables.folder), "--out", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made.pdf").stat().st_size > 1000


def test_the_tuned_tier_has_what_the_tuning_runs_chose(tmp_path: Path) -> None:
    """The values in its file are those of the rule, from the tracked runs; one that is not decided is not there."""
    tuning, tier = load_tier("tuning"), load_tier("tuned")
    aggregate(read_plan(tuning.plan()), Archive(ROOT / "results/tuning/archive"), tmp_path)
    made = Tables(tmp_path)
    chosen = choose(made.read("scores"), made)
    names = chosen[chosen["chosen"]].set_index(["sweep", "lag"])["name"]
    sweeps = ("vaco-delta", "vaco-beta-delta", "ppo-proximal-clip", "decoupled-clip", "ppo-kl-target")
    sweeps += ("ppo-kl-beta-target",)
    grids = [grid for name, grid in tier.grids.items() if name not in ("nominal", "unit")]
    assert grids
    for grid in grids:
        (lag,) = grid.capacities
        wanted = [tuning.find("Hopper-v5", names[sweep, lag], lag, 100).config for sweep in sweeps]
        given = [tier.find("Hopper-v5", name, lag, 10).config for name in grid.algorithms]
        assert given == [replace(config, seed=10) for config in wanted]


def test_without_tuned_runs_it_says_so(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {key: of for key, of in tuned.cells(tables.read("scores"), tables).items() if not key[2]}
    monkeypatch.setattr(tuned, "cells", lambda *_: made)
    with pytest.raises(UserError, match="no method with tuned settings"):
        tuned.draw(tables)


def test_prose_has_the_numbers_of_the_figure(tables: Tables) -> None:
    """Every score and difference that is drawn, with its interval; what is not there yet says so by None."""
    found = {key: value for key, value, _ in from_comparison(tables)}
    made = tuned.cells(tables.read("scores"), tables)
    for row in tuned.standings(made).to_dict("records"):
        key = f"{row['algorithm']}.lag{row['lag']}.{'tuned' if row['tuned'] else 'nominal'}"
        assert found[key].startswith(f"{row['point']:.2f} [") and found[f"{key}.n"] == row["runs"]
    apart = tuned.differences(made)
    assert found["comparisons"] == len(apart) > 0
    for row in apart.to_dict("records"):
        text = f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        assert found[f"{row['reading']}.over.{row['opponent']}.lag{row['lag']}"] == text
        label = centred_label(row["opponent"])
        for end, low, high in (("", "low", "high"), ("_corrected", "wide_low", "wide_high")):
            assert (label in found[f"{row['reading']}.lag{row['lag']}.ahead{end}"].split(", ")) == (row[low] > 0)
            assert (label in found[f"{row['reading']}.lag{row['lag']}.behind{end}"].split(", ")) == (row[high] < 0)
    assert found["once+tv_total.lag64.tuned"] is None and found["once+tv_total.lag64.tuned.n"] == 0


def test_prose_tells_the_corrected_interval_from_the_single_one(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {
        "ppo_kl": (0.1, 0.3, -0.1, 0.5),  # ahead by itself alone
        "none+proximal_clip": (-0.6, -0.2, -0.7, -0.1),  # behind, corrected as well
    }
    rows = [
        {"reading": "vaco", "opponent": one, "lag": 16, "difference": (low + high) / 2, "runs": 3}
        | {"low": low, "high": high, "wide_low": wide_low, "wide_high": wide_high}
        for one, (low, high, wide_low, wide_high) in ends.items()
    ]
    monkeypatch.setattr(tuned_numbers, "differences", lambda _: pd.DataFrame(rows))
    found = {key: value for key, value, _ in from_comparison(tables)}
    sides = [found[f"vaco.lag16.{side}"] for side in ("ahead", "ahead_corrected", "behind", "behind_corrected")]
    assert sides == ["PPO-KL (π_T)", "none", "PPO (π_T)", "PPO (π_T)"]
