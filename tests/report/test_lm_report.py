from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vaco.errors import UserError
from vaco.report import figure5, lm_aggregate, lm_cost, lm_curves, lm_methods, lm_style
from vaco.report.lm_cost import proximal_shares, step_parts
from vaco.report.lm_numbers import from_language
from vaco.report.lm_stats import final_accuracy, of_grid
from vaco.report.tables import Tables

ALGORITHMS, COUNTS, SEEDS = ("ppo", "vaco", "decoupled", "a3po"), (1, 4), (0, 1, 2)
TRAINING = {
    "updates": 64,
    "prompts": 4,
    "samples": 8,
    "task": "chain_sum",
    "model": "tiny",
    "eval_problems": 100,
    "delta": 0.2,
    "proximal_updates": 4,
    "device": "cpu",
}


def plan() -> dict[str, Any]:
    grid = {"algorithms": list(ALGORITHMS), "minibatches": list(COUNTS), "lags": [1], "seeds": list(SEEDS)}
    cells = [(a, n, s) for s in SEEDS for n in COUNTS for a in ALGORITHMS]
    runs = [
        {
            "folder": f"lm_t/runs/chain_sum/{a}/lag1/n{n}/seed{s}",
            "name": a,
            "grids": ["main"],
            "config_hash": f"{a}{n}{s}",
        }
        for a, n, s in cells
    ]
    text = {"tier": "lm_t", "description": "made up", "training": TRAINING, "meanings": {}}
    return {**text, "grids": {"main": grid}, "runs": runs}


def write_run(folder: Path, algorithm: str, count: int, seed: int) -> None:
    """A run with an accuracy, a dropped share and seconds that are known from its identity."""
    folder.mkdir(parents=True)
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
    pd.DataFrame(phases).to_parquet(folder / "phases.parquet")
    pd.DataFrame(evals).to_parquet(folder / "evals.parquet")
    sums = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in ("phases.parquet", "evals.parquet")}
    manifest = {
        "identity": {"algorithm": algorithm, "minibatches": count, "lag": 1, "seed": seed},
        "config_hash": f"{algorithm}{count}{seed}",
        "checksums": sums,
        "source_hash": "s",
        "versions": {"torch": "2"},
        "warm_start": {"warm_accuracy": 0.3},
        "parameters": 1000,
        "distinct_eval_problems": 90,
        "cpu": "c",
        "revision": "r",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T01:00:00+00:00",
        "wall_seconds": 36.0,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for algorithm in ALGORITHMS:
        for count in COUNTS:
            for seed in SEEDS:
                write_run(
                    tmp_path / f"lm_t/runs/chain_sum/{algorithm}/lag1/n{count}/seed{seed}", algorithm, count, seed
                )
    return tmp_path / "lm_t"


@pytest.fixture
def tables(results: Path) -> Path:
    (results / "plan.json").write_text(json.dumps(plan()))
    arguments = ["--plan", str(results / "plan.json"), "--results", str(results), "--out", str(results / "tables")]
    assert lm_aggregate.main(arguments) == 0
    return results / "tables"


def test_final_accuracies_are_means_over_seeds_of_the_last_point(tables: Path) -> None:
    evals = Tables(tables).read("evals")
    found = final_accuracy(of_grid(evals, "main")).set_index(["algorithm", "minibatches"])
    assert len(found) == 8 and (found["seeds"] == 3).all() and found["start"].eq(0.3).all()
    assert found.loc[("vaco", 4), "mean"] == pytest.approx(0.6 - 0.04 + 0.02)
    assert found.loc[("vaco", 4), "low"] >= 0.56 - 1e-9 and found.loc[("vaco", 4), "high"] <= 0.6 + 1e-9
    one = final_accuracy(evals[evals["seed"] == 0]).iloc[0]
    assert np.isnan(one["low"]) and np.isnan(one["high"])


@pytest.mark.parametrize("module", [figure5, lm_curves, lm_methods, lm_cost], ids=lambda m: m.__name__)
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
    )


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


def test_missing_runs_are_refused_or_named(results: Path) -> None:
    gone = results / "runs/chain_sum/ppo/lag1/n4/seed1"
    (gone / "manifest.json").unlink()
    with pytest.raises(UserError, match="1 runs are not finished"):
        lm_aggregate.aggregate(plan(), results, allow_missing=False)
    found = lm_aggregate.aggregate(plan(), results, allow_missing=True)
    assert found["summary"]["missing"] == ["lm_t/runs/chain_sum/ppo/lag1/n4/seed1"] and found["summary"]["runs"] == 23


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(config_hash="other"), "another configuration"),
        (lambda m: m.update(source_hash="other"), "versions of training code"),
        (lambda m: m.update(warm_start={"warm_accuracy": 0.9}), "versions of warm starts"),
        (lambda m: m["checksums"].update({"evals.parquet": "0"}), "does not match its manifest"),
        (lambda m: m.pop("checksums"), "damaged"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(results: Path, change: Any, words: str) -> None:
    path = results / "runs/chain_sum/vaco/lag1/n1/seed2/manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=words):
        lm_aggregate.aggregate(plan(), results, allow_missing=False)
