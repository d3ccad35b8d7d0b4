"""VACO in one file: asynchronous on-policy learning of continuous control, on CPU, with simulated asynchrony.

    python vaco_single_file.py --env Hopper-v5 --lag 8 --seed 0

Needs torch, numpy and gymnasium[mujoco], and nothing of the package `vaco`, whose trainer makes the same phases; a test
holds the two together. Every phase:

1. Collect: each actor runs a policy drawn at random from the `lag` newest (β; its log-probabilities are kept).
2. Align, once: V-trace estimates the advantages of the learner π_T, as it is now, from data of older policies.
3. Filter, at every gradient step: where mean|π/β − π_T/β| over the minibatch exceeds δ, the samples whose gradient
   would raise it further are dropped. All others keep π/β · A.
"""

import argparse
import copy
import dataclasses
import math

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn


@dataclasses.dataclass
class Args:
    env: str = "HalfCheetah-v5"
    lag: int = 8  # K: policies in the buffer from which actors draw; 1 is synchronous
    seed: int = 0
    steps: int = 1_000_000  # environment steps
    num_envs: int = 16
    phase_steps: int = 128  # steps of each actor per phase
    epochs: int = 10
    minibatch: int = 512
    learning_rate: float = 3e-4  # decays linearly to zero
    discount: float = 0.99
    trace_decay: float = 0.95
    rho_bar: float = 1.0  # truncation of V-trace's ratios
    delta: float = 0.2  # threshold of the filter
    value_coefficient: float = 0.5
    max_grad_norm: float = 0.5
    hidden: int = 64
    clip: float = 10.0  # of standardised observations and scaled rewards


class Statistics(nn.Module):
    """Running mean and variance in float64, merged a batch at a time (Chan et al. 1979)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        if not len(x):
            return
        x = x.double()
        n, mean, variance = len(x), x.mean(0), x.var(0, correction=0)
        total, shift = self.count + n, mean - self.mean
        spread = self.variance * self.count + variance * n + shift**2 * self.count * n / total
        self.mean, self.variance, self.count = self.mean + shift * n / total, spread / total, total


def mlp(inputs: int, hidden: int, outputs: int, gain: float) -> nn.Sequential:
    """Two tanh layers with orthogonal weights."""
    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    for layer, g in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, g)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


class Agent(nn.Module):
    """Gaussian policy and value function. A copy is a snapshot: the observation statistics are part of the policy."""

    def __init__(self, observation_size: int, action_size: int, hidden: int, clip: float) -> None:
        super().__init__()
        self.actor = mlp(observation_size, hidden, action_size, 0.01)
        self.critic = mlp(observation_size, hidden, 1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(action_size))
        self.statistics, self.clip = Statistics(observation_size), clip

    def standardise(self, observations: Tensor) -> Tensor:
        scale = (1.0 / (self.statistics.variance + 1e-8).sqrt()).float()
        return ((observations - self.statistics.mean.float()) * scale).clamp(-self.clip, self.clip)

    def logp(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """Joint log-density of whole actions, in float64: near −20, float32 is off by 1e-6 and blurs ratios of 1."""
        log_std = self.log_std.double()
        score = (actions.double() - self.actor(inputs).double()) * torch.exp(-log_std)
        return -0.5 * score.square().sum(-1) - log_std.sum() - 0.5 * actions.shape[-1] * math.log(2 * math.pi)

    def value(self, inputs: Tensor) -> Tensor:
        return self.critic(inputs).squeeze(-1)


def vtrace(rewards, values, terminated, truncated, dead, ratio, args: Args) -> tuple[Tensor, Tensor]:
    """Advantages and value targets of π_T; everything [T, E], `values` [T + 1, E] (Espeholt et al. 2018, with λ)."""
    advantages, targets = torch.zeros_like(rewards), values[:-1].clone()
    following = torch.zeros_like(rewards[0])  # v(s_{t+1}) − V(s_{t+1})
    for t in reversed(range(len(rewards))):
        bootstrap = torch.where(terminated[t], 0.0, values[t + 1])
        delta = rewards[t] + args.discount * bootstrap - values[t]
        beyond = torch.where(terminated[t] | truncated[t], 0.0, following)
        advantage = delta + args.discount * args.trace_decay * beyond
        following = torch.where(dead[t], 0.0, ratio[t].clamp(max=args.rho_bar) * advantage)
        advantages[t] = torch.where(dead[t], 0.0, advantage)
        targets[t] += following
    return advantages, targets


def vaco_loss(logp, behaviour_logp, learner_logp, advantages, live, delta: float) -> Tensor:
    """The filter. `live` is 0 where there is no sample; the mean's denominator counts dropped samples too."""
    ratio = (logp - behaviour_logp).clamp(-20, 20).exp()  # π/β
    with torch.no_grad():
        learner_ratio = (learner_logp - behaviour_logp).clamp(-20, 20).exp()  # π_T/β
        deviation = ratio - learner_ratio
        triggered = (live * deviation.abs()).sum() / live.sum().clamp(min=1) > delta  # twice the total variation
        outward = advantages * deviation.sign() > 0  # its own gradient would raise |deviation|
        keep = live * ~(triggered & outward)
    return -(keep * ratio * advantages).sum() / live.sum().clamp(min=1)


def scale_rewards(batch: dict[str, Tensor], returns: Tensor, statistics: Statistics, args: Args) -> Tensor:
    """Divide rewards by the standard deviation of the discounted returns so far; `returns` [E] is carried over."""
    history = torch.empty_like(batch["rewards"])
    for t, reward in enumerate(batch["rewards"]):
        returns.mul_(args.discount).add_(reward)
        history[t] = returns
        returns[batch["terminated"][t] | batch["truncated"][t]] = 0.0
    statistics.update(history[~batch["dead"]][:, None])
    return (batch["rewards"] / (statistics.variance + 1e-8).sqrt()).clamp(-args.clip, args.clip)


