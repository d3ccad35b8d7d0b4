from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import TRIGGERED, close, draw, reference_deviation
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from vaco.objectives.divergence import gaussian_kl
from vaco.objectives.filters import (
    DEFAULTS,
    FILTERS,
    FilterSettings,
    Samples,
    adapt_kl_coefficient,
    adapt_step_size,
    shrunk_clip,
)

QUICK = settings(max_examples=60, deadline=None, derandomize=True)

AROUND_LEARNER = ("centred_clip", "centred_clip_fixed", "centred_clip_lag")
MASKED = ("clip", "decoupled_clip", *AROUND_LEARNER, *TRIGGERED)
PENALISED = {"kl": "learner", "kl_total": "behaviour"}
CAPPED = [name for name, entry in FILTERS.items() if entry.weight is not None]

shapes = st.sampled_from([(1,), (7,), (8,), (5, 3), (2, 1, 4)])
dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31)
ranges = st.sampled_from([0.05, 0.2, 0.5])


# --- Against slow loops, one sample at a time -------------------------------------------------------------------------


def slow_deviation(name: str, ratio: float, learner: float) -> float:
    if name == "tv":
        return ratio - learner
    return ratio - 1 if name == "tv_total" else ratio / learner - 1


def slow_filter(
    name: str, rows: list[tuple[float, float, float, float]], s: FilterSettings
) -> tuple[list[float], list[bool], float]:
    """Coefficient, kept and statistic from (ρ, ρ_T, A, weight) of each sample, in plain Python."""
    statistic = math.nan
    if name in TRIGGERED:
        mass = sum(weight for *_, weight in rows)
        statistic = sum(w * abs(slow_deviation(name, r, t)) for r, t, _, w in rows) / mass if mass else 0.0
    coefficients, keeps = [], []
    for ratio, learner, advantage, _ in rows:
        coefficient, keep = ratio * advantage, True
        if name == "clip":
            keep = not ((advantage > 0 and ratio > 1 + s.clip) or (advantage < 0 and ratio < 1 - s.clip))
        elif name in ("decoupled_clip", "proximal_clip"):
            proximal = ratio / learner
            coefficient = (proximal if name == "proximal_clip" else ratio) * advantage
            keep = not ((advantage > 0 and proximal > 1 + s.clip) or (advantage < 0 and proximal < 1 - s.clip))
        elif name in AROUND_LEARNER:
            aged = s.clip / (1 + s.mean_age)
            measured = s.clip - 2 * s.backward_lag
            width = {"centred_clip": aged, "centred_clip_fixed": s.clip}.get(name, max(measured, aged))
            keep = not ((advantage > 0 and ratio > learner + width) or (advantage < 0 and ratio < learner - width))
        elif name in TRIGGERED:
            away = slow_deviation(name, ratio, learner)
            outward = (advantage > 0 and away > 0) or (advantage < 0 and away < 0)
            keep = not (statistic > s.delta and outward)
        elif name == "spo":
            coefficient = ratio * (advantage - abs(advantage) * (ratio - 1) / s.clip)
        elif name == "spo_proximal":
            proximal = ratio / learner
            coefficient = proximal * (advantage - abs(advantage) * (proximal - 1) / s.clip)
        elif name == "truncated":
            coefficient = min(s.truncation, ratio) * advantage
        elif name == "mdpo":
            coefficient = ratio * (advantage - math.log(ratio / learner) / (1 - s.progress))
        else:
            assert name in ("none", *PENALISED), f"write the slow version of the new filter '{name}'"
        if s.ratio_cap and name not in ("spo", "spo_proximal", "truncated", "mdpo"):
            coefficient = min(ratio / learner if name == "proximal_clip" else ratio, s.ratio_cap) * advantage
        coefficients.append(coefficient if keep else 0.0)
        keeps.append(keep)
    return coefficients, keeps, statistic


