"""Return against seconds: means over seeds against a loop, the learner's share, what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_archive

from vaco.campaign.tiers import load_tier
from vaco.errors import UserError
from vaco.report.figures import wall_clock
from vaco.report.tables.aggregate import aggregate
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables

TIER = """
tier: mini
description: A tier with actors, for tests.
environments: [HalfCheetah-v5]
algorithms: [vaco]
capacities: [1, 3]
seeds: [0, 1]
steps: 40960
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
variants:
  vaco-real: {algorithm: vaco, training: {actors: 2, segments: 2}}
studies:
  unit: {algorithms: [ppo], capacities: [1]}
  wall_clock: {algorithms: [vaco-real], capacities: [1]}
"""
SOURCES = {"synchronous": ("vaco", 1), "uniform, K = 3": ("vaco", 3), "real, alike": ("vaco-real", 1)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("wall_clock")
    (root / "mini.yaml").write_text(TIER)
    tier = load_tier(root / "mini.yaml")
    aggregate(read_plan(tier.plan()), write_archive(tier, root / "archive"), root / "tables")
    return Tables(root / "tables")


def test_returns_and_seconds_are_means_over_seeds(tables: Tables) -> None:
    curves = tables.read("curves")
    table = wall_clock.over_time(curves, wall_clock.wanted(tables))
    assert set(table["source"]) == set(SOURCES) and len(table) == 3 * 5
    for row in table.itertuples():
        name, lag = SOURCES[row.source]
        points = curves[(curves["name"] == name) & (curves["lag"] == lag) & (curves["grid_steps"] == row.grid_steps)]
        returns, seconds = list(points["mean"]), list(points["wall_seconds"])
        assert len(returns) == row.runs == 2
        assert row.mean == pytest.approx(sum(returns) / 2) and row.seconds == pytest.approx(sum(seconds) / 2)
        assert (row.low, row.high) == (min(returns), max(returns))


def test_seconds_are_averaged_at_equal_steps() -> None:
    cells = pd.DataFrame({"env": ["E"], "name": ["a"], "lag": [1], "source": ["x"]})
    curves = pd.DataFrame({"env": "E", "name": "a", "lag": 1, "seed": [0, 1], "grid_steps": 10, "mean": [1.0, 4.0]})
    (row,) = wall_clock.over_time(curves.assign(wall_seconds=[2.0, 8.0]), cells).itertuples()
    assert (row.seconds, row.mean, row.low, row.high, row.runs) == (5.0, 2.5, 1.0, 4.0, 2)


def test_the_learner_is_busy_while_it_aligns_and_updates() -> None:
    runs = pd.DataFrame({"env": "E", "name": ["a", "a", "b"], "lag": 1, "optimise_relative": [1.0, 1.0, 3.0]})
    cells = pd.DataFrame({"env": "E", "name": ["a", "b"], "lag": 1, "source": ["x", "y"]})
    assert wall_clock.busy(runs, cells) == {"x": 0.5, "y": 0.75}


def test_the_figure_draws_a_line_a_source_and_says_shares(tables: Tables, tmp_path: Path) -> None:
    drawn = wall_clock.draw(tables)
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in drawn.figure.axes[0].get_lines()}
    table = wall_clock.over_time(tables.read("curves"), wall_clock.wanted(tables))
    assert set(lines) == set(SOURCES)
    for name, values in lines.items():
        assert values == pytest.approx(table[table["source"] == name]["mean"])
    assert "% (real, alike)" in drawn.caption
    assert wall_clock.main(["--tables", str(tables.folder), "--out", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made.pdf").stat().st_size > 1000


def test_without_runs_it_says_so(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock, "over_time", lambda *_: pd.DataFrame())
    with pytest.raises(UserError, match="no run is finished"):
        wall_clock.draw(tables)
