from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from vaco.archive import Archive, Entry, write
from vaco.errors import UserError
from vaco.report.figures import language_models, lm_cost, lm_curves, lm_methods, lm_style
from vaco.report.figures.lm_cost import proximal_shares, step_parts
from vaco.report.prose.lm_numbers import from_language
from vaco.report.prose.numbers import collect, of_language
from vaco.report.tables import lm_aggregate, lm_caption
from vaco.report.tables.lm_stats import final_accuracy, of_grid
from vaco.report.tables.read import Tables

ALGORITHMS, COUNTS, SEEDS = ("ppo", "vaco", "decoupled", "a3po"), (1, 4), (0, 1, 2)
TRAINING = {
    "updates": 64,
    "new_tokens": 12,
    "cut_responses": "no_reward",
    "prompts": 4,
    "samples": 8,
    "task": "chain_sum",
    "model": "tiny",
    "eval_problems": 100,
    "delta": 0.2,
    "proximal_updates": 4,
    "device": "cpu",
}


CELLS = [(a, n, s) for s in SEEDS for n in COUNTS for a in ALGORITHMS]


def plan() -> dict[str, Any]:
    grid = {"algorithms": list(ALGORITHMS), "minibatches": list(COUNTS), "lags": [1], "seeds": list(SEEDS)}
    runs = [
        {"run": f"{a}{n}{s}-v1", "name": a, "grids": ["main"], "cell": f"{a}/lag1/n{n}/seed{s}"} for a, n, s in CELLS
    ]
    text = {"tier": "lm_t", "description": "made up", "training": TRAINING, "meanings": {}}
    return {**text, "grids": {"main": grid}, "runs": runs}


def entry_of(algorithm: str, count: int, seed: int, **changes: Any) -> Entry:
    """A run with an accuracy, a dropped share and seconds that are known from its identity.

    `changes` replace entries of the manifest.
    """
    updates = np.arange(1, 65)
    place = ALGORITHMS.index(algorithm)
    phases = {name: np.full(64, 0.1 * (place + 1)) for name in ("entropy", "total_lag", "ess", "filtered_fraction")}
    phases |= {"update": updates, "triggered": np.full(64, 0.5), "generate_seconds": np.full(64, 0.3)}
    phases |= {
        "recompute_seconds": np.full(64, 0.2 if algorithm == "decoupled" else 0.0),
        "update_seconds": np.full(64, 0.5),
    }
    points = np.array([0, 32, 64])
    final = 0.5 + 0.1 * place - 0.01 * count + 0.02 * seed
    evals = {"update": points, "accuracy": np.array([0.3, 0.4, final]), "wall_seconds": points * 1.0}
    evals["sampled_accuracy"] = evals["accuracy"] / 2
    manifest = {
        "identity": {"algorithm": algorithm, "minibatches": count, "lag": 1, "seed": seed},
        "config_hash": f"{algorithm}{count}{seed}",
        "training_version": 1,
        "versions": {"torch": "2"},
        "warm_start": {"warm_accuracy": 0.3},
        "parameters": 1000,
        "distinct_eval_problems": 90,
        "cpu": "c",
        "revision": "r",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T01:00:00+00:00",
        "wall_seconds": 36.0,
    } | changes
    tables = {"phases": pa.table(phases), "evals": pa.table(evals)}
    return Entry(f"{manifest['config_hash']}-v{manifest['training_version']}", manifest, tables.__getitem__)


Change = Callable[[tuple[str, int, int]], dict[str, Any]]


def write_archive(folder: Path, without: tuple[str, ...] = (), change: Change = lambda _: {}) -> Archive:
    """The archive of the plan without some cells; `change` gives what other entries a run's manifest has."""
    cells = [cell for cell, run in zip(CELLS, plan()["runs"], strict=True) if run["cell"] not in without]
    entries = [entry_of(*cell, **change(cell)) for cell in cells]
    write(folder, entries, tier="lm_t", kind="language", plan="0" * 16, planned=len(CELLS))
    return Archive(folder)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    archive, out = write_archive(tmp_path / "archive"), tmp_path / "tables"
    (tmp_path / "plan.json").write_text(json.dumps(plan()))
    arguments = ["--plan", str(tmp_path / "plan.json"), "--archive", str(archive.folder), "--out", str(out)]
    assert lm_aggregate.main(arguments) == 0
    return out


