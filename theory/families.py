"""Families of finite processes: random ones, structured ones, and Gymnasium's own toy-text tables.

Each maker takes a generator and a batch size and returns a validated batch of one shape. Rewards lie in [−1, 1] except
in the toy-text tables, which keep the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from theory.mdp import MDP, check_mdp

Floats = NDArray[np.float64]
DISCOUNTS = (0.0, 0.5, 0.9, 0.99, 0.999)


def tensor(value: Floats) -> Tensor:
    """A float64 tensor with the array's values."""
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float64))


def random_discount(rng: np.random.Generator, batch: int) -> Floats:
    """γ: half of them from `DISCOUNTS`, half uniform on [0, 0.999]; shape [B]."""
    return np.where(rng.random(batch) < 0.5, rng.choice(DISCOUNTS, batch), rng.uniform(0.0, 0.999, batch))


def _finish(rng: np.random.Generator, transition: Floats, reward: Floats | None = None) -> MDP:
    """Normalise the rows, add rewards, a start distribution (sometimes one state) and discounts."""
    batch, states, actions, _ = transition.shape
    transition = transition / transition.sum(-1, keepdims=True)
    if reward is None:
        reward = rng.uniform(-1.0, 1.0, (batch, states, actions))
    spread = rng.dirichlet(np.ones(states), batch)
    single = np.eye(states)[np.zeros(batch, dtype=int)]
    start = np.where(rng.random((batch, 1)) < 0.5, spread, single)
    return check_mdp(MDP(tensor(transition), tensor(reward), tensor(start), tensor(random_discount(rng, batch))))


def dense(rng: np.random.Generator, batch: int, states: int, actions: int) -> MDP:
    """Every row of P uniform on the simplex."""
    return _finish(rng, rng.dirichlet(np.ones(states), (batch, states, actions)))


def garnet(rng: np.random.Generator, batch: int, states: int, actions: int, branches: int = 2) -> MDP:
    """Garnet processes (Archibald et al. 1995): each state-action pair reaches only `branches` random states."""
    order = rng.random((batch, states, actions, states)).argsort(-1)
    chosen = order < min(branches, states)
    return _finish(rng, np.where(chosen, rng.exponential(1.0, chosen.shape), 0.0))


def chain(rng: np.random.Generator, batch: int, states: int, actions: int) -> MDP:
    """A line: action 0 goes right, every other goes left, and both slip with a random probability; ends hold."""
    here = np.arange(states)
    right, left = np.minimum(here + 1, states - 1), np.maximum(here - 1, 0)
    slip = rng.uniform(0.0, 0.5, (batch, 1, actions, 1)) * (rng.random((batch, 1, actions, 1)) < 0.7)
    forward = np.eye(states)[np.stack([right] + [left] * (actions - 1), 1)]
    backward = np.eye(states)[np.stack([left] + [right] * (actions - 1), 1)]
    return _finish(rng, (1.0 - slip) * forward + slip * backward)


def ring(rng: np.random.Generator, batch: int, states: int, actions: int) -> MDP:
    """A deterministic ring: action a moves a places on, so that no distribution is ever mixed by the dynamics."""
    target = (np.arange(states)[:, None] + np.arange(actions)[None, :]) % states
    return _finish(rng, np.broadcast_to(np.eye(states)[target], (batch, states, actions, states)).copy())


def gridworld(rng: np.random.Generator, batch: int, states: int, actions: int) -> MDP:
    """A square grid with walls at its border, moves that slip, a rewarding corner and a small cost elsewhere.

    `states` must be a square number; actions beyond the fourth stay in place.
    """
    side = round(states**0.5)
    row, column = np.divmod(np.arange(side * side), side)
    moves = [(0, 1), (1, 0), (0, -1), (-1, 0)] + [(0, 0)] * max(0, actions - 4)
    target = np.stack(
        [np.clip(row + r, 0, side - 1) * side + np.clip(column + c, 0, side - 1) for r, c in moves[:actions]], 1
    )
    slip = rng.uniform(0.0, 0.3, (batch, 1, 1, 1))
    move = np.eye(side * side)[target]
    stray = move.mean(1, keepdims=True)
    reward = np.full((batch, side * side, actions), -0.05)
    reward[:, -1, :] = 1.0
    return _finish(rng, (1.0 - slip) * move + slip * stray, reward)


