"""The specification curve: which opponent belongs to a reading, its differences against a loop, what is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from synthetic import write_archive

from vaco.campaign.tiers import Tier, load_tier
from vaco.errors import UserError
from vaco.report.figures import specification
from vaco.report.prose import numbers
from vaco.report.prose.readings_numbers import contrasts, from_readings, over_blocks
from vaco.report.tables.aggregate import aggregate
from vaco.report.tables.plan import read_plan
from vaco.report.tables.read import Tables

READINGS = """
tier: mini
description: A tier with readings, for tests.
environments: [Hopper-v5, HalfCheetah-v5]
algorithms: [one, two, three, four, ppo_kl, kl-constant, none+proximal_clip, clip-constant]
capacities: [16]
seeds: [7, 8]
steps: 40960
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
variants:
  one: {algorithm: once+tv, training: {trigger: phase}}
  two: {algorithm: once+tv_total, training: {learning_rate_decay: false, delta: 0.4}}
  three: {algorithm: once+tv, training: {learning_rate_decay: false, ratio_cap: 2}}
  four: {algorithm: once+tv_proximal, training: {trace_decay: 0.9}}
  kl-constant: {algorithm: ppo_kl, training: {learning_rate_decay: false}}
  clip-constant: {algorithm: none+proximal_clip, training: {learning_rate_decay: false}}
studies:
  readings: {}
  unit: {algorithms: [ppo], capacities: [1], seeds: [0, 1]}
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("readings")
    (root / "mini.yaml").write_text(READINGS)
    tier: Tier = load_tier(root / "mini.yaml")
    aggregate(read_plan(tier.plan()), write_archive(tier, root / "archive"), root / "tables")
    return Tables(root / "tables")


def test_a_reading_meets_the_opponents_that_share_its_settings(tables: Tables) -> None:
    found = specification.pairs(tables.methods, tables.grid("readings")["algorithms"])
    plain = {"ppo_kl", "none+proximal_clip"}
    assert {name: set(opponents) for name, opponents in found.items()} == {
        "one": plain,
        "two": {"kl-constant", "clip-constant"},
        "three": {"kl-constant", "clip-constant"},
        "four": set(),
    }


def test_differences_against_a_loop(tables: Tables) -> None:
    scores = tables.read("scores")
    table = specification.differences(scores, tables)
    assert len(table) == 6
    for row in table.itertuples():
        total, variance, freedom = 0.0, 0.0, 0.0
        for env in ("Hopper-v5", "HalfCheetah-v5"):
            for name, sign in ((row.reading, 1), (row.opponent, -1)):
                values = [
                    scores[(scores["name"] == name) & (scores["env"] == env) & (scores["seed"] == seed)]["score"].item()
                    for seed in (7, 8)
                ]
                mean = sum(values) / 2
                total += sign * mean / 2
                term = sum((value - mean) ** 2 for value in values) / 1 / 2
                variance += term
                freedom += term**2
        assert row.difference == pytest.approx(total)
        reach = stats.t.ppf(0.975, variance**2 / freedom) * variance**0.5 / 2
        assert (row.high - row.low) / 2 == pytest.approx(reach)


def test_runs_of_other_seeds_do_not_count_and_a_task_without_a_run_leaves_its_pair_out(tables: Tables) -> None:
    scores = tables.read("scores")
    whole = specification.differences(scores, tables)
    more = scores.assign(seed=99, score=50.0)
    again = specification.differences(pd.concat([scores, more]), tables)
    assert again.equals(whole)
    less = scores[~((scores["name"] == "kl-constant") & (scores["env"] == "Hopper-v5"))]
    assert "kl-constant" not in set(specification.differences(less, tables)["opponent"])
    with pytest.raises(UserError, match="no reading is finished"):
        specification.draw_table(specification.differences(scores[:0], tables), tables)


def test_the_choices_that_differ_are_named_with_their_defaults(tables: Tables) -> None:
    found = specification.choices(tables.json("configs"), tables.methods, ["one", "two", "three"])
    assert list(found) == ["filter", "trigger", "delta", "ratio_cap", "learning_rate_decay"]
    assert found["filter"] == {"one": "π_T", "two": "β", "three": "π_T"}
    assert found["trigger"] == {"one": "phase", "two": "minibatch", "three": "minibatch"}
    assert found["learning_rate_decay"] == {"one": "yes", "two": "no", "three": "no"}


