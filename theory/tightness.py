"""How tight is each bound? Gradient ascent on left/right over processes and policies, and hand-made worst cases.

The bounds are differentiable, so the search ascends log(left/right) of the very functions that are checked, from many
random starts at once. What it finds is a lower bound of the supremum, saved with the instance that attains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from theory.bounds import Bound
from theory.check import Check
from theory.checks import all_checks
from theory.exact import attained_exactly, hard_cases
from theory.exact_checks import RATIONAL
from theory.hard import hard_instances
from theory.instances import Instance, random_instances, select, to_json
from theory.mdp import MDP
from theory.rational import random_case

Json = dict[str, Any]
SKIPPED = {  # claims whose right side is zero, or counts only kinks: no share to maximise
    "vtrace_monotone",
    "filter_per_sample",
    "filter_direct",
    "filter_direct_finite",
    "filter_natural",
    "filter_two_actions",
    "filter_projected",
}
DISCOUNTS = (0.5, 0.9, 0.99)
RESTARTS, STEPS, STATES, ACTIONS = 192, 400, 3, 3
APPROACHED = 0.98  # from this share on, a supremum of 1 is called approached


def searched_checks() -> list[Check]:
    """The inequalities whose tightness has a meaning."""
    return [c for c in all_checks() if not c.identity and c.name not in SKIPPED]


def _parameters(rng: np.random.Generator) -> dict[str, Tensor]:
    """Unconstrained parameters of a batch of instances; half of the starts have nearly deterministic dynamics."""
    shapes = {
        "transition": (RESTARTS, STATES, ACTIONS, STATES),
        "reward": (RESTARTS, STATES, ACTIONS),
        "start": (RESTARTS, STATES),
        "behaviours": (RESTARTS, 3, STATES, ACTIONS),
        "learner": (RESTARTS, STATES, ACTIONS),
        "current": (RESTARTS, STATES, ACTIONS),
        "size": (RESTARTS, STATES, 1),
        "mixture": (RESTARTS, 3),
        "truncations": (RESTARTS, 3),
    }
    made = {name: torch.from_numpy(rng.standard_normal(shape)) for name, shape in shapes.items()}
    made["transition"][::2] *= 4.0
    made["size"][1::2] *= 3.0  # bounds are met when rewards differ by orders of magnitude between states
    near = torch.from_numpy(10.0 ** rng.uniform(-2.0, 0.5, (RESTARTS, STATES, 1)))  # also between the states
    made["learner"] = made["behaviours"][:, 0] + near * made["learner"]
    made["current"] = made["learner"] + near * made["current"]
    return {name: value.requires_grad_(True) for name, value in made.items()}


def build(parameters: dict[str, Tensor], gamma: float) -> Instance:
    """The instances that the parameters stand for; every policy has full support.

    Rewards with E_{π_T} r = 0 in every state make V^{π_T} = 0 and A^{π_T} = r. Nothing is lost: adding V − γPV to the
    rewards changes no advantage and no difference of J, and the search need not keep advantages in balance.
    """
    p = parameters
    soft = {name: torch.softmax(p[name], -1) for name in ("transition", "start", "behaviours", "learner", "current")}
    limits = torch.sigmoid(p["truncations"])
    rho_bar = 0.25 + 4.0 * limits[:, 0]
    advantage = p["reward"] * p["size"].clamp(-12.0, 12.0).exp()
    reward = advantage - (soft["learner"] * advantage).sum(-1, keepdim=True)
    mdp = MDP(soft["transition"], reward, soft["start"], torch.full((RESTARTS,), gamma, dtype=torch.float64))
    mixture = torch.softmax(p["mixture"], -1)
    policies = (soft["behaviours"], mixture, soft["learner"], soft["current"])
    return Instance(mdp, *policies, rho_bar, rho_bar * limits[:, 1], limits[:, 2], f"search γ={gamma:g}")


def _best(x: Instance, bound: Bound) -> tuple[float, Json]:
    share = torch.nan_to_num(bound.attained.detach(), nan=-1.0)
    index = int(share.argmax())
    return float(share[index]), to_json(select(x, index))


def ascend(function: Callable[[Instance], Bound], gamma: float, rng: np.random.Generator) -> tuple[float, Json]:
    """The largest share left/right that gradient ascent finds, and its instance.

    Args:
        function: a bound.
        gamma: discount, fixed.
        rng: source of the starts.

    Returns:
        The share and the instance as JSON.
    """
    parameters = _parameters(rng)
    optimiser = torch.optim.Adam(parameters.values(), lr=0.1)
    best: tuple[float, Json] = (-1.0, {})
    for step in range(STEPS):
        optimiser.zero_grad()
        x = build(parameters, gamma)
        bound = function(x)
        share = bound.left.clamp(min=1e-12) / bound.right.clamp(min=1e-12)
        loss = -torch.where(bound.right > 1e-7, share.log(), 0.0).sum()
        torch.autograd.backward(loss)
        for value in parameters.values():
            if value.grad is not None:
                value.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
        if step % 25 == 24 or step == 0:
            with torch.no_grad():
                found = build(parameters, gamma)
                best = max(best, _best(found, function(found)), key=lambda pair: pair[0])
    return best


def attained_in_fractions(seed: int) -> set[str]:
    """Checks of which the exact suite knows an instance with left = right > 0, digit for digit."""
    rng = np.random.default_rng([seed, 6])
    cases = [*hard_cases(), *(random_case(rng) for _ in range(300))]
    found = {str(row["check"]) for row in attained_exactly() if row["equal"]}
    for name, check, identity, _ in RATIONAL:
        if not identity and any(left == right and right > 0 for case in cases for left, right in check(case)):
            found.add(name)
    return found


def _verdict(name: str, share: float, attained: set[str]) -> str:
    if name in attained:
        return "attained"
    return "approached" if share >= APPROACHED else "neither attained nor approached by any instance found"


def search(check: Check, rng: np.random.Generator, random: list[Instance], attained: set[str]) -> Json:
    """All three sources of worst cases for one check.

    Args:
        check: an inequality.
        rng: source of the starts.
        random: instances for the comparison with chance.
        attained: checks known to be attained exactly.

    Returns:
        Largest share among random instances, by ascent for each γ, among hand-made instances; the best and its
        instance.
    """
    started = time.perf_counter()
    chance, lucky = max((_best(x, check.function(x)) for x in random), key=lambda pair: pair[0])
    made = [(float(torch.nan_to_num(check.function(x).attained, nan=-1.0)[0]), x) for x in hard_instances()]
    hand, example = max(made, key=lambda pair: pair[0])
    climbed = {gamma: ascend(check.function, gamma, rng) for gamma in DISCOUNTS}
    top = max(climbed.values(), key=lambda pair: pair[0])
    best, instance = max([(hand, to_json(example)), top, (chance, lucky)], key=lambda pair: pair[0])
    return {
        "name": check.name,
        "statement": check.statement,
        "random": chance,
        "ascent": {f"{gamma:g}": share for gamma, (share, _) in climbed.items()},
        "hand_made": max(hand, 0.0),
        "hand_made_instance": example.family,
        "best": best,
        "verdict": _verdict(check.name, best, attained),
        "instance": instance,
        "seconds": time.perf_counter() - started,
    }


def run_tightness(seed: int, advance: Callable[[str], None] = lambda name: None) -> Json:
    """The search for every inequality.

    Args:
        seed: of the generator.
        advance: called with the name of each check.

    Returns:
        The contents of tightness.json.
    """
    rng = np.random.default_rng([seed, 2])
    random = [x for x in random_instances(rng, 2000) if x.mdp.states <= 16]
    attained = attained_in_fractions(seed)
    rows = []
    for check in searched_checks():
        advance(f"tightness {check.name}")
        rows.append(search(check, rng, random, attained))
    head = {"seed": seed, "restarts": RESTARTS, "steps": STEPS, "states": STATES, "actions": ACTIONS}
    return head | {"discounts": list(DISCOUNTS), "checks": rows}