def adversarial(rng: np.random.Generator, batch: int, states: int, actions: int) -> MDP:
    """Near-deterministic processes with absorbing sets: what one step moves never comes back.

    States are ordered, an action either stays or leaves for a random later state, rarely anything else: the
    construction that nearly attains the drift bound, in random form.
    """
    later = np.triu(rng.random((batch, actions, states, states)) + 1e-3, 1).transpose(0, 2, 1, 3)
    later[:, -1, :, -1] = 1.0
    leave = np.eye(states)[later.argmax(-1)]
    stay = np.eye(states)[None, :, None, :]
    leaves = rng.random((batch, states, actions, 1)) < 0.5
    leak = 10.0 ** rng.uniform(-6.0, -1.0, (batch, 1, 1, 1))
    noise = rng.dirichlet(np.ones(states), (batch, states, actions))
    return _finish(rng, (1.0 - leak) * np.where(leaves, leave, stay) + leak * noise)


@cache
def toy_text(name: str, **options: Any) -> tuple[Floats, Floats, Floats]:
    """Read transition, reward and start tables from a Gymnasium toy-text environment.

    A terminated transition leads to one further, absorbing state without reward, which is what the learner's
    "a terminated step does not bootstrap" means.

    Args:
        name: environment id, such as ``FrozenLake-v1``.
        options: further arguments of `gymnasium.make`, such as ``map_name``.

    Returns:
        transition [S+1, A, S+1], reward [S+1, A], start [S+1].
    """
    environment: Any = gymnasium.make(name, **options).unwrapped
    table = environment.P
    states, actions = len(table), len(table[0])
    transition = np.zeros((states + 1, actions, states + 1))
    reward = np.zeros((states + 1, actions))
    for s, choices in table.items():
        for a, outcomes in choices.items():
            for probability, successor, gain, terminated in outcomes:
                transition[s, a, states if terminated else successor] += probability
                reward[s, a] += probability * gain
    transition[states, :, states] = 1.0
    start = np.append(environment.initial_state_distrib, 0.0)
    environment.close()
    return transition, reward, start / start.sum()


def _library(name: str, **options: Any) -> Callable[[np.random.Generator, int], MDP]:
    def make(rng: np.random.Generator, batch: int) -> MDP:
        transition, reward, start = map(tensor, toy_text(name, **options))
        discount = tensor(rng.choice((0.9, 0.99, 0.999), batch))
        transition, reward, start = (x.expand(batch, *x.shape) for x in (transition, reward, start))
        return check_mdp(MDP(transition, reward, start, discount))

    return make


LIBRARY: dict[str, tuple[float, Callable[[np.random.Generator, int], MDP]]] = {
    # name: (share of the instances, maker); large tables get few instances, because one solve costs S³
    "FrozenLake 4x4": (0.008, _library("FrozenLake-v1", map_name="4x4")),
    "FrozenLake 8x8": (0.002, _library("FrozenLake-v1", map_name="8x8")),
    "CliffWalking": (0.002, _library("CliffWalking-v1")),
    "Taxi": (0.0002, _library("Taxi-v4")),
}

RANDOM: dict[str, Callable[[np.random.Generator, int, int, int], MDP]] = {
    "dense": dense,
    "Garnet": garnet,
    "chain": chain,
    "ring": ring,
    "gridworld": gridworld,
    "adversarial": adversarial,
}

SHAPES = ((2, 2), (3, 3), (5, 2), (6, 4), (9, 5))  # (states, actions); the grid uses squares only
GRID_SHAPES = ((4, 2), (4, 4), (9, 4), (9, 5), (16, 4))


def batches(rng: np.random.Generator, instances: int, group: int = 512) -> list[tuple[str, MDP]]:
    """At least `instances` processes over all families, as batches of one shape of at most `group` each.

    Args:
        rng: source of every random number.
        instances: how many processes in total.
        group: largest batch, which bounds memory.

    Returns:
        (family, batch) pairs.
    """
    result: list[tuple[str, MDP]] = []
    made = 0
    for family, (share, library) in LIBRARY.items():
        count = max(1, round(share * instances))
        made += count
        result.append((family, library(rng, count)))
    cells = [(f, s) for f in RANDOM for s in (GRID_SHAPES if f == "gridworld" else SHAPES)]
    each = -(-max(1, instances - made) // len(cells))
    for family, (states, actions) in cells:
        for first in range(0, each, group):
            result.append((family, RANDOM[family](rng, min(group, each - first), states, actions)))
    return result
