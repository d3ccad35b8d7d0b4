"""Distributions over actions, held to torch's own and to autograd, and to what sampling shows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Independent, Normal, kl_divergence

from vaco.control.distributions import JOINT_LIMIT, Categorical, Distribution, Gaussian, distribution_of

KINDS = {"gaussian": Gaussian(3), "one": Categorical((4,)), "several": Categorical((2, 5, 3))}
N = 6


class Case:
    """Two policies of a kind, actions of the first, and weights."""

    def __init__(self, kind: str, seed: int = 0) -> None:
        g = np.random.default_rng(seed)
        self.d: Distribution = KINDS[kind]
        self.old, self.new = (g.standard_normal((N, self.d.outputs)).astype(np.float32) * 2 for _ in range(2))
        self.old_spread, self.spread = (0.3 * g.standard_normal(self.d.spread).astype(np.float32) for _ in range(2))
        self.actions = self.d.act(self.old, self.d.noise(g, (N,), self.old_spread))
        self.weights = g.uniform(0.1, 1.0, N)


def components(d: Distribution, outputs: torch.Tensor, spread: torch.Tensor) -> list[TorchDistribution]:
    """The same distribution in torch: independent components."""
    if isinstance(d, Categorical):
        return [TorchCategorical(logits=part) for part in outputs.split(d.categories, -1)]
    return [Independent(Normal(outputs, spread.exp()), 1)]


def torch_logp(d: Distribution, actions: np.ndarray, outputs: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    parts = components(d, outputs, spread)
    if isinstance(d, Categorical):
        return sum(p.log_prob(torch.tensor(actions[:, i])) for i, p in enumerate(parts))
    return parts[0].log_prob(torch.tensor(actions.astype(np.float64)))


def leaves(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.tensor(x.astype(np.float64), requires_grad=True) for x in (case.new, case.spread))


def torch_kl(case: Case, outputs: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    old = components(case.d, *(torch.tensor(x.astype(np.float64)) for x in (case.old, case.old_spread)))
    return sum(kl_divergence(p, q) for p, q in zip(old, components(case.d, outputs, spread), strict=True))


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_log_probabilities_and_their_gradient_are_those_of_torch(case: Case) -> None:
    outputs, spread = leaves(case)
    expected = torch_logp(case.d, case.actions, outputs, spread)
    density = case.d.density(case.actions, case.new, case.spread)
    np.testing.assert_allclose(density.logp, expected.detach(), rtol=1e-9)
    (expected * torch.tensor(case.weights)).sum().backward()
    ours = case.d.gradient(density.score, case.spread, case.weights)
    np.testing.assert_allclose(ours.outputs, outputs.grad, atol=1e-9)
    if case.d.spread:
        np.testing.assert_allclose(ours.spread, spread.grad, atol=1e-9)
    assert ours.spread.shape == (case.d.spread,)


def test_kl_and_its_gradient_are_those_of_torch(case: Case) -> None:
    outputs, spread = leaves(case)
    expected = torch_kl(case, outputs, spread)
    np.testing.assert_allclose(
        case.d.kl(case.old, case.old_spread, case.new, case.spread), expected.detach(), rtol=1e-4, atol=1e-5
    )
    (expected * torch.tensor(case.weights)).sum().backward()
    ours = case.d.kl_gradient(case.new, case.spread, case.old, case.old_spread, case.weights)
    np.testing.assert_allclose(ours.outputs, outputs.grad, atol=1e-9)
    if case.d.spread:
        np.testing.assert_allclose(ours.spread, spread.grad, atol=1e-9)


def test_entropy_and_its_gradient_are_those_of_torch(case: Case) -> None:
    outputs, spread = leaves(case)
    share = case.weights / case.weights.sum()
    each = sum(part.entropy() for part in components(case.d, outputs, spread))
    expected = (each * torch.tensor(share)).sum()
    weights = np.ones(N) if isinstance(case.d, Gaussian) else case.weights * 3
    assert case.d.entropy(case.new, case.spread, weights) == pytest.approx(float(expected), rel=1e-5)
    expected.backward()
    ours = case.d.entropy_gradient(case.new, case.spread, share)
    zero = torch.zeros(case.new.shape)
    np.testing.assert_allclose(ours.outputs, zero if outputs.grad is None else outputs.grad, atol=1e-9)
    if case.d.spread:
        np.testing.assert_allclose(ours.spread, spread.grad, atol=1e-9)


@pytest.mark.parametrize("kind", ["one", "several"])
def test_total_variation_of_categories_is_the_sum_over_joint_ones(kind: str) -> None:
    case = Case(kind)
    d = case.d
    assert isinstance(d, Categorical)
    p, q = (np.exp(d.log_probabilities(x)) for x in (case.old, case.new))
    slow = np.zeros(N)
    starts = np.cumsum((0, *d.categories[:-1]))
    for joint in itertools.product(*(range(n) for n in d.categories)):
        columns = starts + joint
        slow += 0.5 * np.abs(p[:, columns].prod(1) - q[:, columns].prod(1))
    np.testing.assert_allclose(d.total_variation(case.old, case.new, case.spread), slow, atol=1e-12)
    # And it is what the sampled estimator of the learner estimates.
    g, many = np.random.default_rng(1), np.repeat(case.old[:1], 40_000, 0)
    actions = d.act(many, d.noise(g, (len(many),), case.spread))
    other = np.repeat(case.new[:1], len(many), 0)
    ratio = np.exp(d.density(actions, other, case.spread).logp - d.density(actions, many, case.spread).logp)
    assert 0.5 * np.abs(ratio - 1).mean() == pytest.approx(slow[0], abs=0.02)


def test_what_would_take_too_long_is_not_known() -> None:
    d = Categorical((JOINT_LIMIT, 2))
    outputs = np.zeros((2, d.outputs), np.float32)
    assert torch.isnan(d.total_variation(outputs, outputs, np.zeros(0, np.float32))).tolist() == [True, True]


def test_actions_have_the_frequencies_of_their_probabilities(case: Case) -> None:
    g, many = np.random.default_rng(2), np.repeat(case.old[:1], 40_000, 0)
    noise = case.d.noise(g, (len(many),), case.old_spread)
    actions = case.d.act(many, noise)
    assert actions.dtype == np.float32 and actions.shape == (len(many), case.d.actions)
    if isinstance(case.d, Categorical):
        p = np.exp(case.d.log_probabilities(case.old[:1]))[0]
        for index, part in enumerate(np.split(p, np.cumsum(case.d.categories)[:-1])):
            counts = np.bincount(actions[:, index].astype(int), minlength=len(part)) / len(many)
            np.testing.assert_allclose(counts, part, atol=0.01)
            assert case.d.act(case.old[:1], 0 * noise[:1])[0, index] == part.argmax()
    else:
        np.testing.assert_allclose(actions.mean(0), case.old[0], atol=0.03)
        np.testing.assert_allclose(actions.std(0), np.exp(case.old_spread), rtol=0.03)
        np.testing.assert_array_equal(case.d.act(case.old, 0 * noise[:N]), case.old)


def test_huge_logits_stay_finite() -> None:
    d, outputs = Categorical((3,)), np.array([[1e30, -1e30, 0.0]], np.float32)
    density = d.density(np.zeros((1, 1), np.float32), outputs, np.zeros(0, np.float32))
    assert density.logp.tolist() == [0.0] and np.isfinite(density.score).all()
    share = np.ones(1)
    assert np.isfinite(d.entropy_gradient(outputs, np.zeros(0, np.float32), share).outputs).all()


def test_discrete_actions_are_categorical() -> None:
    assert isinstance(distribution_of(2, ()), Gaussian)
    chosen = distribution_of(2, (3, 4))
    assert isinstance(chosen, Categorical) and (chosen.actions, chosen.outputs, chosen.spread) == (2, 7, 0)
