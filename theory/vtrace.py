"""V-trace as an operator on value functions: contraction modulus, fixed point, and the code that trains against it.

ALGORITHMS.md B (f), for finite ρ̄, c̄ and λ. With the behaviour policy β and the target π_T,

    RV = V + (I − γλP_c)⁻¹ g(V),   g(V)(s) = Σ_a min(ρ̄β, π_T)(r + γPV − V)(s, a),   P_c = Σ_a min(c̄β, π_T) P,

so R is affine with the matrix K = I − (I − γλP_c)⁻¹(diag Z − γP_ρ), Z(s) = Σ_a min(ρ̄β, π_T).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from theory import tolerance
from theory.bounds import Bound, truncated_policy
from theory.divergences import worst_state
from theory.expect import mean, ratio
from theory.instances import Instance
from theory.mdp import policy_transition, state_values
from vaco.objectives import divergence
from vaco.objectives.align import vtrace


class Operator(NamedTuple):
    """V-trace on a batch: K [B, S, S], S(s) = E Σ γᵗ C_t ρ_t [B, S], Z [B, S], and the trace matrix γλP_c [B, S, S]."""

    matrix: Tensor
    visits: Tensor
    mass: Tensor
    trace: Tensor


def operator(x: Instance, *, swap_truncations: bool = False) -> Operator:
    """The linear part of V-trace towards π_T from samples of β, with the instance's ρ̄, c̄ and λ.

    Args:
        x: the instances.
        swap_truncations: a negative control: c̄ > ρ̄, by trebling c̄ and dividing ρ̄ by three.

    Returns:
        Its matrices.
    """
    rho_bar, c_bar = x.rho_bar, x.c_bar
    if swap_truncations:
        rho_bar, c_bar = rho_bar / 3.0, 3.0 * rho_bar
    weighted = torch.minimum(rho_bar[:, None, None] * x.behaviour, x.learner)
    traced = torch.minimum(c_bar[:, None, None] * x.behaviour, x.learner)
    gamma = x.mdp.discount[:, None, None]
    trace = gamma * x.trace_decay[:, None, None] * policy_transition(x.mdp, traced)
    identity = torch.eye(x.mdp.states, dtype=trace.dtype)
    mass = weighted.sum(-1)
    inner = torch.diag_embed(mass) - gamma * policy_transition(x.mdp, weighted)
    solved = torch.linalg.solve(identity - trace, torch.cat([inner, mass[:, :, None]], -1))
    return Operator(identity - solved[..., :-1], solved[..., -1], mass, trace)


def _unit_error(x: Instance, factor: float = 4.0) -> Tensor:
    """Rounding of entries of K: one solve of rows whose absolute sums are at most (1 + γ), magnified by 1/(1 − γ)."""
    return factor * tolerance.solved(x.mdp, x.mdp.horizon)


def monotone(x: Instance, *, swap_truncations: bool = False) -> Bound:
    """Every entry of K is ≥ 0, so R is monotone: −min K ≤ 0. Needs c̄ ≤ ρ̄."""
    matrix = operator(x, swap_truncations=swap_truncations).matrix
    return Bound(-matrix.amin((1, 2)), torch.zeros_like(x.mdp.discount), _unit_error(x))


def row_sums(x: Instance, *, unit: float = 1.0) -> Bound:
    """Row sums of K are 1 − (1 − γ)S(s) with S = E Σ γᵗ C_t ρ_t (the state where they differ most)."""
    op = operator(x)
    left = op.matrix.sum(-1)
    right = 1.0 - (1.0 - unit * x.mdp.discount)[:, None] * op.visits
    index = (left - right).abs().argmax(1, keepdim=True)
    return Bound(left.gather(1, index)[:, 0], right.gather(1, index)[:, 0], _unit_error(x), True)


def contraction(x: Instance, *, swap_truncations: bool = False, least_mass: Literal["min", "max"] = "min") -> Bound:
    """‖K‖∞ = η ≤ 1 − (1 − γ)b, b = min_s E_β min(ρ̄, ρ_T): V-trace contracts in the sup norm."""
    op = operator(x, swap_truncations=swap_truncations)
    smallest = op.mass.amin(-1) if least_mass == "min" else op.mass.amax(-1)
    left = op.matrix.abs().sum(-1).amax(-1)
    return Bound(left, 1.0 - (1.0 - x.mdp.discount) * smallest, _unit_error(x, 4.0 * x.mdp.states))


def fixed_point(x: Instance, *, target: Literal["truncated", "learner"] = "truncated") -> Bound:
    """R V^{π_ρ̄} = V^{π_ρ̄} with π_ρ̄ ∝ min(ρ̄β, π_T), whatever c̄ and λ: largest |RV − V| is 0."""
    policy = truncated_policy(x.behaviour, x.learner, x.rho_bar) if target == "truncated" else x.learner
    values = state_values(x.mdp, policy)
    change = apply(x, values) - values
    error = 4.0 * tolerance.surrogate_error(x.mdp)
    return Bound(change.abs().amax(-1), torch.zeros_like(error), error, True)


def apply(x: Instance, values: Tensor) -> Tensor:
    """RV for V of shape [B, S]."""
    weighted = torch.minimum(x.rho_bar[:, None, None] * x.behaviour, x.learner)
    future = x.mdp.discount[:, None, None] * torch.einsum("bsat,bt->bsa", x.mdp.transition, values)
    step = (weighted * (x.mdp.reward + future - values[:, :, None])).sum(-1)
    identity = torch.eye(x.mdp.states, dtype=values.dtype)
    corrections: Tensor = torch.linalg.solve(identity - operator(x).trace, step)
    return values + corrections


def target_between(x: Instance, *, combine: Literal["max", "sum"] = "max", constant: float = 1.0) -> Bound:
    """For every ρ̄, π_ρ̄ is within the backward lag of π_T *and* of β, in every state.

    max(TV(π_ρ̄, π_T), TV(π_ρ̄, β)) ≤ TV(π_T, β): realignment aims between the data's policy and the learner. Proof: with
    Z = Σ_a min(ρ̄β, π_T) ≤ min(1, ρ̄), (β − π_ρ̄)⁺ = β(1 − ρ_T/Z)⁺ ≤ (β − π_T)⁺ and
    (π_T − π_ρ̄)⁺ = (π_T − ρ̄β/Z)⁺ ≤ (π_T − β)⁺; sum over actions.
    """
    policy = truncated_policy(x.behaviour, x.learner, x.rho_bar)
    lag = divergence.categorical_total_variation(x.learner, x.behaviour)
    to_learner, to_behaviour = (divergence.categorical_total_variation(policy, p) for p in (x.learner, x.behaviour))
    left = torch.maximum(to_learner, to_behaviour) if combine == "max" else to_learner + to_behaviour
    return worst_state(x, left, constant * lag, 2.0 * tolerance.summation(x.mdp)[:, None])


CHUNK = 64  # instances that share γ, ρ̄, c̄ and λ in `code`, because the function that trains takes them as numbers
LONGEST = {4: 4, 9: 3, 20: 3, 45: 2, 80: 2}  # most state-action pairs: length of the enumerated paths


def code(x: Instance, *, wrong_ratio: bool = False) -> Bound:
    """E[v_0] by `vaco.objectives.align.vtrace`, over all paths of length T, equals V + Σ_{t<T} (γλP_c)ᵗ g(V).

    The last step of a path is truncated and bootstraps. Groups of `CHUNK` instances take γ, ρ̄, c̄ and λ from their
    first member. The control ``wrong_ratio`` corrects towards β instead of π_T. Batches too large to enumerate are
    left out: their bound is empty.
    """
    length = next((t for most, t in LONGEST.items() if x.mdp.states * x.mdp.actions <= most), 0)
    if not length:
        nothing = x.mdp.discount[:0]
        return Bound(nothing, nothing, nothing, True)
    parts = [_code_chunk(x, slice(i, i + CHUNK), length, wrong_ratio) for i in range(0, x.mdp.batch, CHUNK)]
    left, right, error = (torch.cat(v) for v in zip(*parts, strict=True))
    return Bound(left, right, error, True)


def _code_chunk(x: Instance, part: slice, length: int, wrong_ratio: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides of `code` for one group, from start state 0, each [b]."""
    transition, reward, behaviour, learner = (v[part] for v in (x.mdp.transition, x.mdp.reward, x.behaviour, x.learner))
    count, states, actions = reward.shape
    gamma, decay, rho_bar, c_bar = (float(v[part][0]) for v in (x.mdp.discount, x.trace_decay, x.rho_bar, x.c_bar))
    steps = torch.cartesian_prod(*[torch.arange(actions), torch.arange(states)] * length).reshape(-1, length, 2)
    taken, successor = steps[..., 0].T, steps[..., 1].T  # [T, N]
    here = torch.cat([torch.zeros_like(successor[:1]), successor[:-1]])
    probability = (behaviour[:, here, taken] * transition[:, here, taken, successor]).prod(1)  # [b, N]
    values = torch.sin(torch.arange(states, dtype=reward.dtype) + 1.0).expand(count, states)
    towards = behaviour if wrong_ratio else learner
    time_first = (
        v.transpose(0, 1)
        for v in (
            reward[:, here, taken],
            values[:, here],
            values[:, successor],
            ratio(towards[:, here, taken], behaviour[:, here, taken]),
        )
    )
    rewards, now, following, ratios = time_first
    never = torch.zeros_like(rewards, dtype=torch.bool)
    cut = never.clone()
    cut[-1] = True
    aligned = vtrace(
        rewards=rewards,
        values=now,
        next_values=following,
        terminated=never,
        truncated=cut,
        ratio=ratios,
        discount=gamma,
        trace_decay=decay,
        rho_bar=rho_bar,
        c_bar=c_bar,
    )
    left = mean(aligned.value_targets[0][:, :, None], probability[:, :, None])
    future = gamma * torch.einsum("bsat,bt->bsa", transition, values)
    term = (torch.minimum(rho_bar * behaviour, learner) * (reward + future - values[:, :, None])).sum(-1)
    traced = torch.einsum("bsa,bsat->bst", torch.minimum(c_bar * behaviour, learner), transition)
    right = values[:, 0]
    size = values.abs().amax(-1) + reward.abs().amax((1, 2)) + 1.0
    for _ in range(length):
        right = right + term[:, 0]
        term = gamma * decay * torch.einsum("bst,bt->bs", traced, term)
    growth = (1.0 + rho_bar) * length
    return left, right, tolerance.SAFETY * tolerance.UNIT * (states * actions) * length * growth * size