def test_final_accuracies_are_means_over_seeds_of_the_last_point(tables: Path) -> None:
    evals = Tables(tables).read("evals")
    found = final_accuracy(of_grid(evals, "main")).set_index(["algorithm", "minibatches"])
    assert len(found) == 8 and (found["seeds"] == 3).all() and found["start"].eq(0.3).all()
    assert found.loc[("vaco", 4), "mean"] == pytest.approx(0.6 - 0.04 + 0.02)
    assert found.loc[("vaco", 4), "low"] >= 0.56 - 1e-9 and found.loc[("vaco", 4), "high"] <= 0.6 + 1e-9
    one = final_accuracy(evals[evals["seed"] == 0]).iloc[0]
    assert np.isnan(one["low"]) and np.isnan(one["high"])


@pytest.mark.parametrize("module", [language_models, lm_curves, lm_methods, lm_cost], ids=lambda m: m.__name__)
def test_every_figure_is_drawn_and_says_what_it_is_not(module: Any, tables: Path, tmp_path: Path) -> None:
    stem = tmp_path / "out" / "figure"
    assert module.main(["--tables", str(tables), "--out", str(stem)]) == 0
    sidecar = json.loads(stem.with_suffix(".json").read_text())
    assert stem.with_suffix(".pdf").stat().st_size > 2000 and stem.with_suffix(".png").stat().st_size > 5000
    assert (
        "not the numbers" in sidecar["caption"]
        and "(90 of them distinct)" in sidecar["caption"]
        and sidecar["runs"] == 24
        and sidecar["config_hash"]
        and sidecar["archive"] == Archive(tables.parent / "archive").digest
    )


def test_every_method_is_in_the_legend_where_the_first_panel_has_none_yet(tmp_path: Path) -> None:
    found = lm_aggregate.aggregate(plan(), write_archive(tmp_path / "archive"))
    for name in ("evals", "updates"):
        table = found[name]
        table[table["minibatches"] > 1].to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "summary.json").write_text(json.dumps(found["summary"]))
    (legend,) = lm_curves.draw(Tables(tmp_path)).figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"PPO", "VACO", "Decoupled PPO", "A-3PO"}


def test_a_variant_is_drawn_as_its_algorithm_with_its_setting() -> None:
    plain, variant = lm_style.look("vaco"), lm_style.look("vaco-delta0.1")
    assert (variant.label, variant.colour) == ("VACO, δ = 0.1", plain.colour)
    assert lm_style.look("ppo-clip0.4").label == "PPO, ε = 0.4"


def test_the_cost_of_the_proximal_policy_is_a_share_within_runs(tables: Path) -> None:
    numbers = {key: value for key, value, _ in from_language(Tables(tables))}
    assert numbers["lm.cost.proximal_share"] == pytest.approx(0.2)
    # A run that other work slowed down to a tenth says the same, and a run without forward lag says nothing.
    updates = Tables(tables).read("updates")
    seconds = [name for name in updates if name.endswith("_seconds")]
    slow = (updates["algorithm"] == "decoupled") & (updates["seed"] == 1)
    updates.loc[slow, seconds] *= 10
    updates.loc[updates["minibatches"] == 1, "recompute_seconds"] *= 3
    assert proximal_shares(updates).tolist() == pytest.approx([0.2])
    # Nor does it matter how slow the machine was while one method ran.
    slowed = updates.copy()
    slowed.loc[slowed["algorithm"] == "decoupled", seconds] *= 7
    assert np.allclose(step_parts(slowed)[seconds], step_parts(updates)[seconds])
    assert numbers["lm.vaco.n4.accuracy"] == pytest.approx(0.58) and numbers["lm.scale.runs"] == 24
    assert numbers["lm.vaco.n4.interval"] == "0.58 [0.56, 0.60]"
    assert numbers["lm.vaco.n1.dropped"] == pytest.approx(0.2) and numbers["lm.vaco.n1.sampled"] == pytest.approx(0.305)