@pytest.mark.parametrize("name", list(FILTERS))
@QUICK
@given(
    seed=seeds,
    shape=shapes,
    dtype=dtypes,
    weighting=st.sampled_from(["none", "mask", "weights", "all dead"]),
    clip=ranges,
    delta=st.sampled_from([0.0, 0.2, 0.4, 0.6, 5.0]),
    truncation=st.sampled_from([0.8, 1.0, 2.0]),
    age=st.sampled_from([0.0, 0.5, 3.0]),
    cap=st.sampled_from([0.0, 1.0, 1.5]),
    lag=st.sampled_from([0.0, 0.05, 0.4]),
    progress=st.sampled_from([0.0, 0.5, 0.99]),
)
def test_filters_equal_the_loop(
    name: str,
    seed: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    weighting: str,
    clip: float,
    delta: float,
    truncation: float,
    age: float,
    cap: float,
    lag: float,
    progress: float,
) -> None:
    x = draw(seed, shape, dtype)
    if weighting != "none":
        weights = torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1), dtype=dtype)
        weights = {"mask": (weights < 0.6).to(dtype), "weights": weights, "all dead": weights * 0}[weighting]
        x = x._replace(weights=weights)
    chosen = FilterSettings(
        delta=delta, clip=clip, truncation=truncation, ratio_cap=cap, kl_coefficient=0.7, mean_age=age,
        backward_lag=lag, progress=progress,
    )  # fmt: skip
    copies = [tensor.clone() for tensor in x[:3]]
    got = FILTERS[name].function(x, chosen)
    flat = (torch.ones(shape, dtype=dtype) if x.weights is None else x.weights).flatten()
    rows = list(zip(*(tensor.flatten().tolist() for tensor in (*x[:3], flat)), strict=True))
    coefficients, keeps, statistic = slow_filter(name, rows, chosen)
    assert got.coefficient.shape == got.kept.shape == shape
    assert got.coefficient.dtype == dtype
    assert got.kept.dtype == got.triggered.dtype == torch.bool
    assert got.statistic.shape == got.triggered.shape == ()
    assert got.kept.flatten().tolist() == keeps
    assert torch.isfinite(got.coefficient).all()
    close(got.coefficient.flatten(), torch.tensor(coefficients, dtype=torch.float64))
    close(got.statistic, statistic)
    assert bool(got.triggered) == (statistic > delta)
    assert got.kl_weight == (0.7 if name in PENALISED else 0.0)
    assert FILTERS[name].penalty == PENALISED.get(name)
    assert all(torch.equal(before, after) for before, after in zip(copies, x[:3], strict=True)), "an argument changed"


@pytest.mark.parametrize("name", list(FILTERS))
def test_statistic_of_the_table_is_the_one_compared(name: str) -> None:
    """The learner takes `Filter.statistic` over the whole batch; it must be what the function itself would take."""
    x = draw(1)._replace(weights=torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(9)))
    entry, got = FILTERS[name], FILTERS[name].function(x, DEFAULTS)
    assert entry.name == name
    assert entry.formula.startswith("c = ")
    if name in TRIGGERED:
        assert entry.statistic is not None
        close(entry.statistic(x), got.statistic)
    else:
        assert entry.statistic is None
        assert got.statistic.isnan()
        assert not got.triggered


# --- Against the textbook objectives, by automatic differentiation ----------------------------------------------------

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # (ρ, ρ_T, A) -> one objective a sample
EPSILON = 0.2


