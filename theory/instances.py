"""Instances: a batch of processes together with the policies and truncations that the statements speak of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from theory import mdp as tables
from theory.families import Floats, batches, tensor
from theory.mdp import MDP
from vaco.errors import UserError


@dataclass(frozen=True)
class Instance:
    """A batch of instances; derived quantities are computed on first use and kept.

    Attributes:
        mdp: the processes.
        behaviours: β_i, shape [B, M, S, A]; the first is β, all of them are what a policy buffer hands out.
        mixture: share ν_i of the data drawn with β_i, shape [B, M].
        learner: π_T, shape [B, S, A].
        current: π, shape [B, S, A].
        rho_bar: V-trace's ρ̄, shape [B].
        c_bar: V-trace's c̄ ≤ ρ̄, shape [B].
        trace_decay: λ, shape [B].
        family: where the processes come from.
    """

    mdp: MDP
    behaviours: Tensor
    mixture: Tensor
    learner: Tensor
    current: Tensor
    rho_bar: Tensor
    c_bar: Tensor
    trace_decay: Tensor
    family: str = ""

    @property
    def behaviour(self) -> Tensor:
        """β = β_1, shape [B, S, A]."""
        return self.behaviours[:, 0]

    @cached_property
    def learner_advantages(self) -> Tensor:
        """A^{π_T}, shape [B, S, A]."""
        return tables.advantages(self.mdp, self.learner)

    @cached_property
    def behaviour_advantages(self) -> Tensor:
        """A^β, shape [B, S, A]."""
        return tables.advantages(self.mdp, self.behaviour)

    @cached_property
    def learner_performance(self) -> Tensor:
        """J(π_T), shape [B]."""
        return tables.performance(self.mdp, self.learner)

    @cached_property
    def current_performance(self) -> Tensor:
        """J(π), shape [B]."""
        return tables.performance(self.mdp, self.current)

    @cached_property
    def behaviour_states(self) -> Tensor:
        """d^β, shape [B, S]."""
        return tables.state_distribution(self.mdp, self.behaviour)

    @cached_property
    def learner_states(self) -> Tensor:
        """d^{π_T}, shape [B, S]."""
        return tables.state_distribution(self.mdp, self.learner)

    @cached_property
    def current_states(self) -> Tensor:
        """d^π, shape [B, S]."""
        return tables.state_distribution(self.mdp, self.current)


def check_instance(x: Instance) -> Instance:
    """Refuse an instance whose statements would be undefined.

    Raises:
        UserError: as `tables.check_mdp`, `check_policy` and `check_support`.
    """
    tables.check_mdp(x.mdp)
    for i in range(x.behaviours.shape[1]):
        tables.check_policy(x.mdp, x.behaviours[:, i], f"behaviour policy {i}")
        tables.check_support(x.learner, x.behaviours[:, i], "the learner policy")
        tables.check_support(x.current, x.behaviours[:, i], "the current policy")
    tables.check_policy(x.mdp, x.learner, "the learner policy")
    tables.check_policy(x.mdp, x.current, "the current policy")
    if not bool((x.c_bar <= x.rho_bar).all()) or not bool((x.c_bar >= 0).all()) or not bool((x.rho_bar > 0).all()):
        raise UserError("a truncation of V-trace is out of order, expected 0 <= c_bar <= rho_bar and rho_bar > 0")
    if not bool(((x.trace_decay >= 0) & (x.trace_decay <= 1)).all()):
        raise UserError("a trace decay λ is outside [0, 1]: V-trace contracts only for decays in that range")
    return x


def _normalise(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _near(rng: np.random.Generator, base: Floats, least: float = -7.0) -> Floats:
    """Tilt by exp(scale · noise), the scale log-uniform over [10^least, 10]: nearly equal to far; same support."""
    scale = 10.0 ** rng.uniform(least, 1.0, (len(base), 1, 1))
    noise = rng.standard_normal(base.shape)
    return _normalise(base * np.exp(np.clip(scale * noise, -20.0, 20.0)))


def _towards(rng: np.random.Generator, base: Floats, support: Floats) -> Floats:
    """Mix `base` with an independent or one-hot policy, so that the distance is the chosen share."""
    other = _normalise(support * rng.exponential(1.0, base.shape))
    greedy = np.eye(base.shape[-1])[(support * rng.random(base.shape)).argmax(-1)]
    share = rng.choice([1.0, 0.5, 0.1, 1e-2, 1e-4], (len(base), 1, 1))
    chosen = np.where(rng.random((len(base), 1, 1)) < 0.5, other, greedy)
    return np.asarray((1.0 - share) * base + share * chosen)


def _traded(rng: np.random.Generator, base: Floats) -> Floats:
    """Move a share of the first action's probability to the second: the other actions stay exactly equal."""
    moved = base[..., :1] * rng.random((*base.shape[:2], 1))
    return np.concatenate([base[..., :1] - moved, base[..., 1:2] + moved, base[..., 2:]], -1)