def test_numbers_of_two_tiers_have_keys_of_their_own(tables: Path) -> None:
    other = shutil.copytree(tables, tables.parent / "lm_other" / "tables")
    desk = shutil.copytree(tables, tables.parent / "lm_desk" / "tables")
    found = collect([*of_language(desk), *of_language(other)])
    assert len(found) == 2 * len(list(of_language(desk)))
    assert found["other.vaco.n4.accuracy"]["value"] == found["lm.vaco.n4.accuracy"]["value"]
    assert "lm_other" in found["other.vaco.n4.accuracy"]["source"]
    assert [key for key, _ in of_language(tables.parent / "lm_absent" / "tables")] == ["absent.scale.runs"]


def test_missing_runs_are_named(tmp_path: Path) -> None:
    gone = "ppo/lag1/n4/seed1"
    found = lm_aggregate.aggregate(plan(), write_archive(tmp_path, without=(gone,)))
    assert found["summary"]["missing"] == [gone]
    assert (found["summary"]["runs"], found["summary"]["planned_runs"]) == (23, 24)
    assert len(found["evals"]) == 23 * 3


def test_a_run_of_other_settings_fills_no_cell(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, change=lambda cell: {"config_hash": "o"} if cell == ("vaco", 1, 2) else {})
    assert lm_aggregate.aggregate(plan(), archive)["summary"]["missing"] == ["vaco/lag1/n1/seed2"]


def test_without_any_run_of_the_tier_there_is_nothing_to_tell(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", change=lambda cell: {"config_hash": f"other{cell}"})
    with pytest.raises(UserError, match="holds no run of the tier 'lm_t': train some first"):
        lm_aggregate.write(plan(), archive, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_an_older_training_version_is_a_warning(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, change=lambda cell: {"training_version": 0} if cell[0] == "vaco" else {})
    summary = lm_aggregate.aggregate(plan(), archive)["summary"]
    assert summary["runs"] == 24
    assert summary["warnings"] == ["Runs of vaco are of an older training version than the code here."]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training_version": 0}, "mix 2 versions of the training of vaco"),
        ({"versions": {"torch": "3"}}, "mix 2 versions of PyTorch"),
        ({"warm_start": {"warm_accuracy": 0.9}}, "mix 2 versions of warm starts"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    archive = write_archive(tmp_path, change=lambda cell: change if cell == ("vaco", 1, 2) else {})
    with pytest.raises(UserError, match=words):
        lm_aggregate.aggregate(plan(), archive)


def test_a_mismatch_of_engine_and_learner_is_split_off_in_captions() -> None:
    updates = pd.DataFrame({"mismatch": [0.02, 0.04], "backward_lag": [0.0, 0.0], "forward_lag": [0.1, 0.3]})
    updates["algorithm"] = ["vaco", "ppo-clip0.1"]
    text = lm_caption.split(updates)
    # What decoupled PPO calls backward is from the data to a proximal policy that moves with the steps of a round.
    proximal = pd.DataFrame(
        {"algorithm": ["decoupled"], "mismatch": [0.03], "backward_lag": [0.2], "forward_lag": [0.01]}
    )
    more = lm_caption.split(pd.concat([updates, proximal]))
    assert more.startswith(text) and "Decoupled PPO, whose" in more and "Decoupled" not in text
    assert "0.0300 is that mismatch, 0.0000 backward lag and 0.2000 forward lag" in text
    assert "backward" not in lm_caption.split(updates.assign(backward_lag=float("nan")))
    assert lm_caption.split(updates.assign(mismatch=0.0)) == lm_caption.split(updates[["forward_lag"]]) == ""
    training = {"updates": 64, "proximal_updates": 4, "precision": "bfloat16"}
    assert "by what generation and learner compute differently" in language_models._rounds(training, [1, 4])
    assert "no ratio leaves 1" in language_models._rounds({**training, "precision": "float32"}, [1, 4])