def clipped(ratio: Tensor, advantages: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """PPO's min(rA, clip(r)A), with any clip range."""
    clip = torch.minimum(torch.maximum(ratio, torch.as_tensor(low)), torch.as_tensor(high))
    return torch.minimum(ratio * advantages, clip * advantages)


def constant(x: float, like: Tensor) -> Tensor:
    return torch.full_like(like, x)


TEXTBOOK: dict[str, Objective] = {
    "none": lambda r, t, a: r * a,
    # Schulman et al. 2017, Eq. 7
    "clip": lambda r, t, a: clipped(r, a, constant(1 - EPSILON, r), constant(1 + EPSILON, r)),
    # Hilton et al. 2021: behaviour weight times PPO's objective in u
    "decoupled_clip": lambda r, t, a: t * clipped(r / t, a, constant(1 - EPSILON, r), constant(1 + EPSILON, r)),
    # Queeney et al. 2021: the clip range is centred on ρ_T
    "centred_clip": lambda r, t, a: clipped(r, a, t - EPSILON, t + EPSILON),
    "centred_clip_fixed": lambda r, t, a: clipped(r, a, t - EPSILON, t + EPSILON),
    "centred_clip_lag": lambda r, t, a: clipped(r, a, t - EPSILON, t + EPSILON),
    # Xie et al. 2025
    "proximal_clip": lambda r, t, a: clipped(r / t, a, constant(1 - EPSILON, r), constant(1 + EPSILON, r)),
    "spo_proximal": lambda r, t, a: r / t * a - a.abs() / (2 * EPSILON) * (r / t - 1) ** 2,
    "spo": lambda r, t, a: r * a - a.abs() / (2 * EPSILON) * (r - 1) ** 2,
}


@pytest.mark.parametrize("name", list(TEXTBOOK))
@pytest.mark.parametrize("seed", range(5))
def test_coefficient_is_the_derivative_of_the_textbook_objective(name: str, seed: int) -> None:
    """c = ∂J/∂log π for each sample, and a sample is dropped exactly where that derivative vanishes."""
    x = draw(seed, (300,))
    logp = x.ratio.log().requires_grad_()  # log π up to log β, a constant
    (wanted,) = torch.autograd.grad(TEXTBOOK[name](logp.exp(), x.learner_ratio, x.advantages).sum(), logp)
    got = FILTERS[name].function(x, FilterSettings(clip=EPSILON))
    close(got.coefficient, wanted)
    if name in MASKED:
        live = x.advantages != 0
        assert torch.equal(got.kept[live], wanted[live] != 0)
        dropped = ~got.kept[live]
        assert 0.02 < dropped.double().mean() < 0.98, "the test must see both sides"


@pytest.mark.parametrize("seed", range(3))
def test_truncated_is_impalas_policy_gradient(seed: int) -> None:
    """ρ^pg ∇log π(a|s) A with ρ^pg = min(ρ̄, π/β) constant: differentiating through the truncation would be wrong."""
    x = draw(seed)
    logp = x.ratio.log().requires_grad_()
    objective = logp.exp().clamp(max=1.3).detach() * logp * x.advantages
    (wanted,) = torch.autograd.grad(objective.sum(), logp)
    got = FILTERS["truncated"].function(x, FilterSettings(truncation=1.3))
    close(got.coefficient, wanted)
    assert got.kept.all()


@pytest.mark.parametrize("name", TRIGGERED)
@pytest.mark.parametrize("seed", range(3))
def test_tv_drops_the_samples_that_would_increase_their_own_term(name: str, seed: int) -> None:
    """By autograd: ⟨∇ surrogateᵢ, ∇|deviationᵢ|⟩ > 0 is the same set (ALGORITHMS B.g)."""
    x = draw(seed, (300,))
    logp = x.ratio.log().requires_grad_()
    moved = x._replace(ratio=logp.exp())
    (surrogate,) = torch.autograd.grad((moved.ratio * x.advantages).sum(), logp, retain_graph=True)
    (distance,) = torch.autograd.grad(reference_deviation(name, moved).abs().sum(), logp)
    got = FILTERS[name].function(x, FilterSettings(delta=0.01))
    assert got.triggered
    assert torch.equal(got.kept, ~(surrogate * distance > 0))
    close(got.coefficient, torch.where(surrogate * distance > 0, 0.0, surrogate))


def gaussian(mean: Tensor, log_std: Tensor) -> Any:
    return Independent(Normal(mean, log_std.exp()), 1)


@pytest.mark.parametrize("seed", range(3))
def test_centred_clip_lag_is_the_clip_of_the_shrunk_range(seed: int) -> None:
    """By autograd, with ε' written out: ε − 2b while that exceeds GePPO's ε/(1 + age)."""
    x = draw(seed, (300,))
    for lag, age, near in ((0.03, 3.0, 0.2 - 0.06), (0.3, 3.0, 0.05)):
        logp = x.ratio.log().requires_grad_()
        low, high = x.learner_ratio - near, x.learner_ratio + near
        (wanted,) = torch.autograd.grad(clipped(logp.exp(), x.advantages, low, high).sum(), logp)
        settings = FilterSettings(clip=0.2, mean_age=age, backward_lag=lag)
        close(FILTERS["centred_clip_lag"].function(x, settings).coefficient, wanted)


@pytest.mark.parametrize("name", PENALISED)
def test_kl_is_schulmans_penalised_objective(name: str) -> None:
    """The gradient of mean[ρA − b KL(old‖π)] is what coefficient and kl_weight say; KL is old‖new, in closed form."""
    generator = torch.Generator().manual_seed(3)
    means = torch.randn((3, 50, 2), generator=generator, dtype=torch.float64) * 0.5
    log_std = torch.tensor([-0.4, 0.1], dtype=torch.float64)
    actions = means[0] + log_std.exp() * torch.randn((50, 2), generator=generator, dtype=torch.float64)
    advantages = torch.randn(50, generator=generator, dtype=torch.float64)
    behaviour, learner = gaussian(means[0], log_std), gaussian(means[1], log_std)
    mean, new_log_std = means[2].clone().requires_grad_(), (log_std + 0.3).requires_grad_()
    current = gaussian(mean, new_log_std)
    logp = current.log_prob(actions)
    ratio = (logp - behaviour.log_prob(actions)).exp()
    old, old_mean = (learner, means[1]) if name == "kl" else (behaviour, means[0])
    textbook = (ratio * advantages - 0.6 * kl_divergence(old, current)).mean()
    wanted = torch.autograd.grad(textbook, (mean, new_log_std), retain_graph=True)

    learner_ratio = (learner.log_prob(actions) - behaviour.log_prob(actions)).exp()
    x = Samples(ratio=ratio.detach(), learner_ratio=learner_ratio, advantages=advantages)
    got = FILTERS[name].function(x, FilterSettings(kl_coefficient=0.6))
    penalty = gaussian_kl(old_mean, log_std, mean, new_log_std).mean()
    ascent = (got.coefficient * logp).mean() - got.kl_weight * penalty
    for ours, theirs in zip(torch.autograd.grad(ascent, (mean, new_log_std)), wanted, strict=True):
        close(ours, theirs)
    assert got.kept.all()


# --- What the filters share -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MASKED, "none", *PENALISED, "truncated"])
def test_same_coefficient_when_nothing_is_masked(name: str) -> None:
    """ρA for all of them, bitwise: they differ in the mask alone (ALGORITHMS 0)."""
    x = draw(7)
    wide = FilterSettings(delta=1e9, clip=1e9, truncation=1e9)
    got = FILTERS[name].function(x, wide)
    assert got.kept.all()
    assert torch.equal(got.coefficient, x.ratio * x.advantages)


def test_spo_approaches_the_same_coefficient() -> None:
    x = draw(7)
    close(FILTERS["spo"].function(x, FilterSettings(clip=1e15)).coefficient, x.ratio * x.advantages)


@pytest.mark.parametrize("name", MASKED)
def test_dropping_does_not_renormalise(name: str) -> None:
    """Kept samples keep ρA bitwise and dropped ones are zero, so the mean's denominator stays the batch's size."""
    x = draw(11)
    got = FILTERS[name].function(x, FilterSettings(delta=0.1, clip=0.1))
    assert got.kept.any()
    assert not got.kept.all()
    plain = FILTERS["none"].function(x, DEFAULTS).coefficient
    assert torch.equal(got.coefficient[got.kept], plain[got.kept])
    assert (got.coefficient[~got.kept] == 0).all()
    assert (plain[~got.kept] != 0).any()


@pytest.mark.parametrize("name", list(FILTERS))
def test_the_verdict_on_a_sample_does_not_depend_on_its_weight(name: str) -> None:
    """Weights enter the batch statistic only; the learner applies them once more, in its own mean."""
    x = draw(13)
    trigger = torch.tensor(1.0, dtype=torch.float64)
    plain = FILTERS[name].function(x._replace(statistic=trigger), DEFAULTS)
    weights = torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weighted = FILTERS[name].function(x._replace(statistic=trigger, weights=weights), DEFAULTS)
    assert torch.equal(plain.coefficient, weighted.coefficient)
    assert torch.equal(plain.kept, weighted.kept)


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("delta", [0.0, 0.2])
def test_on_policy_at_the_first_step_nothing_is_dropped(name: str, delta: float) -> None:
    ones = torch.ones(6, dtype=torch.float64)
    x = Samples(ratio=ones, learner_ratio=ones, advantages=torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]).double())
    got = FILTERS[name].function(x, FilterSettings(delta=delta))
    assert got.kept.all()
    assert not got.triggered
    assert torch.equal(got.coefficient, x.advantages)