def _related(rng: np.random.Generator, base: Floats, support: Floats) -> Floats:
    """A policy near or far from `base`, one-hot, equal on some actions, or equal on all (an eighth of them)."""
    kind = rng.integers(0, 8, (len(base), 1, 1))
    chosen = np.where(kind < 3, _near(rng, base), _towards(rng, base, support))
    chosen = np.where(kind == 6, _traded(rng, base), chosen)
    return np.asarray(np.where(kind == 7, base, chosen))


def random_instance(rng: np.random.Generator, mdp: MDP, family: str = "", behaviours: int = 3) -> Instance:
    """Draw policies and truncations for a batch of processes.

    Args:
        rng: source of every random number.
        mdp: the processes.
        family: a label.
        behaviours: M, how many behaviour policies.

    Returns:
        A validated instance. Behaviour policies share a support that holds those of π_T and π; in a fifth of the
        instances one action is outside it, so that 0/0 occurs as it should: never.
    """
    shape = (mdp.batch, mdp.states, mdp.actions)
    support = np.ones(shape)
    partial = (rng.random(mdp.batch) < 0.2) & (mdp.actions > 2)
    support[partial, :, -1] = 0.0
    spiky = rng.random((mdp.batch, 1, 1)) < 0.3
    raw = np.where(spiky, rng.exponential(1.0, shape) ** 4 + 1e-6, rng.exponential(1.0, shape) + 1e-3)
    base = _normalise(support * raw)
    stack = np.stack([base] + [_near(rng, base, -3.0) for _ in range(behaviours - 1)], 1)
    learner = _related(rng, base, support)
    current = _related(rng, learner, support)
    rho_bar = np.where(rng.random(mdp.batch) < 0.5, 1.0, 10.0 ** rng.uniform(-0.5, 1.0, mdp.batch))
    c_bar = np.where(rng.random(mdp.batch) < 0.5, rho_bar, rho_bar * rng.random(mdp.batch))
    decay = np.where(rng.random(mdp.batch) < 0.5, 1.0, rng.random(mdp.batch))
    mixture = rng.dirichlet(np.ones(behaviours), mdp.batch)
    policies = (tensor(stack), tensor(mixture), tensor(learner), tensor(current))
    return check_instance(Instance(mdp, *policies, tensor(rho_bar), tensor(c_bar), tensor(decay), family))


def random_instances(rng: np.random.Generator, instances: int) -> list[Instance]:
    """At least `instances` random instances over all families, in batches of one shape."""
    return [random_instance(rng, mdp, family) for family, mdp in batches(rng, instances)]


def select(x: Instance, index: int) -> Instance:
    """The one instance at `index`, as a batch of one."""
    picked = {
        name: getattr(x, name)[index : index + 1]
        for name in ("behaviours", "mixture", "learner", "current", "rho_bar", "c_bar", "trace_decay")
    }
    m = x.mdp
    one = slice(index, index + 1)
    return replace(x, mdp=MDP(m.transition[one], m.reward[one], m.start[one], m.discount[one]), **picked)


def to_json(x: Instance) -> dict[str, object]:
    """Every number of a batch of one, as nested lists that `from_json` reads back bit for bit."""
    m = x.mdp
    pairs = {"transition": m.transition, "reward": m.reward, "start": m.start, "discount": m.discount}
    pairs |= {"behaviours": x.behaviours, "mixture": x.mixture, "learner": x.learner, "current": x.current}
    pairs |= {"rho_bar": x.rho_bar, "c_bar": x.c_bar, "trace_decay": x.trace_decay}
    return {"family": x.family} | {name: value[0].tolist() for name, value in pairs.items()}


def from_json(data: dict[str, object]) -> Instance:
    """The batch of one that `to_json` wrote."""
    read = {k: torch.tensor(v, dtype=torch.float64)[None] for k, v in data.items() if k != "family"}
    mdp = MDP(read.pop("transition"), read.pop("reward"), read.pop("start"), read.pop("discount"))
    return check_instance(Instance(mdp=mdp, family=str(data["family"]), **read))
