"""Finite processes in rational arithmetic: no rounding, hence no tolerance.

Arrays are NumPy arrays of objects holding `flint.fmpq`; linear systems are solved by FLINT. This is a second
implementation, one process at a time, written apart from the batched one: the two are compared in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import flint
import numpy as np
import torch
from numpy.typing import NDArray

from theory.instances import Instance, check_instance
from theory.mdp import MDP

Exact = NDArray[Any]  # of fmpq
Number = Any  # an fmpq
fmpq: Any = flint.fmpq  # as Any: NumPy's annotations know no arrays of fractions
fmpq_mat: Any = flint.fmpq_mat
DISCOUNTS = ("0", "1/2", "9/10", "99/100", "999/1000")


def rational(text: str) -> Number:
    """The fraction that ``p/q`` or ``p`` spells."""
    value = Fraction(text)
    return fmpq(value.numerator, value.denominator)


def to_float(value: Number) -> float:
    """The double nearest to a fraction, also where numerator and denominator overflow doubles."""
    return float(Fraction(int(value.p), int(value.q)))


def array(values: Iterable[Any]) -> Exact:
    """An object array of fractions from nested lists of fmpq or int."""
    raw = np.array(values, dtype=object)
    return np.asarray(np.vectorize(fmpq, otypes=[object])(raw)) if raw.size else raw


def solve(matrix: Exact, right: Exact) -> Exact:
    """The x with matrix · x = right, exactly; shapes [n, n] and [n]."""
    size = len(right)
    solution = fmpq_mat(size, size, list(matrix.flatten())).solve(fmpq_mat(size, 1, list(right)))
    return np.array(solution.entries(), dtype=object)


def positive(values: Exact) -> Exact:
    """The positive part of every entry."""
    return np.asarray(np.maximum(values, fmpq(0)))


def where(mask: Any, then: Any, otherwise: Any) -> Exact:
    """`numpy.where` for arrays of fractions."""
    return np.asarray(np.where(mask, then, otherwise))


def signs(values: Exact) -> Exact:
    """−1, 0 or 1 for every entry."""
    return np.array([fmpq((v > 0) - (v < 0)) for v in values.flatten()], dtype=object).reshape(values.shape)


@dataclass(frozen=True)
class Case:
    """One process and the policies of an instance, in fractions; names as in `theory.instances.Instance`."""

    transition: Exact
    reward: Exact
    start: Exact
    discount: Number
    behaviours: Exact
    mixture: Exact
    learner: Exact
    current: Exact
    rho_bar: Number
    c_bar: Number
    trace_decay: Number

    @property
    def states(self) -> int:
        """S."""
        return len(self.start)

    @property
    def actions(self) -> int:
        """A."""
        return int(self.reward.shape[1])

    @property
    def behaviour(self) -> Exact:
        """β, the first behaviour policy."""
        return np.asarray(self.behaviours[0])

    @property
    def horizon(self) -> Number:
        """1/(1 − γ)."""
        return 1 / (1 - self.discount)

    def policy_transition(self, policy: Exact) -> Exact:
        """Σ_a π(a|s)P(s'|s, a), [S, S]."""
        return np.asarray((policy[:, :, None] * self.transition).sum(1))

    def resolvent(self, policy: Exact) -> Exact:
        """I − γP_π."""
        identity = array(np.eye(self.states, dtype=int).tolist())
        return np.asarray(identity - self.discount * self.policy_transition(policy))

    def values(self, policy: Exact) -> Exact:
        """V^π, [S]."""
        return solve(self.resolvent(policy), (policy * self.reward).sum(1))

    def advantages(self, policy: Exact) -> Exact:
        """A^π, [S, A]."""
        values = self.values(policy)
        return np.asarray(self.reward + self.discount * (self.transition * values).sum(2) - values[:, None])

    def distribution(self, policy: Exact) -> Exact:
        """d^π, [S]."""
        return solve(self.resolvent(policy).T, (1 - self.discount) * self.start)

    def performance(self, policy: Exact) -> Number:
        """J(π)."""
        return (self.start * self.values(policy)).sum()

    @cached_property
    def gains(self) -> Exact:
        """A^{π_T}."""
        return self.advantages(self.learner)

    @cached_property
    def states_behaviour(self) -> Exact:
        """d^β."""
        return self.distribution(self.behaviour)

    @cached_property
    def states_learner(self) -> Exact:
        """d^{π_T}."""
        return self.distribution(self.learner)

    @cached_property
    def states_current(self) -> Exact:
        """d^π."""
        return self.distribution(self.current)

    @cached_property
    def improvement(self) -> Number:
        """J(π) − J(π_T)."""
        return self.performance(self.current) - self.performance(self.learner)

    @cached_property
    def bar(self) -> Exact:
        """Ā(s) = E_{a∼π} A^{π_T}(s, a)."""
        return np.asarray((self.current * self.gains).sum(1))

    @cached_property
    def ratio(self) -> Exact:
        """ρ = π/β, 0 where β = 0."""
        return divide(self.current, self.behaviour)

    @cached_property
    def learner_ratio(self) -> Exact:
        """ρ_T = π_T/β, 0 where β = 0."""
        return divide(self.learner, self.behaviour)

    @cached_property
    def weights(self) -> Exact:
        """d^β(s)β(a|s)."""
        return np.asarray(self.states_behaviour[:, None] * self.behaviour)


def divide(top: Exact, bottom: Exact) -> Exact:
    """top/bottom, 0 where bottom = 0."""
    pairs = zip(top.flatten(), bottom.flatten(), strict=True)
    return np.array([a / b if b != 0 else fmpq(0) for a, b in pairs], dtype=object).reshape(top.shape)


def variation(p: Exact, q: Exact) -> Exact:
    """TV(p(·|s), q(·|s)) for every state."""
    return np.asarray(abs(p - q).sum(-1) / 2)


def _rows(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> Exact:
    """Rows of small fractions that sum to 1."""
    weights = rng.integers(low, high, shape)
    weights[..., 0] += weights.sum(-1) == 0
    exact = array(weights.tolist())
    return np.asarray(exact / exact.sum(-1, keepdims=True))


def _related(rng: np.random.Generator, base: Exact) -> Exact:
    """Independent, one-hot, mixed in by a chosen share, or equal; within the support of `base`."""
    mask = array((base != 0).astype(int).tolist())
    weights = mask * array(rng.integers(1, 7, base.shape).tolist())
    other = weights / weights.sum(-1, keepdims=True)
    if rng.random() < 0.3:
        index = [int(rng.choice(np.flatnonzero(row != 0))) for row in base]
        other = array([[int(a == i) for a in range(base.shape[1])] for i in index])
    share = rational(str(rng.choice(["1", "1", "1/2", "1/10", "1/1000", "0"])))
    return np.asarray((1 - share) * base + share * other)


def random_case(rng: np.random.Generator) -> Case:
    """A small random case: 2 or 3 states, 2 or 3 actions, dense or deterministic, γ from `DISCOUNTS`."""
    states, actions = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    if rng.random() < 0.3:
        target = rng.integers(0, states, (states, actions))
        transition = array(np.eye(states, dtype=int)[target].tolist())
    else:
        transition = _rows(rng, (states, actions, states), 0, 5)
    shape = (states, actions)
    behaviours = np.stack([_rows(rng, shape, 1, 7) for _ in range(3)])
    if actions == 3 and rng.random() < 0.2:
        behaviours[..., -1] = fmpq(0)
        behaviours = behaviours / behaviours.sum(-1, keepdims=True)
    learner = _related(rng, behaviours[0])
    rho_bar = rational(str(rng.choice(["1/2", "1", "1", "3/2", "4"])))
    return Case(
        transition=transition,
        reward=array(rng.integers(-4, 5, shape).tolist()) / 4,
        start=_rows(rng, (states,), 0, 4),
        discount=rational(str(rng.choice(DISCOUNTS))),
        behaviours=behaviours,
        mixture=_rows(rng, (3,), 0, 5),
        learner=learner,
        current=_related(rng, learner),
        rho_bar=rho_bar,
        c_bar=rho_bar * rational(str(rng.choice(["1", "1/2"]))),
        trace_decay=rational(str(rng.choice(["1", "19/20", "1/2", "0"]))),
    )


def to_instance(case: Case, family: str = "exact") -> Instance:
    """The case rounded to doubles, as a batch of one of the float checks."""

    def round_off(value: Any) -> torch.Tensor:
        flat = [to_float(v) for v in np.asarray(value, dtype=object).flatten()]
        return torch.tensor(flat, dtype=torch.float64).reshape(1, *np.shape(value))

    names = ("behaviours", "mixture", "learner", "current", "rho_bar", "c_bar", "trace_decay")
    mdp = MDP(*(round_off(getattr(case, name)) for name in ("transition", "reward", "start", "discount")))
    return check_instance(Instance(mdp=mdp, family=family, **{name: round_off(getattr(case, name)) for name in names}))


def to_strings(case: Case) -> dict[str, Any]:
    """The case as nested lists of fractions, for the certificate."""
    names = ("transition", "reward", "start", "behaviours", "mixture", "learner", "current")
    lists: dict[str, Any] = {name: np.vectorize(str, otypes=[object])(getattr(case, name)).tolist() for name in names}
    return lists | {name: str(getattr(case, name)) for name in ("discount", "rho_bar", "c_bar", "trace_decay")}
