"""The value of a knob that a sweep chooses: against a loop, and only where all of its runs are there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from synthetic import write_archive

from vaco.campaign.tiers import Tier, load_tier
from vaco.report.figures import tuning
from vaco.report.tables import choice
from vaco.report.tables.aggregate import aggregate
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables

SWEPT = """
tier: swept
description: A tier with sweeps, for tests.
environments: [Hopper-v5, HalfCheetah-v5]
algorithms: [vaco-delta, ppo-clip]
capacities: [8, 16]
seeds: [7, 8]
steps: 40960
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
sweeps:
  vaco-delta: {algorithm: vaco, knob: delta, values: [0.4, 0.1, 0.2]}
  ppo-clip: {algorithm: ppo, knob: clip, values: [0.1, 0.2], training: {trace_decay: 0.9}}
  vaco-cap: {algorithm: vaco, knob: delta, values: [0.1, 0.2], training: {ratio_cap: 2}}
studies:
  others: {algorithms: [vaco-cap], capacities: [8]}
  unit: {algorithms: [ppo], capacities: [1], seeds: [0, 1]}
"""
MISSING = "Hopper-v5/ppo-clip0.1/lag16/seed8"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("swept")
    (root / "swept.yaml").write_text(SWEPT)
    tier: Tier = load_tier(root / "swept.yaml")
    aggregate(read_plan(tier.plan()), write_archive(tier, root / "archive", without=[MISSING]), root / "tables")
    return Tables(root / "tables")


def test_the_choice_against_a_loop(tables: Tables) -> None:
    scores = tables.read("scores")
    by_run = {(row.env, row.name, row.lag, row.seed): row.score for row in scores.itertuples()}
    found = choice.choose(scores, tables).set_index(["sweep", "lag", "value"])
    assert len(found) == 2 * 3 + 2 * 2 + 2
    for sweep, lags, names in (
        ("vaco-delta", (8, 16), {0.1: "vaco-delta0.1", 0.2: "vaco", 0.4: "vaco-delta0.4"}),
        ("ppo-clip", (8,), {0.1: "ppo-clip0.1", 0.2: "ppo-clip0.2"}),
        ("vaco-cap", (8,), {0.1: "vaco-cap0.1", 0.2: "vaco-cap0.2"}),
    ):
        for lag in lags:
            best, highest = None, float("-inf")
            for value, name in names.items():
                total = 0.0
                for env in ("Hopper-v5", "HalfCheetah-v5"):
                    for seed in (7, 8):
                        total += by_run[env, name, lag, seed] / 4
                row = found.loc[(sweep, lag, value)]
                assert row["score"] == pytest.approx(total) and row["runs"] == 4
                if total > highest:
                    best, highest = value, total
            of_sweep = found.sort_index().loc[(sweep, lag)]
            assert of_sweep.index[of_sweep["chosen"]].tolist() == [best]


def test_runs_of_other_seeds_and_tasks_do_not_count(tables: Tables) -> None:
    scores = tables.read("scores")
    others = pd.concat([scores.assign(seed=99, score=100.0), scores.assign(env="Ant-v5", score=100.0)])
    pd.testing.assert_frame_equal(
        choice.choose(pd.concat([scores, others]), tables), choice.choose(scores, tables), check_exact=True
    )


def test_a_sweep_that_misses_a_run_chooses_nothing(tables: Tables) -> None:
    table = choice.choose(tables.read("scores"), tables)
    assert not table.query("sweep == 'ppo-clip' and lag == 16")["chosen"].any()
    assert table.query("name == 'ppo-clip0.1' and lag == 16")["runs"].item() == 3


def test_a_sweep_on_a_task_without_a_unit_of_scores_chooses_nothing(tables: Tables) -> None:
    scores = tables.read("scores")
    scores.loc[(scores["env"] == "Hopper-v5") & (scores["name"] == "vaco-delta0.1"), "score"] = float("nan")
    table = choice.choose(scores, tables)
    assert not table.query("sweep == 'vaco-delta'")["chosen"].any() and table["chosen"].any()


def test_of_equal_scores_the_smaller_value_is_chosen(tables: Tables) -> None:
    table = choice.choose(tables.read("scores").assign(score=1.0), tables)
    assert table.query("sweep == 'vaco-delta' and chosen")["value"].tolist() == [0.1, 0.1]


def test_the_table_and_the_figure_are_made(tables: Tables, tmp_path: Path) -> None:
    given = ["--tables", str(tables.folder), "--out", str(tmp_path / "made")]
    assert choice.main(given) == 0
    rows = pd.read_csv(tmp_path / "made.csv")
    assert rows["chosen"].eq("yes").sum() == 4 and set(rows["knob"]) == {"delta", "clip"}
    assert tuning.main(given) == 0
    assert (tmp_path / "made.pdf").stat().st_size > 1000


def test_the_figure_draws_what_was_measured(tables: Tables) -> None:
    scores, runs = tables.read("scores"), tables.read("runs")
    panels = tuning.draw(tables).figure.axes
    assert [axes.get_title(loc="left") for axes in panels[:2]] == ["Hopper-v5, K = 8", "HalfCheetah-v5, K = 8"]
    lines = {line.get_label(): line for line in panels[0].get_lines()}
    assert {"VACO (π_T)", "VACO (π_T), ratio_cap = 2.0", "PPO (β), trace_decay = 0.9"} <= set(lines)
    drawn = lines["VACO (π_T)"].get_xydata()
    for (x, y), name in zip(drawn, ("vaco-delta0.1", "vaco", "vaco-delta0.4"), strict=True):
        own = [
            (table["env"] == "Hopper-v5") & (table["lag"] == 8) & (table["name"] == name) for table in (scores, runs)
        ]
        assert x == pytest.approx(runs[own[1]]["forward_mean"].mean() / 2)
        assert y == pytest.approx(scores[own[0]]["score"].mean())
