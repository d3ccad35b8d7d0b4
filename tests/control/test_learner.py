"""One optimisation phase: its first ratio, its whole gradient against autograd, its minibatches and its alignment."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaco.control.collect import Batch, Collector
from vaco.control.envs import TASKS, make_vector_env
from vaco.control.learner import Learner
from vaco.control.minibatch import Minibatch
from vaco.control.networks import ActorCritic
from vaco.control.policy import Normaliser, Snapshot, take_snapshot
from vaco.control.scaling import RewardScaler, normalise_advantages
from vaco.errors import UserError
from vaco.lag import PolicyBuffer
from vaco.objectives import align
from vaco.objectives.augmented import Augmentation, divergence
from vaco.runs.config import RunConfig, build

ALGORITHMS = (
    *("ppo", "ppo_kl", "spo", "impala", "geppo", "decoupled", "vaco", "once+tv_total", "continuous+tv_proximal"),
    *("none+kl_total", "none+proximal_clip", "none+spo_proximal", "once+centred_clip_fixed", "once+centred_clip_lag"),
    *("none+mdpo", "divergence+none", "divergence+tv"),
)
CAPPED = ("vaco", "once+tv_total", "ppo", "ppo_kl", "none+kl_total", "decoupled", "none+none")


class Setting:
    """A learner and a phase of data from policies that differ from it, as after some phases with lag."""

    def __init__(self, lag: int = 4, drift: float = 0.15, shift: float = 0.0, **settings: Any) -> None:
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
                self.networks.flat += np.float32(shift) * noise  # moves what is near zero too: log σ, actions
            self.snapshot = take_snapshot(self.networks, normaliser, version, 10.0)
            buffer.push(self.snapshot)
        self.buffer = buffer
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
        estimate = (
            functools.partial(divergence, own=Augmentation()) if "divergence" in config.algorithm else align.vtrace
        )
        realigned = estimate(
            rewards=torch.tensor(m.trajectories.rewards), values=v[:-1], next_values=v[1:], **flags,
            ratio=rho.detach().reshape(shape), discount=config.discount, trace_decay=config.trace_decay,
            rho_bar=config.rho_bar, c_bar=config.c_bar,
        )  # fmt: skip
        advantages, targets = realigned.advantages.reshape(-1), realigned.value_targets.reshape(-1)
        advantages = align.standardise(advantages, torch.tensor(m.weights))
    eps, delta, u = config.clip, config.delta, rho / learner
    name = setting.learner.algorithm.filter.name

    # A truncated weight is a constant beyond the cap: its gradient is C ∇log π, as that of C log π.
    weighted = rho
    if config.ratio_cap:
        weighted = torch.where(rho.detach() > config.ratio_cap, config.ratio_cap * (rho / rho.detach()).log(), rho)

    def tv(deviation: torch.Tensor) -> torch.Tensor:
        fired = (w * deviation.detach().abs()).sum() > delta
        return torch.where(fired & (advantages * deviation.detach() > 0), 0.0, 1.0) * weighted * advantages

    def around(ratio: torch.Tensor, centre: torch.Tensor | float, near: float) -> torch.Tensor:
        """PPO's objective in any ratio, with a clip range around any centre, of the truncated weight."""
        middle = torch.as_tensor(centre, dtype=torch.float64)
        inside = torch.minimum(torch.maximum(ratio.detach(), middle - near), middle + near)
        dropped = inside * advantages < ratio.detach() * advantages
        return torch.where(dropped, 0.0, weighted * advantages)

    if config.ratio_cap and "clip" in name:
        objective = around(rho if name == "clip" else u, 1.0, eps)
    elif name == "clip":
        objective = torch.minimum(rho * advantages, rho.clamp(1 - eps, 1 + eps) * advantages)
    elif name == "proximal_clip":
        objective = torch.minimum(u * advantages, u.clamp(1 - eps, 1 + eps) * advantages)
    elif name == "decoupled_clip":
        objective = (rho / u).detach() * torch.minimum(u * advantages, u.clamp(1 - eps, 1 + eps) * advantages)
    elif name.startswith("centred_clip"):
        aged = eps / (1 + setting.batch.ages.mean())
        backward = 0.5 * (torch.tensor(whole.weights) * (torch.tensor(whole.learner_ratio) - 1).abs()).sum()
        measured = eps - 2 * float(backward) / whole.weights.sum()
        near = {"centred_clip": aged, "centred_clip_fixed": eps, "centred_clip_lag": max(measured, aged)}[name]
        clipped = torch.minimum(torch.maximum(rho, learner - near), learner + near)
        objective = torch.minimum(rho * advantages, clipped * advantages)
    elif name == "spo":
        objective = rho * advantages - advantages.abs() / (2 * eps) * (rho - 1) ** 2
    elif name == "spo_proximal":
        objective = u * advantages - advantages.abs() / (2 * eps) * (u - 1) ** 2
    elif name == "mdpo":
        # E_π A − KL(π‖π_T)/t from samples of β, but for the derivative of log u, which is 0 in expectation.
        objective = rho * (advantages - u.log().detach() / (1 - setting.learner.settings.progress))
    elif name == "truncated":
        objective = rho.detach().clamp(max=1.0) * advantages * rho.log()
    elif name == "kl":
        log_std = torch.tensor(setting.learner.learner_log_std.astype(np.float64))
        old = Independent(Normal(torch.tensor(m.outputs.astype(np.float64)), log_std.exp()), 1)
        objective = weighted * advantages - config.kl_coefficient * kl_divergence(old, policy)
    elif name == "kl_total":
        objective = weighted * advantages - config.kl_coefficient * kl_divergence(behaviour_of(setting, m), policy)
    elif name == "none":
        objective = weighted * advantages
    else:
        objective = tv({"tv": rho - learner, "tv_total": rho - 1, "tv_proximal": u - 1}[name])
    loss = -(w * objective).sum() + config.value_coefficient * 0.5 * (w * (value[:rows] - targets) ** 2).sum()
    (loss - config.entropy_coefficient * policy.entropy().mean()).backward()
    assert parameters.grad is not None
    return parameters.grad.numpy()


