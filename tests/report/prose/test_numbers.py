"""Numbers for prose: each from its file, none made up, keys that stay when runs are missing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vaco.errors import UserError
from vaco.report.prose import numbers
from vaco.report.prose.numbers import UNKNOWN, collect, number
from vaco.report.prose.run_numbers import from_runs
from vaco.report.prose.tier_numbers import (
    _claim,
    from_aggregates,
    from_contributions,
    from_factorial,
    from_improvement,
    from_losses,
    from_sensitivity,
    from_separation,
    from_task_scores,
)
from vaco.report.tables.read import Tables

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def written(tables_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    out = tmp_path_factory.mktemp("numbers") / "numbers.json"
    theory, benchmarks = ROOT / "results/theory", ROOT / "benchmarks/results"
    arguments = ["--tables", str(tables_folder), "--theory", str(theory), "--benchmarks", str(benchmarks)]
    assert numbers.main([*arguments, "--out", str(out)]) == 0
    content: dict[str, dict[str, object]] = json.loads(out.read_text())
    return content


def test_every_entry_has_a_value_a_text_and_a_source(written: dict[str, dict[str, object]]) -> None:
    assert len(written) > 500
    for key, entry in written.items():
        assert set(entry) == {"value", "text", "source"} and Path(str(entry["source"])).is_file(), key
        assert (entry["value"] is None) == (entry["text"] == UNKNOWN), key
        assert isinstance(entry["text"], str) and "nan" not in entry["text"].lower().split(), key


def test_numbers_are_those_of_their_tables(written: dict[str, dict[str, object]], tables_folder: Path) -> None:
    table = pd.read_parquet(tables_folder / "aggregates.parquet").set_index(["grid", "name", "lag", "metric"])
    row = table.loc[("main", "vaco", 8, "iqm")]
    assert written["small.vaco.lag8.iqm"]["value"] == row["point"]
    assert written["small.vaco.lag8.iqm"]["text"] == f"{row['point']:.2f}"
    expected = f"{row['point']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    assert (
        written["small.vaco.lag8.iqm.interval"]["text"] == expected and written["small.vaco.lag8.iqm.n"]["value"] == 3
    )
    assert written["small.runs.finished"]["value"] == 40 and written["small.steps"]["text"] == "40,960"
    runs = pd.read_parquet(tables_folder / "runs.parquet")
    kept = runs[(runs["name"] == "ppo") & (runs["lag"] == 8)]["kept_fraction"].mean()
    assert written["small.filter.ppo.lag8.dropped"]["value"] == pytest.approx(1 - kept)


def test_the_order_of_methods_goes_from_the_highest_score_down(written: dict[str, dict[str, object]]) -> None:
    listed = str(written["small.order.lag8"]["text"]).split(", ")
    methods = {"PPO": "ppo", "SPO": "spo", "VACO": "vaco"}
    shown = {methods[entry.rsplit(" ", 1)[0]]: entry.rsplit(" ", 1)[1] for entry in listed}
    assert shown == {name: written[f"small.{name}.lag8.iqm"]["text"] for name in methods.values()}
    assert [float(value) for value in shown.values()] == sorted(map(float, shown.values()), reverse=True)
    assert written["small.order.lag8.n"]["value"] == 3


def test_where_no_phase_ends_above_the_threshold_there_is_no_excess(tables_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "tables"
    shutil.copytree(tables_folder, copied)
    runs = pd.read_parquet(copied / "runs.parquet")
    ppo = runs["name"] == "ppo"
    runs.loc[ppo, ["forward_excess_share", "forward_excess_median", "forward_excess_max"]] = [0.0, math.nan, math.nan]
    runs.loc[~ppo, ["forward_excess_share", "forward_excess_median", "forward_excess_max"]] = [0.5, 0.25, 2.0]
    runs.to_parquet(copied / "runs.parquet")
    found = {key: (value, form) for key, value, form in from_runs(Tables(copied))}
    assert found["constraint.ppo.lag8.share"][0] == 0.0
    assert found["constraint.ppo.lag8.excess"][0] == found["constraint.ppo.lag8.largest"][0] == "none"
    assert (found["constraint.vaco.lag8.excess"][0], found["constraint.vaco.lag8.largest"][0]) == (0.25, 2.0)


def test_losses_count_cells_where_the_mean_is_lower(written: dict[str, dict[str, object]], tables_folder: Path) -> None:
    scores = pd.read_parquet(tables_folder / "scores.parquet")
    means = scores.groupby(["name", "env", "lag"])["score"].mean()
    behind = [
        (env, lag)
        for env in ("Hopper-v5", "HalfCheetah-v5")
        for lag in (1, 8)
        if means[("vaco", env, lag)] < means[("ppo", env, lag)]
    ]
    assert written["small.losses.ppo.cells"]["value"] == len(behind) and written["small.losses.ppo.of"]["value"] == 4


def test_a_method_that_is_another_without_lag_is_not_counted_there_again(tables_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "tables"
    shutil.copytree(tables_folder, copied)
    # What the tables call SPO stands for GePPO, which is PPO at K = 1.
    for name in ("task_scores", "aggregates"):
        table = pd.read_parquet(copied / f"{name}.parquet")
        table["name"] = table["name"].replace("spo", "geppo")
        table.to_parquet(copied / f"{name}.parquet")
    summary = (copied / "summary.json").read_text().replace('"spo"', '"geppo"')
    (copied / "summary.json").write_text(summary)
    tables = Tables(copied)
    found = {key: value for key, value, _ in from_losses(tables)}
    assert found["losses.ppo.of"] == 4 and found["losses.geppo.of"] == 2 and found["losses.all.of"] == 6
    assert "K = 1" not in found["losses.geppo.where"].replace("K = 8", "")
    order = {key: value for key, value, _ in from_aggregates(tables)}
    points = pd.read_parquet(copied / "aggregates.parquet").set_index(["grid", "name", "lag", "metric"])["point"]
    gap = abs(points["main", "ppo", 1, "iqm"] - points["main", "geppo", 1, "iqm"])
    assert order["same.geppo.gap"] == pytest.approx(gap) and gap > 0
    scores = pd.read_parquet(copied / "scores.parquet")
    means = scores[scores["lag"] == 1].groupby(["name", "env"])["score"].mean()
    by_task = {key: value for key, value, _ in from_task_scores(tables)}
    assert by_task["same.geppo.hopper"] == pytest.approx(means["spo", "Hopper-v5"] - means["ppo", "Hopper-v5"])
    separation = pd.read_parquet(copied / "separation.parquet").replace("spo", "geppo")
    separation.to_parquet(copied / "separation.parquet")
    row = separation.set_index(["lag", "name", "opponent"]).loc[(1, "ppo", "geppo")]
    found = {key: value for key, value, _ in from_separation(tables)}
    assert found["same.geppo.difference"] == pytest.approx(-row["difference"])
    assert found["same.geppo.reach"] == pytest.approx(row["high"] - row["difference"]) and row["high"] > row["low"]


def test_every_task_weighs_the_same_however_many_runs_it_has(tables_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "tables"
    shutil.copytree(tables_folder, copied)
    runs = pd.read_parquet(copied / "runs.parquet")
    runs = runs[(runs["env"] == "Hopper-v5") | (runs["seed"] == 0)]
    runs["backward_lag"] = np.where(runs["env"] == "Hopper-v5", 0.1, 0.3)
    runs.to_parquet(copied / "runs.parquet")
    found = {key: value for key, value, _ in from_runs(Tables(copied))}
    assert found["lag.vaco.lag8.backward"] == pytest.approx(0.2)


def changed(tables_folder: Path, folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Tables:
    """A copy of the tables in which one is changed."""
    copied = Path(shutil.copytree(tables_folder, folder / "tables"))
    change(pd.read_parquet(copied / f"{name}.parquet")).to_parquet(copied / f"{name}.parquet")
    return Tables(copied)


@pytest.mark.parametrize(
    ("points", "claim", "kept"),
    [
        # ppo, spo, vaco at K = 1, then at K = 8
        ([1.0, 1.0, 1.0, 0.5, 0.6, 0.7], "holds", (0.7, "SPO, PPO", "none")),
        ([1.0, 1.0, 1.0, 0.5, 0.8, 0.7], "does not hold at K = 8", (0.7, "PPO", "SPO")),
        ([1.0, 0.5, 2.0, 0.5, 0.6, 1.0], "holds", (0.5, "none", "SPO")),
        ([1.0, 1.0, 1.0, 0.5, 0.6, math.nan], None, (None, None, None)),
        ([1.0, 1.0, -1.0, 0.5, 0.6, 0.7], "holds", (None, None, None)),
    ],
)
def test_the_papers_claim_in_words_and_what_lag_leaves(
    points: list[float], claim: str | None, kept: tuple[float | None, ...], tables_folder: Path, tmp_path: Path
) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        cells = zip(product((1, 8), ("ppo", "spo", "vaco")), points, strict=True)
        for (lag, name), point in cells:
            table.loc[(table["grid"] == "main") & (table["lag"] == lag) & (table["name"] == name), "point"] = point
        return table

    found = {key: value for key, value, _ in from_aggregates(changed(tables_folder, tmp_path, "aggregates", change))}
    assert found["claim.iqm"] == found["claim.auc_iqm"] == claim
    assert (found["keeps.vaco"], found["keeps.less"], found["keeps.more"]) == kept


def test_a_claim_that_holds_at_some_capacities() -> None:
    grid = {"algorithms": ["ppo", "vaco"], "capacities": [1, 4, 16, 64]}
    rows = [{"grid": "main", "lag": lag, "name": name, "point": 0.5} for lag in (4, 16, 64) for name in ("ppo", "vaco")]
    table = pd.DataFrame(rows)
    table.loc[(table["lag"] == 4) & (table["name"] == "vaco"), "point"] = 0.6
    table.loc[(table["lag"] > 4) & (table["name"] == "vaco"), "point"] = 0.4
    assert _claim(table, grid) == "holds at K = 4 and does not hold at K = 16 and 64"
    assert _claim(table, grid | {"capacities": [1]}) is None
    assert _claim(table.assign(grid="study"), grid) is None


def test_which_methods_are_ahead_and_which_beyond_chance(tables_folder: Path, tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        for opponent, values in {"ppo": (-0.4, -0.7, -0.1), "spo": (0.1, -0.1, 0.3)}.items():
            row = (table["name"] == "vaco") & (table["opponent"] == opponent) & (table["lag"] == 8)
            table.loc[row, ["difference", "low", "high"]] = values
        return table[table["lag"] == 8]

    found = {key: value for key, value, _ in from_separation(changed(tables_folder, tmp_path, "separation", change))}
    assert (found["ahead.lag8"], found["behind.lag8"], found["clear.lag8"]) == ("SPO", "PPO", "PPO")
    assert (found["clear.count"], found["separation.pairs"]) == (1, 2)
    assert (found["claim.refuted"], found["claim.confirmed"]) == ("at K = 8", "at no K")
    assert found["ahead.lag1"] is found["behind.lag1"] is found["clear.lag1"] is None


def test_with_single_seeds_nothing_is_said_to_be_beyond_chance(tables_folder: Path, tmp_path: Path) -> None:
    tables = changed(tables_folder, tmp_path, "separation", lambda table: table.assign(low=math.nan, high=math.nan))
    found = {key: value for key, value, _ in from_separation(tables)}
    assert found["clear.lag8"] is None and found["ahead.lag8"] is not None
    assert found["clear.count"] is found["claim.refuted"] is found["claim.confirmed"] is None


@pytest.mark.parametrize(
    ("lows", "confirmed"), [((0.1, 0.2), "at K = 8"), ((0.1, -0.2), "at no K"), ((0.1, math.nan), "at no K")]
)
def test_the_claim_is_confirmed_where_vaco_is_ahead_of_all_beyond_chance(
    lows: tuple[float, float], confirmed: str, tables_folder: Path, tmp_path: Path
) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        for opponent, low in zip(("ppo", "spo"), lows, strict=True):
            row = (table["name"] == "vaco") & (table["opponent"] == opponent) & (table["lag"] == 8)
            table.loc[row, ["difference", "low", "high", "seeds", "runs"]] = [0.5, low, 0.9, 3, 3 if low > 0.1 else 2]
        return table

    found = {key: value for key, value, _ in from_separation(changed(tables_folder, tmp_path, "separation", change))}
    assert (found["claim.refuted"], found["claim.confirmed"]) == ("at no K", confirmed)


def test_how_many_comparisons_have_seeds_enough(tables_folder: Path, tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table["seeds"], table["runs"] = math.nan, 3
        own = (table["name"] == "vaco") & (table["opponent"] == "ppo")
        table.loc[own & (table["lag"] == 1), "seeds"] = 3
        table.loc[own & (table["lag"] == 8), "seeds"] = 4
        return table

    found = {key: value for key, value, _ in from_separation(changed(tables_folder, tmp_path, "separation", change))}
    assert (found["separation.enough"], found["separation.pairs"]) == (1, 4)


def test_the_best_and_the_worst_setting_of_a_study(tables_folder: Path, tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        own = (table["grid"] == "sensitivity") & (table["metric"] == "iqm")
        table.loc[own & (table["name"] == "vaco"), ["point", "low", "high"]] = [0.5, 0.4, 0.6]
        table.loc[own & (table["name"] == "vaco-delta0.4"), ["point", "low", "high"]] = [0.7, math.nan, math.nan]
        return table

    found = {key: value for key, value, _ in from_sensitivity(changed(tables_folder, tmp_path, "aggregates", change))}
    assert (found["sensitivity.vaco.best"], found["sensitivity.vaco.worst"]) == ("0.70", "0.50 [0.40, 0.60]")


def test_all_pairs_alike_is_no_interval(tables_folder: Path, tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        row = (table["name"] == "vaco") & (table["opponent"] == "ppo") & (table["lag"] == 8)
        table.loc[row, ["point", "low", "high"]] = 1.0
        row = (table["name"] == "vaco") & (table["opponent"] == "spo") & (table["lag"] == 8)
        table.loc[row, ["point", "low", "high"]] = [0.6, 0.4, 0.9]
        return table

    found = {key: value for key, value, _ in from_improvement(changed(tables_folder, tmp_path, "improvement", change))}
    assert found["improvement.ppo.lag8.interval"] == "1.00, all pairs of a task alike"
    assert found["improvement.spo.lag8.interval"] == "0.60 [0.40, 0.90]"


def test_studies_say_how_many_seeds_are_behind_a_cell(tables_folder: Path, tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        row = (table["grid"] == "sensitivity") & (table["name"] == "vaco") & (table["metric"] == "iqm")
        table.loc[row, ["point", "low", "high", "runs"]] = [0.5, math.nan, math.nan, 1]
        row = (table["grid"] == "sensitivity") & (table["name"] == "vaco-delta0.4") & (table["metric"] == "iqm")
        table.loc[row, ["point", "low", "high", "runs"]] = [0.5, 0.4, 0.6, 2]
        return table

    found = {key: value for key, value, _ in from_aggregates(changed(tables_folder, tmp_path, "aggregates", change))}
    assert found["sensitivity.vaco.lag8.iqm.interval"] == "0.50, 1 seed"
    assert found["sensitivity.vaco-delta0.4.lag8.iqm.interval"] == "0.50 [0.40, 0.60], 2 seeds"
    assert "seed" not in found["vaco.lag8.iqm.interval"]


def test_with_which_filters_aligning_once_scores_higher(tables_folder: Path, tmp_path: Path) -> None:
    scores = {
        "none+clip": 0.5,
        "once+clip": 0.6,
        "continuous+clip": 0.7,
        "none+tv": 0.4,
        "once+tv": 0.3,
        "none+kl": 1.0,
    }

    def change(table: pd.DataFrame) -> pd.DataFrame:
        row = {"grid": "factorial", "lag": 8, "metric": "iqm"}
        return pd.DataFrame([row | {"name": name, "point": point} for name, point in scores.items()])

    tables = changed(tables_folder, tmp_path, "aggregates", change)
    assert not list(from_factorial(tables)), "the tier has no such study"
    methods = {name: {"pair": name, "settings": {}} for name in scores}
    grid = {"algorithms": list(scores), "capacities": [8]}
    tables.summary = {**tables.summary, "methods": methods, "grids": {"factorial": grid}}
    found = {key: value for key, value, _ in from_factorial(tables)}
    assert found["factorial.once_above.never"] == "1 of 2 filters (clip)"
    assert found["factorial.once_above.continuous"] == "0 of 1 filters"


def test_what_each_idea_adds_with_its_interval(tables_folder: Path, tmp_path: Path) -> None:
    """Two seeds and tasks, worked out by hand."""
    values = {"ppo": (0.2, 0.4, 0.1, 0.3), "vaco": (0.6, 0.8, 0.3, 0.7)}

    def change(table: pd.DataFrame) -> pd.DataFrame:
        cells = [("HalfCheetah-v5", 0), ("HalfCheetah-v5", 1), ("Hopper-v5", 0), ("Hopper-v5", 1)]
        rows = [
            {"name": name, "env": env, "seed": seed, "lag": 8, "score": score}
            for name, scores in values.items()
            for (env, seed), score in zip(cells, scores, strict=True)
        ]
        return pd.DataFrame(rows)

    tables = changed(tables_folder, tmp_path, "scores", change)
    assert not list(from_contributions(tables)), "the tier has no such study"
    grid = {"algorithms": ["ppo", "vaco"], "capacities": [8], "seeds": [0, 1]}
    tables.summary["grids"]["contributions"] = grid | {"environments": ["HalfCheetah-v5", "Hopper-v5"]}
    found = {key: value for key, value, _ in from_contributions(tables)}
    # Means 0.25 and 0.6; the mean of two seeds has a quarter of their squared distance as its variance.
    parts = np.array([0.01, 0.01, 0.01, 0.04]) / 4
    freedom = parts.sum() ** 2 / (parts**2).sum()
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    expected = f"+0.35 [{0.35 - reach:+.2f}, {0.35 + reach:+.2f}]".replace("-", "−")
    assert found["contributions.once.tv.over.none.clip"] == expected
    assert found["contributions.none.clip.over.once.tv"].startswith("−0.35 [")
    # These two differ in both things. As if PPO filtered like VACO, they differ in alignment alone, and not clearly.
    assert (found["contributions.pairs"], found["contributions.clear"]) == (0, None)
    tables.summary["methods"]["ppo"] = tables.methods["ppo"] | {"pair": "none+tv"}
    found = {key: value for key, value, _ in from_contributions(tables)}
    assert (found["contributions.pairs"], found["contributions.clear"]) == (1, "none")
    shifted = tables.read("scores")
    shifted.loc[shifted["name"] == "vaco", "score"] += 1.0
    shifted.to_parquet(tables.folder / "scores.parquet")
    found = {key: value for key, value, _ in from_contributions(tables)}
    assert found["contributions.clear"] == "once+tv over none+tv"


def test_where_the_filter_drops_more_than_the_clip(tables_folder: Path, tmp_path: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        for (name, lag), kept in {("ppo", 1): 0.9, ("ppo", 8): 0.8, ("vaco", 1): 0.95, ("vaco", 8): 0.7}.items():
            table.loc[(table["name"] == name) & (table["lag"] == lag), "kept_fraction"] = kept
        for lag, fires in ((1, 0.1), (8, 0.4)):
            table.loc[(table["name"] == "vaco") & (table["lag"] == lag), "trigger_fraction"] = fires
        table.loc[table["name"] == "ppo", "backward_lag"] = 0.05
        return table

    found = {key: value for key, value, _ in from_runs(changed(tables_folder, tmp_path, "runs", change))}
    assert found["filter.drops_more"] == "at K = 8"
    assert (found["filter.fires.least"], found["filter.fires.most"]) == (pytest.approx(0.1), pytest.approx(0.4))
    shares = found["filter.of_triggered.least"], found["filter.of_triggered.most"]
    assert shares == (pytest.approx(0.05 / 0.1), pytest.approx(0.3 / 0.4))
    # At K = 1 there is no backward lag to compare with.
    assert found["filter.clip_per_lag.least"] == found["filter.clip_per_lag.most"] == pytest.approx(0.2 / 0.05)


def test_seeds_beyond_counting_are_not_seeds_that_were_not_measured(tables_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "tables"
    shutil.copytree(tables_folder, copied)
    table = pd.read_parquet(copied / "separation.parquet")
    table = table[(table["grid"] == "main") & (table["name"] == "vaco") & (table["lag"] == 8)]
    seeds = {"ppo": math.inf, "spo": math.nan}
    assert set(seeds) == set(table["opponent"])
    table.assign(seeds=table["opponent"].map(seeds)).to_parquet(copied / "separation.parquet")
    found = {key: value for key, value, _ in from_separation(Tables(copied))}
    assert found["separation.ppo.lag8.seeds"] == "more than 1,000,000"
    assert found["separation.spo.lag8.seeds"] is None and found["separation.ppo.lag1.seeds"] is None
    table.assign(seeds=7.0).to_parquet(copied / "separation.parquet")
    assert dict(entry[:2] for entry in from_separation(Tables(copied)))["separation.spo.lag8.seeds"] == 7


def test_the_cost_is_that_of_the_first_task(tables_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "tables"
    shutil.copytree(tables_folder, copied)
    summary = json.loads((copied / "summary.json").read_text())
    summary["grids"]["factorial"] = summary["grids"]["main"] | {"capacities": [8], "seeds": [0, 1]}
    (copied / "summary.json").write_text(json.dumps(summary))
    runs = pd.read_parquet(copied / "runs.parquet")
    wanted = (runs["env"] == "Hopper-v5") & (runs["seed"] < 2) & (runs["lag"] == 8)
    runs["align_relative"] = np.where(wanted, 0.01, 9.0)
    runs.to_parquet(copied / "runs.parquet")
    found = {key: value for key, value, _ in from_runs(Tables(copied))}
    assert found["cost.once.tv.align"] == found["cost.none.clip.align"] == 0.01


def test_theory_and_benchmarks_agree_with_a_second_reading(written: dict[str, dict[str, object]]) -> None:
    checks = json.loads((ROOT / "results/theory/checks.json").read_text())["checks"]
    assert written["theory.checks.count"]["value"] == len(checks)
    assert written["theory.checks.violations"]["value"] == sum(check["violations"] for check in checks)
    faults = json.loads((ROOT / "benchmarks/results/faults.json").read_text())
    assert written["benchmark.faults.injected"]["value"] == faults["injected"]
    speed = json.loads((ROOT / "benchmarks/results/throughput.json").read_text())["speeds"]["HalfCheetah-v5/ppo"]
    assert written["benchmark.throughput.halfcheetah.ppo"]["value"] == speed["median"]


def test_what_is_not_there_is_said_not_to_be_measured(tmp_path: Path) -> None:
    places = ["--tables", str(tmp_path / "desk/tables"), "--theory", str(tmp_path), "--benchmarks", str(tmp_path)]
    assert numbers.main([*places, "--out", str(tmp_path / "n.json")]) == 0
    found = json.loads((tmp_path / "n.json").read_text())
    assert found["desk.runs.finished"]["text"] == UNKNOWN and found["theory.checks"]["value"] is None
    assert all(entry["value"] is None for entry in found.values())


def test_texts() -> None:
    assert number(-0.0314, "+.1%", "f")["text"] == "−3.1%"
    assert number("+0.09 [-0.04, +0.22]", "", "f")["text"] == "+0.09 [−0.04, +0.22]"
    assert number(1234567, ",d", "f")["text"] == "1,234,567"
    for nothing in (None, math.nan, math.inf):
        assert number(nothing, ".2f", "f") == {"value": None, "text": UNKNOWN, "source": "f"}


def test_two_sources_may_not_share_a_key() -> None:
    entry = number(1, "d", "f")
    with pytest.raises(UserError, match="'a' comes from f and from f"):
        collect([("a", entry), ("a", entry)])


def test_what_further_processes_gain_is_the_benchmarks_ratio(tmp_path: Path) -> None:
    (tmp_path / "env_processes.json").write_text(json.dumps({"ratio": {"Humanoid-v5": 1.467, "CartPole-v1": 0.789}}))
    found = dict(numbers.of_files("benchmark", tmp_path, numbers.BENCHMARKS))
    assert found["benchmark.env_processes.humanoid"]["text"] == "1.47"
    assert found["benchmark.env_processes.cartpole_v1"]["text"] == "0.79"
