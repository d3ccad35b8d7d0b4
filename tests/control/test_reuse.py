"""Updates on the data of several phases, a moving average in the place of π_T, and entropy in the rewards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical

from vaco.control.collect import Batch
from vaco.control.distributions import Categorical, Gaussian
from vaco.control.learner import Learner
from vaco.control.moving_average import MovingAverage
from vaco.control.reuse import Reuse
from vaco.control.scaling import RewardScaler, normalise_advantages
from vaco.control.train import Run
from vaco.errors import UserError
from vaco.objectives.align import vtrace
from vaco.runs.config import RunConfig, build
from vaco.runs.reads import require_read

SMALL = {"env": "InvertedPendulum-v5", "num_envs": 4, "phase_steps": 16, "minibatch": 32, "steps": 640, "epochs": 2}


def config(**settings: Any) -> RunConfig:
    return build(SMALL | settings)


def drawn(place: int, steps: int = 5, actors: int = 3, changing: bool = False) -> Batch:
    source = np.random.default_rng(place)
    shape = (steps, actors)
    return Batch(
        observations=source.normal(size=(steps + 1, actors, 2)).astype(np.float32),
        actions=source.normal(size=(*shape, 1)).astype(np.float32),
        behaviour_logp=source.normal(size=shape),
        behaviour_outputs=source.normal(size=(*shape, 1)).astype(np.float32),
        behaviour_log_std=source.normal(size=(*shape, 1) if changing else (1, 1)).astype(np.float32),
        rewards=source.normal(size=shape),
        terminated=source.random(shape) < 0.2,
        truncated=np.zeros(shape, np.bool_),
        dead=source.random(shape) < 0.1,
        ages=source.integers(0, 3, shape if changing else actors),
        episode_returns=source.normal(size=2),
    )


def test_without_weights_the_data_are_the_same_object() -> None:
    batch = drawn(0)
    for weights in ((), (1.0,)):
        reuse = Reuse(weights)
        assert reuse.merge(batch) is batch and not reuse.state()


@pytest.mark.parametrize("changing", [False, True])
def test_phases_stand_side_by_side_the_newest_first_and_grow_older(changing: bool) -> None:
    reuse, phases = Reuse([4, 3, 2]), [drawn(place, changing=changing and place == 1) for place in range(5)]
    for newest, batch in enumerate(phases):
        merged = reuse.merge(batch)
        held = phases[max(0, newest - 2) : newest + 1][::-1]
        weights = [4, 3, 2][: len(held)]
        assert merged.newest is batch and merged.episode_returns is batch.episode_returns
        assert merged.weights is not None and merged.weights.mean() == pytest.approx(1.0)
        log_std = np.broadcast_to(merged.behaviour_log_std, (5, merged.rewards.shape[1], 1))
        ages = np.broadcast_to(merged.ages, merged.rewards.shape)
        for place, part in enumerate(held):
            own = slice(3 * place, 3 * place + 3)
            for name in ("observations", "actions", "behaviour_logp", "behaviour_outputs", "rewards", "dead"):
                assert np.array_equal(getattr(merged, name)[:, own], getattr(part, name)), name
            assert np.array_equal(ages[:, own], np.broadcast_to(part.ages, (5, 3)) + place)
            assert np.array_equal(log_std[:, own], np.broadcast_to(part.behaviour_log_std, (5, 3, 1)))
            assert merged.weights[own].tolist() == pytest.approx([len(held) * weights[place] / sum(weights)] * 3)
        restored = Reuse([4, 3, 2])
        restored.set_state(reuse.state())
        assert len(restored.held) == len(held) - (len(held) == 3)
        again = restored.merge(batch)
        assert np.array_equal(again.rewards, Reuse.merge(reuse_of(reuse), batch).rewards)


def reuse_of(other: Reuse) -> Reuse:
    copy = Reuse(other.weights)
    copy.held = list(other.held)
    return copy


def test_only_new_rewards_move_the_scale_and_all_are_scaled() -> None:
    reuse, alone, together = Reuse([1, 1]), RewardScaler(3, 0.9, 10.0), RewardScaler(3, 0.9, 10.0)
    for place in range(3):
        batch = drawn(place)
        own, scaled = alone.scale(batch), together.scale(reuse.merge(batch))
        assert np.array_equal(scaled[:, :3], own)
    assert scaled.shape == (5, 6) and np.array_equal(alone.returns, together.returns)
    deviation = math.sqrt(float(alone.statistics.variance[0]) + 1e-8)
    np.testing.assert_allclose(scaled[:, 3:], np.clip(drawn(1).rewards / deviation, -10, 10))


@pytest.mark.parametrize("choice", ["phase", "learner", "scale"])
def test_weights_of_phases_weigh_in_moments_and_scale_no_advantage(choice: str) -> None:
    source = np.random.default_rng(0)
    advantages, ratio = source.normal(2, 3, 8), source.random(8) + 0.5
    weights = np.array([0.0, 1.6, 1.6, 1.6, 0.4, 0.4, 0.0, 0.4])
    found = normalise_advantages(choice, advantages, ratio, weights)
    measure = {"phase": weights, "learner": weights * ratio, "scale": (weights > 0).astype(float)}[choice]
    mean = sum(w * a for w, a in zip(measure, advantages, strict=True)) / measure.sum()
    spread = math.sqrt(sum(w * (a - mean) ** 2 for w, a in zip(measure, advantages, strict=True)) / measure.sum())
    shift = 0.0 if choice == "scale" else mean
    expected = [(a - shift) / spread if w else 0.0 for a, w in zip(advantages, weights, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_an_update_takes_all_phases_in_as_many_steps() -> None:
    """GePPO whole: the age that shrinks the clip is the weighted mean, and the step size follows the forward lag."""
    run = Run(config(algorithm="geppo", reuse=[4, 3, 2, 1], learning_rate_adaptive=True, learning_rate=0.05))
    sizes: list[list[int]] = []
    step = run.learner._step

    def counted(whole: Any, m: Any) -> Any:
        sizes[-1].append(len(m.actions))
        return step(whole, m)

    run.learner._step = counted  # type: ignore[method-assign]
    factors = [1.0]
    for phase in range(5):
        sizes.append([])
        row = run.advance()
        held = min(phase + 1, 4)
        assert sizes[-1] == [32 * held] * 4
        ages = [w * age for age, w in enumerate([4, 3, 2, 1][:held])]
        assert run.learner.settings.mean_age == pytest.approx(sum(ages) / sum([4, 3, 2, 1][:held]))
        assert row["age_max"] == held - 1
        clip = 0.2 / (1 + run.learner.settings.mean_age)
        lag = row["forward_lag"]
        factors.append(factors[-1] / 1.03 if lag > clip / 2 else factors[-1] * 1.03 if lag < clip / 4 else factors[-1])
        assert run.learner.step_factor == pytest.approx(factors[-1])
        assert row["learning_rate"] == pytest.approx(0.05 * (1 - phase / 10) * factors[-2])
    assert factors[-1] < 1.0, "such steps are too large"


def test_a_moving_average_by_its_definition() -> None:
    source = np.random.default_rng(0)
    thetas = source.normal(size=(6, 4)).astype(np.float32)
    average = MovingAverage(0.8, thetas[0])
    for last in range(1, 6):
        average.update(thetas[last])
        weights = [0.8 ** (last - k) for k in range(last + 1)]
        expected = sum(w * thetas[k] for k, w in enumerate(weights)) / sum(weights)
        np.testing.assert_allclose(average.flat, expected, rtol=1e-5, atol=1e-6)
    other = MovingAverage(0.8, thetas[0])
    other.set_state(average.state())
    assert np.array_equal(other.flat, average.flat) and other.weight == average.weight


@pytest.mark.parametrize("algorithm", ["decoupled", "vaco", "ppo_kl"])
def test_filters_compare_with_the_average_of_the_policies_so_far(algorithm: str) -> None:
    """What the rule is given as π_T is the policy of the averaged parameters, on the minibatch's own samples."""
    run = Run(config(algorithm=algorithm, proximal_decay=0.7, learning_rate=0.02, lag=2))
    learner, seen = run.learner, []
    step, networks = learner._step, run.networks

    def recorded(whole: Any, m: Any) -> Any:
        assert learner.average is not None
        with learner.average.in_place_of(networks):
            outputs = networks.predict(m.inputs)[0]
            logp = learner.distribution.density(m.actions, outputs, networks.parameters["log_std"]).logp
            seen.append([np.exp(logp - m.behaviour_logp), None, m.learner_ratio])
        return step(whole, m)

    rule = learner.algorithm.filter
    function = rule.function

    def spying(x: Any, settings: Any) -> Any:
        seen[-1][1] = x.learner_ratio.numpy().copy()
        return function(x, settings)

    learner._step = recorded  # type: ignore[method-assign]
    object.__setattr__(rule, "function", spying)
    try:
        for _ in range(3):
            run.advance()
    finally:
        object.__setattr__(rule, "function", function)
    assert len(seen) == 12
    for expected, given, _ in seen:
        np.testing.assert_allclose(given, expected, rtol=1e-6)
    assert not np.allclose(seen[-1][1], seen[-1][2], rtol=1e-3), "the average is not π_T"


