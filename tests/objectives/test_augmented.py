"""MDPO and divergence-augmented PO: loops over samples, and gradients of the objectives that they are derived from."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from samples import draw as draw_samples
from torch import Tensor
from trajectories import Trajectory, draw

import vaco
from vaco.errors import UserError
from vaco.objectives.align import ALIGNMENTS, vtrace
from vaco.objectives.augmented import Augmentation, MirrorDescent, divergence
from vaco.objectives.filters import FILTERS, FilterSettings, Samples
from vaco.objectives.own import own_settings

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


@pytest.mark.parametrize(("step", "progress"), [(1.0, 0.0), (0.3, 0.0), (2.0, 0.75)])
def test_mdpo_by_a_loop(step: float, progress: float) -> None:
    x = draw_samples(5)
    found = FILTERS["mdpo"].function(x, FilterSettings(progress=progress, own=MirrorDescent(step)))
    for c, ratio, learner, a in zip(found.coefficient, x.ratio, x.learner_ratio, x.advantages, strict=True):
        assert float(c) == pytest.approx(ratio * (a - math.log(ratio / learner) / (step * (1 - progress))))
    assert bool(found.kept.all())


@pytest.mark.parametrize("t", [1.0, 0.2])
def test_mdpo_ascends_the_objective_of_its_paper(t: float) -> None:
    """Σ_a β c ∇log π over all actions is the gradient of E_π A − KL(π‖π_T)/t, whatever β is."""
    source = torch.Generator().manual_seed(0)
    logits, old, behind, advantages = torch.randn(4, 6, generator=source, **DOUBLE)
    logits.requires_grad_()
    policy, learner, behaviour = logits.log_softmax(-1), old.log_softmax(-1), behind.log_softmax(-1)
    penalty = (policy.exp() * (policy - learner)).sum()
    (wanted,) = torch.autograd.grad((policy.exp() * advantages).sum() - penalty / t, logits, retain_graph=True)
    x = Samples((policy.detach() - behaviour).exp(), (learner - behaviour).exp(), advantages)
    c = FILTERS["mdpo"].function(x, FilterSettings(own=MirrorDescent(t))).coefficient
    (found,) = torch.autograd.grad((behaviour.exp() * c * policy).sum(), logits)
    torch.testing.assert_close(found, wanted)


def test_mdpo_s_first_step_is_the_plain_gradient_and_its_last_hardly_moves() -> None:
    x = draw_samples(1)
    still = x._replace(learner_ratio=x.ratio)
    torch.testing.assert_close(FILTERS["mdpo"].function(still).coefficient, x.ratio * x.advantages)
    c = FILTERS["mdpo"].function(x, FilterSettings(progress=0.999)).coefficient
    moved = (x.ratio / x.learner_ratio).log().abs() > 0.05
    assert torch.equal((c < 0)[moved], (x.ratio > x.learner_ratio)[moved]), "the pull back to π_T decides"


def slow_divergence(x: Trajectory, rho_bar: float, c_d: float, gamma: float) -> Tensor:
    """D of every step, backwards, for [T] or [T, B]."""
    found = torch.zeros_like(x.ratio)
    for place in itertools.product(*map(range, x.ratio.shape[1:])):
        ahead = 0.0  # W of the step after
        for t in reversed(range(len(x.ratio))):
            at = (t, *place)
            if x.dead[at]:
                ahead = 0.0
                continue
            if x.terminated[at] or x.truncated[at]:
                ahead = 0.0
            ratio = float(x.ratio[at])
            found[at] = math.log(ratio) + gamma * ahead
            ahead = min(rho_bar, ratio) * math.log(ratio) + gamma * min(c_d, ratio) * ahead
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("b", "c_d", "rho_bar"), [(0.1, 1.0, 1.0), (0.5, 0.0, 2.0), (1.0, 0.6, 1.0)])
def test_divergence_by_a_loop(seed: int, b: float, c_d: float, rho_bar: float) -> None:
    x = draw(seed, 9, (3,), torch.float64)
    numbers: dict[str, Any] = {"discount": 0.9, "trace_decay": 0.8, "rho_bar": rho_bar, "c_bar": 1.0}
    found = divergence(own=Augmentation(b, c_d), **x._asdict(), **numbers)
    plain = vtrace(**x._asdict(), **numbers)
    expected = plain.advantages - b * slow_divergence(x, rho_bar, c_d, 0.9)
    torch.testing.assert_close(found.advantages, expected)
    assert torch.equal(found.value_targets, plain.value_targets)
    assert not found.advantages[x.dead].any()


def test_the_first_step_ascends_the_divergence_of_two_step_paths() -> None:
    """Σ over all paths of β ρ D ∇log π(a₀) is the gradient of E_π[g₀ + γ g₁], g = log(π/β), in the first state."""
    source = torch.Generator().manual_seed(2)
    first, second = torch.randn(3, generator=source, **DOUBLE), torch.randn(3, 3, generator=source, **DOUBLE)
    old_first, old_second = torch.randn(3, generator=source, **DOUBLE), torch.randn(3, 3, generator=source, **DOUBLE)
    first.requires_grad_()
    p0, p1, q0, q1 = (x.log_softmax(-1) for x in (first, second, old_first, old_second))
    gamma = 0.7
    cost = (p0.exp() * (p0 - q0)).sum() + gamma * (p0.exp()[:, None] * p1.exp() * (p1 - q1)).sum()
    (wanted,) = torch.autograd.grad(cost, first, retain_graph=True)
    pairs = list(itertools.product(range(3), range(3)))  # each a column
    ratio = torch.stack(
        [torch.stack([(p0 - q0)[a] for a, _ in pairs]), torch.stack([(p1 - q1)[a, b] for a, b in pairs])]
    )
    weight = torch.stack([(q0[a] + q1[a, b]).exp() for a, b in pairs])
    zeros, no = torch.zeros_like(ratio), torch.zeros(ratio.shape, dtype=torch.bool)
    aligned = divergence(
        own=Augmentation(1.0, 1.0), ratio=ratio.detach().exp(), rewards=zeros, values=zeros, next_values=zeros,
        terminated=torch.tensor([[False], [True]]).expand(2, 9), truncated=no, dead=None,
        discount=gamma, trace_decay=1.0, rho_bar=1e9, c_bar=1.0,
    )  # fmt: skip
    c = -aligned.advantages[0] * ratio[0].detach().exp()
    log_p = torch.stack([p0[a] for a, _ in pairs])
    (found,) = torch.autograd.grad((weight * c * log_p).sum(), first)
    torch.testing.assert_close(found, wanted)


def test_the_divergence_vanishes_on_policy_and_is_offered_to_other_trainers() -> None:
    x = draw(0, 6, (2,), torch.float64)
    same = x._replace(ratio=torch.ones_like(x.ratio))
    numbers: dict[str, Any] = {"discount": 0.9, "trace_decay": 0.8}
    plain, found = vtrace(**same._asdict(), **numbers), {}
    logp = torch.zeros_like(x.ratio)
    for shift in (0.0, 0.5):
        found[shift] = vaco.align(
            **same.without("ratio"), target_logp=logp + shift, behaviour_logp=logp, alignment="divergence",
            settings={"weight": 0.3}, **numbers,
        )  # fmt: skip
    assert torch.equal(found[0.0].advantages, plain.advantages)
    apart = vtrace(**x._replace(ratio=(logp + 0.5).exp())._asdict(), **numbers)
    # All ratios are e^½: a divergence above 0 on every live step.
    assert bool((found[0.5].advantages < apart.advantages)[~x.dead].all())


def test_a_ratio_of_nothing_costs_nothing_and_ends_the_trace() -> None:
    x = draw(3, 4, (), torch.float64, ends=0.0)
    cut = x._replace(ratio=torch.where(torch.arange(4) == 2, 0.0, x.ratio))
    numbers: dict[str, Any] = {"discount": 0.9, "trace_decay": 0.8, "rho_bar": 1.0, "c_bar": 1.0}
    found = divergence(own=Augmentation(1.0), **cut._asdict(), **numbers).advantages
    plain = vtrace(**cut._asdict(), **numbers).advantages
    # W of the step without a ratio is 0, and D of the step before it is its own cost alone.
    assert float(plain[1] - found[1]) == pytest.approx(math.log(float(x.ratio[1])))
    assert bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        (MirrorDescent, {"step": 0.0}, "step is 0.0, but it must be above 0"),
        (Augmentation, {"trace": 1.5}, "trace is 1.5, but weight >= 0 and 0 <= trace <= 1"),
        (Augmentation, {"weight": -1.0}, "weight is -1.0"),
    ],
)
def test_settings_out_of_range_are_one_sentence(declared: type, given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        own_settings(declared, given, "the rule")


def test_both_are_in_the_table() -> None:
    assert FILTERS["mdpo"].needs_learner and FILTERS["mdpo"].settings is MirrorDescent
    row = ALIGNMENTS["divergence"]
    assert row.every_update and row.settings is Augmentation and row.function is divergence
