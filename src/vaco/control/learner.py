"""One optimisation phase: align, then many minibatches of forward, filter, backward, Adam.

No loss is ever differentiated. Each sample's coefficient c comes from the algorithm's filter, the policy objective's
gradient is mean cᵢ ∇log π(aᵢ|sᵢ), and ∇log π is written out in `distributions`; the value loss and, where asked
for, the KL penalty and the entropy bonus join the same backward pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaco.control.acting import Networks
from vaco.control.adam import Adam
from vaco.control.collect import Batch
from vaco.control.gaussian import Doubles, Floats
from vaco.control.minibatch import Minibatch, Policies, Trajectories
from vaco.control.moving_average import MovingAverage
from vaco.control.scaling import RewardScaler, normalise_advantages
from vaco.errors import UserError
from vaco.objectives import divergence
from vaco.objectives.filters import adapt_kl_coefficient, adapt_step_size
from vaco.runs.config import RunConfig

LOG_RATIO_LIMIT = 20.0  # e^20 is beyond any useful ratio, and keeps float32 gradients finite


class Step(NamedTuple):
    """Diagnostics of one gradient step."""

    kept_fraction: float
    clip_fraction: float
    tv_statistic: float
    policy_loss: float
    value_loss: float
    grad_norm: float
    triggered: bool


class Proximal(NamedTuple):
    """A policy in the place of π_T, on some transitions."""

    ratio: Doubles  # of it and β
    outputs: Floats
    log_std: Floats

    def of(self, m: Minibatch) -> Minibatch:
        """The transitions, with this policy as what filters compare with."""
        return m._replace(learner_ratio=self.ratio, outputs=self.outputs)


class Learner:
    """The networks, their optimizer, and one method that runs a phase."""

    def __init__(self, config: RunConfig, networks: Networks, shuffle: np.random.Generator) -> None:
        """Prepare the optimizer.

        Args:
            config: the run's configuration.
            networks: initialised networks, trained in place.
            shuffle: generator of the order of samples.
        """
        self.config, self.networks, self.shuffle = config, networks, shuffle
        self.distribution = networks.distribution
        self.algorithm, self.settings = config.parsed, config.filter_settings
        self.align_settings = config.align_own
        self.scaler = RewardScaler(config.num_envs, config.discount, config.reward_clip)
        self.optimizer = Adam(len(networks.flat), config.adam_epsilon)
        self.learning_rate = config.learning_rate
        self.step_factor = 1.0  # of the step size, where it adapts
        self.learner_log_std: Floats = networks.parameters["log_std"].copy()  # of π_T
        decay = config.proximal_decay
        self.average = MovingAverage(decay, networks.flat) if decay else None
        self.pooled = 1  # phases whose data the update takes
        self.align_seconds = 0.0

    def optimise(
        self, batch: Batch, standardised: Floats, learning_rate: float, progress: float = 0.0
    ) -> dict[str, float]:
        """Run one optimisation phase.

        Args:
            batch: the phase's data, with those of earlier phases where they are used again.
            standardised: its observations under the learner's normaliser, [T + 1, E, O].
            learning_rate: Adam's step size for this phase, unless it adapts.
            progress: share of the training that was done before.

        Returns:
            The diagnostics of the phase, by the column names of ``phases.parquet``.

        Raises:
            UserError: the gradient is not finite; the networks are then not to be saved.
        """
        started, self.align_seconds = time.perf_counter(), 0.0
        ages = batch.ages if batch.weights is None else batch.ages * batch.weights
        self.settings = replace(self.settings, mean_age=float(ages.mean()), progress=progress)
        self.learning_rate = learning_rate * self.step_factor
        self.pooled = 1 if batch.newest is None else batch.rewards.shape[1] // batch.newest.rewards.shape[1]
        self.learner_log_std = self.networks.parameters["log_std"].copy()
        rewards = self.scaler.scale(batch) if self.config.normalise_rewards else batch.rewards
        whole, values = self._prepare(
            batch, Trajectories(rewards, batch.terminated, batch.truncated, batch.dead), standardised
        )
        diagnostics = _backward_lag(whole, values)
        self.settings = replace(self.settings, backward_lag=diagnostics["backward_lag"])
        steps = [self._step(whole, minibatch) for minibatch in self._minibatches(whole)]
        diagnostics |= self._forward_lag(whole)
        penalty = self.algorithm.filter.penalty
        if penalty is not None and self.config.kl_adaptive:
            measured = diagnostics["kl" if penalty == "learner" else "kl_total"]
            b = adapt_kl_coefficient(self.settings.kl_coefficient, measured, self.config.kl_target)
            self.settings = replace(self.settings, kl_coefficient=b)
        if self.config.learning_rate_adaptive:
            clip = self.settings.clip / (1.0 + self.settings.mean_age)
            self.step_factor = adapt_step_size(self.step_factor, diagnostics["forward_lag"], clip)
        fired = np.array([step.triggered for step in steps])
        means = np.array([step[:-1] for step in steps]).mean(0).tolist()
        return {
            **diagnostics,
            **dict(zip(Step._fields, means, strict=False)),
            "trigger_fraction": float(fired.mean()),
            "trigger_flips": float((fired[1:] != fired[:-1]).mean()) if len(fired) > 1 else 0.0,
            "learning_rate": self.learning_rate,
            "align_seconds": self.align_seconds,
            "update_seconds": time.perf_counter() - started - self.align_seconds,
        }

    def _prepare(self, batch: Batch, trajectories: Trajectories, standardised: Floats) -> tuple[Minibatch, Doubles]:
        """Evaluate the learner π_T on the whole phase and estimate its advantages.

        Returns:
            All T·E transitions in order of time, then actor; and π_T's V(s) for each of them.
        """
        steps, actors = batch.rewards.shape
        size = steps * actors
        inputs = standardised.reshape(-1, standardised.shape[-1])
        actions, behaviour_logp = batch.actions.reshape(size, -1), batch.behaviour_logp.reshape(size)
        outputs, values = self.networks.predict(inputs)
        logp = self.distribution.density(actions, outputs[:size], self.learner_log_std).logp
        learner_ratio = _ratio(logp=logp, behaviour_logp=behaviour_logp)
        live = (~batch.dead).astype(np.float64)
        weights = (live if batch.weights is None else live * batch.weights).reshape(size)
        if self.config.entropy_reward:
            entropies = self.distribution.entropies(outputs[:size], self.learner_log_std).reshape(steps, actors)
            trajectories = trajectories._replace(rewards=trajectories.rewards + self.config.entropy_reward * entropies)
        ratio = None if self.algorithm.align.target is None else learner_ratio
        advantages, targets = self._align(trajectories, values, ratio)
        if self.config.advantage_normalisation != "minibatch":
            choice = self.config.advantage_normalisation
            advantages = normalise_advantages(choice, advantages, learner_ratio, weights)
        whole = Minibatch(
            inputs=inputs,
            actions=actions,
            outputs=outputs[:size],
            behaviour_logp=behaviour_logp,
            learner_ratio=learner_ratio,
            advantages=advantages,
            targets=targets,
            weights=weights,
            trajectories=trajectories,
            behaviour=Policies.of_behaviour(batch) if self.algorithm.filter.penalty == "behaviour" else None,
        )
        return whole, values[:size].astype(np.float64)

    def _align(self, on: Trajectories, values: Floats, ratio: Doubles | None) -> tuple[Doubles, Doubles]:
        """Advantages and value targets of whole trajectories, each flat [T·e]; GAE where `ratio` is None.

        `values` holds V of every step and of the last successors, [(T + 1)·e].
        """
        started, shape = time.perf_counter(), on.rewards.shape
        v = torch.from_numpy(values.astype(np.float64)).reshape(-1, shape[1])
        aligned = self.algorithm.align.estimate(
            self.align_settings,
            rewards=torch.from_numpy(on.rewards),
            values=v[:-1],
            next_values=v[1:],
            terminated=torch.from_numpy(on.terminated),
            truncated=torch.from_numpy(on.truncated),
            dead=torch.from_numpy(on.dead),
            ratio=None if ratio is None else torch.from_numpy(ratio.reshape(shape)),
            discount=self.config.discount,
            trace_decay=self.config.trace_decay,
            rho_bar=self.config.rho_bar,
            c_bar=self.config.c_bar,
        )
        self.align_seconds += time.perf_counter() - started
        return aligned.advantages.numpy().reshape(-1), aligned.value_targets.numpy().reshape(-1)

    def _minibatches(self, whole: Minibatch) -> Iterator[Minibatch]:
        """Cut each epoch's reshuffled transitions, or whole trajectories, into minibatches."""
        assert whole.trajectories is not None
        steps, actors = whole.trajectories.rewards.shape
        rows = np.arange((steps + 1) * actors).reshape(steps + 1, actors)
        each = self.config.minibatch * self.pooled
        for _ in range(self.config.epochs):
            if self.config.whole_trajectories:
                for chosen in self.shuffle.permutation(actors).reshape(-1, each // steps):
                    with_successors = whole.inputs[rows[:, chosen].reshape(-1)]
                    minibatch = whole.take(rows[:steps, chosen].reshape(-1))
                    yield minibatch._replace(inputs=with_successors, trajectories=whole.trajectories.of(chosen))
            else:
                shuffled = whole.take(self.shuffle.permutation(steps * actors))
                for start in range(0, steps * actors, each):
                    yield shuffled.take(slice(start, start + each))

    def _step(self, whole: Minibatch, m: Minibatch) -> Step:
        """One gradient step: forward, align if continuous, filter, backward, Adam."""
        trigger = self._phase_statistic(whole)
        proximal = self._proximal(m)
        networks, size = self.networks, len(m.actions)
        outputs, value = networks.forward(m.inputs)
        log_std = networks.parameters["log_std"]
        logp, score = self.distribution.density(m.actions, outputs[:size], log_std)
        ratio = _ratio(logp=logp, behaviour_logp=m.behaviour_logp)
        m = self._realign(m, value, ratio)
        m, old_log_std = (m, self.learner_log_std) if proximal is None else (proximal.of(m), proximal.log_std)
        verdict = self.algorithm.filter.function(m.samples(ratio)._replace(statistic=trigger), self.settings)
        share = m.weights / max(m.weights.sum(), 1.0)  # of the full minibatch: dropping must not renormalise
        coefficient = share * verdict.coefficient.numpy()
        error = value[:size] - m.targets
        d_outputs, d_value = np.zeros_like(outputs), np.zeros_like(value)
        ascent = self.distribution.gradient(score, log_std, coefficient)
        d_outputs[:size], d_log_std = -ascent.outputs, -ascent.spread
        if self.config.entropy_coefficient:
            bonus = self.distribution.entropy_gradient(outputs[:size], log_std, share)
            d_log_std = d_log_std - self.config.entropy_coefficient * bonus.spread
            d_outputs[:size] -= self.config.entropy_coefficient * bonus.outputs
        if verdict.kl_weight:
            old = Policies(m.outputs, old_log_std) if m.behaviour is None else m.behaviour
            pull = self.distribution.kl_gradient(outputs[:size], log_std, old.outputs, old.log_std, share)
            d_outputs[:size] += verdict.kl_weight * pull.outputs
            d_log_std = d_log_std + verdict.kl_weight * pull.spread
        d_value[:size] = self.config.value_coefficient * share * error
        networks.backward(d_outputs, d_value, d_log_std.astype(np.float32))
        grad_norm = self._clip_gradient()
        self.optimizer.step(networks.flat, networks.gradient, self.learning_rate)
        if self.average is not None:
            self.average.update(networks.flat)
        return Step(
            kept_fraction=float(share @ verdict.kept.numpy()),
            clip_fraction=float(share @ (np.abs(ratio - 1.0) > self.config.clip)),
            tv_statistic=float(verdict.statistic),
            policy_loss=-float(coefficient.sum()),
            value_loss=0.5 * float(share @ error**2),
            grad_norm=grad_norm,
            triggered=bool(verdict.triggered),
        )

    def _realign(self, m: Minibatch, value: Floats, ratio: Doubles) -> Minibatch:
        """Advantages for this step: V-trace towards the current policy if continuous, else those of the phase."""
        advantages, targets = m.advantages, m.targets
        if self.algorithm.align.every_update:
            assert m.trajectories is not None
            advantages, targets = self._align(m.trajectories, value, ratio)
        elif self.config.advantage_normalisation != "minibatch":
            return m
        choice = self.config.advantage_normalisation
        advantages = normalise_advantages(choice, advantages, m.learner_ratio, m.weights)
        return m._replace(advantages=advantages, targets=targets)

    def _phase_statistic(self, whole: Minibatch) -> torch.Tensor | None:
        """The trigger's statistic on the whole phase under the current policy, where the trigger asks for it."""
        statistic = self.algorithm.filter.statistic
        if self.config.trigger == "minibatch" or statistic is None:
            return None
        proximal = self._proximal(whole)
        seen = whole if proximal is None else proximal.of(whole)
        return statistic(seen.samples(self._current_ratio(whole)[0]))

    def _proximal(self, m: Minibatch) -> Proximal | None:
        """The moving average on these transitions, which filters then take for π_T; None where there is none.

        To be asked for before the forward pass, whose activations it writes over.
        """
        if self.average is None:
            return None
        with self.average.in_place_of(self.networks):
            outputs = self.networks.predict(m.inputs[: len(m.actions)])[0].copy()
            log_std = self.networks.parameters["log_std"].copy()
        logp = self.distribution.density(m.actions, outputs, log_std).logp
        return Proximal(_ratio(logp=logp, behaviour_logp=m.behaviour_logp), outputs, log_std)

    def _current_ratio(self, whole: Minibatch) -> tuple[Doubles, Floats]:
        """ρ = π/β and the actor's outputs of the current policy on the whole phase."""
        outputs = self.networks.predict(whole.inputs[: len(whole.actions)])[0]
        logp = self.distribution.density(whole.actions, outputs, self.networks.parameters["log_std"]).logp
        return _ratio(logp=logp, behaviour_logp=whole.behaviour_logp), outputs

    def _clip_gradient(self) -> float:
        """Scale the gradient down to the norm limit and return its norm before."""
        gradient = self.networks.gradient
        norm = math.sqrt(float(gradient @ gradient))
        if not math.isfinite(norm):
            raise UserError("the gradient is no longer finite: lower learning_rate or clip the ratios harder")
        if norm > self.config.max_grad_norm:
            gradient *= self.config.max_grad_norm / norm
        return norm

    def _forward_lag(self, whole: Minibatch) -> dict[str, float]:
        """How far the phase has moved the policy, measured after its last step."""
        ratio, outputs = self._current_ratio(whole)
        log_std = self.networks.parameters["log_std"]
        rho, weights = torch.from_numpy(ratio), torch.from_numpy(whole.weights)

        def mean_kl(old: Policies) -> float:
            kl = self.distribution.kl(old.outputs, old.log_std, outputs, log_std)
            return float(divergence.weighted_mean(kl, weights))

        return {
            "forward_lag": float(
                divergence.sampled_total_variation(rho, torch.from_numpy(whole.learner_ratio), weights)
            ),
            "tv_after": float(divergence.sampled_total_variation(rho, 1.0, weights)),
            "kl": mean_kl(Policies(whole.outputs, self.learner_log_std)),
            "kl_total": math.nan if whole.behaviour is None else mean_kl(whole.behaviour),
            "ess": float(divergence.effective_sample_size(rho, weights)),
            "entropy": self.distribution.entropy(outputs, log_std, whole.weights),
        }

    def state(self) -> dict[str, NDArray[Any]]:
        """What a bitwise continuation needs, the generator apart; the arrays are the learner's own, not copies."""
        more: dict[str, NDArray[Any]] = {} if self.average is None else self.average.state()
        if self.config.learning_rate_adaptive:
            more["step_factor"] = np.array(self.step_factor)
        return {
            **more,
            "parameters": self.networks.flat,
            "adam.mean": self.optimizer.mean,
            "adam.square": self.optimizer.square,
            "adam.steps": np.array(self.optimizer.steps),
            "reward.returns": self.scaler.returns,
            "reward.statistics": self.scaler.statistics.state(),
            "kl_coefficient": np.array(self.settings.kl_coefficient),
        }

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore what `state` returned."""
        self.networks.flat[:] = state["parameters"]
        self.optimizer.mean[:] = state["adam.mean"]
        self.optimizer.square[:] = state["adam.square"]
        self.optimizer.steps = int(state["adam.steps"])
        self.scaler.returns[:] = state["reward.returns"]
        self.scaler.statistics.set_state(state["reward.statistics"])
        self.settings = replace(self.settings, kl_coefficient=float(state["kl_coefficient"]))
        if self.average is not None:
            self.average.set_state(state)
        if self.config.learning_rate_adaptive:
            self.step_factor = float(state["step_factor"])


def _ratio(*, logp: Doubles, behaviour_logp: Doubles) -> Doubles:
    """exp(logp − behaviour_logp), held within e^±20."""
    return np.exp(np.clip(logp - behaviour_logp, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def _backward_lag(whole: Minibatch, values: Doubles) -> dict[str, float]:
    """What the phase started from: the lag of its data, and how much of the targets the critic explained."""
    weights = torch.from_numpy(whole.weights)
    lag = float(divergence.sampled_total_variation(torch.from_numpy(whole.learner_ratio), 1.0, weights))
    live = whole.weights > 0
    targets = whole.targets[live]
    unexplained = np.var(targets - values[live]) / max(float(np.var(targets)), 1e-12) if live.any() else np.nan
    return {"backward_lag": lag, "tv_before": lag, "explained_variance": float(1.0 - unexplained)}
