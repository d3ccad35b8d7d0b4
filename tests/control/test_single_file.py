"""The single-file example makes the trainer's own phases."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_learner import Setting

from vaco.control.networks import ActorCritic

FILE = Path(__file__).parents[2] / "examples" / "vaco_single_file.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("vaco_single_file", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


example = load()


def copied(networks: ActorCritic, clip: float) -> Any:
    """The example's agent with the trainer's parameters."""
    agent = example.Agent(networks.observation_size, networks.action_size, networks.hidden[0], clip)
    p = {name: torch.from_numpy(x.copy()) for name, x in networks.parameters.items()}
    with torch.no_grad():
        for index, (stack, head) in enumerate(((agent.actor, "actor"), (agent.critic, "critic"))):
            for layer in range(2):
                stack[2 * layer].weight.copy_(p[f"hidden.{layer}.weight"][index].T)
                stack[2 * layer].bias.copy_(p[f"hidden.{layer}.bias"][index, 0])
            stack[4].weight.copy_(p[f"{head}.weight"].T)
            stack[4].bias.copy_(p[f"{head}.bias"])
        agent.log_std.copy_(p["log_std"])
    return agent


def flat(agent: Any, like: ActorCritic) -> np.ndarray:
    """The agent's parameters in the trainer's order."""
    found = ActorCritic(like.observation_size, like.action_size, like.hidden)
    for index, (stack, head) in enumerate(((agent.actor, "actor"), (agent.critic, "critic"))):
        for layer in range(2):
            found.parameters[f"hidden.{layer}.weight"][index] = stack[2 * layer].weight.detach().T
            found.parameters[f"hidden.{layer}.bias"][index, 0] = stack[2 * layer].bias.detach()
        found.parameters[f"{head}.weight"][:] = stack[4].weight.detach().T
        found.parameters[f"{head}.bias"][:] = stack[4].bias.detach()
    found.parameters["log_std"][:] = agent.log_std.detach()
    return found.flat


@pytest.mark.parametrize("delta", [0.02, 0.2])
def test_a_phase_ends_where_the_trainers_does(delta: float) -> None:
    setting = Setting(lag=4, delta=delta, epochs=3)
    config, batch = setting.config, setting.batch
    assert batch.dead.any() and (batch.terminated | batch.truncated).any()
    args = example.Args(
        num_envs=config.num_envs, phase_steps=config.phase_steps, epochs=config.epochs, minibatch=config.minibatch,
        delta=delta,
    )  # fmt: skip
    agent = copied(setting.networks, args.clip)
    names = ("observations", "actions", "behaviour_logp", "rewards", "terminated", "truncated", "dead")
    given = {name: torch.from_numpy(getattr(batch, name)) for name in names}
    optimizer = torch.optim.Adam(agent.parameters(), 1e-3, eps=config.adam_epsilon)
    before = setting.networks.flat.copy()
    diagnostics = setting.learner.optimise(batch, setting.standardised, 1e-3)
    assert (diagnostics["trigger_fraction"] > 0) == (delta == 0.02), "the test must see both sides of the trigger"
    scaled = example.scale_rewards(given, torch.zeros(args.num_envs).double(), example.Statistics(1), args)
    lags = example.optimise(agent, optimizer, given, scaled, args, np.random.default_rng(2))
    moved = np.abs(setting.networks.flat - before).max()
    assert moved > 1e-3
    np.testing.assert_allclose(flat(agent, setting.networks), setting.networks.flat, rtol=0, atol=2e-3 * moved)
    for name, value in lags.items():
        assert value == pytest.approx(diagnostics[name], rel=1e-3)


def test_it_runs_by_itself() -> None:
    options = ["--env", "Hopper-v5", "--steps", "1024", "--num-envs", "4", "--phase-steps", "64", "--minibatch", "128"]
    code = f"import sys, runpy; sys.modules['vaco'] = None; runpy.run_path({str(FILE)!r}, run_name='__main__')"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *options, "--lag", "3", "--epochs", "2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4 and all("forward_lag" in line for line in lines)
    assert "backward_lag 0.0000" in lines[0] and "backward_lag 0.0000" not in lines[-1]
