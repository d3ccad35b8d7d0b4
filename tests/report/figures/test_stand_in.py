"""Real and simulated asynchrony side by side: which runs are which, differences against a loop, what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import write_archive

from vaco.campaign.tiers import load_tier
from vaco.errors import UserError
from vaco.report.figures import stand_in
from vaco.report.tables.aggregate import aggregate
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables

TASKS = ("HalfCheetah-v5", "Hopper-v5")
TIER = """
tier: mini
description: A tier with actors, for tests.
environments: [HalfCheetah-v5, Hopper-v5]
algorithms: [vaco, ppo_kl]
capacities: [3]
seeds: [0, 1, 2]
steps: 40960
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
variants:
  vaco-real: {algorithm: vaco, training: {actors: 4, segments: 2}}
  kl-real: {algorithm: ppo_kl, training: {actors: 4, segments: 2}}
  vaco-slow: {algorithm: vaco, training: {actors: 4, segments: 2, slowness: [4]}}
  vaco-queue: {algorithm: vaco, training: {schedule: "fifo:2"}}
  kl-queue: {algorithm: ppo_kl, training: {schedule: "fifo:2"}}
studies:
  unit: {algorithms: [ppo], capacities: [1]}
  real: {algorithms: [vaco-real, kl-real, vaco-slow], capacities: [1]}
  queue: {algorithms: [vaco-queue, kl-queue], capacities: [3]}
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("stand_in")
    (root / "mini.yaml").write_text(TIER)
    tier = load_tier(root / "mini.yaml")
    aggregate(read_plan(tier.plan()), write_archive(tier, root / "archive"), root / "tables")
    return Tables(root / "tables")


def test_every_source_has_its_runs_and_their_means(tables: Tables) -> None:
    table = stand_in.runs(tables)
    assert list(table["source"].unique()) == ["real, alike", "real, a straggler", "uniform, K = 3", "queue of 2"]
    assert len(table) == 3 * 2 * (3 + 2 + 2) and "ppo" not in set(table["algorithm"])
    row = table[(table["source"] == "queue of 2") & (table["env"] == "Hopper-v5") & (table["seed"] == 1)]
    lags = tables.read("diagnostics").query("name == 'kl-queue' and env == 'Hopper-v5' and seed == 1")["forward_lag"]
    found = float(row.set_index("algorithm").loc["ppo_kl", "forward_lag"])
    assert found == pytest.approx(sum(lags) / len(lags))


def test_differences_are_of_the_same_algorithm_and_corrected_for_their_number(tables: Tables) -> None:
    apart = stand_in.differences(stand_in.runs(tables))
    vaco = {(real, other, "vaco") for real in ("real, alike", "real, a straggler") for other in SIMULATED}
    kl = {("real, alike", other, "ppo_kl") for other in SIMULATED}
    assert {(row.real, row.source, row.algorithm) for row in apart.itertuples()} == vaco | kl
    row = apart[(apart["source"] == "queue of 2") & (apart["real"] == "real, a straggler")].iloc[0]
    scores = tables.read("scores")
    total, spread, freedom = 0.0, 0.0, 0.0
    for env in TASKS:
        for name, sign in (("vaco-queue", 1), ("vaco-slow", -1)):
            values = [float(x) for x in scores[(scores["name"] == name) & (scores["env"] == env)]["score"]]
            mean = sum(values) / 3
            total += sign * mean / 2
            term = sum((value - mean) ** 2 for value in values) / 2 / 3
            spread += term
            freedom += term**2 / 2
    assert row["difference"] == pytest.approx(total) and row["runs"] == 3
    for low, level in (("low", 0.05), ("wide_low", 0.05 / 6)):
        reach = stats.t.ppf(1 - level / 2, spread**2 / freedom) * spread**0.5 / 2
        assert row["difference"] - row[low] == pytest.approx(reach)


SIMULATED = ("uniform, K = 3", "queue of 2")


def test_lags_are_compared_as_ratios_of_means() -> None:
    lags = {
        ("real, alike", "a", "x"): (0.1, 0.3),
        ("real, alike", "b", "x"): (0.4, 0.4),
        ("queue of 2", "a", "x"): (0.1, 0.1),
        ("queue of 2", "b", "x"): (0.8, 0.8),
        ("uniform, K = 3", "a", "x"): (0.1, 0.2),
    }
    rows = [(*key, lag) for key, values in lags.items() for lag in values]
    ratios = stand_in.relative_lag(pd.DataFrame(rows, columns=["source", "algorithm", "env", "backward_lag"]))
    assert ratios.loc["queue of 2", "real, alike"] == pytest.approx((0.5 + 2.0) / 2)
    assert ratios.loc["uniform, K = 3", "real, alike"] == pytest.approx(0.75), "over what both have"
    said = "Backward lag relative to that of 'real, alike': queue of 2, 1.25; uniform, K = 3, 0.75."
    assert stand_in.said_of_lags(ratios) == said


def test_a_task_without_runs_of_one_side_has_no_difference(tables: Tables) -> None:
    table = stand_in.runs(tables)
    less = table[~((table["source"] == "queue of 2") & (table["env"] == "Hopper-v5") & (table["algorithm"] == "vaco"))]
    found = stand_in.differences(less)
    assert {(row.source, row.algorithm) for row in found.itertuples()} == {
        ("uniform, K = 3", "vaco"),
        ("uniform, K = 3", "ppo_kl"),
        ("queue of 2", "ppo_kl"),
    }


def test_the_figure_draws_means_where_they_are_and_says_how_many_differ(tables: Tables, tmp_path: Path) -> None:
    table = stand_in.runs(tables)
    drawn = stand_in.draw(tables)
    score = drawn.figure.axes[4]
    points = sorted(float(np.asarray(line.get_xdata())[0]) for line in score.get_lines())
    of = table[table["env"] == TASKS[0]].groupby(["source", "algorithm"])["score"].mean()
    assert points == pytest.approx(sorted(of))
    assert "corrected for the 6 comparisons" in drawn.caption and "of 6 differences are beyond" in drawn.caption
    assert stand_in.main(["--tables", str(tables.folder), "--out", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made.pdf").stat().st_size > 1000


def test_the_sentence_counts_what_is_beyond() -> None:
    rows = [(0.1, -0.1, 0.3, -0.2, 0.4), (0.5, 0.3, 0.7, 0.2, 0.8), (-0.9, -1.3, -0.5, -1.5, -0.3)]
    apart = pd.DataFrame(rows, columns=["difference", "low", "high", "wide_low", "wide_high"])
    assert "2 of 3 differences" in stand_in.said(apart) and "0.50 in the median and 0.90 at most" in stand_in.said(
        apart
    )


def test_without_real_runs_it_says_so(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    table = stand_in.runs(tables)
    monkeypatch.setattr(stand_in, "runs", lambda _: table[~table["source"].str.startswith("real")])
    with pytest.raises(UserError, match="no run with actors"):
        stand_in.draw(tables)