def test_the_figure_draws_the_differences_in_order_and_counts_them(tables: Tables, tmp_path: Path) -> None:
    table = specification.differences(tables.read("scores"), tables)
    drawn = specification.draw(tables)
    panel = drawn.figure.axes[0]
    algorithm = table["algorithm"].iloc[0]
    expected = sorted(table[table["algorithm"] == algorithm]["difference"])
    points = {x: y for line in panel.get_lines()[:2] for x, y in line.get_xydata()}
    assert [points[x] for x in sorted(points)] == pytest.approx(expected)
    ahead = sum(value > 0 for value in expected)
    assert f"of {len(expected)} readings {ahead} score higher" in drawn.caption.replace("Of", "of")
    assert "where a point is filled" in drawn.caption and "beyond the interval" in drawn.caption
    one_seed = specification.draw_table(table.assign(low=float("nan"), high=float("nan"), runs=1), tables).caption
    assert "with one seed there is no interval" in one_seed and "beyond" not in one_seed
    assert specification.main(["--tables", str(tables.folder), "--out", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made.pdf").stat().st_size > 1000


def test_prose_has_the_distribution_and_means_over_blocks(tables: Tables) -> None:
    found = {key: value for key, value, _ in from_readings(tables)}
    table = specification.differences(tables.read("scores"), tables)
    for algorithm in ("ppo_kl", "none+proximal_clip"):
        rows = [row for row in table.itertuples() if row.algorithm == algorithm]
        values = [row.difference for row in rows]
        assert found[f"{algorithm}.count"] == len(values) == 3 and found[f"{algorithm}.seeds"] == 2
        assert found[f"{algorithm}.ahead"] == sum(value > 0 for value in values)
        assert found[f"{algorithm}.beyond"] == sum(row.low > 0 for row in rows)
        assert found[f"{algorithm}.behind"] == sum(row.high < 0 for row in rows)
        assert (found[f"{algorithm}.lowest"], found[f"{algorithm}.highest"]) == (min(values), max(values))
        one, two, three = (next(r.difference for r in rows if r.reading == name) for name in ("one", "two", "three"))
        # Two and three share their opponent's runs: a block, which counts once.
        assert found[f"{algorithm}.mean"] == f"{(one + (two + three) / 2) / 2:+.2f}", "two blocks have no interval"
        assert found[f"{algorithm}.learning_rate_decay.no"] == f"{(two + three) / 2:+.2f}"
        assert found[f"{algorithm}.learning_rate_decay.yes"] == f"{one:+.2f}"
        assert f"{algorithm}.trigger.phase" not in found, "the opponents have no trigger"
        assert found["own.filter.once+tv_total"] == f"{two - three:+.2f}"
    assert found["own.trigger.phase"] is None, "no block has both levels"
    ahead = [
        all(row.difference > 0 for row in table.itertuples() if row.reading == name) for name in ("one", "two", "three")
    ]
    assert found["ahead_of_all"] == sum(ahead) and found["finished"] == found["planned"] == 32


def test_what_an_opponents_run_adds_to_its_block_cancels_in_a_contrast() -> None:
    """And makes the interval of a mean as wide as that of the blocks, not of the readings."""
    noise, own = {"a": 1.0, "b": -2.0, "c": 0.5}, {"x": 0.3, "y": 0.1}
    cells = [(f"{level}{block}", block, own[level] + noise[block]) for block in noise for level in own]
    rows = pd.DataFrame(cells, columns=["reading", "opponent", "difference"])
    level_of = {name: name[0] for name in rows["reading"]}
    assert list(contrasts(rows, level_of, "x")) == pytest.approx([0.2, 0.2, 0.2])
    assert over_blocks(contrasts(rows, level_of, "x")) == "+0.20 [+0.20, +0.20]"
    assert contrasts(rows, dict.fromkeys(level_of, "x"), "x").empty


def test_an_interval_over_blocks_is_students() -> None:
    values = [0.1, 0.4, -0.2, 0.3]
    mean = sum(values) / 4
    error = (sum((value - mean) ** 2 for value in values) / 3 / 4) ** 0.5
    low, high = mean - stats.t.ppf(0.975, 3) * error, mean + stats.t.ppf(0.975, 3) * error
    assert over_blocks(values) == f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    assert over_blocks([]) is None and over_blocks(values[:2]) == "+0.25"


def test_of_a_pair_the_seeds_count_that_both_have_on_every_task(tables: Tables) -> None:
    scores = tables.read("scores")
    gone = (scores["name"] == "one") & (scores["env"] == "Hopper-v5") & (scores["seed"] == 8)
    table = specification.differences(scores[~gone], tables)
    expected = specification.differences(scores[scores["seed"] == 7], tables)
    for row in table.itertuples():
        if row.reading == "one":
            twin = next(t for t in expected.itertuples() if (t.reading, t.opponent) == (row.reading, row.opponent))
            assert row.runs == 1 and row.difference == pytest.approx(twin.difference) and row.low != row.low
        else:
            assert row.runs == 2


def test_numbers_take_a_tier_of_one_study(tables: Tables, tmp_path: Path) -> None:
    out, absent = tmp_path / "numbers.json", tmp_path / "absent/tables"
    root = tmp_path / "mini"
    root.mkdir()
    (root / "tables").symlink_to(tables.folder)
    assert numbers.main(["--studies", str(root / "tables"), str(absent), "--out", str(out)]) == 0
    entries = json.loads(out.read_text())
    assert entries["mini.ppo_kl.count"]["value"] == 3
    assert entries["absent.runs"]["text"] == numbers.UNKNOWN
    plain = tmp_path / "plain"
    plain.mkdir()
    summary = tables.folder / "summary.json"
    without = json.loads(summary.read_text())
    del without["grids"]["readings"]
    (plain / "summary.json").write_text(json.dumps(without))
    (plain / "scores.parquet").symlink_to(tables.folder / "scores.parquet")
    with pytest.raises(UserError, match="has no study with numbers of its own"):
        numbers.main(["--studies", str(plain), "--out", str(out)])
