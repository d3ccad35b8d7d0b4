from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from trajectories import close

from vaco.objectives.align import Aligned, gae, vtrace
from vaco.objectives.filters import FilterSettings, Samples, truncated

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "vtrace_golden.json").read_text(encoding="utf-8"))


# --- Against a published implementation -------------------------------------------------------------------------------


def golden_cases() -> list[Any]:
    return [
        pytest.param(case, id="-".join(f"{key}{value:g}" for key, value in case["settings"].items()))
        for case in GOLDEN["cases"]
    ]


@pytest.mark.parametrize("case", golden_cases())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_rlax(case: dict[str, Any], dtype: torch.dtype) -> None:
    """The published implementation, where the definitions coincide: see data/make_vtrace_golden.py."""
    s = case["settings"]
    flags = {name: torch.tensor(case[name]) for name in ("terminated", "truncated")}
    floats = {name: torch.tensor(case[name], dtype=dtype) for name in ("rewards", "values", "next_values")}
    ratio, values = torch.tensor(case["ratio"], dtype=dtype), floats["values"]
    answer = {name: torch.tensor(value, dtype=dtype) for name, value in case.items() if name != "settings"}
    common = {**flags, **floats, "discount": s["discount"], "trace_decay": s["trace_decay"]}

    general = vtrace(**common, ratio=ratio, rho_bar=s["rho_bar"], c_bar=s["c_bar"])
    close(general.value_targets - values, answer["errors"])

    impala = vtrace(**common, ratio=ratio, rho_bar=s["rho_bar"], c_bar=1.0)
    close(impala.value_targets - values, answer["impala_errors"])
    close(impala.advantages, answer["impala_q_estimate"] - values)
    policy_gradient = truncated(
        Samples(ratio=ratio, learner_ratio=torch.ones_like(ratio), advantages=impala.advantages),
        FilterSettings(truncation=s["pg_rho_bar"]),
    )
    close(policy_gradient.coefficient, answer["impala_pg_advantage"])

    geppo = vtrace(**common, ratio=ratio, rho_bar=s["rho_bar"], c_bar=s["rho_bar"])
    close(geppo.value_targets - values, answer["geppo_errors"])
    close(ratio.clamp(max=s["rho_bar"]) * geppo.advantages, answer["geppo_errors"])

    on_policy = gae(**common)
    close(on_policy.advantages, answer["gae"])
    close(on_policy.value_targets - values, answer["gae"])


def test_golden_values_reach_every_case() -> None:
    """The file would prove little without λ < 1, ρ̄ > 1, c̄ other than 1, active truncation and both episode ends."""
    cases = GOLDEN["cases"]
    assert GOLDEN["made_by"]["rlax"] == "0.1.9"
    assert {case["settings"]["trace_decay"] for case in cases} >= {0.0, 0.95, 1.0}
    assert len({case["settings"]["rho_bar"] for case in cases}) > 2
    assert {case["settings"]["c_bar"] for case in cases} >= {0.5, 1.0, 3.0}
    assert any(any(case["terminated"]) and any(case["truncated"]) for case in cases)
    assert any(len(case["rewards"]) == 1 for case in cases)
    assert max(max(case["ratio"]) for case in cases) > 3.0


# --- Against what the targets are in expectation, over all paths of a small process -----------------------------------


class Chain(NamedTuple):
    """A small Markov decision process with a stochastic transition, a behaviour and a target policy."""

    transition: Tensor  # [S, A, S]
    reward: Tensor  # [S, A, S]
    behaviour: Tensor  # [S, A]
    target: Tensor  # [S, A]

    def value(self, policy: Tensor, discount: float) -> Tensor:
        kernel = torch.einsum("sa,sat->st", policy, self.transition)
        expected = torch.einsum("sa,sat,sat->s", policy, self.transition, self.reward)
        value: Tensor = torch.linalg.solve(torch.eye(len(kernel), dtype=kernel.dtype) - discount * kernel, expected)
        return value


