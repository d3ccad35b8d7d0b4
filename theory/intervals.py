"""Statements with logarithms, in interval arithmetic: every enclosure is rigorous, so a verdict is a proof.

`flint.arb` keeps an interval that certainly holds the true value. A claim left ≤ right is decided when the intervals
no longer overlap; until then precision doubles. A pair that is equal (π = β, both sides zero) is recognised in
fractions before any logarithm is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flint

from theory.rational import Case, Exact, fmpq, variation

arb: Any = flint.arb
PRECISIONS = (64, 128, 256, 512, 1024, 2048)


class Verdict(NamedTuple):
    """Whether left ≤ right is certain (True), certainly false (False) or open (None), and both sides as text."""

    holds: bool | None
    left: str
    right: str


def kl(p: Exact, q: Exact) -> Any:
    """KL(p‖q) of one state as an interval, None where it is infinite; exactly 0 when p = q."""
    total = arb(0)
    for a, b in zip(p, q, strict=True):
        if a == 0 or a == b:
            continue
        if b == 0:
            return None
        total += arb(a) * arb(a / b).log()
    return total


Sides = Callable[[], tuple[Any, Any]]


def decide(sides: Sides) -> Verdict:
    """Evaluate both sides with growing precision until left ≤ right is decided.

    Args:
        sides: returns left and right, as fractions, intervals, or None for infinity.

    Returns:
        The verdict.
    """
    before = flint.ctx.prec
    try:
        for bits in PRECISIONS:
            flint.ctx.prec = bits
            left, right = sides()
            if right is None:
                return Verdict(True, _text(left), "inf")
            if left is None:
                return Verdict(False, "inf", _text(right))
            difference = arb(right) - arb(left)
            if bool(difference >= 0):
                return Verdict(True, _text(left), _text(right))
            if bool(difference < 0):
                return Verdict(False, _text(left), _text(right))
        return Verdict(None, _text(left), _text(right))
    finally:
        flint.ctx.prec = before


def _text(value: Any) -> str:
    if value is None:
        return "inf"
    return str(value.str(20)) if isinstance(value, arb) else str(value)


def _statewise(x: Case, claim: Callable[[int], Sides]) -> Verdict:
    """The verdict of the first state that is not certain, or else of the last."""
    verdicts = [decide(claim(s)) for s in range(x.states)]
    return next((v for v in verdicts if v.holds is not True), verdicts[-1])


def pinsker(x: Case, constant: int = 2, backward: bool = False) -> Verdict:
    """(h): constant · TV² ≤ KL."""
    p, q = (x.behaviour, x.current) if backward else (x.current, x.behaviour)
    distance = variation(p, q)
    return _statewise(x, lambda s: lambda: (constant * distance[s] ** 2, kl(p[s], q[s])))


def pinsker_converse(x: Case) -> Verdict:
    """The false KL ≤ 2TV², a control."""
    distance = variation(x.current, x.behaviour)
    return _statewise(x, lambda s: lambda: (kl(x.current[s], x.behaviour[s]), 2 * distance[s] ** 2))


def _mean_kl(x: Case, weights: Exact, p: Exact, q: Exact) -> Any:
    total = arb(0)
    for weight, a, b in zip(weights, p, q, strict=True):
        value = kl(a, b)
        if value is None and weight > 0:
            return None
        total += arb(weight) * (arb(0) if value is None else value)
    return total


def pinsker_mean(x: Case, constant: int = 2) -> Verdict:
    """(h): constant · (E TV)² ≤ E KL."""
    mean = (x.states_behaviour * variation(x.current, x.behaviour)).sum()
    return decide(lambda: (constant * mean**2, _mean_kl(x, x.states_behaviour, x.current, x.behaviour)))


def reverse_pinsker(x: Case, halves: int = 4) -> Verdict:
    """(h): KL ≤ log(1 + 2·TV²/min β); for a one-hot π both sides are logarithms of fractions, compared as such."""
    distance = variation(x.current, x.behaviour)

    def claim(s: int) -> Sides:
        p, q = x.current[s], x.behaviour[s]
        inside = 1 + fmpq(halves, 2) * distance[s] ** 2 / min(b for b in q if b != 0)
        if p.max() == 1:
            return lambda: (1 / q[p.argmax()], inside)
        return lambda: (kl(p, q), arb(inside).log() if distance[s] != 0 else fmpq(0))

    return _statewise(x, claim)


def trpo_kl(x: Case, tenths: int = 20) -> Verdict:
    """(d): |J(π) − L| ≤ 2εγ/(1 − γ)² max KL(π_T‖π)."""
    left = abs(x.improvement - x.horizon * (x.states_learner * x.bar).sum())
    factor = fmpq(tenths, 10) * x.discount * x.horizon**2 * abs(x.gains).max()

    def sides() -> tuple[Any, Any]:
        values = [kl(p, q) for p, q in zip(x.learner, x.current, strict=True)]
        if factor == 0 or all(bool((p == q).all()) for p, q in zip(x.learner, x.current, strict=True)):
            return left, fmpq(0)
        if any(v is None for v in values):
            return left, None
        largest = arb(0)
        for v in values:
            largest = largest.max(v)
        return left, arb(factor) * largest

    return decide(sides)


IntervalCheck = Callable[[Case], Verdict]
INTERVALS: list[tuple[str, IntervalCheck, dict[str, IntervalCheck]]] = [
    ("trpo_kl", trpo_kl, {"a tenth of the constant": lambda x: trpo_kl(x, tenths=2)}),
    (
        "pinsker",
        pinsker,
        {"twice the constant": lambda x: pinsker(x, constant=4), "the converse": pinsker_converse},
    ),
    (
        "pinsker_backward",
        lambda x: pinsker(x, backward=True),
        {"twice the constant": lambda x: pinsker(x, constant=4, backward=True)},
    ),
    ("pinsker_mean", pinsker_mean, {"twice the constant": lambda x: pinsker_mean(x, constant=4)}),
    ("reverse_pinsker", reverse_pinsker, {"a quarter of the constant": lambda x: reverse_pinsker(x, halves=1)}),
]
