"""Every figure draws from tables, the same bytes each time, and says what it rests on."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaco.archive import Archive
from vaco.errors import UserError
from vaco.report.figures import style
from vaco.report.sources import FOLDER, closure, report_hash
from vaco.report.tables import caption, hyperparameters, score_table, typeset
from vaco.report.tables.methods import LOOKS, look

FIGURES = (
    "aggregate_scores",
    "learning_curves",
    "task_curves",
    "task_scores",
    "diagnostics",
    "profiles",
    "improvement",
)


def draw(name: str, tables: Path, out: Path) -> dict[str, object]:
    main = importlib.import_module(f"vaco.report.figures.{name}").main
    assert main(["--tables", str(tables), "--out", str(out / name)]) == 0
    written: dict[str, object] = json.loads((out / f"{name}.json").read_text())
    return written


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_twice_the_same(name: str, tables_folder: Path, tmp_path: Path) -> None:
    sidecar = draw(name, tables_folder, tmp_path / "a")
    draw(name, tables_folder, tmp_path / "b")
    for suffix in ("pdf", "png", "json"):
        first, second = (tmp_path / side / f"{name}.{suffix}" for side in "ab")
        assert first.read_bytes() == second.read_bytes(), suffix
    assert (tmp_path / "a" / f"{name}.png").stat().st_size > 10_000
    assert b"CreationDate" not in (tmp_path / "a" / f"{name}.pdf").read_bytes()
    text = str(sidecar["caption"])
    assert "40,960 environment steps" in text and "3 seeds" in text and "not evidence" in text
    assert sidecar["runs"] == 40 and sidecar["missing"] == []
    assert sidecar["archive"] == Archive(tables_folder.parent / "archive").digest
    assert all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in dict(sidecar["tables"]).values())  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def one_seed(tables_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables as a tier of one seed would have them, with a run missing."""
    folder = Path(shutil.copytree(tables_folder, tmp_path_factory.mktemp("one") / "tables"))
    summary = json.loads((folder / "summary.json").read_text())
    summary["grids"]["main"]["seeds"] = [0]
    del summary["progress"]
    summary["missing"] = ["x"]
    (folder / "summary.json").write_text(json.dumps(summary))
    for name in ("aggregates", "iqm_curves", "profiles", "improvement", "task_scores", "task_curves"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        table.assign(low=np.nan, high=np.nan, runs=1).to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "diagnostics"])
def test_with_one_seed_no_interval_is_drawn_and_the_caption_says_so(name: str, one_seed: Path, tmp_path: Path) -> None:
    text = str(draw(name, one_seed, tmp_path)["caption"])
    assert "no interval is defined" in text and "1 seed," in text
    assert "1 of 40 planned runs are missing" in text


def test_captions_do_not_claim_more_than_the_scale_allows() -> None:
    grid = {"environments": ["A"], "capacities": [1, 4], "seeds": list(range(5))}
    summary = {"tier": "t", "steps": 1_000_000, "grids": {"main": grid}}
    assert "The paper used 100M steps and 10 seeds." in caption.scale(summary)
    grid["seeds"] = list(range(10))
    text = caption.scale(summary | {"steps": 100_000_000})
    assert "paper used" not in text and "evidence" not in text and "{1, 4}" in text
    progress = {"planned": 20, "finished": 7, "cells": 2, "empty": 0, "fewest": 2, "most": 5}
    text = caption.scale(summary | {"progress": {"main": progress}})
    assert (
        "7 of these 20 runs are finished, 2 to 5 seeds a cell" in text and "single differences are no evidence" in text
    )


def test_a_range_of_one_number_is_that_number() -> None:
    assert caption.between(2, 3) == "2 to 3" and caption.between(3, 3) == "3"


def test_captions_say_where_intervals_are_undefined() -> None:
    table = pd.DataFrame({"runs": [1, 3], "repetitions": 2000})
    text = caption.stratified(table)
    assert "2,000 resamples" in text and "Where a single seed is finished no interval is defined" in text
    assert "no bars are drawn" in caption.stratified(table[table["runs"] == 1])
    assert "over 3 seeds holds the true one in 75% of cases on one task and in 83% over three of equal spread" in text
    assert text.endswith("an interval of the interquartile mean holds its own less often still.")
    assert "holds" not in caption.stratified(table, coverage=False) + caption.stratified(table.assign(runs=6))
    assert "over 2 seeds holds" in caption.over_seeds(pd.concat([table, table.assign(runs=2)]))
    assert "too narrow" not in caption.over_seeds(table.assign(runs=6))
    assert caption.over_seeds(table[:0]) == "No cell is finished yet."


