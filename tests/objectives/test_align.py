from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trajectories import Trajectory, close, draw

from vaco.objectives.align import ALIGNMENTS, gae, linear_recurrence, scale, standardise, standardise_under, vtrace

QUICK = settings(max_examples=60, deadline=None, derandomize=True)

lengths = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 16, 17])
batches = st.sampled_from([(), (1,), (3,), (2, 2)])
dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31)
unit = st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0])


def slow_vtrace(
    x: Trajectory, *, discount: float, decay: float, kappa: float, rho_bar: float, c_bar: float
) -> tuple[Tensor, Tensor]:
    """One step of one trajectory at a time, in Python's double precision, written from the formula."""
    length = x.rewards.shape[0]
    flat = Trajectory(*(tensor.reshape(length, -1) for tensor in x))
    advantages = torch.zeros(flat.rewards.shape, dtype=torch.float64)
    targets = torch.zeros(flat.rewards.shape, dtype=torch.float64)
    for column in range(flat.rewards.shape[1]):
        correction = 0.0  # v_{t+1} − V(s_{t+1}) of the step after
        for t in reversed(range(length)):
            reward, value, following, terminated, truncated_, dead, ratio = (f[t, column].item() for f in flat)
            if dead:
                correction = 0.0
                targets[t, column] = value
                continue
            if terminated or truncated_:
                correction = 0.0
            bootstrap = 0.0 if terminated else following
            delta = reward + discount * bootstrap - value
            advantages[t, column] = delta + discount * kappa * correction
            correction = min(rho_bar, ratio) * delta + discount * decay * min(c_bar, ratio) * correction
            targets[t, column] = value + correction
    return advantages.reshape(x.rewards.shape), targets.reshape(x.rewards.shape)


