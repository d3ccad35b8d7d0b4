"""The filter's guarantee in fractions: first-order changes of D = E_d TV(π, π_T), and the counterexample.

Statements and proofs are in `theory.filter_guarantee`. All derivatives here are rational functions of the policies, so
the sign of each is decided without rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from theory.exact_checks import Claims, Row
from theory.filter_guarantee import softmax_counterexample
from theory.rational import Case, Exact, Number, array, fmpq, rational, signs, variation, where


def kept_advantage(x: Case, filtered: bool = True) -> Exact:
    """What the filter leaves of A: h = A where a sample is kept, 0 where A·sign(π − π_T) > 0 or β never goes."""
    outward = x.gains * signs(x.current - x.learner) > 0
    dropped = outward if filtered else np.zeros_like(outward)
    return where(dropped | (x.behaviour == 0), fmpq(0), x.gains)


StepOf = Callable[[Case, Exact], Exact]  # from h to δπ, linear in h


def _first_order(x: Case, step_of: StepOf, filtered: bool = True) -> Claims:
    """One-sided derivative of D along δπ(h) ≤ ½ E_d‖δπ(h on the kinks)‖₁."""
    sigma = signs(x.current - x.learner)
    h, states = kept_advantage(x, filtered), x.states_behaviour[:, None]
    step = step_of(x, h)
    left = (states * where(sigma == 0, abs(step), sigma * step)).sum() / 2
    return [(left, (states * abs(step_of(x, where(sigma == 0, h, fmpq(0))))).sum() / 2)]


def filter_per_sample(x: Case, filtered: bool = True) -> Claims:
    """Statement 1: ⟨gᵢ, ∇Dᵢ⟩/‖∇log πᵢ‖² ≤ 0 for every sample."""
    toward = signs(x.ratio - x.learner_ratio) * x.ratio / 2
    product = x.ratio * kept_advantage(x, filtered) * toward
    return [(value, fmpq(0)) for value in product.flatten()]


def direct_step(x: Case, h: Exact) -> Exact:
    """δπ = d(h − h̄), projected on Σ_a δπ = 0 over the actions that β takes."""
    taken = array((x.behaviour != 0).astype(int).tolist())
    step = x.states_behaviour[:, None] * h
    return np.asarray(step - step.sum(1, keepdims=True) / taken.sum(1, keepdims=True) * taken)


def natural_step(x: Case, h: Exact) -> Exact:
    """δπ = π(h − E_π h)."""
    return np.asarray(x.current * (h - (x.current * h).sum(1, keepdims=True)))


def softmax_step(x: Case, h: Exact) -> Exact:
    """δπ of an ordinary gradient step on tabular softmax logits."""
    logits = x.states_behaviour[:, None] * x.current * (h - (x.current * h).sum(1, keepdims=True))
    return np.asarray(x.current * (logits - (x.current * logits).sum(1, keepdims=True)))


def filter_direct(x: Case, filtered: bool = True) -> Claims:
    """Statement 2."""
    return _first_order(x, direct_step, filtered)


def filter_direct_finite(x: Case, overshoot: int = 1) -> Claims:
    """Statement 2 for a finite step, up to the first change of sign or the simplex's border; kinked states stay."""
    difference = x.current - x.learner
    step = direct_step(x, kept_advantage(x))
    step = where((difference == 0).any(1)[:, None], fmpq(0), step)
    moves = zip(step.flatten(), difference.flatten(), x.current.flatten(), strict=True)
    limits = [limit for s, gap, p in moves for limit in _limits(s, gap, p)]
    after = x.current + overshoot * min(limits, default=fmpq(0)) * step
    return [tuple((x.states_behaviour * variation(p, x.learner)).sum() for p in (after, x.current))]


def _limits(step: Number, gap: Number, probability: Number) -> list[Number]:
    """Step lengths at which one coordinate changes the sign of its gap, or leaves the simplex."""
    closing = [-gap / step] if step * gap < 0 else []
    return closing + ([-probability / step] if step < 0 else [])


def filter_natural(x: Case, filtered: bool = True) -> Claims:
    """Statement 3."""
    return _first_order(x, natural_step, filtered)


def filter_two_actions(x: Case, any_number: bool = False) -> Claims:
    """Statement 4 for cases with two actions; no claim for the others, unless as a control."""
    return _first_order(x, softmax_step) if x.actions == 2 or any_number else []


def filter_projected(x: Case, repair: bool = True) -> Claims:
    """Statement 5 with three integer features for every state-action pair."""
    index = np.arange(x.states * x.actions * 3).reshape(x.states, x.actions, 3)
    phi = array((index * index % 7 - 3).tolist())
    score = phi - (x.current[:, :, None] * phi).sum(1, keepdims=True)
    gradient = ((x.weights * x.ratio * kept_advantage(x))[:, :, None] * score).sum((0, 1))
    toward = signs(x.ratio - x.learner_ratio) * x.ratio / 2
    rising = ((x.weights * toward)[:, :, None] * score).sum((0, 1))
    norm: Number = (rising * rising).sum()
    if repair and norm != 0:
        gradient = gradient - max((gradient * rising).sum(), fmpq(0)) / norm * rising
    return [((gradient * rising).sum(), fmpq(0))]


def counterexample_case() -> Case:
    """`softmax_counterexample` as a one-state case with γ = 0 and β = π_T."""
    numbers = {k: np.array([[rational(v) for v in row]], dtype=object) for k, row in softmax_counterexample().items()}
    learner, one = numbers["learner"], fmpq(1)
    return Case(
        transition=np.full((1, 3, 1), one, dtype=object),
        reward=numbers["advantages"],
        start=np.array([one], dtype=object),
        discount=fmpq(0),
        behaviours=np.stack([learner] * 3),
        mixture=np.array([one, fmpq(0), fmpq(0)], dtype=object),
        learner=learner,
        current=numbers["current"],
        rho_bar=one,
        c_bar=one,
        trace_decay=one,
    )


def counterexample() -> dict[str, str]:
    """The derivative of TV along the filtered step at the counterexample, for three parametrisations, as fractions."""
    x = counterexample_case()
    ordinary = _first_order(x, softmax_step)[0]
    return {
        **{k: "(" + ", ".join(v) + ")" for k, v in softmax_counterexample().items()},
        "kept": "(" + ", ".join(str(v) for v in kept_advantage(x)[0]) + ")",
        "mean_advantage_of_learner": str((x.learner * x.gains).sum()),
        "derivative_ordinary_softmax": str(ordinary[0]),
        "derivative_natural_softmax": str(filter_natural(x)[0][0]),
        "derivative_direct": str(filter_direct(x)[0][0]),
    }


FILTER: list[Row] = [
    ("filter_per_sample", filter_per_sample, False, {"no filter": partial(filter_per_sample, filtered=False)}),
    ("filter_direct", filter_direct, False, {"no filter": partial(filter_direct, filtered=False)}),
    (
        "filter_direct_finite",
        filter_direct_finite,
        False,
        {"a thousand times the step": partial(filter_direct_finite, overshoot=1000)},
    ),
    ("filter_natural", filter_natural, False, {"no filter": partial(filter_natural, filtered=False)}),
    (
        "filter_two_actions",
        filter_two_actions,
        False,
        {"three actions or more": partial(filter_two_actions, any_number=True)},
    ),
    ("filter_projected", filter_projected, False, {"no repair": partial(filter_projected, repair=False)}),
]
