"""TorchRL: `VacoLoss`, a loss module with any rule of the table, and `Aligner`, which prepares a rollout for it.

align = Aligner(actor, critic, gamma=0.99, lmbda=0.95)
loss = VacoLoss(actor, critic, rule="vaco")
data = align(collected)                       # [batch, time]; once, before the first gradient step
for minibatch in data.reshape(-1).split(64):
    losses = loss(minibatch)
    (losses["loss_objective"] + losses["loss_critic"]).backward()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives import PPOLoss

from vaco.diagnostics import Diagnostics
from vaco.errors import UserError
from vaco.loss import align, policy_loss
from vaco.objectives.own import own_settings
from vaco.objectives.rules import as_settings, find_rule
from vaco.objectives.table import find_alignment

LEARNER = "learner_log_prob"
UNUSED = ("normalize_advantage_exclude_dims", "advantage_norm", "delay_actor", "max_importance_ratio")
"""Options of `PPOLoss` that change its policy loss in ways that a rule of samples has no place for."""


class VacoLoss(PPOLoss):  # type: ignore[misc]
    """TorchRL's `PPOLoss`, with its critic, entropy bonus and keys, and a rule of `vaco.rules` as the policy loss.

    Attributes:
        diagnostics: of the last call, additive; see `vaco.diagnostics`.
    """

    def __init__(
        self,
        actor_network: Any = None,
        critic_network: Any = None,
        *,
        rule: str = "vaco",
        settings: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        """As `PPOLoss`, and more.

        Args:
            actor_network: as in `PPOLoss`.
            critic_network: as in `PPOLoss`.
            rule: a name of `vaco.rules`.
            settings: the rule's numbers.
            options: further arguments of `PPOLoss`, such as ``normalize_advantage``, and ``reduction`` (``mean`` or
                ``sum``); none of `UNUSED`.

        Raises:
            UserError: an unknown rule or setting, or an option that would have no effect on the rule.
        """
        entry = find_rule(rule)
        for name in UNUSED:
            if options.get(name):
                raise UserError(f"{name} is given, but VacoLoss takes advantages and ratios as they are: leave it out")
        if options.get("reduction") not in (None, "mean", "sum"):
            raise UserError(f"the reduction is {options['reduction']!r}, but VacoLoss can only take 'mean' or 'sum'")
        self.rule, self.settings = entry.name, None if settings is None else dict(settings)
        as_settings(settings, entry)
        super().__init__(actor_network, critic_network, **options)
        self.diagnostics: Diagnostics | None = None

    def _log_weight(self, tensordict: TensorDictBase, adv_shape: torch.Size) -> Any:
        found = super()._log_weight(tensordict, adv_shape)
        self.__dict__["_log_ratio"] = found[0].squeeze(-1)  # log π − log β, of the one forward pass that there is
        return found

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The losses of `PPOLoss`, of which ``loss_objective`` is the rule's.

        Args:
            tensordict: with ``advantage`` and ``value_target``, and ``learner_log_prob`` for rules that read it, as
                `Aligner` writes them; ``staleness`` for rules that read that.

        Raises:
            UserError: something that the rule needs is missing.
        """
        found: TensorDictBase = super().forward(tensordict)
        behaviour = tensordict.get(self.tensor_keys.sample_log_prob).detach()
        advantage = tensordict.get(self.tensor_keys.advantage).detach()
        if self.normalize_advantage and advantage.numel() > 1:  # `PPOLoss` does so on a copy
            advantage = (advantage - advantage.mean()) / advantage.std().clamp_min(1e-6)
        loss, self.diagnostics = policy_loss(
            self.__dict__.pop("_log_ratio") + behaviour,
            behaviour_logp=behaviour,
            learner_logp=tensordict.get(LEARNER, None),
            advantages=advantage.reshape(behaviour.shape),
            staleness=tensordict.get("staleness", None),
            rule=self.rule,
            settings=self.settings,
            denominator=1.0 if self.reduction == "sum" else "samples",
        )
        found.set("loss_objective", loss)
        return found


class Aligner:
    """Writes π_T's log-probabilities, aligned advantages and value targets into a rollout of older policies' data."""

    def __init__(
        self,
        actor: Any,
        critic: Any,
        *,
        gamma: float = 0.99,
        lmbda: float = 0.95,
        alignment: str = "once",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the networks; they are evaluated at every call.

        Args:
            actor: a probabilistic actor, as given to the loss.
            critic: writes ``state_value``.
            gamma: γ.
            lmbda: λ.
            alignment: ``once``, ``none``, or one of another package.
            settings: those that only this alignment has.
        """
        row = find_alignment(alignment)
        own_settings(row.settings, settings or {}, f"the alignment '{alignment}'")
        if row.every_update:
            raise UserError(
                f"the alignment is '{alignment}', but an aligner runs once a rollout: take 'once' or 'none'"
            )
        self.actor, self.critic, self.alignment, self.settings = actor, critic, alignment, settings
        self.gamma, self.lmbda = gamma, lmbda

    @torch.no_grad()
    def __call__(self, rollout: TensorDictBase) -> TensorDictBase:
        """Align a rollout [batch, time], as TorchRL's collectors give it; it is changed in place and returned."""
        following = rollout.get("next")
        values = self.critic(rollout.select(*self.critic.in_keys))["state_value"].squeeze(-1)
        successors = self.critic(following.select(*self.critic.in_keys))["state_value"].squeeze(-1)
        learner = self.actor.get_dist(rollout).log_prob(rollout.get("action"))
        behaviour = rollout.get("action_log_prob", None)
        behaviour = rollout.get("sample_log_prob") if behaviour is None else behaviour

        def flag(name: str) -> Tensor:
            found: Tensor = following.get(name).squeeze(-1)
            return found

        found = align(
            rewards=following.get("reward").squeeze(-1),
            values=values,
            next_values=successors,
            terminated=flag("terminated"),
            truncated=flag("done") & ~flag("terminated"),
            target_logp=learner,
            behaviour_logp=behaviour,
            alignment=self.alignment,
            settings=self.settings,
            discount=self.gamma,
            trace_decay=self.lmbda,
            time_axis=-1,
        )
        rollout.set(LEARNER, learner)
        rollout.set("advantage", found.advantages[..., None])
        rollout.set("value_target", found.value_targets[..., None])
        return rollout
