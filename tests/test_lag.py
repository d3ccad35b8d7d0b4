"""The policy buffer: what it holds, how ages are distributed, and that the assignment repeats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vaco.errors import UserError
from vaco.lag import PolicyBuffer, expected_ages


def filled(capacity: int, pushed: int) -> PolicyBuffer[int]:
    buffer: PolicyBuffer[int] = PolicyBuffer(capacity)
    for version in range(pushed):
        buffer.push(version)
    return buffer


@pytest.mark.parametrize(("capacity", "pushed"), [(1, 1), (1, 5), (4, 2), (4, 4), (4, 9), (64, 200)])
def test_holds_the_newest_in_order(capacity: int, pushed: int) -> None:
    assert list(filled(capacity, pushed)) == list(range(max(0, pushed - capacity), pushed))


@pytest.mark.parametrize(("capacity", "pushed"), [(1, 3), (4, 2), (4, 9), (16, 40)])
def test_ages_follow_their_closed_form(capacity: int, pushed: int) -> None:
    draws = 20_000
    snapshots, ages = filled(capacity, pushed).assign(draws, np.random.default_rng(0))
    assert [pushed - 1 - version for version in snapshots] == ages.tolist()
    expected = expected_ages(pushed, capacity) * draws
    counts = np.bincount(ages, minlength=capacity)
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3


def test_actors_draw_independently() -> None:
    buffer = filled(4, 4)
    generator = np.random.default_rng(1)
    ages = np.array([buffer.assign(2, generator)[1] for _ in range(5_000)])
    assert abs(np.corrcoef(ages.T)[0, 1]) < 0.05


def test_assignment_repeats_with_its_generator() -> None:
    first = filled(8, 20).assign(16, np.random.default_rng(3))[1]
    assert np.array_equal(first, filled(8, 20).assign(16, np.random.default_rng(3))[1])
    assert not np.array_equal(first, filled(8, 20).assign(16, np.random.default_rng(4))[1])


@pytest.mark.parametrize("capacity", [0, -3])
def test_refuses_a_capacity_below_one(capacity: int) -> None:
    with pytest.raises(UserError, match="at least 1"):
        PolicyBuffer(capacity)


def test_an_empty_buffer_cannot_assign() -> None:
    with pytest.raises(ValueError, match="empty"):
        PolicyBuffer[int](2).assign(1, np.random.default_rng(0))
