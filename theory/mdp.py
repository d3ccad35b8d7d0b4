"""Batches of finite Markov decision processes, and their exact V, Q, A, state distributions and J.

Everything is a float64 tensor whose first axis is the batch, so ten thousand processes are solved by one call. Torch
rather than NumPy, because the tightness search differentiates these very functions and because the functions that
train (`vaco.objectives`) speak torch.

Shapes: B processes, S states, A actions. Rewards are in reward units per step, V, Q, A and J in units of return,
the discounted state distribution d(s) = (1 − γ) Σ_t γᵗ Pr(s_t = s) is normalised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaco.errors import UserError

ROW_SUM_TOLERANCE = 1e-9  # how far a row of probabilities may be from 1: input hygiene, not a test's tolerance


@dataclass(frozen=True)
class MDP:
    """A batch of finite Markov decision processes.

    Attributes:
        transition: P(s'|s, a), shape [B, S, A, S].
        reward: r(s, a), shape [B, S, A].
        start: μ₀(s), shape [B, S].
        discount: γ, shape [B], each in [0, 1).
    """

    transition: Tensor
    reward: Tensor
    start: Tensor
    discount: Tensor

    @property
    def batch(self) -> int:
        """How many processes."""
        return int(self.reward.shape[0])

    @property
    def states(self) -> int:
        """Number of states S."""
        return int(self.reward.shape[1])

    @property
    def actions(self) -> int:
        """Number of actions A."""
        return int(self.reward.shape[2])

    @property
    def horizon(self) -> Tensor:
        """1/(1 − γ), shape [B]."""
        return 1.0 / (1.0 - self.discount)


def _check_finite(value: Tensor, name: str) -> None:
    if not bool(torch.isfinite(value).all()):
        raise UserError(f"{name} holds NaN or infinity, expected finite numbers: look for a division by zero upstream")


def _check_distribution(value: Tensor, name: str) -> None:
    _check_finite(value, name)
    if bool((value < 0).any()):
        raise UserError(f"{name} has a negative entry ({float(value.min()):.3g}), expected probabilities: clip it at 0")
    worst = float((value.sum(-1) - 1.0).abs().max())
    if worst > ROW_SUM_TOLERANCE:
        raise UserError(f"{name} has a row whose sum differs from 1 by {worst:.3g}: divide each row by its sum")


def check_mdp(mdp: MDP) -> MDP:
    """Refuse a process that is not one.

    Args:
        mdp: any batch.

    Returns:
        The same batch.

    Raises:
        UserError: shapes disagree, a number is not finite, a row of P or μ₀ is no distribution, or γ is outside [0, 1).
    """
    if mdp.reward.ndim != 3:
        raise UserError(f"the reward has shape {tuple(mdp.reward.shape)}, expected [batch, states, actions]")
    batch, states, actions = mdp.reward.shape
    wanted = {
        "transition": (mdp.transition, (batch, states, actions, states)),
        "start": (mdp.start, (batch, states)),
        "discount": (mdp.discount, (batch,)),
    }
    for name, (value, shape) in wanted.items():
        if tuple(value.shape) != shape:
            raise UserError(f"the {name} has shape {tuple(value.shape)}, expected {shape} to agree with the reward")
    _check_finite(mdp.reward, "the reward")
    _check_finite(mdp.discount, "the discount")
    if bool((mdp.discount < 0).any()) or bool((mdp.discount >= 1).any()):
        worst = float(mdp.discount[(mdp.discount - 0.5).abs().argmax()])
        raise UserError(f"a discount is {worst:g}, expected 0 <= γ < 1: without discount the sums diverge")
    _check_distribution(mdp.transition, "the transition matrix")
    _check_distribution(mdp.start, "the start distribution")
    return mdp


def check_policy(mdp: MDP, policy: Tensor, name: str = "the policy") -> Tensor:
    """Refuse a policy that is not one.

    Args:
        mdp: the batch it acts in.
        policy: π(a|s), expected shape [B, S, A].
        name: how messages call it.

    Returns:
        The same policy.

    Raises:
        UserError: the shape disagrees, a number is not finite or negative, or a row does not sum to 1.
    """
    if policy.shape != mdp.reward.shape:
        raise UserError(f"{name} has shape {tuple(policy.shape)}, expected {tuple(mdp.reward.shape)} like the reward")
    _check_distribution(policy, name)
    return policy


def check_support(target: Tensor, behaviour: Tensor, name: str = "the target policy") -> None:
    """Refuse a ratio whose denominator vanishes where its numerator does not.

    Args:
        target: numerator π, shape [..., A].
        behaviour: denominator β, same shape.
        name: how the message calls the numerator.

    Raises:
        UserError: β(a|s) = 0 < π(a|s) somewhere; importance weights cannot see such an action.
    """
    missing = int(((behaviour == 0) & (target > 0)).sum())
    if missing:
        raise UserError(
            f"the behaviour policy never takes {missing} state-action pairs that {name} takes, "
            "so their ratio is undefined: give the behaviour policy a positive probability there"
        )


def policy_transition(mdp: MDP, policy: Tensor) -> Tensor:
    """P_π(s'|s) = Σ_a π(a|s) P(s'|s, a), shape [B, S, S]; `policy` may be any non-negative weights [B, S, A]."""
    return torch.einsum("bsa,bsat->bst", policy, mdp.transition)


def resolvent_matrix(mdp: MDP, policy: Tensor) -> Tensor:
    """I − γP_π, shape [B, S, S]; its condition number in the sup norm is at most (1 + γ)/(1 − γ)."""
    identity = torch.eye(mdp.states, dtype=mdp.reward.dtype)
    return identity - mdp.discount[:, None, None] * policy_transition(mdp, policy)


def state_values(mdp: MDP, policy: Tensor) -> Tensor:
    """V^π, the solution of (I − γP_π)V = r_π, shape [B, S]."""
    reward = (policy * mdp.reward).sum(-1)
    solution: Tensor = torch.linalg.solve(resolvent_matrix(mdp, policy), reward)
    return solution


def action_values(mdp: MDP, values: Tensor) -> Tensor:
    """Q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) V(s'), shape [B, S, A], for any V of shape [B, S]."""
    return mdp.reward + mdp.discount[:, None, None] * torch.einsum("bsat,bt->bsa", mdp.transition, values)


def advantages(mdp: MDP, policy: Tensor) -> Tensor:
    """A^π = Q^π − V^π, shape [B, S, A]; E_{a∼π} A^π(s, a) = 0 in every state."""
    values = state_values(mdp, policy)
    return action_values(mdp, values) - values[:, :, None]


def state_distribution(mdp: MDP, policy: Tensor) -> Tensor:
    """d^π, the solution of (I − γP_πᵀ)d = (1 − γ)μ₀, shape [B, S]; non-negative, sums to 1."""
    source = (1.0 - mdp.discount)[:, None] * mdp.start
    solution: Tensor = torch.linalg.solve(resolvent_matrix(mdp, policy).transpose(1, 2), source)
    return solution


def performance(mdp: MDP, policy: Tensor) -> Tensor:
    """J(π) = Σ_s μ₀(s) V^π(s), shape [B]."""
    return (mdp.start * state_values(mdp, policy)).sum(-1)


def stack(mdps: list[MDP]) -> MDP:
    """Join batches with equal numbers of states and actions into one batch."""
    return MDP(
        torch.cat([m.transition for m in mdps]),
        torch.cat([m.reward for m in mdps]),
        torch.cat([m.start for m in mdps]),
        torch.cat([m.discount for m in mdps]),
    )
