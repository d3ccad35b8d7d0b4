"""Symbolic derivations, Gaussian closed forms, parametrised policies, tightness search, the command line, figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from theory import bounds, filter_study, gaussian, hard, parametrised, run, symbolic, tightness, training
from theory.checks import all_checks
from theory.exact import run_exact
from theory.instances import from_json
from theory.sources import theory_hash
from vaco import cli
from vaco.errors import UserError


@pytest.mark.parametrize("derive", symbolic.DERIVATIONS, ids=lambda d: d.__name__)
def test_derivation_holds_and_its_double_does_not(derive):
    step = derive()
    assert step.holds
    assert not symbolic.Derivation(step.name, "", step.left, 2 * step.right).holds
    assert "=" in step.latex()


@pytest.mark.parametrize("dimension,shift,scale", [(1, 0.5, 1.0), (1, 0.3, 0.7), (1, 1.0, 1.5), (2, 0.4, 0.8)])
def test_gaussian_total_variation_equals_quadrature(dimension, shift, scale):
    exact = gaussian.isotropic(shift, scale, dimension)
    assert exact == pytest.approx(gaussian.by_quadrature(shift, scale, dimension), abs=1e-6)


def test_gaussian_closed_forms_meet_as_scale_goes_to_one():
    assert gaussian.isotropic(0.4, 1.0 + 1e-5, 3) == pytest.approx(gaussian.equal_covariance(0.4), abs=1e-4)
    assert gaussian.equal_covariance(gaussian.distance_of(0.37)) == pytest.approx(0.37)


def test_estimators_are_unbiased_with_the_closed_form_deviation():
    rng = np.random.default_rng(0)
    row = gaussian.measure(rng, gaussian.distance_of(0.2), 1.0, 1, 256)
    plain, bounded = gaussian.deviations(gaussian.distance_of(0.2))
    for name, one in (("plain", plain), ("bounded", bounded)):
        assert abs(row[name]["mean"] - 0.2) < 5 * row[name]["standard_error"]
        assert row[name]["deviation"] == pytest.approx(one / 16.0, rel=0.1)


@pytest.fixture(scope="module")
def small_problem():
    rng = np.random.default_rng(1)
    model = parametrised.models(rng, 40)[4]
    return rng, parametrised.problem(rng, model, 40)


def test_unfiltered_direction_is_the_gradient_of_the_surrogate(small_problem):
    _, p = small_problem
    leaf = p.learner_parameters.clone().requires_grad_(True)
    surrogate = (p.states[:, :, None] * p.model.policy(leaf) * p.gains).sum()
    expected = torch.autograd.grad(surrogate, leaf)[0]
    found = parametrised.direction(p, p.learner_parameters, p.weights, "none", 0.2).ascent
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)


def test_projection_never_raises_the_lag_to_first_order(small_problem):
    rng, p = small_problem
    parameters, crossed = filter_study.over_the_threshold(rng, p)
    step = parametrised.direction(p, parameters, p.weights, "tv+projection", 0.2)
    before = p.forward_lag(p.model.policy(parameters))
    change = filter_study.after(p, parameters, step, 1e-6) - before
    assert bool(crossed.any())
    assert float(change[crossed].max()) < 1e-9


def test_minibatch_weights_are_shares(small_problem):
    rng, p = small_problem
    weights = parametrised.draw(rng, p, 50)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(40, dtype=torch.float64))
    assert bool(((weights * 50).round() - weights * 50).abs().max() < 1e-9)


def test_phase_without_filter_goes_further_than_with(small_problem):
    rng, p = small_problem
    free, filtered = (filter_study.phase(rng, p, arm, 64, "SGD") for arm in ("none", "tv"))
    assert filtered["mean_final"] < free["mean_final"]
    assert filtered["kept"] < free["kept"] == pytest.approx(1.0)


def test_search_beats_chance_and_saves_its_instance(monkeypatch):
    monkeypatch.setattr(tightness, "RESTARTS", 16)
    monkeypatch.setattr(tightness, "STEPS", 50)
    share, saved = tightness.ascend(bounds.state_drift, 0.9, np.random.default_rng(0))
    again = bounds.state_drift(from_json(saved))
    assert share > 0.5
    assert float(again.attained[0]) == pytest.approx(share, rel=1e-9)


def test_kl_bound_is_approached_for_small_discounts_only():
    assert float(bounds.trpo_kl(hard.coin_leaver(0.01)).attained[0]) > 0.97
    assert float(bounds.trpo_kl(hard.coin_leaver(0.9)).attained[0]) < 0.2


def test_command_line_writes_tables_and_returns_zero(tmp_path, capsys):
    assert run.main(["--instances", "60", "--exact", "5", "--seed", "1", "--out", str(tmp_path), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "violations" in shown and "off_policy" in shown and "negative controls fail" in shown
    checks = json.loads((tmp_path / "checks.json").read_text())
    assert len(checks["checks"]) == len(all_checks())
    assert json.loads((tmp_path / "certificate.json").read_text())["cases"]


def test_command_line_leaves_no_file_unless_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["theory", "--instances", "5", "--exact", "2", "--parts", "checks"]) == 0
    assert "negative controls fail" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*"))


def test_command_line_fails_on_a_violation(tmp_path, monkeypatch):
    def broken(options, advance):
        rows = [{"name": "x", "instances": 1, "violations": 1, "seconds": 0.0}]
        return {"checks": {"checks": rows}}

    monkeypatch.setitem(run.PARTS, "checks", broken)
    assert run.main(["--parts", "checks", "--out", str(tmp_path), "--quiet"]) == 1


def test_command_line_fails_on_an_idle_control(tmp_path, monkeypatch):
    idle = {"check": "x", "dropped": "y", "failed": False}
    monkeypatch.setitem(run.PARTS, "checks", lambda options, advance: {"controls": {"controls": [idle]}})
    assert run.main(["--parts", "checks", "--out", str(tmp_path), "--quiet"]) == 1


@pytest.mark.parametrize(
    "argv,message",
    [
        (["--instances", "0"], "--instances is 0, expected at least 1"),
        (["--seed", "-3"], "--seed is -3, expected 0 or more"),
        (["--parts", "check"], "did you mean 'checks'"),
        (["--instances", "many"], "invalid int value"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_bad_options_are_one_sentence(argv, message):
    with pytest.raises(UserError, match=message) as caught:
        run.main(argv)
    assert "\n" not in str(caught.value)


def test_missing_training_table_is_said(tmp_path):
    lags = training.read_lags(tmp_path)
    assert not lags.rows and "no training results" in lags.note


def test_exact_suite_is_reproducible():
    assert json.dumps(run_exact(5, 0)["certificate"]) == json.dumps(run_exact(5, 0)["certificate"])


def test_hashes_tell_drawing_from_verifying():
    assert theory_hash(True) != theory_hash(False)
