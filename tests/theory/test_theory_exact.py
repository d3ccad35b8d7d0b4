"""Exact arithmetic: agreement with the floats, no violation, controls that fail, and the certificate."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from theory import exact, tolerance
from theory.checks import all_checks
from theory.exact_checks import RATIONAL
from theory.exact_filter import FILTER, counterexample
from theory.rational import random_case, rational, to_float, to_instance

FLOATS = {check.name: check for check in all_checks()}


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(21)
    return [random_case(rng) for _ in range(30)]


@pytest.fixture(scope="module")
def suite():
    return exact.run_exact(40, seed=3)


def inherited(x) -> float:
    """What A and d, a linear solve each, bring along into a first-order change of D, which is linear in either.

    The statements hold for any A and d, so a check's own error leaves it out; the fractions have other A and d.
    """
    states, largest = x.behaviour_states, x.learner_advantages.abs().amax((1, 2))
    once = (states[:, :, None] * (states[:, :, None] + x.current)).sum((1, 2)) * tolerance.value_error(x.mdp)
    return float((once + 2.0 * x.mdp.actions * largest * tolerance.solved(x.mdp)).max())


@pytest.mark.parametrize("row", [*RATIONAL, *FILTER], ids=lambda r: r[0])
def test_floats_agree_with_fractions(row, cases):
    name, check, _, _ = row
    if name in ("vtrace_fixed_point", "filter_projected", "filter_per_sample", "filter_direct_finite"):
        pytest.skip("the two suites report another quantity of the same claim")
    for case in cases:
        claims = [(to_float(left), to_float(right)) for left, right in check(case)]
        if not claims:
            continue
        bound = FLOATS[name].function(to_instance(case))
        left, right, error = (float(v[0]) for v in (bound.left, bound.right, bound.error))
        near = min(max(abs(left - a), abs(right - b)) for a, b in claims)
        if row in FILTER:
            error += inherited(to_instance(case))
        assert near <= max(error, 1e-15), f"{name}: {left}, {right} against {claims}"


def test_every_statement_holds_and_every_control_fails(suite):
    rows = {row["name"]: row for row in suite["exact"]["checks"]}
    missing = set(FLOATS) - set(rows) - {"softmax_gradient", "vtrace_code"}  # identities of code, not of numbers
    assert not missing, "every statement is in the exact suite"
    assert all(row["violations"] == 0 and row["instances"] >= 40 for row in rows.values())
    assert all(row["minimum_slack"] == 0 for row in rows.values() if row["kind"] == "identity")
    assert all(control["failed"] for control in suite["exact"]["controls"])
    assert {control["check"] for control in suite["exact"]["controls"]} == set(rows)


def test_the_certificate_can_be_checked_by_hand(suite):
    certificate = suite["certificate"]
    number, left, right = certificate["checks"]["state_drift"][0]
    assert Fraction(left) <= Fraction(right)
    case = certificate["cases"][number]
    assert all(sum(map(Fraction, row)) == 1 for state in case["transition"] for row in state)


def test_drift_constants_are_attained_to_the_last_digit():
    rows = exact.attained_exactly()
    assert rows and all(row["equal"] for row in rows)
    assert all(Fraction(row["left"]) > 0 for row in rows)


def test_counterexample_of_the_filter_with_softmax():
    found = counterexample()
    assert found["mean_advantage_of_learner"] == "0"
    assert Fraction(found["derivative_ordinary_softmax"]) == Fraction(3, 1024)
    assert Fraction(found["derivative_natural_softmax"]) < 0
    assert Fraction(found["derivative_direct"]) < 0


def test_huge_fractions_become_floats():
    assert to_float(rational("1/3") ** 2000) == 0.0
    assert to_float(rational("7/2")) == 3.5
