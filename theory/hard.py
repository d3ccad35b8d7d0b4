"""Hand-made instances that attain the constants, or approach them: evidence of tightness, and prey for controls.

The main one is the *leaver*. From G an action leads to B, and nothing comes back. π_T (and β) leave G with some
probability, π does not, so every difference that one step makes stays. Rewards equal the wanted advantages, with
E_{π_T} r = 0 in both states; then V^{π_T} = 0 and A^{π_T} = r, so the advantage is free to choose.
"""

from __future__ import annotations

import torch
from torch import Tensor

from theory.instances import Instance, check_instance
from theory.mdp import MDP


def _rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def leaver(gamma: float, alpha: float, eta: float, leak: float = 1e-9, flat: bool = False) -> Instance:
    """G leaves to B by action 1 only; TV(π, π_T) is α in G and η in B, with β = π_T.

    Args:
        gamma: discount.
        alpha: TV in G: π_T leaves with probability α + leak, π with `leak`.
        eta: TV in B, where nothing moves; the advantages there are scaled by α/η, so that |Ā| is equal in both.
        leak: probability of the action that only π takes; positive because a ratio needs support.
        flat: advantages of one size in both states (what the trust-region bound's ε wants) when η = α.

    Returns:
        A batch of one. Drift: attained in the limit leak → 0 for every α. Performance bounds: in the limit η/α → 0.
        Trust-region bound: with η = α, in the limit α → 0.
    """
    transition = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    transition[0, 0, 0, 0] = transition[0, 0, 1, 1] = transition[0, 0, 2, 0] = 1.0
    transition[0, 1, :, 1] = 1.0
    learner = torch.stack(
        [_rows(1 - alpha - 2 * leak, alpha + leak, leak), _rows(1 - eta - 2 * leak, eta + leak, leak)]
    )
    current = torch.stack(
        [_rows(1 - alpha - 2 * leak, leak, alpha + leak), _rows(1 - eta - 2 * leak, leak, eta + leak)]
    )
    size = 1.0 if flat else alpha / eta
    reward = torch.stack(
        [_rows(alpha / (1 - alpha - 2 * leak), -1.0, 1.0), size * _rows(-eta / (1 - eta - 2 * leak), 1.0, -1.0)]
    )
    mdp = MDP(transition, reward[None], _rows(1.0, 0.0)[None], _rows(gamma))
    return _instance(mdp, learner[None], learner[None], current[None], f"leaver γ={gamma:g}")


def _instance(mdp: MDP, behaviour: Tensor, learner: Tensor, current: Tensor, family: str) -> Instance:
    """An instance with one behaviour policy, repeated three times, and ρ̄ = c̄ = λ = 1."""
    one = torch.ones_like(mdp.discount)
    stack = behaviour[:, None].expand(-1, 3, -1, -1)
    mixture = torch.full((mdp.batch, 3), 1.0 / 3.0, dtype=torch.float64)
    return check_instance(Instance(mdp, stack, mixture, learner, current, one, one, one, family))


def bandit(
    behaviour: list[float], learner: list[float], current: list[float], reward: list[float], name: str
) -> Instance:
    """One state that returns to itself, γ = 0: a bandit for inequalities between distributions."""
    actions = len(reward)
    transition = torch.ones(1, 1, actions, 1, dtype=torch.float64)
    mdp = MDP(transition, _rows(*reward)[None, None], torch.ones(1, 1, dtype=torch.float64), _rows(0.0))
    beta, start, moved = (_rows(*p)[None, None] for p in (behaviour, learner, current))
    return _instance(mdp, beta, start, moved, name)


def swing(gamma: float = 0.9) -> Instance:
    """Two absorbing arms and a fork: truncation at ρ̄ = 1 moves all the missing mass from the best arm to the worst.

    β is wary of the good action, π_T takes it half of the time. Exactly two actions trade mass, and the advantage has
    its whole span between them, so the bias of realignment attains its bound as β's probability of the good one goes
    to 0.
    """
    transition = torch.zeros(1, 3, 2, 3, dtype=torch.float64)
    transition[0, 0, 0, 1] = transition[0, 0, 1, 2] = 1.0
    transition[0, 1, :, 1] = transition[0, 2, :, 2] = 1.0
    reward = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]]], dtype=torch.float64)
    mdp = MDP(transition, reward, _rows(1.0, 0.0, 0.0)[None], _rows(gamma))
    half = torch.full((1, 3, 2), 0.5, dtype=torch.float64)
    behaviour, learner = half.clone(), half.clone()
    behaviour[0, 0] = _rows(0.001, 0.999)
    return _instance(mdp, behaviour, learner, learner.clone(), f"fork γ={gamma:g}")