@pytest.mark.parametrize("name", ["tv", "tv_proximal", *AROUND_LEARNER, "decoupled_clip"])
def test_backward_lag_alone_does_not_filter(name: str) -> None:
    """At π = π_T, however stale the data: these look at the forward lag only."""
    x = draw(17, spread=1.0)
    got = FILTERS[name].function(x._replace(ratio=x.learner_ratio), FilterSettings(delta=0.0))
    assert got.kept.all()


@pytest.mark.parametrize("name", ["tv_total", "clip"])
def test_backward_lag_does_filter_the_total(name: str) -> None:
    x = draw(17, spread=1.0)
    assert not FILTERS[name].function(x._replace(ratio=x.learner_ratio), DEFAULTS).kept.all()


# --- Truncated weights ------------------------------------------------------------------------------------------------


def test_which_filters_have_a_weight_to_truncate() -> None:
    """All whose formula begins with it; the others refuse the setting (`RunConfig`)."""
    for name, entry in FILTERS.items():
        assert (entry.weight is not None) == entry.formula.startswith(("c = ρA", "c = uA")), name
    assert set(FILTERS) - set(CAPPED) == {"spo", "spo_proximal", "truncated", "mdpo"}


@pytest.mark.parametrize("name", CAPPED)
def test_a_cap_changes_the_weight_and_not_the_verdict(name: str) -> None:
    """Against the same filter without: bitwise the same where w ≤ C, C·A above, and the same mask and trigger."""
    x, settings = draw(19, (300,), spread=0.8), FilterSettings(delta=0.1, clip=0.5)
    free = FILTERS[name].function(x, settings)
    got = FILTERS[name].function(x, dataclasses.replace(settings, ratio_cap=1.4))
    w = x.ratio / x.learner_ratio if name == "proximal_clip" else x.ratio
    assert torch.equal(got.kept, free.kept) and torch.equal(got.triggered, free.triggered)
    assert torch.equal(got.statistic.nan_to_num(-1.0), free.statistic.nan_to_num(-1.0))
    assert torch.equal(got.coefficient[w <= 1.4], free.coefficient[w <= 1.4])
    beyond = (w > 1.4) & got.kept
    assert 0 < beyond.sum() < len(w)
    assert torch.equal(got.coefficient[beyond], 1.4 * x.advantages[beyond])
    assert (got.coefficient[~got.kept] == 0).all() and got.kl_weight == free.kl_weight


