"""What realignment leaves: bias of V-trace's target and wrong signs of the advantage, against the backward lag.

The filter looks at the sign of A, so the share of data whose advantage has the wrong sign is what alignment must
reduce. Compared: no alignment (A^β stands for A^{π_T}), and V-trace towards π_T truncated at ρ̄ (A^{π_ρ̄}).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from theory import bounds, expect
from theory.families import garnet, tensor
from theory.instances import Instance, random_instance
from theory.mdp import advantages, performance

Json = dict[str, Any]
RHO_BARS = (0.5, 1.0, 2.0, 4.0)
EDGES = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
PROBLEMS, STATES, ACTIONS = 6000, 8, 4


def problems(rng: np.random.Generator, gamma: float) -> Instance:
    """Garnet processes with policies whose backward lag spreads over [0, 0.7]."""
    mdp = garnet(rng, PROBLEMS, STATES, ACTIONS, branches=3)
    x = random_instance(rng, replace(mdp, discount=torch.full_like(mdp.discount, gamma)))
    base = torch.from_numpy(rng.standard_normal((PROBLEMS, STATES, ACTIONS)))
    scale = tensor(10.0 ** rng.uniform(-2.0, 0.6, (PROBLEMS, 1, 1)))
    learner = torch.softmax(base, -1)
    behaviour = torch.softmax(base + scale * torch.from_numpy(rng.standard_normal(base.shape)), -1)
    return replace(x, behaviours=behaviour[:, None].expand(-1, 3, -1, -1), learner=learner, current=learner)


def wrong_signs(x: Instance, gains: Tensor) -> Tensor:
    """Probability under d^β·β that `gains` and A^{π_T} have opposite signs, shape [B]."""
    weights = expect.joint(x.behaviour_states, x.behaviour)
    opposite = (gains * x.learner_advantages < 0).to(weights.dtype)
    return expect.mean(opposite, weights)


def _binned(lag: Tensor, values: Tensor, reduce: Callable[[Tensor], Tensor] = torch.mean) -> list[float | None]:
    """Reduce `values` within the bins `EDGES` of `lag`; None for bins of fewer than 20 problems."""
    result: list[float | None] = []
    for low, high in itertools.pairwise(EDGES):
        inside = (lag >= low) & (lag < high)
        result.append(float(reduce(values[inside])) if int(inside.sum()) >= 20 else None)
    return result


def study(rng: np.random.Generator, gamma: float) -> Json:
    """Bias and wrong signs for one γ.

    Returns:
        For each bin of the backward lag: mean |J(π_ρ̄) − J(π_T)| over mean |J(β) − J(π_T)| (1 = no better than no
        realignment), the share of the bound that is attained, and the probability of a wrong sign; for each ρ̄ and
        for no alignment.
    """
    x = problems(rng, gamma)
    lag = bounds.mean_variation(x.behaviour_states, x.learner, x.behaviour)
    unaligned = (performance(x.mdp, x.behaviour) - x.learner_performance).abs()
    base = _binned(lag, unaligned)
    curves: list[Json] = [
        {"align": "none", "rho_bar": None, "wrong_signs": _binned(lag, wrong_signs(x, x.behaviour_advantages))}
    ]
    for rho_bar in RHO_BARS:
        y = replace(x, rho_bar=torch.full_like(x.rho_bar, rho_bar), c_bar=torch.full_like(x.rho_bar, min(1.0, rho_bar)))
        target = bounds.truncated_policy(y.behaviour, y.learner, y.rho_bar)
        bias = (performance(y.mdp, target) - y.learner_performance).abs()
        share = torch.nan_to_num(bounds.truncation_bias(y).attained, nan=0.0)
        ratio = [None if a is None or not b else a / b for a, b in zip(_binned(lag, bias), base, strict=True)]
        curves.append(
            {
                "align": "once",
                "rho_bar": rho_bar,
                "relative_bias": ratio,
                "attained": _binned(lag, share, torch.max),
                "wrong_signs": _binned(lag, wrong_signs(y, advantages(y.mdp, target))),
            }
        )
    return {"discount": gamma, "curves": curves}


def run_bias_study(seed: int, advance: Callable[[str], None] = lambda name: None) -> Json:
    """The study at γ = 0.9 and 0.99; the contents of bias.json."""
    rng = np.random.default_rng([seed, 4])
    results = []
    for gamma in (0.9, 0.99):
        advance(f"bias γ={gamma}")
        results.append(study(rng, gamma))
    return {"seed": seed, "problems": PROBLEMS, "edges": list(EDGES), "studies": results}
