"""What rounding may do: the one place where the float checks' tolerances come from.

Rounding unit u = 2⁻⁵³. A sum of n products is wrong by at most about n·u times the sum of their absolute values. A
linear system (I − γP)x = b, solved by elimination with pivoting, is wrong by at most about S·u·κ·‖x‖, with

    κ = ‖I − γP‖∞ ‖(I − γP)⁻¹‖∞ ≤ (1 + γ)/(1 − γ),

because P is stochastic. So γ near 1 is the only way for these systems to be ill-conditioned, κ is known without
computing it, and every tolerance below is `SAFETY`·S·A·u·κ times the magnitude of what was computed. Where a check
computes several such quantities a small whole factor stands beside it. Nothing is tuned to what a check was seen to
need: if it needs more, the check is wrong. A check's verdict has three values: it *holds* when the slack exceeds the
tolerance, it is *violated* when the slack is below minus the tolerance, and in between floating
point cannot tell; such instances are counted as *undecided*, not as passed, and the exact suite is there for them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from theory.mdp import MDP

UNIT = 2.0**-53
SAFETY = 8.0


def condition(discount: Tensor) -> Tensor:
    """Upper bound (1 + γ)/(1 − γ) of the sup-norm condition number of I − γP, shape of the input."""
    return (1.0 + discount) / (1.0 - discount)


def summation(mdp: MDP, magnitude: Tensor | float = 1.0) -> Tensor:
    """Rounding of a sum over states and actions whose absolute terms add up to `magnitude`, shape [B]."""
    unit = torch.full_like(mdp.discount, SAFETY * mdp.states * mdp.actions * UNIT)
    return unit * magnitude


def solved(mdp: MDP, magnitude: Tensor | float = 1.0) -> Tensor:
    """Rounding of a quantity of size `magnitude` that went through one linear solve, shape [B]."""
    return summation(mdp, magnitude) * condition(mdp.discount)


def reward_scale(mdp: MDP) -> Tensor:
    """Largest |r(s, a)|, shape [B]."""
    return mdp.reward.abs().amax((1, 2))


def value_error(mdp: MDP) -> Tensor:
    """Rounding of V, Q, A or J: one solve, of size max|r|/(1 − γ), shape [B]."""
    return solved(mdp, reward_scale(mdp) * mdp.horizon)


def surrogate_error(mdp: MDP) -> Tensor:
    """Rounding of (1 − γ)⁻¹ E_d[ρA] and of differences of J: the advantage's, divided by 1 − γ, shape [B]."""
    return value_error(mdp) * mdp.horizon


def penalty_error(mdp: MDP, factor: Tensor, constant: Tensor, mean: Tensor, worst: Tensor) -> Tensor:
    """Rounding of factor · C · E_d[TV], where C is a maximum of advantages and d a solved distribution.

    Args:
        mdp: the batch.
        factor: exact prefactor such as 2γ/(1 − γ)², shape [B].
        constant: C, shape [B].
        mean: E_d[TV], shape [B].
        worst: max_s TV(s), shape [B].

    Returns:
        Shape [B]: factor (err(C)·mean + C·err(mean)), where err(mean) = one solve times the largest TV, plus the
        rounding of the policies' own rows, which sum to 1 only to u.
    """
    return factor * (value_error(mdp) * mean + constant * (solved(mdp, worst) + summation(mdp)))