@pytest.mark.parametrize("name", CAPPED)
def test_a_cap_that_no_weight_reaches_changes_no_bit(name: str) -> None:
    x = draw(21)
    free = FILTERS[name].function(x, DEFAULTS)
    assert torch.equal(FILTERS[name].function(x, FilterSettings(ratio_cap=1e6)).coefficient, free.coefficient)


def test_a_capped_weight_without_a_mask_is_impalas() -> None:
    x = draw(23)
    capped = FILTERS["none"].function(x, FilterSettings(ratio_cap=1.3)).coefficient
    assert torch.equal(capped, FILTERS["truncated"].function(x, FilterSettings(truncation=1.3)).coefficient)


# --- Extremes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MASKED)
def test_a_dropped_infinite_ratio_counts_nothing(name: str) -> None:
    """exp of a large log-difference overflows; dropped means zero, not ∞·0."""
    x = Samples(ratio=torch.tensor([math.inf, 1.0]), learner_ratio=torch.ones(2), advantages=torch.tensor([2.0, 1.0]))
    got = FILTERS[name].function(x, DEFAULTS)
    assert got.kept.tolist() == [False, True]
    assert got.coefficient.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", list(FILTERS))
def test_a_batch_without_live_samples(name: str) -> None:
    """A whole minibatch of reset steps: no trigger, no NaN."""
    got = FILTERS[name].function(draw(0)._replace(weights=torch.zeros(64, dtype=torch.float64)), DEFAULTS)
    assert torch.isfinite(got.coefficient).all()
    assert not got.triggered
    assert got.statistic.item() == 0.0 if name in TRIGGERED else got.statistic.isnan()