def chain(seed: int) -> Chain:
    generator = torch.Generator().manual_seed(seed)
    states, actions = 2, 3
    simplex = torch.rand((states, actions, states), generator=generator, dtype=torch.float64)
    policies = torch.randn((2, states, actions), generator=generator, dtype=torch.float64).softmax(-1)
    reward = torch.randn((states, actions, states), generator=generator, dtype=torch.float64)
    return Chain(simplex / simplex.sum(-1, keepdim=True), reward, policies[0], policies[1])


def all_paths(mdp: Chain, start: int, length: int) -> tuple[list[Tensor], Tensor]:
    """Every path of `length` steps from `start`, as (states, actions, successors) of shape [T, paths], and its
    probability under the behaviour policy."""
    states, actions = mdp.behaviour.shape
    paths: list[tuple[list[int], list[int], float]] = [([start], [], 1.0)]
    for _ in range(length):
        paths = [
            ([*s, after], [*a, action], p * float(mdp.behaviour[s[-1], action] * mdp.transition[s[-1], action, after]))
            for s, a, p in paths
            for action in range(actions)
            for after in range(states)
        ]
    visited = torch.tensor([s for s, _, _ in paths]).T
    taken = torch.tensor([a for _, a, _ in paths]).T
    return [visited[:-1], taken, visited[1:]], torch.tensor([p for _, _, p in paths], dtype=torch.float64)


def vtrace_on_paths(mdp: Chain, paths: list[Tensor], values: Tensor, **arguments: Any) -> Aligned:
    s, a, after = paths
    never = torch.zeros(s.shape, dtype=torch.bool)
    return vtrace(
        rewards=mdp.reward[s, a, after],
        values=values[s],
        next_values=values[after],
        terminated=never,
        truncated=never,
        ratio=(mdp.target / mdp.behaviour)[s, a],
        **arguments,
    )


@pytest.mark.parametrize(
    ("rho_bar", "c_bar", "decay"), [(1.0, 1.0, 1.0), (1.0, 0.5, 0.8), (1.5, 1.0, 0.9), (100.0, 100.0, 1.0)]
)
def test_fixed_point_of_the_expected_target(rho_bar: float, c_bar: float, decay: float) -> None:
    """E_β[v_0|s_0] = V(s_0) for all s_0 exactly at V^{π_ρ̄}, π_ρ̄ ∝ min(ρ̄β, π) (B.f): expectation over all paths."""
    mdp, discount = chain(3), 0.8
    unnormalised = torch.minimum(rho_bar * mdp.behaviour, mdp.target)
    truncated_policy = unnormalised / unnormalised.sum(-1, keepdim=True)
    wanted = mdp.value(truncated_policy, discount)
    paths = [all_paths(mdp, state, 3) for state in range(2)]
    values = torch.zeros(2, dtype=torch.float64)
    arguments = {"discount": discount, "trace_decay": decay, "rho_bar": rho_bar, "c_bar": c_bar}
    for _ in range(150):
        values = torch.stack(
            [(p * vtrace_on_paths(mdp, path, values, **arguments).value_targets[0]).sum() for path, p in paths]
        )
    close(values, wanted)
    if rho_bar == 1.0:
        assert (values - mdp.value(mdp.target, discount)).abs().max() > 1e-3, "truncation should bias the fixed point"


@pytest.mark.parametrize(("decay", "kappa"), [(0.0, None), (0.9, None), (1.0, None), (0.5, 1.0)])
def test_realigned_advantage_is_the_learners(decay: float, kappa: float | None) -> None:
    """Untruncated and at V = V^{π_T}, E_β[A_0 | s_0, a_0] = A^{π_T}(s_0, a_0): so no leading ρ belongs in it."""
    mdp, discount = chain(4), 0.8
    values = mdp.value(mdp.target, discount)
    wanted = torch.einsum("sat,sat->sa", mdp.transition, mdp.reward + discount * values) - values[:, None]
    for state, action in itertools.product(range(2), range(3)):
        paths, probability = all_paths(mdp, state, 3)
        got = vtrace_on_paths(
            mdp, paths, values, discount=discount, trace_decay=decay, rho_bar=1e3, c_bar=1e3, advantage_decay=kappa
        )
        mask = probability * (paths[1][0] == action)
        close((mask * got.advantages[0]).sum() / mask.sum(), wanted[state, action])
