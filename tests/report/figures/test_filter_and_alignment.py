"""Figure 2: the verdicts are those of the rules, written down a second time here, and the advantages are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vaco.demonstrations import aligning, filtering, method
from vaco.report.figures import filter_and_alignment

TRACKED = Path(__file__).parents[3] / "results" / "demonstrations"


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


def test_a_phase_against_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Centring, weights, errors, the cells that moved most and the lags, written out."""
    monkeypatch.setattr(aligning, "TRAJECTORIES", 60)
    made = aligning.phase(np.random.default_rng(7))
    generator = np.random.default_rng(7)
    process = aligning.random_process(generator)
    path = [0.3 * generator.normal(size=(aligning.STATES, aligning.ACTIONS))]
    for _ in range(aligning.BACKWARD + aligning.FORWARD):
        policy = aligning.softmax(path[-1])
        _, advantages, visits = aligning.evaluate(process, policy)
        step = [[visits[s] * policy[s, a] * advantages[s, a] for a in range(3)] for s in range(5)]
        path.append(path[-1] + 0.15 * np.array(step) / 0.1)
    behaviour, learner = aligning.softmax(path[0]), aligning.softmax(path[aligning.BACKWARD])
    estimates = aligning.Estimates(process, behaviour, generator)
    wanted = aligning.evaluate(process, learner)[1]
    cells = [(s, a) for s in range(5) for a in range(3)]
    weight = {cell: 0.0 for cell in cells}
    for state, action in zip(estimates._states.ravel(), estimates._actions.ravel(), strict=True):
        weight[int(state), int(action)] += 1 / estimates._states.size

    def centred(target: np.ndarray | None) -> dict[tuple[int, int], float]:
        rough = estimates.towards(target)
        return {(s, a): rough[s, a] - sum(learner[s, b] * rough[s, b] for b in range(3)) for s, a in cells}

    def error(found: dict[tuple[int, int], float]) -> float:
        squares = sum(weight[cell] * (found[cell] - wanted[cell]) ** 2 for cell in cells)
        return float(np.sqrt(squares / sum(weight[cell] * wanted[cell] ** 2 for cell in cells)))

    none, once = centred(None), centred(learner)
    assert made["error"]["none"] == pytest.approx([error(none)] * len(aligning.STEPS))
    assert made["error"]["once"] == pytest.approx([error(once)] * len(aligning.STEPS))
    later = [aligning.softmax(path[aligning.BACKWARD + step]) for step in aligning.STEPS]
    assert made["error"]["continuous"] == pytest.approx([error(centred(policy)) for policy in later])
    moved = sorted(cells, key=lambda cell: -weight[cell] * abs(once[cell] - none[cell]))
    other = next(cell for cell in moved if cell[0] != moved[0][0])
    assert made["cells"] == [list(moved[0]), list(other)]
    assert made["wanted"] == pytest.approx([wanted[moved[0]], wanted[other]])
    assert made["advantages"]["once"][-1] == pytest.approx([once[moved[0]], once[other]])

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return sum(weight[s, a] * abs(x[s, b] - y[s, b]) / 2 for s, a in cells for b in range(3))

    assert made["backward_lag"] == pytest.approx(distance(learner, behaviour))
    assert made["forward_lag"] == pytest.approx([distance(policy, learner) for policy in later])


def test_the_tracked_data_are_what_the_code_makes(tmp_path: Path) -> None:
    """Numbers up to the last digits, in which processors may differ."""
    method.main(["--out", str(tmp_path / "method.json")])
    made, tracked = (json.loads((at / "method.json").read_text()) for at in (tmp_path, TRACKED))

    def compare(one: object, other: object) -> None:
        assert type(one) is type(other)
        if isinstance(one, dict) and isinstance(other, dict):
            assert one.keys() == other.keys()
            one, other = list(one.values()), list(other.values())
        if isinstance(one, list) and isinstance(other, list):
            assert len(one) == len(other)
            for pair in zip(one, other, strict=True):
                compare(*pair)
        else:
            assert one == (pytest.approx(other, rel=1e-6, abs=1e-9) if isinstance(other, float) else other)

    compare(made, tracked)


def test_the_figure_draws_twice_the_same(tmp_path: Path) -> None:
    for side in "ab":
        assert (
            filter_and_alignment.main(["--data", str(TRACKED), "--out", str(tmp_path / side / "filter_and_alignment")])
            == 0
        )
    for suffix in ("pdf", "svg", "png", "json"):
        first, second = (tmp_path / side / f"filter_and_alignment.{suffix}" for side in "ab")
        assert first.read_bytes() == second.read_bytes(), suffix
    caption = json.loads((tmp_path / "a" / "filter_and_alignment.json").read_text())["caption"]
    made = json.loads((TRACKED / "method.json").read_text())["filtering"]
    assert f"keeps {made['sides']['below']['rules']['tv']['kept_share']:.0%} below" in caption