def test_spo_turns_at_its_maximiser() -> None:
    """c = 0 at ρ = 1 ± ε, and beyond it the pull is backwards, growing with the distance."""
    ratio = torch.tensor([1.0, 1.2, 1.4, 1.0, 0.8, 0.6], dtype=torch.float64)
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    x = Samples(ratio=ratio, learner_ratio=torch.ones(6, dtype=torch.float64), advantages=advantages)
    wanted = torch.tensor([1.0, 0.0, -1.4, -1.0, 0.0, 0.6], dtype=torch.float64)
    close(FILTERS["spo"].function(x, FilterSettings(clip=0.2)).coefficient, wanted)


def test_centred_clip_shrinks_with_the_datas_age() -> None:
    """ε' = ε/(1 + age): with ε = 0.2 and newest-counts-as-one, age 1 halves it."""
    x = Samples(
        ratio=torch.tensor([1.65, 1.35]), learner_ratio=torch.full((2,), 1.5), advantages=torch.tensor([1.0, -1.0])
    )
    kept = [FILTERS["centred_clip"].function(x, FilterSettings(clip=0.2, mean_age=age)).kept for age in (0.0, 1.0)]
    assert kept[0].tolist() == [True, True]
    assert kept[1].tolist() == [False, False]


def test_the_measured_lag_widens_geppos_clip_where_the_age_overstates_it() -> None:
    """ε' = max(ε − 2b, ε/(1+age)); a phase that used its whole radius gives GePPO's own back, ε − 2(age·ε'/2) = ε'."""
    for age in (0.0, 1.0, 3.0, 31.5):
        aged = 0.2 / (1 + age)
        for lag in (0.0, 0.01, 0.05, 0.1, 0.4):
            got = shrunk_clip(FilterSettings(clip=0.2, mean_age=age, backward_lag=lag))
            assert got == max(0.2 - 2 * lag, aged) and aged <= got <= 0.2
        used_up = FilterSettings(clip=0.2, mean_age=age, backward_lag=age * aged / 2)
        assert shrunk_clip(used_up) == pytest.approx(aged)


