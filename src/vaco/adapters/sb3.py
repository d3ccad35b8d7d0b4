"""`VacoPPO`: Stable-Baselines3's PPO with any rule of the table, aligned advantages, and policy lag on demand.

    from vaco.adapters.sb3 import VacoPPO
    model = VacoPPO("MlpPolicy", "Pendulum-v1", rule="vaco", lag=8).learn(100_000)

Everything else (policies, callbacks, saving, logging, schedules) is Stable-Baselines3's own; what the rule did is in
its log under ``vaco/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer

from vaco.diagnostics import Diagnostics
from vaco.errors import UserError
from vaco.lag import PolicyBuffer
from vaco.loss import align, policy_loss
from vaco.objectives.own import own_settings
from vaco.objectives.rules import as_settings, find_rule
from vaco.objectives.table import find_alignment


class VacoPPO(PPO):  # type: ignore[misc]
    """PPO of Stable-Baselines3 whose loss is a rule of `vaco.rules` and whose advantages are aligned.

    The environments' actors run together on one policy of the buffer a rollout, drawn uniformly from the `lag` newest:
    Stable-Baselines3 evaluates one policy for all environments. Its ``clip_range`` is not used: the rule's numbers are
    in `settings`.
    """

    def __init__(
        self,
        policy: Any,
        env: Any,
        *args: Any,
        rule: str = "vaco",
        alignment: str = "once",
        settings: Mapping[str, float] | None = None,
        alignment_settings: Mapping[str, Any] | None = None,
        lag: int = 1,
        **options: Any,
    ) -> None:
        """As `PPO`, and more.

        Args:
            policy: as in `PPO`.
            env: as in `PPO`.
            args: further arguments of `PPO` by position.
            rule: a name of `vaco.rules`.
            alignment: ``once`` (V-trace towards the policy as it is when optimisation begins), ``none`` (GAE), or one
                of another package.
            settings: the rule's numbers, such as ``{"delta": 0.1}``.
            alignment_settings: those that only this alignment has.
            lag: K, policies from which each rollout's is drawn; 1 is Stable-Baselines3 as it is.
            options: further arguments of `PPO` by name.

        Raises:
            UserError: an unknown rule, alignment or setting, or one that this trainer cannot serve.
        """
        entry = find_rule(rule)
        if entry.whole_sequences:
            raise UserError(
                f"the rule '{rule}' looks at whole sequences, but minibatches here are shuffled transitions"
            )
        row = find_alignment(alignment)
        if row.every_update:
            raise UserError(
                f"the alignment is '{alignment}', but Stable-Baselines3's shuffled minibatches allow 'once' or 'none'"
            )
        as_settings(settings, entry)
        own_settings(row.settings, alignment_settings or {}, f"the alignment '{alignment}'")
        self.alignment_settings = alignment_settings
        self.rule, self.alignment, self.settings = rule, alignment, None if settings is None else dict(settings)
        self.lag = lag
        self.diagnostics: Diagnostics | None = None  # of the last phase, additive
        self._phase, self._age = 0, 0
        super().__init__(policy, env, *args, **options)

    def _setup_model(self) -> None:
        """Make what is not saved; `load` calls this once the saved lag and seed are there."""
        super()._setup_model()
        self._snapshots: PolicyBuffer[tuple[int, dict[str, torch.Tensor]]] = PolicyBuffer(self.lag)
        # The seed's own stream, so that lag = 1 leaves every other draw as it was.
        self._assignment = np.random.default_rng(np.random.SeedSequence((self.seed or 0, 5)))

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_snapshots", "_assignment", "_cut", "diagnostics"]

    def collect_rollouts(self, env: Any, callback: Any, rollout_buffer: RolloutBuffer, n_rollout_steps: int) -> bool:
        """Collect with a buffered policy, then put the learner back and evaluate it on what was collected."""
        newest = {name: tensor.detach().clone() for name, tensor in self.policy.state_dict().items()}
        self._snapshots.push((self._phase, newest))
        ((phase, drawn),), _ = self._snapshots.assign(1, self._assignment)
        self._age, self._phase = self._phase - phase, self._phase + 1
        self._cut: list[tuple[int, int, np.ndarray[Any, Any]]] = []  # step, environment, last observation
        if self._age:
            self.policy.load_state_dict(drawn)
        try:
            going_on: bool = super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
            stale = self._values_where_cut()
        finally:
            if self._age:
                self.policy.load_state_dict(newest)
        if going_on:
            steps, actors = [step for step, _, _ in self._cut], [actor for _, actor, _ in self._cut]
            rollout_buffer.rewards[steps, actors] += self.gamma * (self._values_where_cut() - stale)
            self._align(rollout_buffer)
        return going_on

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray[Any, Any] | None = None) -> None:
        """Note where a time limit is about to be bootstrapped with an older critic: all the rest is the learner's."""
        super()._update_info_buffer(infos, dones)
        if self._age and dones is not None:
            for actor in np.flatnonzero(dones):
                last = infos[actor].get("terminal_observation")
                if last is not None and infos[actor].get("TimeLimit.truncated", False):
                    self._cut.append((self.rollout_buffer.pos, int(actor), last))

    @torch.no_grad()
    def _values_where_cut(self) -> np.ndarray[Any, Any]:
        """V of the observations at time limits by the policy as it is now, [N]."""
        if not self._cut:
            return np.zeros(0, np.float32)
        last, _ = self.policy.obs_to_tensor(np.stack([observation for _, _, observation in self._cut]))
        return self.policy.predict_values(last).flatten().cpu().numpy()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _align(self, buffer: RolloutBuffer) -> None:
        """Evaluate π_T on the rollout; put its values, advantages and value targets into the buffer."""
        flat = (
            [buffer.swap_and_flatten(x) for x in (buffer.observations, buffer.actions)]
            if not isinstance(buffer.observations, dict)
            else None
        )
        if flat is None:
            raise UserError("VacoPPO reads one observation array, but this environment gives a dict: flatten it")
        self.policy.set_training_mode(False)
        observations, actions = (torch.as_tensor(x, device=self.device) for x in flat)
        values, logp, _ = self.policy.evaluate_actions(observations, self._actions(actions))
        shape = buffer.rewards.shape[::-1]  # flattened actor by actor, in order of time

        def back(x: torch.Tensor) -> np.ndarray[Any, Any]:
            return x.reshape(shape).T.cpu().numpy()

        behaviour = np.array(buffer.log_probs)
        self._learner_logp = torch.as_tensor(logp.flatten())
        learned = back(values)
        last = torch.as_tensor(self._last_obs, device=self.device)
        final = self.policy.predict_values(last.float() if last.is_floating_point() else last)
        following = np.concatenate([learned[1:], final.cpu().numpy().reshape(1, -1)])
        # γV of a time limit's successor is in the reward, so that every end is terminal here.
        ended = np.concatenate([buffer.episode_starts[1:], np.asarray(self._last_episode_starts)[None]]).astype(bool)
        found = align(
            rewards=torch.as_tensor(buffer.rewards),
            values=torch.as_tensor(learned),
            next_values=torch.as_tensor(following),
            terminated=torch.as_tensor(ended),
            target_logp=torch.as_tensor(back(logp)),
            behaviour_logp=torch.as_tensor(behaviour),
            alignment=self.alignment,
            settings=self.alignment_settings,
            discount=self.gamma,
            trace_decay=self.gae_lambda,
        )
        buffer.values, buffer.advantages = learned, found.advantages.numpy()
        buffer.returns = found.value_targets.numpy()

    def _actions(self, stored: torch.Tensor) -> torch.Tensor:
        """A buffer's actions [N, A] as a policy takes them: whole numbers [N] of a discrete space, else float32.

        A `MultiBinary` space has an ``n``, too, but a policy that takes all its places, and no integers.
        """
        return stored.long().flatten() if isinstance(self.action_space, spaces.Discrete) else stored.float()

    def train(self) -> None:
        """One optimisation phase: Stable-Baselines3's own loop, with the rule's loss."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        buffer, total, losses = self.rollout_buffer, None, []
        size = buffer.buffer_size * buffer.n_envs
        flat: dict[str, torch.Tensor] = {}
        names = ("observations", "actions", "log_probs", "advantages", "returns")
        for name in names:
            x = getattr(buffer, name)
            flat[name] = torch.as_tensor(
                x if buffer.generator_ready else buffer.swap_and_flatten(x), device=self.device
            )
        flat["actions"] = self._actions(flat["actions"])
        behaviour, advantages = flat["log_probs"].flatten(), flat["advantages"].flatten()
        if self.normalize_advantage:  # once, before the filter: centring changes signs, and signs are what it reads
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        learner = self._learner_logp.to(self.device)
        ages = torch.full_like(behaviour, float(self._age))
        for _ in range(self.n_epochs):
            for rows in torch.split(torch.randperm(size).to(self.device), self.batch_size):
                values, logp, entropy = self.policy.evaluate_actions(flat["observations"][rows], flat["actions"][rows])
                loss, diagnostics = policy_loss(
                    logp,
                    behaviour_logp=behaviour[rows],
                    learner_logp=learner[rows],
                    advantages=advantages[rows],
                    staleness=ages[rows],
                    rule=self.rule,
                    settings=self.settings,
                )
                value_loss = torch.nn.functional.mse_loss(flat["returns"].flatten()[rows], values.flatten())
                bonus = -logp.mean() if entropy is None else entropy.mean()
                self.policy.optimizer.zero_grad()
                (loss - self.ent_coef * bonus + self.vf_coef * value_loss).backward()
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
                total = diagnostics if total is None else total + diagnostics
                losses.append((loss.detach(), value_loss.detach()))
            self._n_updates += 1
        assert total is not None
        self.diagnostics = total
        for name, value in total.figures().items():
            self.logger.record(f"vaco/{name}", value)
        policy, value = (float(torch.stack(x).mean()) for x in zip(*losses, strict=True))
        self.logger.record("train/policy_gradient_loss", policy)
        self.logger.record("train/value_loss", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", torch.exp(self.policy.log_std).mean().item())
