"""Figure 2: the verdicts are those of the rules, written down a second time here, and the advantages are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vaco.report import figure2
from vaco.schematic import aligning, filtering

TRACKED = Path(__file__).parents[2] / "results" / "schematic"


@pytest.fixture(scope="module")
def study() -> dict:
    return filtering.study(np.random.default_rng(0))


@pytest.mark.parametrize("side", ["below", "above"])
def test_verdicts_are_those_of_the_rules(study: dict, side: str) -> None:
    shown = study["sides"][side]
    ratio, advantage = np.array(shown["ratio"]), np.array(shown["advantage"])
    clipped = ((advantage > 0) & (ratio > 1.2)) | ((advantage < 0) & (ratio < 0.8))
    assert np.array_equal(shown["rules"]["clip"]["kept"], (~clipped).astype(int)) and clipped.any()
    outward = advantage * (ratio - 1) > 0
    expected = ~outward if side == "above" else np.ones_like(outward)
    assert np.array_equal(shown["rules"]["tv"]["kept"], expected.astype(int))
    assert shown["rules"]["tv"]["triggered"] == (side == "above")


def test_the_statistic_estimates_twice_the_total_variation(study: dict) -> None:
    for side in study["sides"].values():
        assert side["rules"]["tv"]["statistic"] == pytest.approx(side["twice_tv"], rel=0.03)
    assert study["sides"]["below"]["twice_tv"] < study["delta"] < study["sides"]["above"]["twice_tv"]


def test_histograms_count_the_kept(study: dict) -> None:
    for side in study["sides"].values():
        everything = np.array(side["histogram"])
        for rule in side["rules"].values():
            kept = np.array(rule["histogram"])
            assert (kept <= everything).all()
            # A few ratios lie beyond the last bin.
            assert rule["kept_share"] * study["samples"] == pytest.approx(kept.sum(), rel=0.03)


def test_exact_advantages_have_mean_zero_and_solve_bellmans_equation() -> None:
    generator = np.random.default_rng(3)
    process = aligning.random_process(generator)
    policy = aligning.softmax(generator.normal(size=(aligning.STATES, aligning.ACTIONS)))
    values, advantages, visits = aligning.evaluate(process, policy)
    assert np.abs((policy * advantages).sum(axis=1)).max() < 1e-12 and visits.sum() == pytest.approx(1)
    # Iterated, not solved.
    iterated = np.zeros(aligning.STATES)
    for _ in range(2000):
        iterated = (policy * (process.rewards + aligning.DISCOUNT * process.transitions @ iterated)).sum(axis=1)
    assert values == pytest.approx(iterated)


def test_an_on_policy_estimate_is_the_exact_advantage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With β = π_T and V exact, GAE and V-trace are unbiased and equal."""
    monkeypatch.setattr(aligning, "TRAJECTORIES", 4000)
    generator = np.random.default_rng(4)
    process = aligning.random_process(generator)
    policy = aligning.softmax(generator.normal(size=(aligning.STATES, aligning.ACTIONS)))
    estimates = aligning.Estimates(process, policy, generator)
    assert estimates.towards(policy) == pytest.approx(estimates.towards(None))
    error = estimates.towards(None) - aligning.evaluate(process, policy)[1]
    assert np.sqrt((estimates.weights * error**2).sum()) < 0.02


def test_once_is_where_continuous_starts() -> None:
    made = json.loads((TRACKED / "method.json").read_text())["aligning"]
    error = {name: np.array(values) for name, values in made["error"].items()}
    assert error["once"][:, 0] == pytest.approx(error["continuous"][:, 0])
    assert (np.ptp(error["once"], axis=1) == 0).all() and (np.ptp(error["continuous"], axis=1) > 0).any()


def test_the_figure_draws_twice_the_same(tmp_path: Path) -> None:
    for side in "ab":
        assert figure2.main(["--data", str(TRACKED), "--out", str(tmp_path / side / "figure2")]) == 0
    for suffix in ("pdf", "svg", "png", "json"):
        first, second = (tmp_path / side / f"figure2.{suffix}" for side in "ab")
        assert first.read_bytes() == second.read_bytes(), suffix
    caption = json.loads((tmp_path / "a" / "figure2.json").read_text())["caption"]
    made = json.loads((TRACKED / "method.json").read_text())["filtering"]
    assert f"keeps {made['sides']['below']['rules']['tv']['kept_share']:.0%} below" in caption