def behaviour_of(setting: Setting, m: Minibatch) -> Independent:
    """β of each transition of a minibatch, found again by its action, from the snapshots that acted."""
    batch, held = setting.batch, list(setting.buffer)
    means = np.empty(m.actions.shape)
    log_std = np.empty(m.actions.shape)
    networks = ActorCritic(m.inputs.shape[1], m.actions.shape[1], setting.config.hidden)
    for row, action in enumerate(m.actions):
        ((step, actor),) = np.argwhere((batch.actions == action).all(-1))
        snapshot = held[-1 - int(batch.ages[actor])]
        networks.flat[:] = snapshot.flat
        means[row] = networks.forward(snapshot.standardise(batch.observations[step, actor][None]))[0][0]
        log_std[row] = networks.parameters["log_std"]
    return Independent(Normal(torch.tensor(means), torch.tensor(log_std).exp()), 1)


@pytest.mark.parametrize(
    ("algorithm", "cap"), [*((name, 0.0) for name in ALGORITHMS), *((name, 1.1) for name in CAPPED)]
)
def test_every_gradient_equals_autograd_of_the_textbook_loss(algorithm: str, cap: float) -> None:
    shift = 0.03 if algorithm == "none+kl_total" else 0.0  # so that β has another σ than π, and another for each age
    setting = Setting(
        shift=shift, algorithm=algorithm, entropy_coefficient=0.01, max_grad_norm=1e9, epochs=2, delta=0.3,
        ratio_cap=cap,
    )  # fmt: skip
    setting.batch.dead[3, 1] = True
    seen = spy_on_steps(setting.learner)
    setting.learner.optimise(setting.batch, setting.standardised, 3e-3, progress=0.25)
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


@pytest.mark.parametrize("rate", [1e-7, 3e-2])
def test_the_penalty_from_beta_adapts_to_the_distance_from_beta(rate: float) -> None:
    """b follows mean KL(β‖π) at the phase's end, backward lag included: a phase that does not move may raise it."""
    setting = Setting(algorithm="none+kl_total", kl_target=1e-3, shift=0.03)
    found = setting.learner.optimise(setting.batch, setting.standardised, rate)
    networks, batch = setting.networks, setting.batch
    held = list(setting.buffer)
    mean = networks.forward(setting.standardised[:-1].reshape(-1, setting.standardised.shape[-1]))[0]
    mean, log_std = mean.reshape(batch.actions.shape).astype(np.float64), networks.parameters["log_std"].copy()
    current, total = networks.flat.copy(), 0.0
    for actor, age in enumerate(batch.ages):
        networks.flat[:] = held[-1 - int(age)].flat
        old_mean = networks.forward(held[-1].standardise(batch.observations[:-1, actor]))[0].astype(np.float64)
        for t in np.flatnonzero(~batch.dead[:, actor]):
            for i, spread in enumerate(networks.parameters["log_std"]):
                variance = np.exp(2 * (float(spread) - float(log_std[i])))
                shift = (old_mean[t, i] - mean[t, actor, i]) / np.exp(float(log_std[i]))
                total += float(log_std[i]) - float(spread) + 0.5 * (variance + shift**2 - 1)
    networks.flat[:] = current
    assert found["kl_total"] == pytest.approx(total / (~batch.dead).sum(), rel=1e-4)
    assert found["kl_total"] > 1.5 * setting.config.kl_target
    assert setting.learner.settings.kl_coefficient == 2.0 * setting.config.kl_coefficient
    assert rate > 1e-6 or found["kl"] < 1e-6, "the smaller step must be told from the lag"