def test_the_trigger_on_the_whole_phase_compares_with_the_average_too() -> None:
    run = Run(config(algorithm="vaco", proximal_decay=0.7, learning_rate=0.02, trigger="phase", epochs=1))
    run.advance()
    before = run.learner.networks.flat.copy()
    assert run.learner.average is not None
    with run.learner.average.in_place_of(run.networks):
        assert not np.array_equal(run.networks.flat, before)
    assert np.array_equal(run.networks.flat, before)
    row = run.advance()
    assert row["tv_statistic"] > 0 and math.isfinite(row["tv_statistic"])


@pytest.mark.parametrize("categories", [(), (3,), (2, 4)])
def test_the_entropy_of_every_state(categories: tuple[int, ...]) -> None:
    source = np.random.default_rng(0)
    kind = Categorical(categories) if categories else Gaussian(2)
    outputs = source.normal(size=(5, kind.outputs)).astype(np.float32)
    spread = source.normal(size=kind.spread).astype(np.float32)
    if categories:
        parts = torch.from_numpy(outputs).double().split(list(categories), dim=-1)
        expected = sum(TorchCategorical(logits=part).entropy() for part in parts).numpy()  # type: ignore[union-attr]
    else:
        expected = [sum(0.5 * math.log(2 * math.pi * math.e) + float(s) for s in spread)] * 5
    np.testing.assert_allclose(kind.entropies(outputs, spread), expected, rtol=1e-6)


