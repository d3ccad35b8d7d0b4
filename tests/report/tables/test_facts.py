"""What is condensed from phases: excess over the threshold, quantiles, the trigger."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vaco.campaign.tiers import Tier
from vaco.report.figures.constraint import pooled
from vaco.report.tables.facts import LEVELS, excess, gradient_steps, trigger_stops
from vaco.runs.config import build


def test_excess_counts_and_measures_what_is_above() -> None:
    found = excess(np.array([0.1, 0.2, 0.3, 0.4]), 0.2)
    assert found["share"] == 0.5
    assert found["median"] == pytest.approx(0.75) and found["max"] == pytest.approx(1.0)
    none = excess(np.array([0.1, 0.2]), 0.2)
    assert none["share"] == 0.0 and math.isnan(none["median"]) and math.isnan(none["max"])


def test_runs_condense_their_phases(small_tier: Tier, results: Path, tables_folder: Path) -> None:
    table = pd.read_parquet(tables_folder / "runs.parquet").set_index(["env", "name", "lag", "seed"])
    row = table.loc[("Hopper-v5", "vaco", 8, 2)]
    run = str(small_tier.find("Hopper-v5", "vaco", 8, 2).config.run_id)
    phases = pd.read_parquet(results / "archive/phases", filters=[("run", "==", run)]).astype({"forward_lag": float})
    forward = [2 * value for value in phases["forward_lag"]]
    above = [value / 0.2 - 1 for value in forward if value > 0.2]
    assert row["delta"] == 0.2 and row["phases"] == len(phases)
    assert row["forward_excess_share"] == pytest.approx(len(above) / len(forward))
    assert row["forward_excess_max"] == pytest.approx(max(above))
    assert row["collect_ms"] == pytest.approx(100.0)
    assert row["align_relative"] == pytest.approx(1.0) and row["optimise_relative"] == pytest.approx(2.0)
    assert table.loc[("Hopper-v5", "vaco-delta0.4", 8, 0), "delta"] == 0.4


def test_how_often_firing_stops_is_recovered_from_the_two_shares_of_a_phase() -> None:
    rng = np.random.default_rng(0)
    for steps, probability in ((40, 0.5), (40, 0.05), (7, 0.9), (2, 0.5)):
        fired = rng.random((200, steps)) < probability
        fired[:, 0] = False  # π is π_T
        phases = pd.DataFrame(
            {
                "trigger_fraction": fired.mean(axis=1).astype(np.float32),
                "trigger_flips": (fired[:, 1:] != fired[:, :-1]).mean(axis=1).astype(np.float32),
            }
        )
        pairs = [(now, after) for phase in fired for now, after in pairwise(phase)]
        stopped, followed = sum(now and not after for now, after in pairs), sum(now for now, _ in pairs)
        assert trigger_stops(phases, steps) == pytest.approx(stopped / followed if followed else math.nan, nan_ok=True)
    silent = pd.DataFrame({"trigger_fraction": [0.0, 0.0], "trigger_flips": [0.0, 0.0]})
    assert math.isnan(trigger_stops(silent, 40))


def test_gradient_steps_are_the_minibatches_of_all_epochs() -> None:
    for changes in ({}, {"epochs": 3}, {"num_envs": 4, "phase_steps": 64, "minibatch": 32}):
        config = build({"env": "Hopper-v5", "algorithm": "vaco", **changes})
        counted = sum(1 for _ in range(config.epochs) for _ in range(0, config.batch, config.minibatch))
        assert gradient_steps(config.resolved()) == counted, changes


def test_a_filter_without_a_trigger_has_no_trigger_frequency(tables_folder: Path) -> None:
    table = pd.read_parquet(tables_folder / "runs.parquet").groupby("name")
    assert table["trigger_fraction"].count()["ppo"] == 0 and table["trigger_flips"].count()["ppo"] == 0
    assert table["trigger_fraction"].count()["vaco"] == 12 + 0 and np.isfinite(table["kept_fraction"].mean()["ppo"])


def test_quantiles_of_one_run_survive_pooling() -> None:
    values = np.random.default_rng(0).lognormal(size=5000)
    rows = pd.DataFrame({"level": LEVELS, "forward": np.quantile(values, LEVELS)})
    expected = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    assert pooled(rows, "forward") == pytest.approx(expected, rel=0.03)


def test_pooled_runs_have_equal_weight() -> None:
    low, high = (np.quantile(np.linspace(a, a + 1, 1001), LEVELS) for a in (0.0, 10.0))
    rows = pd.DataFrame({"level": np.tile(LEVELS, 2), "total": np.concatenate([low, high])})
    _, first, middle, third, _ = pooled(rows, "total")
    assert first == pytest.approx(0.5, abs=0.03) and third == pytest.approx(10.5, abs=0.03) and 1.0 <= middle <= 10.0