@QUICK
@given(seed=seeds, length=lengths, batch=batches, dtype=dtypes)
def test_linear_recurrence_equals_the_loop(seed: int, length: int, batch: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    terms = torch.randn((length, *batch), generator=generator, dtype=dtype)
    decays = torch.rand((length, *batch), generator=generator, dtype=dtype)
    decays[torch.rand(decays.shape, generator=generator) < 0.2] = 0.0
    kept = terms.clone(), decays.clone()
    wanted = torch.zeros_like(terms)
    x: Tensor = torch.zeros(batch, dtype=dtype)
    for t in reversed(range(length)):
        x = terms[t] + decays[t] * x
        wanted[t] = x
    close(linear_recurrence(terms, decays), wanted)
    assert torch.equal(terms, kept[0])
    assert torch.equal(decays, kept[1])


@QUICK
@given(
    seed=seeds,
    length=lengths,
    batch=batches,
    dtype=dtypes,
    discount=unit,
    decay=unit,
    kappa=st.none() | unit,
    bars=st.sampled_from([(1.0, 1.0), (2.0, 1.0), (1.0, 0.4), (3.0, 3.0), (0.5, 0.5)]),
    with_dead=st.booleans(),
)
def test_vtrace_equals_the_loop(
    seed: int,
    length: int,
    batch: tuple[int, ...],
    dtype: torch.dtype,
    discount: float,
    decay: float,
    kappa: float | None,
    bars: tuple[float, float],
    with_dead: bool,
) -> None:
    x = draw(seed, length, batch, dtype)
    if not with_dead:
        x = x._replace(dead=torch.zeros_like(x.dead))
    copies = [tensor.clone() for tensor in x]
    common: dict[str, Any] = {"discount": discount, "rho_bar": bars[0], "c_bar": bars[1]}
    fields = x._asdict() if with_dead else x.without("dead")
    got = vtrace(**fields, trace_decay=decay, advantage_decay=kappa, **common)
    advantages, targets = slow_vtrace(x, decay=decay, kappa=decay if kappa is None else kappa, **common)
    assert got.advantages.dtype == got.value_targets.dtype == dtype
    close(got.advantages, advantages)
    close(got.value_targets, targets)
    assert all(torch.equal(before, after) for before, after in zip(copies, x, strict=True)), "an argument changed"


@QUICK
@given(seed=seeds, length=lengths, batch=batches, dtype=dtypes, discount=unit, decay=unit)
def test_gae_equals_its_definition_as_a_sum(
    seed: int, length: int, batch: tuple[int, ...], dtype: torch.dtype, discount: float, decay: float
) -> None:
    """A_t = Σ_l (γλ)^l δ_{t+l} up to the episode's end (Schulman et al. 2016, Eq. 16): no recursion at all."""
    x = draw(seed, length, batch, dtype)
    got = gae(**x.without("ratio"), discount=discount, trace_decay=decay)
    wanted = torch.zeros(x.rewards.shape, dtype=torch.float64)
    for position in itertools.product(*map(range, x.rewards.shape)):
        if x.dead[position]:
            continue
        for later in range(position[0], length):
            at = (later, *position[1:])
            if x.dead[at]:
                break
            successor = 0.0 if x.terminated[at] else x.next_values[at].item()
            delta = x.rewards[at].item() + discount * successor - x.values[at].item()
            wanted[position] += (discount * decay) ** (later - position[0]) * delta
            if x.terminated[at] or x.truncated[at]:
                break
    close(got.advantages, wanted)
    close(got.value_targets, x.values.double() + wanted)


@QUICK
@given(seed=seeds, length=lengths, decay=unit, bars=st.sampled_from([(1.0, 1.0), (2.0, 1.0), (5.0, 2.0)]))
def test_vtrace_on_policy_is_gae(seed: int, length: int, decay: float, bars: tuple[float, float]) -> None:
    x = draw(seed, length, (3,), torch.float64)
    x = x._replace(ratio=torch.ones_like(x.ratio))
    reference = gae(**x.without("ratio"), discount=0.97, trace_decay=decay)
    aligned = vtrace(**x._asdict(), discount=0.97, trace_decay=decay, rho_bar=bars[0], c_bar=bars[1])
    close(aligned.advantages, reference.advantages, rtol=1e-14, atol=1e-14)
    close(aligned.value_targets, reference.value_targets, rtol=1e-14, atol=1e-14)


@QUICK
@given(seed=seeds, length=lengths, rho_bar=st.sampled_from([0.7, 1.0, 2.0]))
def test_vtrace_is_the_recursion_of_geppo(seed: int, length: int, rho_bar: float) -> None:
    """With c̄ = ρ̄: A_t = δ_t + γλ ρ̄_{t+1} A_{t+1} and v_t = V_t + ρ̄_t A_t (ALGORITHMS 3)."""
    x = draw(seed, length, (), torch.float64, ends=0.0)
    got = vtrace(**x._asdict(), discount=0.9, trace_decay=0.8, rho_bar=rho_bar, c_bar=rho_bar)
    rho = x.ratio.clamp(max=rho_bar)
    advantage, following = torch.zeros(length, dtype=torch.float64), 0.0
    for t in reversed(range(length)):
        advantage[t] = x.rewards[t] + 0.9 * x.next_values[t] - x.values[t] + 0.9 * 0.8 * following
        following = (rho[t] * advantage[t]).item()
    close(got.advantages, advantage)
    close(got.value_targets, x.values + rho * advantage)


@QUICK
@given(seed=seeds, length=lengths, decay=unit)
def test_kappa_one_is_impalas_advantage(seed: int, length: int, decay: float) -> None:
    """r_t + γ v_{t+1} − V(s_t) with v_{t+1} from the targets themselves, for every λ (Espeholt et al. 2018, 4.2)."""
    x = draw(seed, length, (2,), torch.float64, ends=0.0)
    x.next_values[:-1] = x.values[1:]  # an unbroken chain: the successor's value is the next value
    got = vtrace(**x._asdict(), discount=0.9, trace_decay=decay, advantage_decay=1.0)
    target_after = torch.cat([got.value_targets[1:], x.next_values[-1:]])
    close(got.advantages, x.rewards + 0.9 * target_after - x.values)


def steps(**changes: Any) -> dict[str, Any]:
    """Three plain steps worked by hand: rewards 1, 2, 4, all values 10, successors 20."""
    fields: dict[str, Any] = {
        "rewards": torch.tensor([1.0, 2.0, 4.0]),
        "values": torch.full((3,), 10.0),
        "next_values": torch.full((3,), 20.0),
        "terminated": torch.zeros(3, dtype=torch.bool),
        "truncated": torch.zeros(3, dtype=torch.bool),
        "discount": 0.5,
        "trace_decay": 0.5,
    }
    return fields | {key: torch.tensor(value) if isinstance(value, list) else value for key, value in changes.items()}


def test_by_hand() -> None:
    """δ = (1, 2, 4), γλ = ¼, so A = (1 + (2 + 4/4)/4, 2 + 4/4, 4)."""
    assert gae(**steps()).advantages.tolist() == [1.75, 3.0, 4.0]
    assert gae(**steps()).value_targets.tolist() == [11.75, 13.0, 14.0]


def test_termination_does_not_bootstrap() -> None:
    """δ_1 = 2 + 0 − 10 = −8: the successor's 20 is not used, and step 2 is another episode."""
    got = gae(**steps(terminated=[False, True, False]))
    assert got.advantages.tolist() == [1.0 - 8.0 / 4, -8.0, 4.0]
    other = gae(**steps(terminated=[False, True, False], next_values=[20.0, -777.0, 20.0]))
    assert torch.equal(other.advantages, got.advantages)


def test_truncation_bootstraps_but_does_not_look_past() -> None:
    """δ_1 = 2 stays, with no share of step 2."""
    assert gae(**steps(truncated=[False, True, False])).advantages.tolist() == [1.0 + 2.0 / 4, 2.0, 4.0]


def test_both_flags_are_a_termination() -> None:
    both = gae(**steps(terminated=[False, True, False], truncated=[False, True, False]))
    assert both.advantages.tolist() == gae(**steps(terminated=[False, True, False])).advantages.tolist()


@QUICK
@given(seed=seeds, cut=st.integers(0, 7), kind=st.sampled_from(["terminated", "truncated", "dead"]))
def test_nothing_crosses_an_episode_boundary(seed: int, cut: int, kind: str) -> None:
    """Whatever comes after the boundary leaves what comes before it bitwise alone."""
    x, y = draw(seed, 9, (2,), torch.float64), draw(seed + 1, 9, (2,), torch.float64)
    flags = {name: getattr(x, name).clone() for name in ("terminated", "truncated", "dead")}
    for name, flag in flags.items():
        flag[cut] = name == kind
    spliced: dict[str, Any] = {
        name: torch.cat([before[: cut + 1], after[cut + 1 :]])
        for name, before, after in zip(x._fields, x._replace(**flags), y, strict=True)
    }
    arguments: dict[str, Any] = {"discount": 0.9, "trace_decay": 0.9, "advantage_decay": 1.0}
    got, wanted = vtrace(**spliced, **arguments), vtrace(**x._replace(**flags)._asdict(), **arguments)
    assert torch.equal(got.advantages[: cut + 1], wanted.advantages[: cut + 1])
    assert torch.equal(got.value_targets[: cut + 1], wanted.value_targets[: cut + 1])


def test_dead_steps_are_no_transitions() -> None:
    dead = [False, True, False]
    got = gae(**steps(dead=dead))
    assert got.advantages.tolist() == [1.0, 0.0, 4.0]
    assert got.value_targets.tolist() == [11.0, 10.0, 14.0]
    other = gae(**steps(dead=dead, rewards=[1.0, -50.0, 4.0], next_values=[20.0, 1e6, 20.0]))
    assert torch.equal(other.advantages, got.advantages)
    assert torch.equal(other.value_targets, got.value_targets)


def test_ratios_are_truncated_at_one_by_default() -> None:
    """IMPALA's ρ̄ = c̄ = 1; the ratios here lie on both sides of it."""
    ratio = [2.0, 0.75, 3.0]
    got, wanted = vtrace(**steps(ratio=ratio)), vtrace(**steps(ratio=ratio), rho_bar=1.0, c_bar=1.0)
    assert torch.equal(got.value_targets, wanted.value_targets)
    assert not torch.equal(got.value_targets, vtrace(**steps(ratio=ratio), rho_bar=4.0, c_bar=1.0).value_targets)
    assert not torch.equal(got.value_targets, vtrace(**steps(ratio=ratio), rho_bar=1.0, c_bar=0.5).value_targets)


def test_an_infinite_ratio_is_truncated() -> None:
    finite = vtrace(**steps(ratio=[1.0, 1e30, 0.5]))
    infinite = vtrace(**steps(ratio=[1.0, float("inf"), 0.5]))
    assert torch.equal(infinite.advantages, finite.advantages)
    assert torch.equal(infinite.value_targets, finite.value_targets)


def test_lambda_zero_is_one_step_and_lambda_one_is_monte_carlo() -> None:
    x = draw(0, 6, (), torch.float64, ends=0.0)
    x.next_values[:-1] = x.values[1:]
    one_step = gae(**x.without("ratio"), discount=0.9, trace_decay=0.0)
    close(one_step.advantages, x.rewards + 0.9 * x.next_values - x.values)
    powers = 0.9 ** torch.arange(6, dtype=torch.float64)
    full = gae(**x.without("ratio"), discount=0.9, trace_decay=1.0)
    close(full.value_targets[0], (powers * x.rewards).sum() + 0.9**6 * x.next_values[-1])


def test_refuses_a_trace_truncation_above_rho_bar() -> None:
    with pytest.raises(ValueError, match="c_bar <= rho_bar"):
        vtrace(**steps(ratio=[1.0, 1.0, 1.0]), rho_bar=1.0, c_bar=1.5)
    vtrace(**steps(ratio=[1.0, 1.0, 1.0]), rho_bar=1.5, c_bar=1.5)


@pytest.mark.parametrize("name", ["rewards", "values", "next_values", "terminated", "truncated", "dead", "ratio"])
@pytest.mark.parametrize("shape", [(4,), (3, 1), (1,)])
def test_refuses_shapes_that_differ(name: str, shape: tuple[int, ...]) -> None:
    """Also those that would broadcast: a [T, 1] against a [T] silently makes a [T, T]."""
    kind = torch.bool if name in ("terminated", "truncated", "dead") else torch.float32
    with pytest.raises(ValueError, match="shape"):
        vtrace(**steps(**{name: torch.zeros(shape, dtype=kind)}))


def test_the_table_of_alignments() -> None:
    assert {name: (row.target, row.every_update) for name, row in ALIGNMENTS.items()} == {
        "none": (None, False),
        "once": ("learner", False),
        "continuous": ("current", True),
        "divergence": ("current", True),
    }
    assert all(row.name == name and row.formula for name, row in ALIGNMENTS.items())


@QUICK
@given(seed=seeds, length=st.integers(2, 20), batch=batches, dtype=dtypes, masked=st.booleans())
def test_standardise_equals_the_loop(
    seed: int, length: int, batch: tuple[int, ...], dtype: torch.dtype, masked: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    advantages = 5.0 + 3.0 * torch.randn((length, *batch), generator=generator, dtype=dtype)
    live = torch.rand(advantages.shape, generator=generator) < (0.7 if masked else 2.0)
    kept = [value for value, alive in zip(advantages.flatten().tolist(), live.flatten().tolist(), strict=True) if alive]
    got = standardise(advantages, live.to(dtype) if masked else None)
    assert got.dtype == dtype
    assert (got[~live] == 0).all()
    if len(kept) < 2:
        return
    mean = sum(kept) / len(kept)
    deviation = (sum((value - mean) ** 2 for value in kept) / len(kept)) ** 0.5
    close(got[live], torch.tensor([(value - mean) / deviation for value in kept], dtype=torch.float64))


def test_standardise_of_nothing_and_of_a_constant() -> None:
    samples = torch.tensor([3.0, -1.0, 2.0])
    assert standardise(samples, torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert standardise(torch.full((4,), 2.0)).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert standardise(torch.tensor([7.0, 99.0]), torch.tensor([1.0, 0.0])).tolist() == [0.0, 0.0]


def slow_moments(rows: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard deviation of (value, measure), one at a time."""
    mass = sum(measure for _, measure in rows)
    mean = sum(value * measure for value, measure in rows) / mass
    return mean, (sum(measure * (value - mean) ** 2 for value, measure in rows) / mass) ** 0.5


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_scaling_alone_and_under_another_policy_equal_the_loop(seed: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    advantages = 2.0 + 3.0 * torch.randn((9, 4), generator=generator, dtype=torch.float64)
    ratio = torch.randn((9, 4), generator=generator, dtype=torch.float64).exp()
    live = torch.rand(advantages.shape, generator=generator) < (0.7 if masked else 2.0)
    ratio[~live] = math.nan  # what a dead step's ratio is does not matter
    weights = live.double() if masked else None
    cells = list(zip(*(x.flatten().tolist() for x in (advantages, ratio, live)), strict=True))
    _, spread = slow_moments([(a, 1.0) for a, _, alive in cells if alive])
    wanted = torch.tensor([a / spread if alive else 0.0 for a, _, alive in cells], dtype=torch.float64)
    close(scale(advantages, weights).flatten(), wanted)
    mean, spread = slow_moments([(a, r) for a, r, alive in cells if alive])
    wanted = torch.tensor([(a - mean) / spread if alive else 0.0 for a, _, alive in cells], dtype=torch.float64)
    close(standardise_under(advantages, ratio, weights).flatten(), wanted)


def test_scaling_keeps_every_sign_and_the_policys_own_moments_are_the_samples() -> None:
    advantages = 2.0 + torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(torch.sign(scale(advantages)), torch.sign(advantages))
    close(standardise_under(advantages, torch.full((50,), 3.0).double()), standardise(advantages))
    for nothing in (torch.zeros(50).double(), None):
        assert scale(advantages * 0 + 2.0, nothing).abs().max() == 0.0
        assert standardise_under(advantages * 0 + 2.0, torch.ones(50).double(), nothing).abs().max() == 0.0


# --- What must not leak -----------------------------------------------------------------------------------------------


def test_nothing_carries_a_gradient() -> None:
    """`Aligned` promises it: an advantage that moves with the critic would train it through the policy loss."""
    values = torch.full((3,), 10.0, requires_grad=True)
    ratio = torch.ones(3, requires_grad=True)
    got = vtrace(**steps(values=values, ratio=ratio))
    assert not got.advantages.requires_grad
    assert not got.value_targets.requires_grad


@pytest.mark.parametrize(
    "changes",
    [
        {"terminated": [False, True, False], "next_values": [20.0, math.nan, 20.0]},
        {"dead": [False, True, False], "rewards": [1.0, math.nan, 4.0]},
        {"dead": [False, True, False], "next_values": [20.0, math.inf, 20.0]},
        {"dead": [False, True, False], "ratio": [1.0, math.nan, 1.0]},
    ],
)
def test_what_is_ignored_may_be_anything(changes: dict[str, Any]) -> None:
    """Successors of terminal states and everything at reset steps: not even NaN may leak out."""
    got = vtrace(**steps(**changes))
    assert torch.isfinite(got.advantages).all()
    assert torch.isfinite(got.value_targets).all()


@pytest.mark.parametrize("constant", [0.1, 0.3])
def test_standardising_a_constant_gives_no_signal(constant: float) -> None:
    """Equal advantages say nothing; their rounding error must not become a full-sized gradient."""
    assert standardise(torch.full((2048,), constant)).abs().max() < 0.01
