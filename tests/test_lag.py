"""The policy buffer: what it holds, how ages are distributed, and that the assignment repeats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vaco.errors import UserError
from vaco.lag import Geometric, PolicyBuffer, Stragglers, Uniform, expected_ages, parse_schedule


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


def test_a_number_is_the_uniform_schedule() -> None:
    """The same draws, so that the bits of all runs before there were schedules stay."""
    drawn = np.random.default_rng(5).integers(4, size=16)
    for schedule in (4, Uniform(4), parse_schedule("uniform:4")):
        buffer: PolicyBuffer[int] = PolicyBuffer(schedule)
        for version in range(9):
            buffer.push(version)
        assert np.array_equal(buffer.assign(16, np.random.default_rng(5))[1], drawn)


def test_a_queue_has_a_constant_age_once_it_is_full() -> None:
    buffer: PolicyBuffer[int] = PolicyBuffer(parse_schedule("fifo:3"))
    found = []
    for version in range(6):
        buffer.push(version)
        found.append(buffer.assign(2, np.random.default_rng(0))[0])
    assert found == [[0, 0], [0, 0], [0, 0], [0, 0], [1, 1], [2, 2]] and len(buffer) == 4


@pytest.mark.parametrize(("share", "actors", "slow"), [(0.25, 8, 2), (0.01, 8, 1), (1.0, 3, 3), (0.5, 1, 1)])
def test_stragglers_are_so_many(share: float, actors: int, slow: int) -> None:
    ages = Stragglers(share, 5, 1).ages(6, actors, np.random.default_rng(0))
    assert ages.tolist() == [5] * slow + [1] * (actors - slow)
    assert Stragglers(share, 5, 1).ages(3, actors, np.random.default_rng(0)).max() == 2


@pytest.mark.parametrize("mean", [0.0, 0.5, 3.5])
def test_geometric_ages_have_their_mean(mean: float) -> None:
    schedule, draws = Geometric(mean), 20_000
    ages = schedule.ages(schedule.capacity, draws, np.random.default_rng(0))
    assert ages.min() == 0 and ages.max() < schedule.capacity
    spread = np.sqrt(mean * (mean + 1.0) / draws)
    assert ages.mean() == pytest.approx(mean, abs=4.0 * spread)
    assert (ages == 0).mean() == pytest.approx(1.0 / (mean + 1.0), abs=0.015)


@pytest.mark.parametrize(
    ("text", "spelt", "capacity"),
    [
        *(("uniform:16", "", 16), ("fifo:08", "fifo:8", 9), ("geometric:3.0", "geometric:3", 40)),
        *(("straggler:0.25:12", "straggler:0.25:12:0", 13), ("straggler:1.0:2:4", "straggler:1:2:4", 5)),
        ("straggler:0:7:2", "fifo:2", 3),
    ],
)
def test_schedules_are_read_and_spelt_in_one_way(text: str, spelt: str, capacity: int) -> None:
    schedule = parse_schedule(text)
    assert schedule.capacity == capacity
    if spelt:
        assert str(schedule) == spelt == str(parse_schedule(spelt))


@pytest.mark.parametrize(
    "text",
    [
        *("", "fifo", "fifo:", "fifo:x", "fifo:1.5", "fifo:1:2", "fifo:-1", "lifo:3", "uniform:0", "geometric:-1"),
        *("geometric:nan", "geometric:1e999", "straggler:0.5", "straggler:2:1", "straggler:nan:1", "straggler:0.5:-1"),
    ],
)
def test_what_is_no_schedule_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_schedule(text)
    assert "must be" in str(caught.value) or "at least" in str(caught.value)
    assert "\n" not in str(caught.value)
