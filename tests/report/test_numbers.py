"""Numbers for prose: each from its file, none made up, keys that stay when runs are missing."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vaco.errors import UserError
from vaco.report import numbers
from vaco.report.numbers import UNKNOWN, collect, number
from vaco.report.tables import Tables
from vaco.report.tier_numbers import from_aggregates, from_losses, from_runs, from_separation

ROOT = Path(__file__).parents[2]


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


def test_every_task_weighs_the_same_however_many_runs_it_has(tables_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "tables"
    shutil.copytree(tables_folder, copied)
    runs = pd.read_parquet(copied / "runs.parquet")
    runs = runs[(runs["env"] == "Hopper-v5") | (runs["seed"] == 0)]
    runs["backward_lag"] = np.where(runs["env"] == "Hopper-v5", 0.1, 0.3)
    runs.to_parquet(copied / "runs.parquet")
    found = {key: value for key, value, _ in from_runs(Tables(copied))}
    assert found["lag.vaco.lag8.backward"] == pytest.approx(0.2)


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
    assert number(1234567, ",d", "f")["text"] == "1,234,567"
    for nothing in (None, math.nan, math.inf):
        assert number(nothing, ".2f", "f") == {"value": None, "text": UNKNOWN, "source": "f"}


def test_two_sources_may_not_share_a_key() -> None:
    entry = number(1, "d", "f")
    with pytest.raises(UserError, match="'a' comes from f and from f"):
        collect([("a", entry), ("a", entry)])
