"""Would an off-policy method simply be better? sbx's SAC on two tasks, beside the archive's on-policy runs.

    python benchmarks/off_policy.py --seeds 0                trains what is missing, and compares
    python benchmarks/off_policy.py --compare                compares what is there

SAC has the settings it comes with and 10,000 random steps before the first update, as the RL Zoo trains it; one update
a step, a replay buffer of a million. It is evaluated as our runs are, 20 times 5 episodes of the stochastic policy. A
run is one file of --runs. `off_policy.json` and `off_policy.md` in --out set its return after 300,000 steps beside that
of PPO at K = 1 and of VACO in the archive at as many of their own 1M steps, then theirs at the end beside SAC's at the
same second. Seconds include evaluations; the archive's runs were trained two at a time. Needs `pip install sbx-rl`.

What SAC's replay shares with policy lag: both learn from data of older policies. What it does not: SAC's critic is
learnt from single transitions, whatever policy made them, so age by itself asks for no correction; an on-policy
gradient weighs or drops what a policy other than the present one did.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np

from vaco.archive import Archive
from vaco.command import Parser, run_command
from vaco.errors import UserError
from vaco.paths import path_flag
from vaco.report.tables.stats import final_points
from vaco.runs.atomic import write_bytes
from vaco.runs.config import build
from vaco.runs.tables import read_json

TASKS = ("HalfCheetah-v5", "Hopper-v5")
STEPS, RANDOM, POINTS, EPISODES = 300_000, 10_000, 20, 5
OURS = {"PPO, K = 1": ("ppo", 1), "VACO (π_T), K = 1": ("vaco", 1), "VACO (π_T), K = 16": ("vaco", 16)}
OURS |= {"VACO (π_T), K = 64": ("vaco", 64)}
ARCHIVE, SEEDS = Path("results/desk/archive"), range(5)
ZOO = "https://github.com/DLR-RM/rl-baselines3-zoo/blob/0088472b8cb622732bdbc4aa3d0d0abde86c67ed/benchmark.md"
TIANSHOU = "https://github.com/thu-ml/tianshou/blob/0c0424e2dbfa899aba15e01efe7c456a33d3a7e2/examples/mujoco/README.md"
PUBLISHED = {
    "HalfCheetah-v5": {ZOO: "9535 (1 run)", TIANSHOU: "12139 ± 1049 (10 seeds)"},
    "Hopper-v5": {ZOO: "2326 (1 run)", TIANSHOU: "3542 ± 52 (10 seeds)"},
}
"""SAC after 1M steps on the tasks' third versions, deterministic or the greatest mean: compare sizes, not digits."""


