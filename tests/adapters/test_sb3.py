"""Stable-Baselines3 trains with VACO; skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaco.diagnostics import Diagnostics
from vaco.errors import UserError
from vaco.loss import policy_loss

pytest.importorskip("stable_baselines3", reason='needs Stable-Baselines3: pip install "vaco[sb3]"')
import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from vaco.adapters import sb3
from vaco.adapters.sb3 import VacoPPO

QUIET: dict[str, Any] = {"verbose": 0, "seed": 0, "device": "cpu"}


def one_phase(env: Any, **options: Any) -> tuple[PPO, VacoPPO]:
    """The library's PPO and ours after one phase on one rollout; in one minibatch, which has no order."""
    whole = {"n_steps": 64, "batch_size": 256, "n_epochs": 10, "learning_rate": 3e-3, **QUIET, **options}
    theirs = PPO("MlpPolicy", make_vec_env(env, 4, seed=0), **whole).learn(256)
    ours = VacoPPO("MlpPolicy", make_vec_env(env, 4, seed=0), rule="ppo", **whole).learn(256)
    for x, y in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)
    return theirs, ours


def small(**options: Any) -> VacoPPO:
    env = make_vec_env("CartPole-v1", 4, seed=0)
    return VacoPPO("MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=4, **QUIET, **options)


def test_as_ppo_on_policy_it_aligns_to_what_the_library_computes() -> None:
    """Without lag V-trace is GAE, so advantages and value targets are Stable-Baselines3's own."""
    env = make_vec_env("CartPole-v1", 4, seed=0)
    theirs = PPO("MlpPolicy", env, n_steps=64, batch_size=64, **QUIET)
    ours = small()
    for model in (theirs, ours):
        model.set_random_seed(1)
        _, callback = model._setup_learn(256, None)
        model.env.seed(3)
        model._last_obs = model.env.reset()
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 64)
    a, b = theirs.rollout_buffer, ours.rollout_buffer
    assert (a.actions == b.actions).all() and a.episode_starts[1:].any()
    torch.testing.assert_close(torch.as_tensor(b.advantages), torch.as_tensor(a.advantages), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.as_tensor(b.returns), torch.as_tensor(a.returns), rtol=1e-4, atol=1e-4)


class TimeLimits(BaseCallback):  # type: ignore[misc]
    """Notes of every step the rewards as they came, and the last observation of every episode that was cut."""

    def _on_rollout_start(self) -> None:
        self.rewards: list[np.ndarray[Any, Any]] = []
        self.last: list[tuple[int, int, np.ndarray[Any, Any]]] = []

    def _on_step(self) -> bool:
        for actor, info in enumerate(self.locals["infos"]):
            if info["TimeLimit.truncated"]:
                self.last.append((len(self.rewards), actor, info["terminal_observation"]))
        self.rewards.append(self.locals["rewards"].copy())
        return True


def test_time_limits_are_bootstrapped_with_the_learners_critic_at_any_age() -> None:
    env = make_vec_env("Pendulum-v1", 2, seed=0, env_kwargs={"max_episode_steps": 20})
    model = VacoPPO("MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=4, lag=4, learning_rate=3e-3, **QUIET)
    limits, ages = TimeLimits(), []
    _, callback = model._setup_learn(1024, limits)
    for _ in range(6):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 64)
        wanted = np.stack(limits.rewards)
        assert limits.last
        with torch.no_grad():
            for step, actor, observation in limits.last:
                value = model.policy.predict_values(torch.as_tensor(observation)[None])
                wanted[step, actor] += model.gamma * float(value)
        np.testing.assert_allclose(model.rollout_buffer.rewards, wanted, rtol=1e-5, atol=1e-5)
        ages.append(model._age)
        model.train()
    assert 0 in ages and max(ages) > 1


@pytest.mark.parametrize(
    "options", [{}, {"clip_range_vf": 0.05}, {"target_kl": 0.003}, {"target_kl": 0.003, "clip_range_vf": 0.05}]
)
def test_without_lag_its_ppo_is_the_librarys(options: dict[str, Any]) -> None:
    theirs, ours = one_phase("CartPole-v1", **options)
    assert ours._n_updates == theirs._n_updates, "epochs begun"
    assert (ours._n_updates < 10) == ("target_kl" in options)
    logged = [model.logger.name_to_value["train/value_loss"] for model in (theirs, ours)]
    assert logged[1] == pytest.approx(logged[0], rel=0.01)


