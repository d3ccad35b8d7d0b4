"""Is our synchronous PPO the one that others have? Stable-Baselines3's with the same settings, beside the archive's.

    python benchmarks/like_for_like.py                              what is missing of 3 tasks x 5 seeds, and compare
    python benchmarks/like_for_like.py --tasks Hopper-v5 --seeds 0

Stable-Baselines3 trains on Gymnasium's own environments with the desk tier's settings of `ppo` at K = 1, one file of
--out a run. `comparison.json` and `comparison.md` set final returns (means of the last quarter of 20 evaluations of 5
stochastic episodes) and areas under the curve beside those of results/desk/archive, with Welch's 95 % interval of the
difference. What still differs: random streams; Stable-Baselines3 updates its observation statistics at every step, ours
once a phase; it standardises advantages by minibatch, ours by phase; after a time limit it adds the discounted value of
the last state to the last reward, where ours bootstraps. Needs `pip install -e '.[benchmarks]'`.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np
from scipy import stats

from vaco.archive import Archive
from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.report.tables.stats import area_under_curve, final_points
from vaco.runs.atomic import write_bytes
from vaco.runs.config import RunConfig, build

TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
SEEDS = (0, 1, 2, 3, 4)
ARCHIVE = Path("results/desk/archive")


def configuration(task: str, seed: int) -> RunConfig:
    """The desk tier's synchronous PPO."""
    return build({"env": task, "algorithm": "ppo", "seed": seed})


def settings(config: RunConfig) -> dict[str, Any]:
    """Our settings as arguments of `stable_baselines3.PPO`.

    The value loss is ½(V − v)² here and (V − v)² there, hence half the coefficient; the step size decays to 0 in both.
    """
    import torch

    hidden = list(config.hidden)
    return {
        "n_steps": config.phase_steps,
        "batch_size": config.minibatch,
        "n_epochs": config.epochs,
        "learning_rate": lambda left: left * config.learning_rate,
        "gamma": config.discount,
        "gae_lambda": config.trace_decay,
        "clip_range": config.clip,
        "ent_coef": config.entropy_coefficient,
        "vf_coef": config.value_coefficient / 2,
        "max_grad_norm": config.max_grad_norm,
        "policy_kwargs": {
            "net_arch": {"pi": hidden, "vf": hidden},
            "activation_fn": torch.nn.Tanh,
            "log_std_init": config.initial_log_std,
            "optimizer_kwargs": {"eps": config.adam_epsilon},
        },
    }


def train(config: RunConfig) -> dict[str, Any]:
    """Train once, and evaluate as our runs are.

    Returns:
        `steps` and `mean`, [21] environment steps and mean returns of the stochastic policy at each point.
    """
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize, sync_envs_normalization

    torch.set_num_threads(1)
    common = {"clip_obs": config.observation_clip, "gamma": config.discount}
    env = VecNormalize(
        make_vec_env(config.env, n_envs=config.num_envs, seed=config.seed), clip_reward=config.reward_clip, **common
    )
    apart = int(np.random.SeedSequence((config.seed, 1)).generate_state(1)[0] >> 1)
    judged = VecNormalize(
        make_vec_env(config.env, n_envs=config.eval_episodes, seed=apart), training=False, norm_reward=False, **common
    )
    due = [round(point * config.steps / config.eval_points) for point in range(config.eval_points + 1)]
    found: dict[str, list[float]] = {"steps": [], "mean": []}

    class Evaluations(BaseCallback):
        def _on_rollout_start(self) -> None:
            if len(found["steps"]) < len(due) and self.num_timesteps >= due[len(found["steps"])]:
                sync_envs_normalization(env, judged)
                returns, _ = evaluate_policy(
                    self.model, judged, config.eval_episodes, deterministic=False, return_episode_rewards=True
                )
                found["steps"].append(self.num_timesteps)
                found["mean"].append(float(np.mean(returns)))

        def _on_training_end(self) -> None:
            self._on_rollout_start()

        def _on_step(self) -> bool:
            return True

    model = PPO("MlpPolicy", env, seed=config.seed, device="cpu", **settings(config))
    model.learn(config.steps, callback=Evaluations())
    return found


def ours(archive: Archive, task: str) -> list[dict[str, float]]:
    """Final return and area under the curve of the archive's runs with the same settings, a seed each."""
    found = []
    for seed in SEEDS:
        entry = archive.entries[str(configuration(task, seed).run_id)]
        evals = entry.table("evals").to_pandas()
        found.append(measures(evals["env_steps"].to_numpy(), evals["mean"].to_numpy()))
    return found


def measures(steps: Any, means: Any) -> dict[str, float]:
    """The two numbers that a run is judged by."""
    return {"final": float(np.mean(means[-final_points(len(means) - 1) :])), "auc": area_under_curve(steps, means)}


def compared(theirs: list[float], own: list[float]) -> dict[str, Any]:
    """Means, and the difference theirs − ours with Welch's 95 % interval."""
    result = stats.ttest_ind(theirs, own, equal_var=False)
    interval = result.confidence_interval(0.95)
    return {
        "theirs": float(np.mean(theirs)),
        "ours": float(np.mean(own)),
        "difference": float(np.mean(theirs) - np.mean(own)),
        "low": float(interval.low),
        "high": float(interval.high),
        "seeds": [len(theirs), len(own)],
    }


def compare(out: Path) -> dict[str, Any]:
    """All finished runs beside the archive's."""
    archive, tasks = Archive(ARCHIVE), {}
    for task in TASKS:
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob(f"{task}-*.json"))]
        theirs = [measures(np.array(run["steps"]), np.array(run["mean"])) for run in runs]
        own = ours(archive, task)
        if len(theirs) > 1 and len(own) > 1:
            tasks[task] = {m: compared([t[m] for t in theirs], [o[m] for o in own]) for m in ("final", "auc")}
    return {"stable_baselines3": version("stable-baselines3"), "archive": archive.digest, "tasks": tasks}


def table(found: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    lines = [
        f"| task | measure | Stable-Baselines3 {found['stable_baselines3']} | ours | difference | seeds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for task, measured in found["tasks"].items():
        for measure, row in measured.items():
            name = {"final": "final return", "auc": "area under the curve"}[measure]
            reach = f"{row['difference']:+.0f} [{row['low']:+.0f}, {row['high']:+.0f}]"
            seeds = " and ".join(map(str, row["seeds"]))
            lines.append(f"| {task} | {name} | {row['theirs']:.0f} | {row['ours']:.0f} | {reach} | {seeds} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=path_flag, default=Path("benchmarks/out/like_for_like"), help="folder of the results"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        for task in given.tasks:
            path = given.out / f"{task}-{seed}.json"
            if not path.exists():
                print(f"training Stable-Baselines3's PPO on {task}, seed {seed}", flush=True)
                write_bytes(path, json.dumps(train(configuration(task, seed))).encode())
    found = compare(given.out)
    write_bytes(given.out / "comparison.json", (json.dumps(found, indent=1) + "\n").encode())
    (given.out / "comparison.md").write_text(table(found), encoding="utf-8")
    print(table(found), end="")
    return 0


if __name__ == "__main__":
    run_command(main)
