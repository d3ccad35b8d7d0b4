"""One optimisation phase: its first ratio, its whole gradient against autograd, its minibatches and its alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaco.control.collect import Batch, Collector
from vaco.control.envs import TASKS, make_vector_env
from vaco.control.learner import Learner, Minibatch, RewardScaler
from vaco.control.networks import ActorCritic
from vaco.control.policy import Normaliser, Snapshot, take_snapshot
from vaco.errors import UserError
from vaco.lag import PolicyBuffer
from vaco.objectives import align
from vaco.runs.config import RunConfig, build

ALGORITHMS = ("ppo", "ppo_kl", "spo", "impala", "geppo", "decoupled", "vaco", "once+tv_total", "continuous+tv_proximal")


class Setting:
    """A learner and a phase of data from policies that differ from it, as after some phases with lag."""

    def __init__(self, lag: int = 4, drift: float = 0.15, **settings: Any) -> None:
        small = {"env": "Hopper-v5", "num_envs": 4, "phase_steps": 16, "minibatch": 32, "steps": 640}
        self.config: RunConfig = build(small | settings)
        env = make_vector_env(self.config.env, num_envs=self.config.num_envs)
        self.networks = ActorCritic(env.observation_size, env.action_size, self.config.hidden)
        self.networks.initialise(np.random.default_rng(0), 0.0)
        buffer: PolicyBuffer[Snapshot] = PolicyBuffer(lag)
        normaliser, generator = Normaliser(env.observation_size), np.random.default_rng(1)
        for version in range(lag):
            if version:
                noise = generator.standard_normal(len(self.networks.flat)).astype(np.float32)
                self.networks.flat += np.float32(drift) * noise * np.abs(self.networks.flat)
            self.snapshot = take_snapshot(self.networks, normaliser, version, 10.0)
            buffer.push(self.snapshot)
        collector = Collector(env, self.networks, self.config.phase_steps)
        collector.reset(0)
        for _ in range(3):
            self.batch = collector.collect(buffer, generator, generator)
        self.standardised = self.snapshot.standardise(self.batch.observations)
        self.learner = Learner(self.config, self.networks, np.random.default_rng(2))


def spy_on_steps(learner: Learner) -> list[tuple[Minibatch, Minibatch, np.ndarray, np.ndarray]]:
    """Record (whole, minibatch, parameters before, gradient) of every gradient step."""
    seen: list[tuple[Minibatch, Minibatch, np.ndarray, np.ndarray]] = []
    step, flat = learner._step, learner.networks.flat

    def recording(whole: Minibatch, m: Minibatch) -> Any:
        before = flat.copy()
        result = step(whole, m)
        seen.append((whole, m, before, learner.networks.gradient.copy()))
        return result

    learner._step = recording  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("task", sorted(TASKS))
def test_without_lag_the_first_ratio_is_one(task: str) -> None:
    setting = Setting(lag=1, env=task)
    ratios: list[np.ndarray] = []
    rule = setting.learner.algorithm.filter.function

    def spying(samples: Any, settings: Any) -> Any:
        ratios.append(samples.ratio.numpy().copy())
        return rule(samples, settings)

    chosen = setting.learner.algorithm.filter
    object.__setattr__(chosen, "function", spying)
    try:
        diagnostics = setting.learner.optimise(setting.batch, setting.standardised, 3e-4)
    finally:
        object.__setattr__(chosen, "function", rule)
    assert np.abs(ratios[0] - 1.0).max() < 1e-6
    assert np.abs(ratios[-1] - 1.0).max() > 1e-3, "later steps must move"
    assert diagnostics["backward_lag"] < 1e-6


def autograd_gradient(setting: Setting, whole: Minibatch, m: Minibatch, flat: np.ndarray) -> np.ndarray:
    """The textbook losses of each algorithm, differentiated by PyTorch in float64."""
    config, rows = setting.config, len(m.actions)
    networks = ActorCritic(m.inputs.shape[1], m.actions.shape[1], config.hidden)
    parameters = torch.tensor(flat.astype(np.float64), requires_grad=True)
    views, start = {}, 0
    for name, array in networks.parameters.items():
        views[name] = parameters[start : start + array.size].reshape(array.shape)
        start += array.size

    def network(index: int, head: str) -> torch.Tensor:
        h = torch.tensor(m.inputs.astype(np.float64))
        for layer in range(len(config.hidden)):
            h = torch.tanh(h @ views[f"hidden.{layer}.weight"][index] + views[f"hidden.{layer}.bias"][index])
        return h @ views[f"{head}.weight"] + views[f"{head}.bias"]

    mean, value = network(0, "actor")[:rows], network(1, "critic")[:, 0]
    policy = Independent(Normal(mean, views["log_std"].exp()), 1)
    behaviour, learner = torch.tensor(m.behaviour_logp), torch.tensor(m.learner_ratio)
    rho = (policy.log_prob(torch.tensor(m.actions.astype(np.float64))) - behaviour).exp()
    w = torch.tensor(m.weights) / m.weights.sum()
    advantages, targets = torch.tensor(m.advantages), torch.tensor(m.targets)
    if m.trajectories is not None and setting.learner.algorithm.align.every_update:
        shape, v = m.trajectories.rewards.shape, value.detach().reshape(-1, m.trajectories.rewards.shape[1])
        flags = {n: torch.from_numpy(getattr(m.trajectories, n).copy()) for n in ("terminated", "truncated", "dead")}
        realigned = align.vtrace(
            rewards=torch.tensor(m.trajectories.rewards), values=v[:-1], next_values=v[1:], **flags,
            ratio=rho.detach().reshape(shape), discount=config.discount, trace_decay=config.trace_decay,
        )  # fmt: skip
        advantages, targets = realigned.advantages.reshape(-1), realigned.value_targets.reshape(-1)
        advantages = align.standardise(advantages, torch.tensor(m.weights))
    eps, delta, u = config.clip, config.delta, rho / learner
    name = setting.learner.algorithm.filter.name

    def tv(deviation: torch.Tensor) -> torch.Tensor:
        fired = (w * deviation.detach().abs()).sum() > delta
        return torch.where(fired & (advantages * deviation.detach() > 0), 0.0, 1.0) * rho * advantages

    if name == "clip":
        objective = torch.minimum(rho * advantages, rho.clamp(1 - eps, 1 + eps) * advantages)
    elif name == "decoupled_clip":
        objective = (rho / u).detach() * torch.minimum(u * advantages, u.clamp(1 - eps, 1 + eps) * advantages)
    elif name == "centred_clip":
        near = eps / (1 + setting.batch.ages.mean())
        clipped = torch.minimum(torch.maximum(rho, learner - near), learner + near)
        objective = torch.minimum(rho * advantages, clipped * advantages)
    elif name == "spo":
        objective = rho * advantages - advantages.abs() / (2 * eps) * (rho - 1) ** 2
    elif name == "truncated":
        objective = rho.detach().clamp(max=1.0) * advantages * rho.log()
    elif name == "kl":
        log_std = torch.tensor(setting.learner.learner_log_std.astype(np.float64))
        old = Independent(Normal(torch.tensor(m.means.astype(np.float64)), log_std.exp()), 1)
        objective = rho * advantages - config.kl_coefficient * kl_divergence(old, policy)
    else:
        objective = tv({"tv": rho - learner, "tv_total": rho - 1, "tv_proximal": u - 1}[name])
    loss = -(w * objective).sum() + config.value_coefficient * 0.5 * (w * (value[:rows] - targets) ** 2).sum()
    (loss - config.entropy_coefficient * policy.entropy().mean()).backward()
    assert parameters.grad is not None
    return parameters.grad.numpy()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_gradient_equals_autograd_of_the_textbook_loss(algorithm: str) -> None:
    setting = Setting(algorithm=algorithm, entropy_coefficient=0.01, max_grad_norm=1e9, epochs=2, delta=0.3)
    setting.batch.dead[3, 1] = True
    seen = spy_on_steps(setting.learner)
    setting.learner.optimise(setting.batch, setting.standardised, 3e-3)
    assert len(seen) == 4
    for whole, minibatch, before, gradient in seen:
        expected = autograd_gradient(setting, whole, minibatch, before)
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * max(1.0, np.abs(expected).max()), rtol=2e-3)


def test_dead_steps_carry_no_gradient() -> None:
    clean, dirty = Setting(epochs=1), Setting(epochs=1)
    for setting in (clean, dirty):
        setting.batch.dead[5, :] = True
        setting.batch.terminated[4, :] = True
        setting.batch.rewards[5, :] = 0.0
    dirty.batch.actions[5] += 0.3
    for setting in (clean, dirty):
        setting.learner.optimise(setting.batch, setting.standardised, 3e-4)
    np.testing.assert_array_equal(clean.networks.flat, dirty.networks.flat)


def test_a_phase_of_dead_steps_only_changes_nothing_and_is_no_nan() -> None:
    setting = Setting(epochs=1)
    setting.batch.dead[:] = True
    setting.batch.rewards[:] = 0.0
    before = setting.networks.flat.copy()
    diagnostics = setting.learner.optimise(setting.batch, setting.standardised, 3e-4)
    np.testing.assert_array_equal(setting.networks.flat, before)
    assert all(np.isfinite(diagnostics[name]) for name in ("backward_lag", "kl", "value_loss", "grad_norm"))


@pytest.mark.parametrize("minibatches", ["transitions", "trajectories"])
def test_every_epoch_uses_each_transition_once(minibatches: str) -> None:
    setting = Setting(minibatches=minibatches, epochs=3)
    seen = spy_on_steps(setting.learner)
    setting.learner.optimise(setting.batch, setting.standardised, 3e-4)
    whole = seen[0][0]
    for epoch in range(3):
        used = np.concatenate([m.behaviour_logp for _, m, _, _ in seen[2 * epoch : 2 * epoch + 2]])
        np.testing.assert_array_equal(np.sort(used), np.sort(whole.behaviour_logp))
    orders = [np.concatenate([m.behaviour_logp for _, m, _, _ in seen[i : i + 2]]) for i in (0, 2)]
    assert not np.array_equal(*orders), "each epoch must be reshuffled"
    for _, m, _, _ in seen:
        matches = (whole.behaviour_logp[None] == m.behaviour_logp[:, None]).argmax(1)
        np.testing.assert_array_equal(whole.inputs[matches], m.inputs[: len(m.actions)])
        np.testing.assert_array_equal(whole.actions[matches], m.actions)


def slow_reward_scale(batch: Batch, discount: float) -> float:
    returns, history = np.zeros(batch.rewards.shape[1]), []
    for t in range(len(batch.rewards)):
        for e in range(batch.rewards.shape[1]):
            returns[e] = discount * returns[e] + batch.rewards[t, e]
            if not batch.dead[t, e]:
                history.append(returns[e])
            if batch.terminated[t, e] or batch.truncated[t, e]:
                returns[e] = 0.0
    return float(np.sqrt(np.var(history) + 1e-8))


def test_rewards_are_scaled_by_the_deviation_of_discounted_returns() -> None:
    batch = Setting().batch
    batch.terminated[7, 2] = True
    scaled = RewardScaler(4, 0.99, clip=10.0).scale(batch)
    np.testing.assert_allclose(scaled, np.clip(batch.rewards / slow_reward_scale(batch, 0.99), -10, 10))


def test_the_trigger_can_be_measured_on_the_whole_phase() -> None:
    statistics = {}
    for trigger in ("minibatch", "phase"):
        setting = Setting(algorithm="once+tv_total", trigger=trigger, epochs=1, delta=1e-6)
        seen = spy_on_steps(setting.learner)
        diagnostics = setting.learner.optimise(setting.batch, setting.standardised, 1e-9)
        statistics[trigger] = diagnostics["tv_statistic"]
        whole = seen[0][0]
        mean_deviation = (np.abs(whole.learner_ratio - 1) * whole.weights).sum() / whole.weights.sum()
        np.testing.assert_allclose(diagnostics["tv_statistic"], mean_deviation, rtol=1e-3)
        assert diagnostics["trigger_fraction"] == 1.0 and diagnostics["kept_fraction"] < 1.0


def test_geppo_sees_the_age_of_its_data() -> None:
    setting = Setting(algorithm="geppo")
    setting.learner.optimise(setting.batch, setting.standardised, 3e-4)
    assert setting.learner.settings.mean_age == setting.batch.ages.mean() > 0


def test_the_kl_coefficient_adapts_after_the_phase() -> None:
    for rate, factor in ((1e-7, 0.5), (3e-2, 2.0)):
        setting = Setting(algorithm="ppo_kl")
        setting.learner.optimise(setting.batch, setting.standardised, rate)
        assert setting.learner.settings.kl_coefficient == factor * setting.config.kl_coefficient


def test_state_restores_the_optimizer() -> None:
    first, second = Setting(epochs=1), Setting(epochs=1)
    first.learner.optimise(first.batch, first.standardised, 3e-4)
    second.learner.set_state({name: array.copy() for name, array in first.learner.state().items()})
    second.learner.shuffle.permutation(64)  # what the first learner drew
    for setting in (first, second):
        setting.learner.optimise(setting.batch, setting.standardised, 2e-4)
    np.testing.assert_array_equal(first.networks.flat, second.networks.flat)


def test_stops_when_the_gradient_is_not_finite() -> None:
    setting = Setting()
    setting.networks.parameters["critic.bias"][:] = np.inf
    with pytest.raises(UserError, match="no longer finite"), np.errstate(invalid="ignore"):
        setting.learner.optimise(setting.batch, setting.standardised, 3e-4)