def rare_state(gamma: float = 0.1, alpha: float = 0.01, eta: float = 0.1) -> Instance:
    """All the change of policy that matters is in a state that π_T hardly visits: a mean KL does not see it.

    π leaves G with probability Δα more than π_T; in B, seldom reached, π prefers the good action by η. Δα is chosen so
    that both states add equally to the mean KL; below γ = 0.2 the gap then exceeds the bound with mean KL.
    """
    more = 2.0 * alpha * eta * (gamma / (1.0 - gamma)) ** 0.5
    transition = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    transition[0, 0, 0, 0] = transition[0, 0, 1, 1] = 1.0
    transition[0, 1, :, 1] = 1.0
    learner = torch.stack([_rows(1 - alpha, alpha), _rows(0.5, 0.5)])[None]
    current = torch.stack([_rows(1 - alpha - more, alpha + more), _rows(0.5 + eta, 0.5 - eta)])[None]
    reward = torch.stack([_rows(0.0, 0.0), _rows(1.0, -1.0)])[None]
    mdp = MDP(transition, reward, _rows(1.0, 0.0)[None], _rows(gamma))
    return _instance(mdp, learner, learner, current, "rare state")


def coin_leaver(gamma: float = 0.01, alpha: float = 0.01) -> Instance:
    """The leaver with even coins for policies, for which Pinsker is tight: what the KL version of the bound wants.

    Leaving has probability one half, so differences are made only in the first steps: the constant is approached as
    γ → 0, and far from attained near γ = 1.
    """
    transition = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    transition[0, 0, 0, 1] = transition[0, 0, 1, 0] = 1.0
    transition[0, 1, :, 1] = 1.0
    learner = torch.stack([_rows(0.5 + alpha / 2, 0.5 - alpha / 2), _rows(0.5 + alpha / 2, 0.5 - alpha / 2)])[None]
    current = torch.stack([_rows(0.5 - alpha / 2, 0.5 + alpha / 2), _rows(0.5 - alpha / 2, 0.5 + alpha / 2)])[None]
    reward = torch.stack([_rows(-(0.5 - alpha / 2), 0.5 + alpha / 2), _rows(0.5 - alpha / 2, -(0.5 + alpha / 2))])
    mdp = MDP(transition, 2.0 * reward[None], _rows(1.0, 0.0)[None], _rows(gamma))
    return _instance(mdp, learner, learner, current, f"coin leaver γ={gamma:g}")


def hard_instances() -> list[Instance]:
    """All hand-made instances, each a batch of one."""
    result = []
    for gamma in (0.5, 0.9, 0.99):
        result += [leaver(gamma, a, 1e-4 * a) for a in (1e-3, 0.1, 0.9)]
        result += [leaver(gamma, a, a, flat=True) for a in (1e-3, 0.1)]
        result.append(swing(gamma))
    result += [rare_state(), coin_leaver(0.01), coin_leaver(0.9)]
    result += [
        bandit([0.5, 0.5], [0.5, 0.5], [0.501, 0.499], [0.0, 0.0], "even coin"),
        bandit([0.5, 0.5], [0.51, 0.49], [0.52, 0.48], [0.0, 0.0], "collinear coins"),
        bandit([0.999, 0.001], [0.999, 0.001], [0.5, 0.5], [0.0, 0.0], "rare action"),
        bandit([0.9, 0.1], [0.9, 0.1], [0.999999, 0.000001], [0.0, 0.0], "vanishing action"),
        bandit([1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], "one-hot"),
        bandit([0.375, 0.125, 0.5], [0.375, 0.125, 0.5], [0.125, 0.25, 0.625], [-1.0, -1.0, 1.0], "softmax trap"),
    ]
    return result