@pytest.mark.parametrize("rule", AROUND_LEARNER)
@pytest.mark.parametrize("seed", range(3))
def test_without_lag_geppo_is_ppo(rule: str, seed: int) -> None:
    # The book calls the difference between their scores at K = 1 chance, and `vaco.report` counts them there once.
    x = draw(seed)._replace(learner_ratio=torch.ones(64, dtype=torch.float64))
    settings = FilterSettings(clip=0.2, mean_age=0.0)
    geppo, ppo = (FILTERS[name].function(x, settings) for name in (rule, "clip"))
    assert torch.equal(geppo.coefficient, ppo.coefficient) and torch.equal(geppo.kept, ppo.kept)
    # Their alignments agree there too: test_vtrace_on_policy_is_gae.


@pytest.mark.parametrize(
    ("learner", "behaviour"),
    [("tv", "tv_total"), ("proximal_clip", "clip"), ("decoupled_clip", "clip"), ("spo_proximal", "spo")],
)
def test_without_lag_the_centre_makes_no_difference(learner: str, behaviour: str) -> None:
    """What the comparison says of K = 1: around π_T and around β are the same rule, bitwise."""
    x = draw(25)._replace(learner_ratio=torch.ones(64, dtype=torch.float64))
    one, other = (FILTERS[name].function(x, FilterSettings(delta=0.1)) for name in (learner, behaviour))
    assert torch.equal(one.coefficient, other.coefficient) and torch.equal(one.kept, other.kept)


def test_settings_and_samples_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULTS.delta = 0.5  # type: ignore[misc]
    assert (DEFAULTS.delta, DEFAULTS.clip, DEFAULTS.truncation, DEFAULTS.mean_age) == (0.2, 0.2, 1.0, 0.0)


@pytest.mark.parametrize(
    ("measured", "wanted"),
    [(0.0, 1.0), (0.019, 1.0), (0.021, 2.0), (0.03, 2.0), (0.0449, 2.0), (0.0451, 4.0), (10.0, 4.0)],
)
def test_adaptive_kl_coefficient(measured: float, wanted: float) -> None:
    """Schulman et al. 2017, section 4, with d_targ = 0.03: halve below 0.02, double above 0.045."""
    assert adapt_kl_coefficient(2.0, measured, 0.03) == wanted


@pytest.mark.parametrize(
    ("lag", "wanted"), [(0.0101, 2 / 1.03), (0.01, 2.0), (0.0051, 2.0), (0.005, 2.0), (0.0049, 2.06)]
)
def test_geppos_step_size_keeps_the_forward_lag_below_half_the_clip(lag: float, wanted: float) -> None:
    assert adapt_step_size(2.0, lag, clip=0.02) == pytest.approx(wanted)


def test_adaptive_kl_coefficient_stays_within_reach() -> None:
    low = high = 1.0
    for _ in range(100):
        low, high = adapt_kl_coefficient(low, 0.0, 0.01), adapt_kl_coefficient(high, 1.0, 0.01)
    assert (low, high) == (1e-4, 1e4)
    assert adapt_kl_coefficient(low, 1.0, 0.01) == 2e-4
    assert adapt_kl_coefficient(high, 0.0, 0.01) == 5e3


@pytest.mark.parametrize("name", list(FILTERS))
def test_nothing_carries_a_gradient(name: str) -> None:
    """The module promises it; c·log π would otherwise gain the term log π·∇c."""
    x = draw(3)
    x = x._replace(ratio=x.ratio.clone().requires_grad_(), learner_ratio=x.learner_ratio.clone().requires_grad_())
    got = FILTERS[name].function(x, DEFAULTS)
    assert not got.coefficient.requires_grad
    assert not got.statistic.requires_grad


@pytest.mark.parametrize("name", list(FILTERS))
def test_a_filter_reads_the_settings_that_it_declares(name: str) -> None:
    read: set[str] = set()

    class Heard(FilterSettings):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    own = FILTERS[name].settings
    FILTERS[name].function(draw(3), Heard(own=own and own()))
    assert read & {"delta", "clip", "truncation"} == set(FILTERS[name].reads or ())
    assert ("kl_coefficient" in read) == (FILTERS[name].penalty is not None)
