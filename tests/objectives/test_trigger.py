from __future__ import annotations

import math

import pytest
import torch
from samples import TRIGGERED, close, draw, reference_deviation

from vaco.objectives.filters import DEFAULTS, FILTERS, FilterSettings, Samples


@pytest.mark.parametrize("name", TRIGGERED)
@pytest.mark.parametrize("seed", range(3))
def test_just_below_and_just_above_the_threshold(name: str, seed: int) -> None:
    """Below: nothing is dropped. Above: exactly {A · sign(deviation) > 0}."""
    x = draw(seed)
    deviation = reference_deviation(name, x)
    statistic = deviation.abs().mean().item()
    below = FILTERS[name].function(x, FilterSettings(delta=statistic * (1 + 1e-9)))
    above = FILTERS[name].function(x, FilterSettings(delta=statistic * (1 - 1e-9)))
    assert not below.triggered
    assert below.kept.all()
    assert above.triggered
    outward = ((x.advantages > 0) & (deviation > 0)) | ((x.advantages < 0) & (deviation < 0))
    assert torch.equal(~above.kept, outward)
    assert 0 < outward.sum() < len(outward)


@pytest.mark.parametrize("name", TRIGGERED)
def test_the_threshold_is_on_the_mean_deviation_not_on_half_of_it(name: str) -> None:
    """|ρ − 1| = ¼ throughout and ρ_T = 1: triggers at δ = 0.2, does not at δ = ¼ itself (strictly above)."""
    x = Samples(ratio=torch.tensor([1.25, 0.75]), learner_ratio=torch.ones(2), advantages=torch.tensor([1.0, 1.0]))
    got = FILTERS[name].function(x, FilterSettings(delta=0.2))
    assert got.statistic.item() == 0.25
    assert got.triggered
    assert got.kept.tolist() == [False, True]
    assert got.coefficient.tolist() == [0.0, 0.75]
    assert not FILTERS[name].function(x, FilterSettings(delta=0.25)).triggered


@pytest.mark.parametrize("name", TRIGGERED)
def test_each_tv_filter_has_its_own_reference(name: str) -> None:
    """One sample with ρ = 1.2 between references: ρ_T = 1.5 is above it, 1 below, so the verdicts differ."""
    x = Samples(
        ratio=torch.tensor([1.2], dtype=torch.float64),
        learner_ratio=torch.tensor([1.5], dtype=torch.float64),
        advantages=torch.tensor([1.0], dtype=torch.float64),
    )
    got = FILTERS[name].function(x, FilterSettings(delta=0.1))
    close(got.statistic, {"tv": 0.3, "tv_total": 0.2, "tv_proximal": 0.2}[name])
    assert got.triggered
    assert got.kept.tolist() == [name != "tv_total"]


@pytest.mark.parametrize("name", TRIGGERED)
def test_the_statistic_of_a_larger_batch_overrides(name: str) -> None:
    """Same samples, both verdicts: only the number handed in decides, and it is the one reported."""
    x = draw(2)
    own = FILTERS[name].function(x, FilterSettings(delta=0.3)).statistic
    for value, fires in ((0.29, False), (0.31, True)):
        statistic = torch.tensor(value, dtype=torch.float64)
        got = FILTERS[name].function(x._replace(statistic=statistic), FilterSettings(delta=0.3))
        assert got.statistic.item() == value != own.item()
        assert bool(got.triggered) is fires
        assert got.kept.all().item() is not fires


@pytest.mark.parametrize("name", TRIGGERED)
def test_weights_count_in_the_statistic(name: str) -> None:
    """A dead sample far away does not trigger; the same sample alive does."""
    x = Samples(
        ratio=torch.tensor([1.0, 9.0]), learner_ratio=torch.ones(2), advantages=torch.ones(2), weights=torch.ones(2)
    )
    assert FILTERS[name].function(x, DEFAULTS).triggered
    assert not FILTERS[name].function(x._replace(weights=torch.tensor([1.0, 0.0])), DEFAULTS).triggered


def test_kept_samples_pull_back() -> None:
    """Once triggered, what remains of the gradient does not raise the sampled lag: all its terms are ≤ 0."""
    x = draw(5)
    got = FILTERS["tv"].function(x, FilterSettings(delta=0.01))
    slope = 0.5 * torch.sign(x.ratio - x.learner_ratio) * x.ratio
    assert (got.coefficient * slope <= 0).all()
    assert (x.ratio * x.advantages * slope > 0).any()


@pytest.mark.parametrize("name", TRIGGERED)
def test_a_dead_sample_cannot_disarm_the_trigger(name: str) -> None:
    """A reset step whose ignored action overflowed, with weight zero, beside a live sample far outside."""
    x = Samples(
        ratio=torch.tensor([math.inf, 9.0]),
        learner_ratio=torch.ones(2),
        advantages=torch.tensor([0.0, 1.0]),
        weights=torch.tensor([0.0, 1.0]),
    )
    got = FILTERS[name].function(x, DEFAULTS)
    assert got.statistic.item() == 8.0
    assert got.triggered