def train(task: str, seed: int) -> dict[str, list[float]]:
    """Train SAC once.

    Returns:
        `steps`, `mean` and `seconds`, [20]: environment steps, return of the stochastic policy, wall-clock seconds.
    """
    import gymnasium
    from sbx import SAC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    judged = Monitor(gymnasium.make(task))
    judged.reset(seed=int(np.random.SeedSequence((seed, 1)).generate_state(1)[0] >> 1))
    found: dict[str, list[float]] = {"steps": [], "mean": [], "seconds": []}
    begun = time.perf_counter()

    class Evaluations(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % (STEPS // POINTS) == 0:
                mean, _ = evaluate_policy(self.model, judged, EPISODES, deterministic=False)
                found["steps"].append(self.num_timesteps)
                found["mean"].append(float(mean))
                found["seconds"].append(time.perf_counter() - begun)
                print(f"{task}, seed {seed}: {self.num_timesteps:,} steps, {found['mean'][-1]:.0f}", flush=True)
            return True

    model = SAC("MlpPolicy", task, seed=seed, learning_starts=RANDOM)
    model.learn(STEPS, callback=Evaluations())
    return found


def ours(archive: Archive, task: str, algorithm: str, lag: int) -> list[dict[str, Any]]:
    """`steps`, `mean` and `seconds` of the archive's runs, a seed each."""
    found = []
    for seed in SEEDS:
        config = build({"env": task, "algorithm": algorithm, "lag": lag, "seed": seed})
        table = archive.entries[str(config.run_id)].table("evals").to_pandas()
        found.append({"steps": table["env_steps"], "mean": table["mean"], "seconds": table["wall_seconds"]})
    return [{key: column.to_numpy() for key, column in run.items()} for run in found]


def around(run: dict[str, Any], steps: int) -> float:
    """The mean of the evaluations in the last third before so many steps."""
    at, means = np.asarray(run["steps"]), np.asarray(run["mean"])
    return float(means[(at > steps * 2 / 3) & (at <= steps * 1.01)].mean())


def within(run: dict[str, Any], seconds: float) -> float:
    """The last evaluation that a run had finished by then; NaN before the first."""
    done = np.asarray(run["mean"])[np.asarray(run["seconds"]) <= seconds]
    return float(done[-1]) if len(done) else float("nan")


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, least and greatest; a mean of what is no number is None."""
    mean = float(np.mean(values))
    known = np.isfinite(mean)
    return {"mean": mean if known else None, "each": [round(value, 1) for value in values] if known else None}


def compare(runs: Path) -> dict[str, Any]:
    """SAC beside the archive's runs, by task.

    Raises:
        UserError: there is no run of SAC.
    """
    archive, tasks = Archive(ARCHIVE), {}
    for task in TASKS:
        sac = [read_json(path) for path in sorted(runs.glob(f"{task}-*.json"))]
        if not sac:
            continue
        found: dict[str, Any] = {
            "SAC": {
                "seeds": len(sac),
                "at_steps": spread([around(run, STEPS) for run in sac]),
                "seconds_to_steps": float(np.median([run["seconds"][-1] for run in sac])),
                "published": PUBLISHED[task],
            }
        }
        for name, (algorithm, lag) in OURS.items():
            own = ours(archive, task, algorithm, lag)
            seconds = float(np.median([run["seconds"][-1] for run in own]))
            found[name] = {
                "seeds": len(own),
                "at_steps": spread([around(run, STEPS) for run in own]),
                "final": spread([float(run["mean"][-final_points(len(run["mean"]) - 1) :].mean()) for run in own]),
                "seconds_to_final": seconds,
                "sac_by_then": spread([within(run, seconds) for run in sac]),
            }
        tasks[task] = found
    if not tasks:
        raise UserError(f"there is no run of SAC in {runs}: run this command without --compare first")
    return {"steps": STEPS, "archive": archive.digest, "tasks": tasks}


def table(found: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    lines = [
        f"| task | method | seeds | return around {found['steps']:,} steps | after 1M steps | seconds | SAC by then |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for task, methods in found["tasks"].items():
        for name, row in methods.items():
            final, seconds = row.get("final"), row.get("seconds_to_final", row.get("seconds_to_steps"))
            then = row.get("sac_by_then")
            cells = [task, name, str(row["seeds"]), f"{row['at_steps']['mean']:.0f}"]
            cells += [f"{final['mean']:.0f}" if final else "published: " + ", ".join(row["published"].values())]
            cells += [f"{seconds:.0f}"]
            cells += ["" if then is None else "no evaluation yet" if then["mean"] is None else f"{then['mean']:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    with_versions = ", ".join(f"{name} {number}" for name, number in found.get("versions", {}).items())
    return "\n".join(lines) + f"\n\n{with_versions}\n"


def main(arguments: list[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=path_flag, default=Path("benchmarks/out/off_policy"), help="folder of the runs")
    parser.add_argument("--out", type=path_flag, default=Path("benchmarks/results"), help="folder of the comparison")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--compare", action="store_true", help="train nothing")
    given = parser.parse_args(arguments)
    given.runs.mkdir(parents=True, exist_ok=True)
    versions = given.runs / "versions.json"
    for task, seed in ((task, seed) for seed in given.seeds for task in given.tasks):
        path = given.runs / f"{task}-{seed}.json"
        if not given.compare and not path.exists():
            write_bytes(path, json.dumps(train(task, seed)).encode())
            of = {name: version(name) for name in ("sbx-rl", "jax", "gymnasium", "mujoco")}
            write_bytes(versions, json.dumps(of).encode())
    found = compare(given.runs) | ({"versions": read_json(versions)} if versions.exists() else {})
    write_bytes(given.out / "off_policy.json", (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
    (given.out / "off_policy.md").write_text(table(found), encoding="utf-8")
    print(table(found), end="")
    return 0


if __name__ == "__main__":
    run_command(main)
