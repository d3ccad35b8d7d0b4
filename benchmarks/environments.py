#!/usr/bin/env python
"""Train on environments that only Gymnasium steps, and put the returns beside what is known of PPO there.

    python benchmarks/environments.py --runs runs/environments --out benchmarks/results

Single runs, seed 0: a check that such environments are learnt at all, no comparison of methods. Environments of
packages that are not installed keep the row that they have in the results. Runs that are there already are read.
Writes environments.json and environments.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from vaco import train
from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.runs.tables import read_json

PLAIN: dict[str, Any] = {"num_envs": 16, "phase_steps": 128, "minibatch": 256, "learning_rate": 1e-3}
PLAIN |= {"learning_rate_decay": False, "eval_points": 8, "eval_episodes": 20}
CARTPOLE = {"env": "CartPole-v1", "steps": 100_000, "num_envs": 8, "phase_steps": 32, "minibatch": 256}
CARTPOLE |= {"learning_rate": 1e-3, "discount": 0.98, "trace_decay": 0.8, "normalise_rewards": False}
CARTPOLE |= {"normalise_observations": False, "eval_points": 8, "eval_episodes": 20}
ACROBOT = PLAIN | {"env": "Acrobot-v1", "steps": 200_000, "epochs": 4}
FROZEN = PLAIN | {"env": "FrozenLake-v1", "steps": 120_000, "normalise_rewards": False, "entropy_coefficient": 0.01}
TAXI = PLAIN | {"env": "Taxi-v4", "steps": 600_000, "epochs": 4, "entropy_coefficient": 0.02}
MINIGRID = {"env": "minigrid:MiniGrid-Empty-5x5-v0", "wrappers": ["minigrid.wrappers:ImgObsWrapper"], "network": "cnn"}
MINIGRID |= {"steps": 40_960, "hidden": [64], "phase_steps": 64, "minibatch": 256, "epochs": 4, "learning_rate": 1e-3}
MINIGRID |= {"entropy_coefficient": 0.02, "normalise_rewards": False, "learning_rate_decay": False, "time_limit": 100}
MINIGRID |= {"eval_points": 5, "eval_episodes": 10}
BALANCE = {"env": "shimmy:dm_control/cartpole-balance-v0", "steps": 60_000, "num_envs": 8, "minibatch": 256}
BALANCE |= {"eval_points": 3, "eval_episodes": 2}
PONG = {"env": "ale_py:ALE/Pong-v5", "env_args": {"frameskip": 1}, "network": "cnn", "num_envs": 4, "phase_steps": 32}
PONG |= {"wrappers": ["AtariPreprocessing", "FrameStackObservation stack_size=4"], "steps": 512, "minibatch": 64}
PONG |= {"epochs": 1, "eval_points": 1, "eval_episodes": 1, "time_limit": 200}
PPO, VACO = {"algorithm": "ppo", "lag": 1}, {"algorithm": "vaco", "lag": 4}


class Case(NamedTuple):
    """A run, the packages whose versions its row names, and what is known there."""

    settings: dict[str, Any]
    packages: tuple[str, ...]
    known: str


ZOO = "RL Baselines3 Zoo"
CASES = {
    "cartpole-ppo": Case(CARTPOLE | PPO, ("gymnasium",), f"500 (PPO, {ZOO})"),
    "cartpole-vaco": Case(CARTPOLE | VACO, ("gymnasium",), f"500 (PPO, {ZOO})"),
    "acrobot-ppo": Case(ACROBOT | PPO, ("gymnasium",), f"−73.5 ± 18.2 (PPO, 1M steps, {ZOO})"),
    "acrobot-vaco": Case(ACROBOT | VACO, ("gymnasium",), f"−73.5 ± 18.2 (PPO, 1M steps, {ZOO})"),
    "frozen-ppo": Case(FROZEN | PPO, ("gymnasium",), "0.70 (solved, says Gymnasium)"),
    "frozen-vaco": Case(FROZEN | VACO, ("gymnasium",), "0.70 (solved, says Gymnasium)"),
    "taxi1": Case(TAXI | PPO, ("gymnasium",), "8 (solved, says Gymnasium)"),
    "minigrid-vaco": Case(MINIGRID | VACO, ("minigrid",), "0.96 (shortest way)"),
    "pong": Case(PONG | {"algorithm": "vaco", "lag": 2}, ("ale-py",), "too short to learn: a check that it runs"),
    "dm": Case(BALANCE | VACO, ("dm_control", "shimmy", "mujoco"), "1000 (greatest); too short to learn"),
}
IMPORTS = {"ale-py": "ale_py"}


def row(name: str, runs: Path) -> dict[str, Any]:
    """Train a case, or read it, and say what came of it."""
    case = CASES[name]
    evals = train(runs / name, seed=0, **case.settings).evals
    manifest = read_json(runs / name / "manifest.json")
    last = evals.tail(max(1, len(evals) // 4))
    return {
        "env": case.settings["env"],
        "algorithm": case.settings["algorithm"],
        "lag": case.settings["lag"],
        "steps": manifest["completed_steps"],
        "first": float(evals["mean"].iloc[0]),
        "last": float(last["mean"].mean()),
        "deterministic": float(last["deterministic_mean"].mean()),
        "known": case.known,
        "versions": {package: version(package) for package in case.packages},
        "cpu": manifest["cpu"],
    }


def render(rows: dict[str, dict[str, Any]]) -> str:
    """The table of the book."""
    lines = ["| environment | method | K | steps | return before | sampled | likeliest | known | with |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for name in CASES:
        if found := rows.get(name):
            returns = " | ".join(f"{found[key]:.2f}" for key in ("first", "last", "deterministic"))
            versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
            lines.append(
                f"| {found['env']} | {found['algorithm']} | {found['lag']} | {found['steps']:,} | {returns} | "
                f"{found['known']} | {versions} |"
            )
    return "\n".join([*lines, "", "Means over the last quarter of the evaluations; one run each, seed 0."]) + "\n"


def main() -> None:
    """Train, and write what came of it."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=path_flag, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="*", choices=[*CASES], default=[*CASES], help="which")
    parser.add_argument("--out", type=path_flag, default=Path(__file__).parent / "out")
    options = parser.parse_args()
    path = options.out / "environments.json"
    rows: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}
    for name in options.only:
        if all(importlib.util.find_spec(IMPORTS.get(package, package)) for package in CASES[name].packages):
            rows[name] = row(name, options.runs)
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (options.out / "environments.md").write_text(render(rows), encoding="utf-8")
    print(render(rows))


if __name__ == "__main__":
    run_command(main)
