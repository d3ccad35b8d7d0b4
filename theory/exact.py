"""The exact suite: every statement on rational cases, without tolerance, and a certificate that lists the numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from theory.exact_checks import RATIONAL, Claims, ExactCheck, Row, state_drift, state_drift_coupled
from theory.exact_filter import FILTER, counterexample, counterexample_case
from theory.intervals import INTERVALS, Verdict
from theory.rational import Case, Number, array, fmpq, random_case, rational, to_float, to_strings

Json = dict[str, Any]
LEAST_FOR_CONTROLS = 200  # a control needs prey: it always sees at least this many random cases


def leaver(gamma: str, alpha: str, eta: str, leak: str = "1/1000000000") -> Case:
    """`hard.leaver` in fractions; with leak 0 the policies have different supports, for the drift bound only."""
    g, a, e, k = (rational(v) for v in (gamma, alpha, eta, leak))
    one, zero = fmpq(1), fmpq(0)
    learner = array([[1 - a - 2 * k, a + k, k], [1 - e - 2 * k, e + k, k]])
    current = array([[1 - a - 2 * k, k, a + k], [1 - e - 2 * k, k, e + k]])
    reward = array([[a / (1 - a - 2 * k), -1, 1], [-a / (1 - e - 2 * k), a / e, -a / e]])
    return Case(
        transition=array([[[1, 0], [0, 1], [1, 0]], [[0, 1]] * 3]),
        reward=reward,
        start=np.array([one, zero], dtype=object),
        discount=g,
        behaviours=np.stack([learner] * 3),
        mixture=np.array([one, zero, zero], dtype=object),
        learner=learner,
        current=current,
        rho_bar=one,
        c_bar=one,
        trace_decay=one,
    )


def hard_cases() -> list[Case]:
    """Hand-made cases that nearly attain the constants, and the softmax counterexample."""
    return [
        leaver("9/10", "1/1000", "1/10000000"),
        leaver("9/10", "1/1000", "1/1000"),
        leaver("99/100", "1/2", "1/1000000"),
        fork("9/10"),
        coin_leaver("1/100", "1/100"),
        counterexample_case(),
    ]


def fork(gamma: str) -> Case:
    """`hard.swing` in fractions: the missing mass moves from the best action to the worst."""
    half, near, far = fmpq(1, 2), fmpq(999, 1000), fmpq(1, 1000)
    behaviour = array([[far, near], [half, half], [half, half]])
    learner = array([[half, half]] * 3)
    one, zero = fmpq(1), fmpq(0)
    return Case(
        transition=array([[[0, 1, 0], [0, 0, 1]], [[0, 1, 0]] * 2, [[0, 0, 1]] * 2]),
        reward=array([[0, 0], [1, 1], [-1, -1]]),
        start=np.array([one, zero, zero], dtype=object),
        discount=rational(gamma),
        behaviours=np.stack([behaviour] * 3),
        mixture=np.array([one, zero, zero], dtype=object),
        learner=learner,
        current=learner,
        rho_bar=one,
        c_bar=one,
        trace_decay=one,
    )


def coin_leaver(gamma: str, alpha: str) -> Case:
    """`hard.coin_leaver` in fractions: what the trust-region bound with KL wants."""
    more, less = (1 + rational(alpha)) / 2, (1 - rational(alpha)) / 2
    learner, one = array([[more, less]] * 2), fmpq(1)
    return Case(
        transition=array([[[0, 1], [1, 0]], [[0, 1]] * 2]),
        reward=2 * array([[-less, more], [less, -more]]),
        start=array([1, 0]),
        discount=rational(gamma),
        behaviours=np.stack([learner] * 3),
        mixture=array([1, 0, 0]),
        learner=learner,
        current=array([[less, more]] * 2),
        rho_bar=one,
        c_bar=one,
        trace_decay=one,
    )


def attained_exactly() -> list[Json]:
    """Cases in which left = right to the last digit: the constants of both drift bounds are attained.

    The mean of TV is over the leaver's distribution, so that "drift" is attained for every α; the coupled bound too.
    """
    rows = []
    for gamma in ("1/2", "9/10", "99/100"):
        for alpha in ("1/1000", "1/2", "1"):
            x = leaver(gamma, alpha, "1/2", "0") if alpha != "1" else _certain_leaver(gamma)
            still = Case(**{**x.__dict__, "current": array([x.current[0], x.learner[1]])})  # no change in B
            drifts: list[tuple[str, ExactCheck]] = [("state_drift", state_drift)]
            if alpha != "1":
                drifts.append(("state_drift_coupled", state_drift_coupled))
            for name, check in drifts:
                left, right = check(still)[0]
                rows.append({"check": name, "discount": gamma, "alpha": alpha, "left": str(left), "right": str(right)})
                rows[-1]["equal"] = left == right
    return rows


def _certain_leaver(gamma: str) -> Case:
    """The leaver with α = 1: π_T leaves at once, π never."""
    x = leaver(gamma, "1/2", "1/2", "0")
    learner = array([[0, 1, 0], x.learner[1]])
    current = array([[0, 0, 1], x.current[1]])
    replaced = {"learner": learner, "current": current, "behaviours": np.stack([learner] * 3)}
    return Case(**{**{k: v for k, v in x.__dict__.items() if k in Case.__dataclass_fields__}, **replaced})


def halved(check: ExactCheck) -> ExactCheck:
    """A control for a statement without one of its own: its right side halved."""
    return lambda x: [(left, right / 2) for left, right in check(x)]


def _slack(claim: tuple[Number, Number], identity: bool) -> Number:
    left, right = claim
    return -abs(right - left) if identity else right - left


def _worst(claims: Claims, identity: bool) -> tuple[Number, Number]:
    return min(claims, key=lambda c: _slack(c, identity))


def _share(claims: Claims) -> float:
    return max((to_float(left / right) for left, right in claims if right > 0), default=0.0)


def run_rational(row: Row, cases: list[Case], prey: list[Case]) -> tuple[Json, list[Json]]:
    """One statement on every case, and its controls on the cases of `prey`.

    Returns:
        A row of the table, whose ``certificate`` lists [case, left, right] of the claim with the least slack; and a
        row a control.
    """
    name, check, identity, controls = row
    started = time.perf_counter()
    certificate, slacks, tightest, violations = [], [], 0.0, 0
    for number, case in enumerate(cases):
        claims = check(case)
        if not claims:
            continue
        worst = _worst(claims, identity)
        slacks.append(_slack(worst, identity))
        violations += slacks[-1] < 0
        tightest = max(tightest, _share(claims))
        certificate.append([number, str(worst[0]), str(worst[1])])
    result = {
        "name": name,
        "arithmetic": "fractions",
        "kind": "identity" if identity else "inequality",
        "instances": len(certificate),
        "violations": violations,
        "equal": sum(s == 0 for s in slacks),
        "minimum_slack": to_float(min(slacks)),
        "tightest": None if identity or tightest == 0.0 else tightest,
        "seconds": time.perf_counter() - started,
        "certificate": certificate,
    }
    controls = controls or {"right side halved": halved(check)}
    return result, [_control(name, dropped, f, identity, prey) for dropped, f in controls.items()]


def _control(name: str, dropped: str, check: ExactCheck, identity: bool, cases: list[Case]) -> Json:
    """A control, and the first case that refutes it, in fractions."""
    refuted = []
    for number, case in enumerate(cases):
        claims = check(case)
        if claims and _slack(_worst(claims, identity), identity) < 0:
            refuted.append([number, *map(str, _worst(claims, identity))])
    found = {"check": name, "dropped": dropped, "instances": len(cases), "violations": len(refuted)}
    return found | {"failed": bool(refuted), "witness": refuted[0] if refuted else None}


def run_intervals(cases: list[Case], prey: list[Case]) -> Iterator[tuple[Json, list[Json]]]:
    """The statements with logarithms: rows as those of `run_rational`, with intervals in the certificate."""
    for name, check, controls in INTERVALS:
        started = time.perf_counter()
        verdicts: list[Verdict] = [check(case) for case in cases]
        row = {
            "name": name,
            "arithmetic": "intervals",
            "kind": "inequality",
            "instances": len(verdicts),
            "violations": sum(v.holds is False for v in verdicts),
            "undecided": sum(v.holds is None for v in verdicts),
            "minimum_slack": None,
            "tightest": None,
            "seconds": time.perf_counter() - started,
            "certificate": [[i, v.left, v.right] for i, v in enumerate(verdicts)],
        }
        rows = []
        for dropped, function in controls.items():
            found = [(i, v) for i, v in enumerate(map(function, prey)) if v.holds is False]
            head = {"check": name, "dropped": dropped, "instances": len(prey), "violations": len(found)}
            witness = [found[0][0], found[0][1].left, found[0][1].right] if found else None
            rows.append(head | {"failed": bool(found), "witness": witness})
        yield row, rows


def run_exact(instances: int, seed: int, advance: Callable[[str], None] = lambda name: None) -> dict[str, Json]:
    """The whole exact suite.

    Args:
        instances: random cases, at least 1; cases for the two-action statement are topped up to as many.
        seed: of the generator.
        advance: called with the name of each check.

    Returns:
        ``exact``: the table, the controls, what is attained, the counterexample; ``certificate``: every case in
        fractions and, for each check, case, left and right.
    """
    rng = np.random.default_rng([seed, 1])
    cases = [random_case(rng) for _ in range(instances)]
    while sum(c.actions == 2 for c in cases) < instances:
        extra = random_case(rng)
        if extra.actions == 2:
            cases.append(extra)
    cases += hard_cases()
    prey = cases if len(cases) >= LEAST_FOR_CONTROLS else [random_case(rng) for _ in range(LEAST_FOR_CONTROLS)] + cases
    rows: list[Json] = []
    controls: list[Json] = []
    for row in [*RATIONAL, *FILTER]:
        advance(f"exact {row[0]}")
        made, failed = run_rational(row, cases, prey)
        rows.append(made)
        controls += failed
    for made, failed in run_intervals(cases, prey):
        advance(f"exact {made['name']}")
        rows.append(made)
        controls += failed
    certificate = {
        "cases": [to_strings(case) for case in cases],
        "checks": {row["name"]: row.pop("certificate") for row in rows},
    }
    head = {"instances": instances, "seed": seed, "attained": attained_exactly(), "counterexample": counterexample()}
    return {"exact": head | {"checks": rows, "controls": controls}, "certificate": certificate}
