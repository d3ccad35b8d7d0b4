"""Advantages through one phase, aligned never, once and continuously, on a small decision process known exactly.

A softmax policy on random transitions and rewards climbs the exact policy gradient. The behaviour policy β is the one
that started; the learner π_T is `BACKWARD` steps further, which is the backward lag; the phase is `FORWARD` more steps,
the forward lag. Trajectories come from β, the critic is V^β, exact for the data but old for the learner, and the
estimates come from `vaco.objectives.align`, truncated at ρ̄ = c̄ = 1 as in training. The yardstick is the exact
A^{π_T}, which the performance bound asks for. Since V^β is not V^{π_T}, estimates are off by a baseline of the state
alone, which no expected policy gradient notices; it is taken out by centring under π_T.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaco.objectives.align import ALIGNMENTS, vtrace

Array = NDArray[np.float64]
COMPARED = {name: ALIGNMENTS[name] for name in ("none", "once", "continuous")}
STATES, ACTIONS = 5, 3
DISCOUNT, TRACE = 0.9, 0.95
PROCESSES = 24
BACKWARD, FORWARD = 6, 24
STEPS = range(0, FORWARD + 1, 2)
RATE = 0.15
TRAJECTORIES, LENGTH = 800, 48


class Process(NamedTuple):
    """Transitions P[s, a, s'], expected rewards r[s, a], start distribution."""

    transitions: Array
    rewards: Array
    start: Array


def random_process(generator: np.random.Generator) -> Process:
    """Transitions from a Dirichlet distribution, standard normal rewards, uniform start."""
    transitions = generator.dirichlet(np.full(STATES, 0.5), size=(STATES, ACTIONS))
    return Process(transitions, generator.normal(size=(STATES, ACTIONS)), np.full(STATES, 1 / STATES))


def softmax(logits: Array) -> Array:
    """π(a|s) of logits [s, a]."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def evaluate(process: Process, policy: Array) -> tuple[Array, Array, Array]:
    """Exact V^π [s], A^π [s, a], and the normalised discounted state distribution [s]."""
    matrix = np.einsum("sa,sat->st", policy, process.transitions)
    values = np.linalg.solve(np.eye(STATES) - DISCOUNT * matrix, (policy * process.rewards).sum(axis=1))
    action_values = process.rewards + DISCOUNT * process.transitions @ values
    visits = (1 - DISCOUNT) * np.linalg.solve(np.eye(STATES) - DISCOUNT * matrix.T, process.start)
    return values, action_values - values[:, None], visits


def climb(process: Process, logits: Array, steps: int) -> list[Array]:
    """Logits after 0, 1, …, `steps` steps of exact policy-gradient ascent."""
    path = [logits]
    for _ in range(steps):
        policy = softmax(path[-1])
        _, advantages, visits = evaluate(process, policy)
        path.append(path[-1] + RATE * visits[:, None] * policy * advantages / (1 - DISCOUNT))
    return path


def roll_out(process: Process, policy: Array, generator: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """States, actions and next states under a policy, each [length, trajectories]."""
    states, actions, following = (np.zeros((LENGTH, TRAJECTORIES), dtype=np.int64) for _ in range(3))
    state = generator.choice(STATES, size=TRAJECTORIES, p=process.start)
    for t in range(LENGTH):
        action = _draw(policy[state], generator)
        after = _draw(process.transitions[state, action], generator)
        states[t], actions[t], following[t] = state, action, after
        state = after
    return states, actions, following


def _draw(probabilities: Array, generator: np.random.Generator) -> NDArray[np.int64]:
    """One category a row, by the inverse of the distribution function."""
    above = generator.random(len(probabilities))[:, None] > probabilities.cumsum(axis=1)
    return np.asarray(np.minimum(above.sum(axis=1), probabilities.shape[1] - 1), dtype=np.int64)


class Estimates:
    """Mean estimated advantages [s, a] of one fixed batch of trajectories, for any target policy."""

    def __init__(self, process: Process, behaviour: Array, generator: np.random.Generator) -> None:
        self._behaviour = behaviour
        self._states, self._actions, following = roll_out(process, behaviour, generator)
        values, _, _ = evaluate(process, behaviour)
        flags = torch.zeros(self._states.shape, dtype=torch.bool)
        cut = flags.clone()
        cut[-1] = True  # the batch ends here, the episode does not
        self._batch: dict[str, Any] = {
            "rewards": torch.from_numpy(process.rewards[self._states, self._actions]),
            "values": torch.from_numpy(values[self._states]),
            "next_values": torch.from_numpy(values[following]),
            "terminated": flags,
            "truncated": cut,
        }
        cells = self._states * ACTIONS + self._actions
        self._cells = cells.ravel()
        self._visits = np.bincount(self._cells, minlength=STATES * ACTIONS)

    @property
    def weights(self) -> Array:
        """Share of the batch in each cell, [s, a]."""
        return np.asarray(self._visits / self._visits.sum()).reshape(STATES, ACTIONS)

    def towards(self, target: Array | None) -> Array:
        """V-trace(λ) towards a policy [s, a]; None is GAE(λ), as if the behaviour policy were the learner."""
        ratio = None
        if target is not None:
            ratio = torch.from_numpy((target / self._behaviour)[self._states, self._actions])
        made = vtrace(**self._batch, ratio=ratio, discount=DISCOUNT, trace_decay=TRACE)
        sums = np.bincount(self._cells, made.advantages.numpy().ravel(), minlength=STATES * ACTIONS)
        return (sums / np.maximum(self._visits, 1)).reshape(STATES, ACTIONS)


def phase(generator: np.random.Generator) -> dict[str, Any]:
    """Follow a phase on one random process.

    Returns:
        `cells` [s, a] whose advantage alignment changes most; for them, `wanted` and `advantages` [step][cell] of each
        alignment; `error`, the root mean square over all cells, weighted by visits, as a share of that of A^{π_T};
        the lags. All advantages are centred: their mean under π_T is zero in every state.
    """
    process = random_process(generator)
    path = climb(process, 0.3 * generator.normal(size=(STATES, ACTIONS)), BACKWARD + FORWARD)
    behaviour, learner = softmax(path[0]), softmax(path[BACKWARD])
    estimates = Estimates(process, behaviour, generator)
    policies = [softmax(path[BACKWARD + step]) for step in STEPS]
    frozen = {"none": estimates.towards(None), "once": estimates.towards(learner)}
    followed = {
        name: [estimates.towards(policy) for policy in policies] if row.every_update else [frozen[name]] * len(STEPS)
        for name, row in COMPARED.items()
    }
    centred = {name: [_centred(one, learner) for one in made] for name, made in followed.items()}
    wanted = evaluate(process, learner)[1]
    weights = estimates.weights
    scale = float(np.sqrt((weights * wanted**2).sum()))
    cells = _most_moved(weights, centred["none"][0], centred["once"][0])
    visits = weights.sum(axis=1)
    return {
        "cells": [list(cell) for cell in cells],
        "wanted": [float(wanted[cell]) for cell in cells],
        "advantages": {name: [[float(one[cell]) for cell in cells] for one in made] for name, made in centred.items()},
        "error": {
            name: [float(np.sqrt((weights * (one - wanted) ** 2).sum())) / scale for one in made]
            for name, made in centred.items()
        },
        "backward_lag": float((visits * abs(learner - behaviour).sum(axis=1)).sum() / 2),
        "forward_lag": [float((visits * abs(policy - learner).sum(axis=1)).sum() / 2) for policy in policies],
    }


def study(generator: np.random.Generator) -> dict[str, Any]:
    """Phases on `PROCESSES` random processes: the first in full, of all of them the errors and lags."""
    phases = [phase(generator) for _ in range(PROCESSES)]
    return {
        "steps": list(STEPS),
        "example": phases[0],
        "error": {name: [one["error"][name] for one in phases] for name in COMPARED},
        "backward_lag": [one["backward_lag"] for one in phases],
        "forward_lag": [one["forward_lag"][-1] for one in phases],
        "processes": PROCESSES,
        "states": STATES,
        "actions": ACTIONS,
        "discount": DISCOUNT,
        "trace_decay": TRACE,
    }


def _centred(advantages: Array, policy: Array) -> Array:
    """Advantages less their mean under a policy in every state, a baseline that no expected gradient notices."""
    return np.asarray(advantages - (policy * advantages).sum(axis=1, keepdims=True))


def _most_moved(weights: Array, none: Array, once: Array) -> list[tuple[int, int]]:
    """The two states and actions, of different states, whose advantage the alignment changes most."""
    order = np.argsort(-(weights * abs(once - none)).ravel())
    cells = [(int(i) // ACTIONS, int(i) % ACTIONS) for i in order]
    return [cells[0], next(cell for cell in cells if cell[0] != cells[0][0])]
