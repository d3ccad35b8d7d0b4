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
from vaco.loss import LOG_RATIO_LIMIT, align, policy_loss
from vaco.objectives.divergence import sampled_total_variation
from vaco.objectives.own import own_settings
from vaco.objectives.rules import as_settings, find_rule
from vaco.objectives.table import find_alignment
from vaco.objectives.tokens import TokenSettings, parse_token_algorithm


class VacoPPO(PPO):  # type: ignore[misc]
    """PPO of Stable-Baselines3 whose loss is a rule of `vaco.rules` and whose advantages are aligned.

    The environments' actors run together on one policy of the buffer a rollout, drawn uniformly from the `lag` newest:
    Stable-Baselines3 evaluates one policy for all environments. Its ``clip_range`` is not used: the rule's numbers are
    in `settings`. ``clip_range_vf`` is that of `PPO`, around π_T's values; ``target_kl`` is compared with KL(π_T‖π), so
    that the lag of the data does not end a phase before it has begun; without lag both are what they are in `PPO`.

    A rule that reads the phase is told of it: the age of the rollout's policy in rollouts, its backward lag, and the
    share of ``total_timesteps`` that was over before the rollout, counted as for Stable-Baselines3's schedules. A rule
    that reads staleness is given it in the unit of its name (`tokens.UNITS`; a round, or train step, is a rollout).
    Under ``a3po`` d counts gradient steps, of which a phase makes many, so that it clips next to nothing; under
    ``a3po_rounds`` d is 1 without lag, and the rule PPO's clip.
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
            settings: the rule's numbers, such as ``{"delta": 0.1}``; of ``mean_age``, ``backward_lag`` and ``progress``
                those that are not among them are measured.
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
        self._steps, self._drawn_steps = 0, 0  # gradient steps made, and those that the rollout's policy had seen
        super().__init__(policy, env, *args, **options)

    def _setup_model(self) -> None:
        """Make what is not saved; `load` calls this once the saved lag and seed are there."""
        super()._setup_model()
        self._snapshots: PolicyBuffer[tuple[int, int, dict[str, torch.Tensor]]] = PolicyBuffer(self.lag)
        # The seed's own stream, so that lag = 1 leaves every other draw as it was.
        self._assignment = np.random.default_rng(np.random.SeedSequence((self.seed or 0, 5)))

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_snapshots", "_assignment", "_cut", "diagnostics"]

    def collect_rollouts(self, env: Any, callback: Any, rollout_buffer: RolloutBuffer, n_rollout_steps: int) -> bool:
        """Collect with a buffered policy, then put the learner back and evaluate it on what was collected."""
        newest = {name: tensor.detach().clone() for name, tensor in self.policy.state_dict().items()}
        self._snapshots.push((self._phase, self._steps, newest))
        ((phase, self._drawn_steps, drawn),), _ = self._snapshots.assign(1, self._assignment)
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

    def _transitions(self) -> dict[str, torch.Tensor]:
        """The rollout's transitions, each [N, ...], environment by environment, with π_T's log-probabilities."""
        buffer = self.rollout_buffer
        flat: dict[str, torch.Tensor] = {}
        for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
            x = getattr(buffer, name)
            flat[name] = torch.as_tensor(
                x if buffer.generator_ready else buffer.swap_and_flatten(x), device=self.device
            )
        flat["actions"] = self._actions(flat["actions"])
        for name in ("values", "log_probs", "advantages", "returns"):
            flat[name] = flat[name].flatten()
        if self.normalize_advantage:  # once, before the filter: centring changes signs, and signs are what it reads
            advantages = flat["advantages"]
            flat["advantages"] = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return flat | {"learner": self._learner_logp.to(self.device)}

    def _numbers(self, learner_ratio: torch.Tensor) -> TokenSettings:
        """The rule's numbers, with what it may want to know of the phase; ρ_T [N]."""
        before = self.num_timesteps - learner_ratio.numel()
        facts = {
            "mean_age": float(self._age),
            "backward_lag": float(sampled_total_variation(learner_ratio)),
            "progress": before / self._total_timesteps,
        }
        return as_settings(facts | (self.settings or {}), find_rule(self.rule))

    def _staleness(self) -> int:
        """The next gradient step's d, in the unit of the rule's name; rollouts where the rule does not read it."""
        if not find_rule(self.rule).needs_staleness:
            return self._age
        unit = parse_token_algorithm(self.rule).unit
        if unit == "steps":
            return self._steps - self._drawn_steps
        return self._age + 1 if unit == "rounds" else max(self._age, 1)

    def train(self) -> None:
        """One optimisation phase: Stable-Baselines3's own loop, with the rule's loss."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        flat, total, losses, far = self._transitions(), None, [], False
        learner_ratio = (flat["learner"] - flat["log_probs"]).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
        numbers, flat["learner_ratio"] = self._numbers(learner_ratio), learner_ratio
        for _ in range(self.n_epochs):
            for rows in torch.split(torch.randperm(learner_ratio.numel()).to(self.device), self.batch_size):
                part = {name: x[rows] for name, x in flat.items()}
                values, logp, entropy = self.policy.evaluate_actions(part["observations"], part["actions"])
                loss, diagnostics = policy_loss(
                    logp,
                    behaviour_logp=part["log_probs"],
                    learner_logp=part["learner"],
                    advantages=part["advantages"],
                    staleness=torch.full_like(part["log_probs"], float(self._staleness())),
                    rule=self.rule,
                    settings=numbers,
                )
                value_loss = torch.nn.functional.mse_loss(part["returns"], self._clipped(values.flatten(), part))
                bonus = -logp.mean() if entropy is None else entropy.mean()
                total = diagnostics if total is None else total + diagnostics
                losses.append(torch.stack([loss.detach(), value_loss.detach()]))
                far = self.target_kl is not None and _kl_from_learner(logp.detach(), part) > 1.5 * self.target_kl
                if far:
                    break
                self.policy.optimizer.zero_grad()
                (loss - self.ent_coef * bonus + self.vf_coef * value_loss).backward()
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()
                self._steps += 1
            self._n_updates += 1
            if far:
                break
        assert total is not None
        self.diagnostics = total
        self._log(total, torch.stack(losses).mean(0).tolist())

    def _clipped(self, values: torch.Tensor, part: dict[str, torch.Tensor]) -> torch.Tensor:
        """V held within ``clip_range_vf`` of π_T's, both [N]."""
        if self.clip_range_vf is None:
            return values
        limit = self.clip_range_vf(self._current_progress_remaining)
        return part["values"] + (values - part["values"]).clamp(-limit, limit)

    def _log(self, total: Diagnostics, means: list[float]) -> None:
        for name, value in total.figures().items():
            self.logger.record(f"vaco/{name}", value)
        for name, value in zip(("policy_gradient_loss", "value_loss"), means, strict=True):
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", torch.exp(self.policy.log_std).mean().item())


def _kl_from_learner(logp: torch.Tensor, part: dict[str, torch.Tensor]) -> float:
    """KL(π_T‖π): Stable-Baselines3's estimate u − 1 − log u, u = π/π_T, weighted for actions that are β's."""
    moved = (logp - part["learner"]).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return float((part["learner_ratio"] * (moved.exp() - 1.0 - moved)).mean())
