"""Two lengths: which runs stand beside each other, means against a loop, orders that change, what is drawn."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from synthetic import write_archive

from vaco.campaign.tiers import load_tier
from vaco.errors import UserError
from vaco.report.figures import longer
from vaco.report.tables.aggregate import aggregate
from vaco.report.tables.methods import centred_label
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables

ROOT = Path(__file__).parents[3]
TIER = """
tier: {tier}
description: A tier for tests.
environments: [Hopper-v5, HalfCheetah-v5]
algorithms: [beta-64, kl-64, {third}]
capacities: [64]
seeds: {seeds}
steps: {steps}
evaluation: {{points: 4, episodes: 2}}
reference: {{episodes: 100, seed: 0}}
variants:
  beta-64: {{algorithm: once+tv_total, training: {{delta: 0.4}}}}
  kl-64: {{algorithm: none+kl_total, training: {{kl_target: {target}}}}}
studies:
  {study}: {{algorithms: [none+proximal_clip], capacities: [16]}}
  unit: {{algorithms: [ppo], capacities: [1]}}
"""


def made(root: Path, **values: object) -> Tables:
    path = root / f"{values['tier']}.yaml"
    path.write_text(TIER.format(**values))
    tier = load_tier(path)
    aggregate(read_plan(tier.plan()), write_archive(tier, root / f"{tier.name}-archive"), root / tier.name)
    return Tables(root / tier.name)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Tables]:
    root = tmp_path_factory.mktemp("longer")
    more = {"third": "impala", "study": "longer", "steps": 81920, "seeds": [10, 11], "target": 0.16}
    less = {"third": "ppo_kl", "study": "nearer", "steps": 40960, "seeds": [10, 11, 12], "target": 0.16}
    return made(root, tier="far", **more), made(root, tier="near", **less)


def test_means_are_of_the_same_settings_at_both_lengths(both: tuple[Tables, Tables]) -> None:
    tables, shorter = both
    table = longer.ends(longer.returns(tables, shorter)).set_index(["env", "name", "lag", "steps"])
    cells = [("beta-64", 64), ("kl-64", 64), ("none+proximal_clip", 16)]
    tasks = tables.grid()["environments"]
    wanted = {(env, *cell, steps) for env in tasks for cell in cells for steps in (40960, 81920)}
    wanted |= {(env, "impala", 64, 81920) for env in tasks}
    assert set(table.index) == wanted
    for env, name, lag, steps in wanted:
        scores = (tables if steps == 81920 else shorter).read("scores")
        finals = []
        for row in scores.itertuples():
            if (row.env, row.name, row.lag) == (env, name, lag) and row.seed in (10, 11):
                finals.append(row.final)
        found = table.loc[(env, name, lag, steps)]
        assert found["runs"] == len(finals) == 2
        assert found["mean"] == pytest.approx(sum(finals) / len(finals))


def test_a_name_that_means_something_else_there_is_not_set_beside(both: tuple[Tables, Tables], tmp_path: Path) -> None:
    tables, _ = both
    values = {"third": "ppo_kl", "study": "nearer", "steps": 40960, "seeds": [10], "target": 0.08}
    found = longer.returns(tables, made(tmp_path, tier="other", **values))
    assert set(found[found["steps"] == 40960]["name"]) == {"beta-64", "none+proximal_clip"}


def test_orders_that_change_are_counted_by_task_and_k() -> None:
    rows = [
        ("A", "x", 16, 1, 1.0), ("A", "x", 16, 10, 5.0),
        ("A", "y", 16, 1, 2.0), ("A", "y", 16, 10, 4.0),
        ("A", "z", 16, 1, 3.0), ("A", "z", 16, 10, 6.0),
        ("B", "x", 16, 1, 1.0), ("B", "x", 16, 10, 5.0),
        ("B", "y", 16, 10, 9.0),
        ("C", "x", 16, 1, 1.0), ("C", "x", 16, 10, 5.0),
        ("C", "y", 16, 1, 1.0), ("C", "y", 16, 10, 9.0),  # equal before: no exchange
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["env", "name", "lag", "steps", "mean"])
    assert longer.exchanged(table) == (1, 4)
    assert longer.exchanged(table[table["steps"] == 10]) == (0, 0)


def test_the_figure_draws_every_run_and_says_how_many_orders_change(
    both: tuple[Tables, Tables], tmp_path: Path
) -> None:
    tables, shorter = both
    drawn = longer.draw(tables, shorter)
    table = longer.ends(longer.returns(tables, shorter))
    changed, counted = longer.exchanged(table)
    assert counted == 2 and f"Of 2 pairs of methods on a task at a K, the means of {changed} stand" in drawn.caption
    panels = {axes.get_title(loc="left"): axes for axes in drawn.figure.axes}
    assert set(panels) == {f"{env}, K = {lag}" for env in tables.grid()["environments"] for lag in (16, 64)}
    axes = panels["Hopper-v5, K = 64"]
    lines = {str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}
    own = table[(table["env"] == "Hopper-v5") & (table["lag"] == 64)]
    assert set(lines) == {centred_label(name) for name in own["algorithm"]}
    for name, rows in own.groupby("algorithm"):
        assert list(lines[centred_label(str(name))].get_ydata()) == pytest.approx(rows.sort_values("steps")["mean"])
    alone = longer.draw(tables)
    assert "in the other order" not in alone.caption
    out = ["--tables", str(tables.folder), "--out", str(tmp_path / "made")]
    assert longer.main([*out, "--shorter", str(shorter.folder / "scores.parquet")]) == 0
    assert str(shorter.folder / "scores.parquet") in (tmp_path / "made.json").read_text()


def test_a_method_that_has_no_long_run_yet_is_not_drawn(
    both: tuple[Tables, Tables], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, shorter = both
    found = longer.returns(tables, shorter)
    less = found[~((found["name"] == "kl-64") & (found["steps"] == 81920))]
    monkeypatch.setattr(longer, "returns", lambda *_: less)
    for axes in longer.draw(tables, shorter).figure.axes:
        assert centred_label("none+kl_total") not in axes.get_legend_handles_labels()[1]


def test_without_runs_of_this_length_it_says_so(both: tuple[Tables, Tables], monkeypatch: pytest.MonkeyPatch) -> None:
    tables, shorter = both
    found = longer.returns(tables, shorter)
    monkeypatch.setattr(longer, "returns", lambda *_: found[found["steps"] == 40960])
    with pytest.raises(UserError, match="no run of this length"):
        longer.draw(tables, shorter)


def test_the_tier_has_the_tuned_settings() -> None:
    """Every method but IMPALA is one of tier `tuned` at the same K, by name and settings."""
    tier, tuned = load_tier(ROOT / "config/longer.yaml"), load_tier(ROOT / "config/tuned.yaml")
    of = {(name, lag) for grid in tuned.grids.values() for name in grid.algorithms for lag in grid.capacities}
    for key in ("main", "longer"):
        for name in tier.grids[key].algorithms:
            for lag in tier.grids[key].capacities:
                assert name == "impala" or ((name, lag) in of and tier.methods[name] == tuned.methods[name])