@pytest.mark.parametrize("seeds", caption.COVERAGE)
@pytest.mark.parametrize("spread", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.1, 0.1)])
def test_the_coverage_that_captions_state_is_that_of_a_simulation(seeds: int, spread: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seeds)
    held, trials, resamples, tasks = 0, 600, 400, len(spread)
    for _ in range(trials):
        scores = rng.normal(scale=spread, size=(seeds, tasks))
        drawn = np.array([rng.choice(scores[:, task], (resamples, seeds)).mean(axis=1) for task in range(tasks)])
        low, high = np.quantile(drawn.mean(axis=0), [0.025, 0.975])
        held += low <= 0.0 <= high
    one, three = caption.COVERAGE[seeds]
    # Three standard errors of a share of 600, and its rounding.
    if len(set(spread)) == 1:
        assert held / trials == pytest.approx(three if tasks == 3 else one, abs=0.06)
    else:
        assert one - 0.06 <= held / trials <= three + 0.06
        assert held / trials < (one + three) / 2 + 0.06, "near that of one task, whose spread dominates"


def test_where_tasks_lie_apart_intervals_of_interquartile_means_hold_less_often_than_those_of_means() -> None:
    rng = np.random.default_rng(0)
    seeds, tasks, trials, resamples = 4, 3, 1000, 400
    held = {"mean": 0, "iqm": 0}
    for _ in range(trials):
        scores = rng.normal(loc=[-10.0, 0.0, 10.0], size=(seeds, tasks))  # both means are 0, by symmetry
        rows = rng.integers(seeds, size=(resamples, seeds, tasks))
        drawn = np.sort(np.take_along_axis(scores[None], rows, axis=1).reshape(resamples, -1), axis=1)
        for name, estimates in (("mean", drawn.mean(axis=1)), ("iqm", drawn[:, 3:-3].mean(axis=1))):
            low, high = np.quantile(estimates, [0.025, 0.975])
            held[name] += low <= 0.0 <= high
    assert held["iqm"] / trials < held["mean"] / trials - 0.02
    assert held["iqm"] / trials == pytest.approx(0.83, abs=0.04)


def test_captions_say_that_an_interval_without_width_is_no_certainty() -> None:
    table = pd.DataFrame({"runs": [1, 3], "low": [np.nan, 0.2], "high": [np.nan, 0.6]})
    assert caption.won_or_lost(table) == "Over few seeds these intervals are too narrow."
    assert caption.won_or_lost(table[:1]) == ""
    assert "every pair of runs on a task had the same winner" in caption.won_or_lost(table.assign(high=0.2))


def test_captions_say_where_the_interquartile_mean_cuts_nothing() -> None:
    table = pd.DataFrame({"runs": [1, 2, 4], "tasks": [3, 2, 1]})
    assert "is the plain mean" in caption.trimming(table)
    assert caption.trimming(table[1:]) == caption.trimming(table[:0]) == ""


def test_captions_say_which_methods_only_chance_sets_apart_and_what_one_leaves_out() -> None:
    grid = {"algorithms": ["ppo", "geppo", "vaco"], "capacities": [1, 8]}
    assert "At K = 1 GePPO is PPO" in caption.naming({"grids": {"main": grid}})
    for changed in ({"capacities": [8]}, {"algorithms": ["geppo", "vaco"]}):
        text = caption.naming({"grids": {"main": grid | changed}})
        assert "K = 1" not in text and "without its reuse of earlier data" in text
    assert caption.naming({"grids": {"main": grid | {"algorithms": ["ppo", "vaco"]}}}) == ""


def test_a_missing_table_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="snakemake tables"):
        draw("aggregate_scores", tmp_path, tmp_path)