def test_the_lag_of_the_data_is_no_reason_to_stop_a_phase() -> None:
    model = small(rule="none", target_kl=1e-6, lag=4)
    lags, steps = [], []
    for _ in range(6):
        before = model._steps
        model.learn(256, reset_num_timesteps=False)
        steps.append(model._steps - before)
        lags.append(model.logger.name_to_value["vaco/backward_lag"])
    assert max(lags) > 1e-3 and steps == [1] * 6, "π has moved after one step, and not before"


def spied(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the loss was given, call by call."""
    calls: list[dict[str, Any]] = []

    def spy(logp: torch.Tensor, **given: Any) -> Any:
        calls.append(given)
        return policy_loss(logp, **given)

    monkeypatch.setattr(sb3, "policy_loss", spy)
    return calls


@pytest.mark.parametrize("rule", ["geppo", "centred_clip_lag", "mdpo"])
def test_a_rule_is_told_of_the_phase(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch)
    model, ages, lags = small(rule=rule, lag=8, learning_rate=3e-3), [], []

    def note(total: Diagnostics, _: list[float]) -> None:
        ages.append(model._age)
        lags.append(total.figures()["backward_lag"])

    monkeypatch.setattr(model, "_log", note)
    model.learn(8 * 256)
    told = [call["settings"].filter for call in calls[::16]]
    assert [numbers.mean_age for numbers in told] == ages and max(ages) > 1
    assert [numbers.progress for numbers in told] == [phase / 8 for phase in range(8)]
    assert [numbers.backward_lag for numbers in told] == pytest.approx(lags, rel=1e-3, abs=1e-6)
    assert all((lag > 1e-4) == (age > 0) for lag, age in zip(lags, ages, strict=True))


def test_what_a_user_says_of_the_phase_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch)
    small(rule="mdpo", settings={"progress": 0.5, "filter.step": 2.0}).learn(512)
    assert {call["settings"].filter.progress for call in calls} == {0.5}
    assert calls[0]["settings"].filter.own.step == 2.0


@pytest.mark.parametrize("rule", ["a3po", "a3po_rounds", "a3po_train_steps", "vaco"])
def test_staleness_is_in_the_unit_of_the_rules_name(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch)
    model, ages = small(rule=rule, lag=3), []
    monkeypatch.setattr(model, "_log", lambda *_: ages.append(model._age))
    model.learn(5 * 256)
    found = np.array([float(call["staleness"].unique()) for call in calls]).reshape(5, 16)
    age, step = np.array(ages)[:, None], np.arange(16)
    wanted = {"a3po": 16 * age + step, "a3po_rounds": age + 1, "a3po_train_steps": np.maximum(age, 1), "vaco": age}
    assert max(ages) > 0
    np.testing.assert_array_equal(found, np.broadcast_to(wanted[rule], (5, 16)))


def test_a3po_of_rounds_is_ppo_without_lag() -> None:
    models = [small(rule=rule, learning_rate=3e-3).learn(1024) for rule in ("ppo", "a3po_rounds")]
    for x, y in zip(*(model.policy.parameters() for model in models), strict=True):
        torch.testing.assert_close(x, y)
    assert models[1].logger.name_to_value["vaco/kept_fraction"] < 1


class Switches(gymnasium.Env):
    """Three switches, each rewarded for being on."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.MultiBinary(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 10
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(2, np.float32), float(np.sum(action)), self.left == 0, False, {}


@pytest.mark.parametrize("switches", [3, 1])
def test_switches_are_actions_as_in_ppo(switches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Switches, "action_space", gymnasium.spaces.MultiBinary(switches))
    one_phase(Switches)


@pytest.mark.parametrize("rule", ["vaco", "ppo", "spo", "decoupled", "geppo", "a3po"])
def test_it_trains_by_every_kind_of_rule(rule: str) -> None:
    model = small(rule=rule, lag=3)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(1024)
    assert any(not torch.equal(x, y) for x, y in zip(before, model.policy.parameters(), strict=True))
    logged = model.logger.name_to_value
    assert logged["vaco/kept_fraction"] > 0 and logged["vaco/samples"] == 4 * 256
    assert logged["vaco/nonfinite"] == 0


def test_a_rule_and_an_alignment_of_ones_own_train() -> None:
    from dataclasses import dataclass

    from vaco.objectives.align import ALIGNMENTS, vtrace
    from vaco.objectives.align import register as register_alignment
    from vaco.objectives.filters import FILTERS, Filtered, register

    @dataclass(frozen=True)
    class Half:
        factor: float = 0.5

    @register("halved_for_this_test", "c = fρA", settings=Half)
    def halved(x: Any, settings: Any) -> Filtered:
        kept = torch.ones_like(x.ratio, dtype=torch.bool)
        nothing = x.ratio.new_tensor(float("nan"))
        return Filtered(settings.own.factor * x.ratio * x.advantages, kept, nothing, nothing > 0)

    @register_alignment("scaled_for_this_test", "A: f · V-trace", settings=Half)
    def scaled(*, own: Half, **given: Any) -> Any:
        found = vtrace(**given)
        return found._replace(advantages=own.factor * found.advantages)

    try:
        own = {"rule": "halved_for_this_test", "alignment": "scaled_for_this_test"}
        model = small(**own, settings={"filter.factor": 0.25}, alignment_settings={"factor": 2.0}, lag=2)
        model.learn(512)
        assert model.diagnostics is not None and model.diagnostics.figures()["kept_fraction"] == 1.0
        with pytest.raises(UserError, match="has no setting 'facto': did you mean 'factor'"):
            small(**own, settings={"filter.facto": 0.25})
        with pytest.raises(UserError, match="the alignment 'once' has no settings of its own, but factor was given"):
            small(alignment_settings={"factor": 2.0})
    finally:
        del FILTERS["halved_for_this_test"], ALIGNMENTS["scaled_for_this_test"]


def test_lag_is_measured_and_continuous_actions_work() -> None:
    env = make_vec_env("Pendulum-v1", 2, seed=0)
    model = VacoPPO("MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=4, lag=4, learning_rate=3e-3, **QUIET)
    lags, ages = [], []
    for _ in range(6):
        model.learn(128, reset_num_timesteps=False)
        lags.append(model.logger.name_to_value["vaco/backward_lag"])
        ages.append(model._age)
    assert max(ages) > 0
    assert all((lag > 1e-4) == (age > 0) for lag, age in zip(lags, ages, strict=True)), (lags, ages)


def test_it_learns_cartpole() -> None:
    env = make_vec_env("CartPole-v1", 8, seed=0)
    model = VacoPPO(
        "MlpPolicy", env, n_steps=64, batch_size=128, n_epochs=10, learning_rate=1e-3, gae_lambda=0.9, lag=2, **QUIET
    )
    start = evaluate_policy(model, make_vec_env("CartPole-v1", 1, seed=9), n_eval_episodes=10)[0]
    model.learn(45_000)
    end = evaluate_policy(model, make_vec_env("CartPole-v1", 1, seed=9), n_eval_episodes=10)[0]
    assert end > max(400, start)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = small(rule="vaco", settings={"delta": 0.1}, lag=4).learn(512)
    model.save(tmp_path / "model")
    found = VacoPPO.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 4, seed=0))
    assert found.rule == "vaco" and found.settings == {"delta": 0.1}
    assert found.lag == 4
    found.learn(512 * 6)
    assert len(found._snapshots) == 4, "the buffer has the saved capacity"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "vacoo"}, "did you mean 'vaco'"),
        ({"rule": "vaco_sequence"}, "whole sequences"),
        ({"alignment": "continuous"}, "allow 'once' or 'none'"),
        ({"alignment": "twice"}, "there is no alignment 'twice'"),
        ({"settings": {"delta": 0}}, "must be above 0"),
        ({"lag": 0}, "at least 1"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**options)