def test_without_lag_the_penalty_from_beta_is_that_from_the_learner() -> None:
    """To rounding, not to the bit: β's means come from the pass that acted, π_T's from that of the whole phase."""
    pair = [Setting(algorithm=name, lag=1) for name in ("ppo_kl", "none+kl_total")]
    found = [one.learner.optimise(one.batch, one.standardised, 3e-3) for one in pair]
    assert not np.array_equal(pair[0].networks.flat, Setting(lag=1).networks.flat)
    np.testing.assert_allclose(pair[0].networks.flat, pair[1].networks.flat, atol=2e-5)
    assert found[1]["kl_total"] == pytest.approx(found[0]["kl"], rel=1e-3)
    assert np.isnan(found[0]["kl_total"])


def test_only_the_penalty_from_beta_carries_beta_into_minibatches() -> None:
    for algorithm, carried in (("ppo_kl", False), ("none+kl_total", True)):
        setting = Setting(algorithm=algorithm, epochs=1)
        seen = spy_on_steps(setting.learner)
        setting.learner.optimise(setting.batch, setting.standardised, 3e-4)
        assert all((m.behaviour is not None) == carried for whole, small, _, _ in seen for m in (whole, small))


def test_the_clip_sees_the_lag_that_was_measured_before_the_phase() -> None:
    setting = Setting(algorithm="once+centred_clip_lag")
    seen: list[float] = []
    step = setting.learner._step

    def recording(whole: Minibatch, m: Minibatch) -> Any:
        seen.append(setting.learner.settings.backward_lag)
        return step(whole, m)

    setting.learner._step = recording  # type: ignore[method-assign]
    found = setting.learner.optimise(setting.batch, setting.standardised, 3e-3)
    assert set(seen) == {found["backward_lag"]} and found["backward_lag"] > 0.0


@pytest.mark.parametrize("algorithm", ["vaco", "continuous+tv"])
@pytest.mark.parametrize("choice", ["phase", "minibatch", "none", "scale", "learner"])
def test_advantages_are_normalised_over_the_samples_and_by_the_moments_that_were_asked_for(
    choice: str, algorithm: str
) -> None:
    """Against a loop over live samples: of the phase, or of the minibatch where advantages are realigned in it."""
    raw = Setting(algorithm=algorithm, advantage_normalisation="none", minibatches="trajectories", epochs=1)
    got = Setting(algorithm=algorithm, advantage_normalisation=choice, minibatches="trajectories", epochs=1)
    seen = []
    for setting in (raw, got):
        setting.batch.dead[3, 1] = True
        rule, chosen = setting.learner.algorithm.filter.function, setting.learner.algorithm.filter
        views: list[Any] = []

        def spying(samples: Any, settings: Any, rule: Any = rule, views: list[Any] = views) -> Any:
            views.append(samples)
            return rule(samples, settings)

        object.__setattr__(chosen, "function", spying)
        try:
            setting.learner.optimise(setting.batch, setting.standardised, 1e-12)
        finally:
            object.__setattr__(chosen, "function", rule)
        seen.append(views)
    by_phase = choice != "minibatch" and algorithm == "vaco"
    groups = [list(range(len(seen[0])))] if by_phase else [[i] for i in range(len(seen[0]))]
    for group in groups:
        rows = [
            (float(a), float(r), float(w))
            for i in group
            for a, r, w in zip(seen[0][i].advantages, seen[0][i].learner_ratio, seen[0][i].weights, strict=True)
        ]
        measure = [w * (r if choice == "learner" else 1.0) for _, r, w in rows]
        mean = sum(a * m for (a, _, _), m in zip(rows, measure, strict=True)) / sum(measure)
        spread = (sum(m * (a - mean) ** 2 for (a, _, _), m in zip(rows, measure, strict=True)) / sum(measure)) ** 0.5
        mean, spread = {"none": (0.0, 1.0), "scale": (0.0, spread)}.get(choice, (mean, spread))
        wanted = [w * (a - mean) / spread for a, _, w in rows]
        found = [float(a) for i in group for a in seen[1][i].advantages]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_not_to_normalise_returns_the_same_array() -> None:
    advantages, ones = np.arange(3.0), np.ones(3)
    assert normalise_advantages("none", advantages, ones, ones) is advantages


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
