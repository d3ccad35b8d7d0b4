from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from vaco.objectives import divergence as d

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
TOLERANCE: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
}

shapes = st.sampled_from([(1,), (7,), (8,), (5, 3), (2, 1, 4)])
dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31)


def close(got: Tensor, wanted: Tensor | float) -> None:
    torch.testing.assert_close(got, torch.as_tensor(wanted, dtype=got.dtype), **TOLERANCE[got.dtype])


def slow_mean(values: list[float], weights: list[float]) -> float:
    total, mass = 0.0, 0.0
    for value, weight in zip(values, weights, strict=True):
        total += weight * value
        mass += weight
    return total / mass


Estimator = Callable[[list[float], list[float], list[float]], float]
ESTIMATORS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor | None], Tensor], Estimator]] = {
    "mean": (lambda r, t, w: d.weighted_mean(r, w), lambda r, t, w: slow_mean(r, w)),
    "deviation from 1": (
        lambda r, t, w: d.mean_absolute_deviation(r, weights=w),
        lambda r, t, w: slow_mean([abs(x - 1) for x in r], w),
    ),
    "deviation from the learner": (
        lambda r, t, w: d.mean_absolute_deviation(r, t, w),
        lambda r, t, w: slow_mean([abs(x - y) for x, y in zip(r, t, strict=True)], w),
    ),
    "total variation, total": (
        lambda r, t, w: d.sampled_total_variation(r, weights=w),
        lambda r, t, w: slow_mean([abs(x - 1) / 2 for x in r], w),
    ),
    "total variation, forward": (
        lambda r, t, w: d.sampled_total_variation(r, t, w),
        lambda r, t, w: slow_mean([abs(x - y) / 2 for x, y in zip(r, t, strict=True)], w),
    ),
    "total variation, bounded": (
        lambda r, t, w: d.bounded_total_variation(r, w),
        lambda r, t, w: slow_mean([max(1 - x, 0.0) for x in r], w),
    ),
    "chi squared": (
        lambda r, t, w: d.chi_squared(r, w),
        lambda r, t, w: slow_mean([(x - 1) ** 2 for x in r], w),
    ),
    "effective sample size": (
        lambda r, t, w: d.effective_sample_size(r, w),
        lambda r, t, w: slow_mean(r, w) ** 2 / slow_mean([x * x for x in r], w),
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@QUICK
@given(seed=seeds, shape=shapes, dtype=dtypes, weighting=st.sampled_from(["none", "mask", "probabilities"]))
def test_estimators_equal_the_loop(
    name: str, seed: int, shape: tuple[int, ...], dtype: torch.dtype, weighting: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    ratio, learner_ratio = torch.randn((2, *shape), generator=generator, dtype=dtype).exp()
    weights = None
    if weighting != "none":
        weights = torch.rand(shape, generator=generator, dtype=dtype)
        if weighting == "mask":
            weights = (weights < 0.6).to(dtype)
        weights.view(-1)[0] = 0.25 if weighting == "probabilities" else 1.0
    vectorised, slow = ESTIMATORS[name]
    got = vectorised(ratio, learner_ratio, weights)
    flat = (torch.ones(shape) if weights is None else weights).flatten().tolist()
    assert got.shape == ()
    assert got.dtype == dtype
    close(got, slow(ratio.flatten().tolist(), learner_ratio.flatten().tolist(), flat))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_of_no_live_sample_are_zero(name: str) -> None:
    ratio = torch.tensor([0.5, 2.0])
    assert ESTIMATORS[name][0](ratio, 2 * ratio, torch.zeros(2)).item() == 0.0


@pytest.mark.parametrize("name", ESTIMATORS)
def test_weights_are_counts_up_to_scale(name: str) -> None:
    """A weight of three is a sample seen three times, and a common factor changes nothing."""
    ratio, learner_ratio = torch.tensor([0.5, 2.0, 1.25]), torch.tensor([0.75, 1.5, 1.0])
    counts = torch.tensor([3, 0, 2])
    estimator = ESTIMATORS[name][0]
    repeated = estimator(ratio.repeat_interleave(counts), learner_ratio.repeat_interleave(counts), None)
    close(estimator(ratio, learner_ratio, counts.float()), repeated)
    close(estimator(ratio, learner_ratio, counts.float() * 1e-3), repeated)


def simplex(seed: int, *shape: int) -> Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1.5 * logits).softmax(-1)


@QUICK
@given(seed=seeds, states=st.integers(1, 4), actions=st.integers(2, 6))
def test_expectations_under_the_behaviour_policy_are_the_divergences(seed: int, states: int, actions: int) -> None:
    """Weights d(s)β(a|s) over all (s, a) turn each estimator into its exact expectation (ALGORITHMS B.g)."""
    behaviour, learner, current = simplex(seed, 3, states, actions)
    state = simplex(seed + 1, states)
    weights = state[:, None] * behaviour
    ratio, learner_ratio = current / behaviour, learner / behaviour

    def tv(p: Tensor, q: Tensor) -> Tensor:
        return (state * d.categorical_total_variation(p, q)).sum()

    forward = d.sampled_total_variation(ratio, learner_ratio, weights)
    backward = d.sampled_total_variation(learner_ratio, weights=weights)
    total = d.sampled_total_variation(ratio, weights=weights)
    close(forward, tv(current, learner))
    close(backward, tv(learner, behaviour))
    close(total, tv(current, behaviour))
    close(d.bounded_total_variation(ratio, weights), total)
    close(d.mean_absolute_deviation(ratio, learner_ratio, weights), 2 * forward)
    assert abs(forward - backward) - 1e-12 <= total <= forward + backward + 1e-12
    chi_squared = d.chi_squared(ratio, weights)
    close(chi_squared, (state * ((current - behaviour) ** 2 / behaviour).sum(-1)).sum())
    close(1.0 / d.effective_sample_size(ratio, weights), 1.0 + chi_squared)
    assert chi_squared >= 4 * total**2 - 1e-12


def test_the_wrong_denominator_is_not_a_total_variation() -> None:
    """The counterexample of ALGORITHMS B.g: ½E_β|π/π_T − 1| = .24, while TV(π, π_T) = .15."""
    behaviour = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    learner = torch.full((4,), 0.25, dtype=torch.float64)
    current = torch.tensor([0.4, 0.2, 0.2, 0.2], dtype=torch.float64)
    close(d.sampled_total_variation(current / learner, weights=behaviour), 0.24)
    close(d.categorical_total_variation(current, learner), 0.15)
    close(d.sampled_total_variation(current / behaviour, learner / behaviour, behaviour), 0.15)


class Softmax:
    """A tabular softmax policy and a sample from a behaviour policy, for derivatives."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn((3, 4), generator=generator, dtype=torch.float64)
        self.behaviour, self.learner = simplex(seed, 2, 3, 4)
        self.states = torch.randint(3, (40,), generator=generator)
        self.actions = torch.multinomial(self.behaviour[self.states], 1, generator=generator).squeeze(-1)

    def logp(self, logits: Tensor) -> Tensor:
        logp: Tensor = logits.log_softmax(-1)[self.states, self.actions]
        return logp

    def ratio(self, logits: Tensor) -> Tensor:
        ratio: Tensor = self.logp(logits).exp() / self.behaviour[self.states, self.actions]
        return ratio

    def reference(self, name: str) -> Tensor | float:
        here = self.states, self.actions
        return self.learner[here] / self.behaviour[here] if name == "learner" else 1.0


@pytest.mark.parametrize("reference_name", ["behaviour", "learner"])
@pytest.mark.parametrize("seed", range(5))
def test_gradient_of_the_sampled_total_variation(seed: int, reference_name: str) -> None:
    """mean cᵢ∇log π(aᵢ|sᵢ) = ∇½mean|ρ − reference|, by autograd and by central differences."""
    policy = Softmax(seed)
    reference = policy.reference(reference_name)

    def estimate(logits: Tensor) -> Tensor:
        return d.sampled_total_variation(policy.ratio(logits), reference)

    logits = policy.logits.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(estimate(logits), logits)
    coefficient = d.total_variation_coefficient(policy.ratio(policy.logits), reference)
    (got,) = torch.autograd.grad((coefficient * policy.logp(logits)).mean(), logits)
    close(got, wanted)
    assert wanted.abs().max() > 1e-3

    step = 1e-6
    numerical = torch.zeros_like(policy.logits)
    for index in range(policy.logits.numel()):
        moved = torch.zeros(policy.logits.numel(), dtype=torch.float64)
        moved[index] = step
        moved = moved.view_as(policy.logits)
        numerical.view(-1)[index] = (estimate(policy.logits + moved) - estimate(policy.logits - moved)) / (2 * step)
    torch.testing.assert_close(got, numerical, rtol=1e-6, atol=1e-8)


def test_gradient_at_the_kink_is_zero() -> None:
    ratio = torch.tensor([0.5, 1.0, 3.0])
    assert d.total_variation_coefficient(ratio).tolist() == [-0.25, 0.0, 1.5]
    assert d.total_variation_coefficient(ratio, ratio).tolist() == [0.0, 0.0, 0.0]


def test_effective_sample_size_at_its_extremes() -> None:
    close(d.effective_sample_size(torch.full((9,), 4.0)), 1.0)
    close(d.effective_sample_size(torch.tensor([0.0, 0.0, 5.0, 0.0])), 0.25)
    ratio = torch.tensor([0.5, 1.0, 3.0])
    close(d.effective_sample_size(10 * ratio), d.effective_sample_size(ratio))


def test_bounded_estimator_stays_bounded_where_the_other_does_not() -> None:
    ratio = torch.tensor([0.0, 0.0, 1000.0])
    assert d.sampled_total_variation(ratio) > 100
    close(d.bounded_total_variation(ratio), 2 / 3)


@QUICK
@given(seed=seeds, rows=st.integers(1, 4), actions=st.integers(2, 6), dtype=dtypes)
def test_categorical_divergences_equal_the_loop(seed: int, rows: int, actions: int, dtype: torch.dtype) -> None:
    p, q = simplex(seed, 2, rows, actions).to(dtype)
    tv, kl = d.categorical_total_variation(p, q), d.categorical_kl(p, q)
    assert tv.shape == kl.shape == (rows,)
    for row in range(rows):
        pairs = list(zip(p[row].tolist(), q[row].tolist(), strict=True))
        close(tv[row], sum(abs(x - y) for x, y in pairs) / 2)
        close(kl[row], sum(x * math.log(x / y) for x, y in pairs))
    close(kl, kl_divergence(Categorical(probs=p), Categorical(probs=q)))
    assert (tv <= (kl / 2).sqrt() + 1e-3).all(), "Pinsker"


def test_categorical_divergences_at_zero_probabilities() -> None:
    half, sure = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    close(d.categorical_kl(sure, half), math.log(2))
    assert d.categorical_kl(half, sure).item() == math.inf
    assert d.categorical_kl(sure, sure).item() == 0.0
    close(d.categorical_total_variation(sure, 1 - sure), 1.0)


@QUICK
@given(seed=seeds, batch=st.sampled_from([(), (1,), (6,), (2, 3)]), actions=st.integers(1, 6), shared=st.booleans())
def test_gaussian_kl_is_that_of_torch(seed: int, batch: tuple[int, ...], actions: int, shared: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn((2, *batch, actions), generator=generator, dtype=torch.float64)
    logs = torch.randn((2, actions) if shared else (2, *batch, actions), generator=generator, dtype=torch.float64)
    p, q = (Independent(Normal(mean, log.exp().expand_as(mean)), 1) for mean, log in zip(means, logs, strict=True))
    got = d.gaussian_kl(means[0], logs[0], means[1], logs[1])
    assert got.shape == batch
    close(got, kl_divergence(p, q))
    close(d.gaussian_kl(means[0], logs[0], means[0], logs[0]), torch.zeros(batch, dtype=torch.float64))


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("log_std", [-1.0, 0.0, 0.7])
def test_gaussian_divergences_by_quadrature(shift: float, log_std: float) -> None:
    p, q = stats.norm(0.3, math.exp(log_std)), stats.norm(0.3 + shift, math.exp(log_std))
    grid = {"a": -40.0, "b": 40.0, "points": [0.3, 0.3 + shift / 2, 0.3 + shift], "limit": 500}
    tv, _ = integrate.quad(lambda x: abs(p.pdf(x) - q.pdf(x)) / 2, **grid)
    kl, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), **grid)
    at = torch.tensor([[0.3], [0.3 + shift]], dtype=torch.float64)
    log = torch.tensor([log_std], dtype=torch.float64)
    torch.testing.assert_close(d.gaussian_total_variation(at[0], at[1], log).item(), tv, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(d.gaussian_kl(at[0], log, at[1], log).item(), kl, rtol=1e-6, atol=1e-8)


def gaussian_logp(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    distribution: Any = Independent(Normal(mean, log_std.exp()), 1)
    logp: Tensor = distribution.log_prob(actions)
    return logp


def test_gaussian_total_variation_of_two_dimensions_on_a_grid() -> None:
    """Unequal scales, so that the Mahalanobis distance is not the Euclidean one."""
    p, q = torch.tensor([0.0, 0.0], dtype=torch.float64), torch.tensor([0.5, -0.8], dtype=torch.float64)
    log_std = torch.tensor([-0.7, 0.4], dtype=torch.float64)
    grids = [torch.linspace(-9.0, 9.0, 1500, dtype=torch.float64) * log_std[i].exp() for i in range(2)]
    points = torch.cartesian_prod(*grids)
    densities = [gaussian_logp(points, mean, log_std).exp() for mean in (p, q)]
    area = (grids[0][1] - grids[0][0]) * (grids[1][1] - grids[1][0])
    numerical = 0.5 * (densities[0] - densities[1]).abs().sum() * area
    torch.testing.assert_close(d.gaussian_total_variation(p, q, log_std), numerical, rtol=1e-4, atol=1e-5)


def test_estimators_approach_the_closed_form_of_gaussians() -> None:
    """Samples of β and the log-probabilities of three policies give all lags within four standard errors."""
    generator = torch.Generator().manual_seed(0)
    log_std = torch.tensor([-0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[0.0, 0.0], [0.2, -0.1], [0.5, 0.1]], dtype=torch.float64)
    actions = torch.randn((200_000, 2), generator=generator, dtype=torch.float64) * log_std.exp()
    behaviour_logp, learner_logp, current_logp = (gaussian_logp(actions, mean, log_std) for mean in means)
    ratio, learner_ratio = (current_logp - behaviour_logp).exp(), (learner_logp - behaviour_logp).exp()
    for terms, got, closed in (
        ((ratio - learner_ratio).abs() / 2, d.sampled_total_variation(ratio, learner_ratio), (2, 1)),
        ((learner_ratio - 1).abs() / 2, d.sampled_total_variation(learner_ratio), (1, 0)),
        ((ratio - 1).abs() / 2, d.sampled_total_variation(ratio), (2, 0)),
        ((1 - ratio).clamp(min=0), d.bounded_total_variation(ratio), (2, 0)),
    ):
        exact = d.gaussian_total_variation(means[closed[0]], means[closed[1]], log_std)
        assert abs(got - exact) < 4 * terms.std() / len(terms) ** 0.5


def test_the_mean_of_a_sequence_is_the_loop_and_0_where_nothing_weighs() -> None:
    generator = torch.Generator().manual_seed(0)
    values, weights = (torch.rand(2, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    weights[0, 1] = 0.0
    found = d.sequence_mean(values, weights)
    assert found.shape == (2, 3, 1)
    for i, j in itertools.product(range(2), range(3)):
        rows = list(zip(values[i, j].tolist(), weights[i, j].tolist(), strict=True))
        whole = sum(w for _, w in rows)
        assert float(found[i, j]) == pytest.approx(sum(w * x for x, w in rows) / whole if whole else 0.0)