def test_entropy_joins_the_rewards_of_advantages_and_targets() -> None:
    runs = {alpha: Run(config(algorithm="ppo", env="CartPole-v1", entropy_reward=alpha)) for alpha in (0.0, 0.3)}
    wholes: dict[float, Any] = {}
    for alpha, run in runs.items():
        run.networks.parameters["actor.weight"][:] *= 1000.0  # so that states differ in their entropies
        step = run.learner._step

        def recorded(whole: Any, m: Any, alpha: float = alpha, step: Any = step) -> Any:
            wholes.setdefault(alpha, whole)
            return step(whole, m)

        run.learner._step = recorded  # type: ignore[method-assign]
        run.advance()
    plain, augmented = wholes[0.0], wholes[0.3]
    entropies = runs[0.3].learner.distribution.entropies(augmented.outputs, np.zeros(0, np.float32)).reshape(16, 4)
    assert entropies.std() > 1e-3
    np.testing.assert_allclose(augmented.trajectories.rewards, plain.trajectories.rewards + 0.3 * entropies)
    # Targets are linear in rewards: their difference is the value of the entropies alone.
    flags = {n: torch.from_numpy(getattr(plain.trajectories, n)) for n in ("terminated", "truncated", "dead")}
    zeros = torch.zeros(16, 4, dtype=torch.float64)
    alone = vtrace(
        rewards=torch.from_numpy(0.3 * entropies), values=zeros, next_values=zeros, **flags, discount=0.99,
        trace_decay=0.95,
    )  # fmt: skip
    np.testing.assert_allclose(
        (augmented.targets - plain.targets).reshape(16, 4), alone.value_targets.numpy(), atol=1e-9
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reuse": [1, 0]}, r"reuse is \[1.0, 0.0\], but it must list weights above 0"),
        ({"proximal_decay": 1.0}, "proximal_decay is 1.0"),
        ({"entropy_reward": -0.1}, "entropy_reward is -0.1"),
        ({"algorithm": "ppo", "proximal_decay": 0.5}, "proximal_decay is 0.5, but 'ppo' does not read it"),
        ({"algorithm": "vaco", "learning_rate_adaptive": True}, "'vaco' does not read it"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        require_read(config(**settings))


def test_learner_state_has_only_what_is_asked_for() -> None:
    plain = Run(config()).learner
    assert isinstance(plain, Learner) and not {"step_factor", "average.flat"} & set(plain.state())