def test_a_damaged_table_is_one_sentence(tables_folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(tables_folder, tmp_path / "tables"))
    (copied / "aggregates.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"aggregates\.parquet is damaged"):
        draw("aggregate_scores", copied, tmp_path)
    for content in ("{", "[]"):
        (copied / "summary.json").write_text(content)
        with pytest.raises(UserError, match=r"summary\.json is (damaged|no summary)"):
            draw("aggregate_scores", copied, tmp_path)


def test_hyperparameters_come_from_the_manifests(tables_folder: Path, tmp_path: Path) -> None:
    assert hyperparameters.main(["--tables", str(tables_folder), "--out", str(tmp_path / "t")]) == 0
    text = (tmp_path / "t.md").read_text()
    assert re.search(r"\| learning_rate +\| Adam's step size +\| 0.0003 ", text)
    assert "δ = 0.4" not in text, "a variant is not an exception in the setting it is named after"
    assert (tmp_path / "t.tex").read_text().count(r"\\") > 20 and (tmp_path / "t.csv").is_file()


def test_exceptions_name_the_method() -> None:
    methods = {name: {"algorithm": name, "settings": {}} for name in ("ppo", "spo", "impala")}
    configs = {"ppo": {"epochs": 10}, "spo": {"epochs": 10}, "impala": {"epochs": 1}}
    assert hyperparameters.rows(configs, methods, {"epochs": "passes"}) == [("epochs", "passes", "10", "IMPALA: 1")]


def test_hyperparameters_are_those_in_force() -> None:
    config = {"minibatches": "auto", "advantage_normalisation": "phase", "epochs": 10}
    assert hyperparameters.in_force(config, "once+tv") == config | {"minibatches": "transitions"}
    assert hyperparameters.in_force(config, "continuous+truncated") == {
        "minibatches": "trajectories",
        "advantage_normalisation": "minibatch",
        "epochs": 10,
    }
    raw = config | {"minibatches": "trajectories", "advantage_normalisation": "none"}
    assert hyperparameters.in_force(raw, "once+tv") == hyperparameters.in_force(raw, "continuous+tv") == raw


def test_the_score_table_has_a_row_a_cell(tables_folder: Path, tmp_path: Path) -> None:
    assert score_table.main(["--tables", str(tables_folder), "--out", str(tmp_path / "t")]) == 0
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 * 2 + 3
    assert any(re.match(r'main,Hopper-v5,PPO,1,3,"\d+ \[\d+, \d+\]"', line) for line in lines)


def test_the_score_table_marks_what_is_missing(tables_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tables_folder, tmp_path / "tables"))
    table = pd.read_parquet(folder / "task_scores.parquet")
    gone = (table["name"] == "spo") & (table["lag"] == 8) & (table["env"] == "Hopper-v5")
    table[~gone].to_parquet(folder / "task_scores.parquet")
    assert score_table.main(["--tables", str(folder), "--out", str(tmp_path / "t")]) == 0
    assert "main,Hopper-v5,SPO,8,0,missing,missing,missing" in (tmp_path / "t.csv").read_text().splitlines()


def test_tables_escape_what_their_format_would_misread() -> None:
    assert typeset.as_markdown(["a"], [["x|y"]]).splitlines()[2] == "| x\\|y |"
    assert typeset.escape("50 % of π_T & #1") == r"50 \% of $\pi$\_T \& \#1"
    assert typeset.as_csv(["a", "b"], [["1,2", '"']]) == 'a,b\n"1,2",""""\n'


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(0.5, 12))
@settings(max_examples=100, deadline=None)
def test_labels_keep_their_distance_their_order_and_their_bounds(wanted: list[float], gap: float) -> None:
    placed = style.spread(wanted, gap, 0.0, 100.0)
    ranked = [placed[i] for i in sorted(range(len(wanted)), key=lambda i: wanted[i])]
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(ranked))
    assert min(placed) >= -1e-6 and max(placed) <= 100 + 1e-6


def test_labels_that_fit_stay_where_they_are() -> None:
    assert style.spread([50.0, 10.0, 90.0], 5.0, 0.0, 100.0) == pytest.approx([50.0, 10.0, 90.0])
    assert style.spread([50.0, 50.0], 10.0, 0.0, 100.0) == pytest.approx([45.0, 55.0])


def test_every_algorithm_has_a_look_of_its_own() -> None:
    looks = list(LOOKS.values())
    for attribute in ("colour", "marker", "dashes", "label"):
        assert len({getattr(one, attribute) for one in looks}) == len(looks), attribute
    methods = {"vaco-delta0.4": {"algorithm": "vaco", "settings": {"delta": 0.4}}}
    variant = look("vaco-delta0.4", methods)
    assert variant.colour == LOOKS["vaco"].colour and variant.label == "VACO δ = 0.4"
    assert look("once+tv_total").dashes != look("none+tv_total").dashes


def test_a_figure_depends_on_what_it_imports_and_on_nothing_else() -> None:
    aggregate_scores = set(closure("figures.aggregate_scores"))
    assert {"figures.aggregate_scores", "figures.style", "figures.panels", "tables.caption"} <= aggregate_scores
    assert not {"figures.learning_curves", "tables.aggregate", "tables.runs"} & aggregate_scores
    assert "tables.methods" not in closure("tables.aggregate") + closure("tables.estimates")
    modules = [path.relative_to(FOLDER).with_suffix("").parts for path in FOLDER.rglob("*.py")]
    hashes = {report_hash(".".join(parts)) for parts in modules if parts[-1] != "__init__"}
    assert len(hashes) == sum(parts[-1] != "__init__" for parts in modules) > 50