def optimise(agent: Agent, optimizer, batch: dict[str, Tensor], rewards: Tensor, args: Args, shuffle) -> dict:
    """One phase: align once, then filter at every gradient step."""
    steps, actors = rewards.shape
    flat = {name: x.reshape(steps * actors, *x.shape[2:]) for name, x in batch.items() if name != "observations"}
    inputs = agent.standardise(batch["observations"])
    with torch.no_grad():  # π_T and its values, frozen for the phase
        learner_logp = agent.logp(inputs[:-1], batch["actions"])
        ratio = (learner_logp - batch["behaviour_logp"]).clamp(-20, 20).exp()
        values = agent.value(inputs).double()
        flags = (batch["terminated"], batch["truncated"], batch["dead"])
        advantages, targets = vtrace(rewards, values, *flags, ratio, args)
        live = (~flat["dead"]).double()
        mean = (live * advantages.flatten()).sum() / live.sum()
        centred = live * (advantages.flatten() - mean)
        advantages = centred / (centred.square().sum() / live.sum()).sqrt().clamp(min=1e-8)
    inputs, learner_logp, targets = inputs[:-1].flatten(0, 1), learner_logp.flatten(), targets.flatten()
    for _ in range(args.epochs):
        order = torch.from_numpy(shuffle.permutation(steps * actors))
        for m in order.split(args.minibatch):
            logp = agent.logp(inputs[m], flat["actions"][m])
            loss = vaco_loss(logp, flat["behaviour_logp"][m], learner_logp[m], advantages[m], live[m], args.delta)
            error = agent.value(inputs[m]) - targets[m]
            value_loss = 0.5 * (live[m] * error.square()).sum() / live[m].sum().clamp(min=1)
            optimizer.zero_grad()
            (loss + args.value_coefficient * value_loss).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
    with torch.no_grad():
        moved = (agent.logp(inputs, flat["actions"]) - flat["behaviour_logp"]).clamp(-20, 20).exp()
        return {
            "backward_lag": 0.5 * (live * (ratio.flatten() - 1).abs()).sum().item() / live.sum().item(),
            "forward_lag": 0.5 * (live * (moved - ratio.flatten()).abs()).sum().item() / live.sum().item(),
        }


@torch.no_grad()
def collect(envs, observation, ended, buffer: list[Agent], args: Args, generator) -> tuple[dict[str, Tensor], tuple]:
    """T steps of all actors, each with a policy of the buffer; the step after an episode's end only resets: dead."""
    chosen = generator.integers(len(buffer), size=args.num_envs)
    names = ("observations", "actions", "behaviour_logp", "rewards", "terminated", "truncated", "dead")
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for _ in range(args.phase_steps):
        x, noise = torch.as_tensor(observation, dtype=torch.float32), generator.standard_normal
        action, logp = torch.empty(args.num_envs, *envs.single_action_space.shape), torch.empty(args.num_envs).double()
        for which in np.unique(chosen):
            policy, mine = buffer[which], torch.from_numpy(chosen == which)
            inputs = policy.standardise(x[mine])
            mean = policy.actor(inputs)
            action[mine] = mean + policy.log_std.exp() * torch.as_tensor(noise(mean.shape), dtype=torch.float32)
            logp[mine] = policy.logp(inputs, action[mine])
        low, high = envs.single_action_space.low, envs.single_action_space.high
        observation, reward, terminated, truncated, _ = envs.step(np.clip(action.numpy(), low, high))
        found = (x, action, logp, torch.as_tensor(reward), *map(torch.as_tensor, (terminated, truncated, ended)))
        for name, value in zip(names, found, strict=True):
            rows[name].append(value)
        ended = terminated | truncated
    rows["observations"].append(torch.as_tensor(observation, dtype=torch.float32))
    return {name: torch.stack(row) for name, row in rows.items()}, (observation, ended)


def main(args: Args) -> None:
    torch.manual_seed(args.seed)
    generator = np.random.default_rng(args.seed)
    envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(args.env)] * args.num_envs)  # resets at the next step
    sizes = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    agent, scaler = Agent(*sizes, args.hidden, args.clip), Statistics(1)
    optimizer = torch.optim.Adam(agent.parameters(), args.learning_rate, eps=1e-5)
    returns = torch.zeros(args.num_envs, dtype=torch.float64)
    state = envs.reset(seed=args.seed)[0], np.zeros(args.num_envs, dtype=bool)
    buffer, running = [copy.deepcopy(agent)], np.zeros(args.num_envs)
    per_phase = args.num_envs * args.phase_steps
    for phase in range(args.steps // per_phase):
        batch, state = collect(envs, *state, buffer, args, generator)
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - phase * per_phase / args.steps)
        lags = optimise(agent, optimizer, batch, scale_rewards(batch, returns, scaler, args), args, generator)
        agent.statistics.update(batch["observations"][:-1].flatten(0, 1))
        buffer = [*buffer, copy.deepcopy(agent)][-args.lag :]
        finished = []
        for reward, ended in zip(
            batch["rewards"].numpy(), (batch["terminated"] | batch["truncated"]).numpy(), strict=True
        ):
            running += reward
            finished += running[ended].tolist()
            running[ended] = 0.0
        score = f"return {np.mean(finished):9.2f}" if finished else "return         -"
        print(f"step {(phase + 1) * per_phase:8d}  {score}  " + "  ".join(f"{k} {v:.4f}" for k, v in lags.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in dataclasses.fields(Args):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    main(Args(**vars(parser.parse_args())))
