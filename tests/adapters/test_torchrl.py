"""TorchRL trains with VACO's loss module; skipped where it is not installed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from vaco.errors import UserError

pytest.importorskip("torchrl", reason='needs TorchRL: pip install "vaco[torchrl]"')
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.envs.libs.gym import GymEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import OneHotCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import PPOLoss
from torchrl.objectives.value import GAE

from vaco.adapters.torchrl import Aligner, VacoLoss


def networks() -> tuple[ProbabilisticActor, ValueOperator]:
    torch.manual_seed(0)
    actor = ProbabilisticActor(
        TensorDictModule(nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)), in_keys=["observation"])
    return actor, critic


def rollout(actor: ProbabilisticActor, steps: int = 200, seed: int = 0) -> TensorDictBase:
    env = GymEnv("CartPole-v1")
    env.set_seed(seed)
    torch.manual_seed(seed)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        return env.rollout(steps, actor, break_when_any_done=False)[None]


def test_the_aligner_is_the_librarys_gae_where_there_is_no_lag() -> None:
    actor, critic = networks()
    data = rollout(actor)
    ours = Aligner(actor, critic)(data.clone())
    theirs = GAE(gamma=0.99, lmbda=0.95, value_network=critic)(data.clone())
    assert data["next", "done"].any()
    torch.testing.assert_close(ours["advantage"], theirs["advantage"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours["value_target"], theirs["value_target"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("normalise", [False, True])
def test_without_a_filter_it_is_the_librarys_own_loss(reduction: str, normalise: bool) -> None:
    options: dict[str, Any] = {"reduction": reduction, "normalize_advantage": normalise}
    actor, critic = networks()
    data = Aligner(actor, critic)(rollout(actor)).reshape(-1)
    with torch.no_grad():
        for p in actor.parameters():
            p += 0.1 * torch.randn_like(p)
    ours, theirs = VacoLoss(actor, critic, rule="none", **options), PPOLoss(actor, critic, **options)
    before = data["advantage"].clone()
    for name in ("loss_objective", "loss_critic", "loss_entropy"):
        torch.testing.assert_close(ours(data)[name], theirs(data)[name])
    assert torch.equal(data["advantage"], before)
    gradients = [torch.autograd.grad(f(data)["loss_objective"], list(actor.parameters())) for f in (ours, theirs)]
    # Each module holds the actor's parameters itself.
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("rule", "phases"), [("vaco", 16), ("ppo", 2), ("spo", 2)])
def test_it_trains(rule: str, phases: int) -> None:
    actor, critic = networks()
    loss, aligner = VacoLoss(actor, critic, rule=rule, entropy_coeff=0.0), Aligner(actor, critic)
    optimizer = torch.optim.Adam(loss.parameters(), 3e-3)
    old = copy.deepcopy(actor)
    lengths = []
    for phase in range(phases):
        data = rollout(old, 384, seed=phase)  # the policy of a phase ago: a backward lag
        old = copy.deepcopy(actor)
        lengths.append(384 / max(int(data["next", "done"].sum()), 1))
        flat = aligner(data).reshape(-1)
        flat["advantage"] = (flat["advantage"] - flat["advantage"].mean()) / flat["advantage"].std()
        for _ in range(4):
            for minibatch in flat[torch.randperm(len(flat))].split(128):
                losses = loss(minibatch)
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"]).backward()
                optimizer.step()
    assert loss.diagnostics is not None and loss.diagnostics.figures()["backward_lag"] > 0
    assert not torch.equal(next(old.parameters()), next(actor.parameters()))
    if phases > 10:
        assert sum(lengths[-4:]) > 1.5 * sum(lengths[:4]), lengths


def test_bad_input_is_one_sentence() -> None:
    actor, critic = networks()
    with pytest.raises(UserError, match="did you mean 'vaco'"):
        VacoLoss(actor, critic, rule="vacoo")
    with pytest.raises(UserError, match="take 'once' or 'none'"):
        Aligner(actor, critic, alignment="continuous")
    with pytest.raises(UserError, match="the reduction is 'none', but VacoLoss can only take 'mean' or 'sum'"):
        VacoLoss(actor, critic, reduction="none")
    unused: dict[str, Any] = {"normalize_advantage_exclude_dims": (-1,), "delay_actor": True}
    for name, value in unused.items():
        with pytest.raises(UserError, match=f"{name} is given, but VacoLoss takes"):
            VacoLoss(actor, critic, **{name: value})
    data = rollout(actor).reshape(-1)
    data["advantage"] = data["value_target"] = torch.zeros(len(data), 1)
    with pytest.raises(UserError, match="give learner_logp"):
        VacoLoss(actor, critic)(data)
