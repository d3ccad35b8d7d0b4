#!/usr/bin/env python
"""Whole-loop throughput on tasks that Gymnasium alone steps, beside PPO of Stable-Baselines3, sbx, RLlib and CleanRL.

    python benchmarks/peers.py --peers ENV/bin/python --cleanrl OLD/bin/python --out benchmarks/results

`--peers` and `--cleanrl` are interpreters of environments of their own; without, these libraries are left out. sbx and
RLlib want another Gymnasium than ours, and CleanRL's last release as a package, of 2021, the old Gym:

    python3.11 -m venv ENV
    ENV/bin/pip install torch 'ray[rllib]' sbx-rl 'gymnasium[mujoco]'
    python3.11 -m venv OLD
    OLD/bin/pip install 'pip<24.1' 'setuptools<66' 'wheel<0.38'
    OLD/bin/pip install --no-build-isolation gym==0.21.0
    OLD/bin/pip install torch 'numpy<2' stable-baselines3==1.8.0 pybullet tensorboard
    OLD/bin/pip install --no-build-isolation --no-deps cleanrl==0.4.8

Stable-Baselines3 is that of this environment. As in throughput.py: a process each, pinned to one core, 16 environments
x 128 steps, 10 epochs, minibatch 512, two (64, 64) tanh networks, turn by turn within each round, live transitions
only, evaluation left out. Observations and rewards are normalised by all but RLlib, and CleanRL on CartPole. Speeds are
per second of processor time of the measured process, so that a machine which others use as well does not enter;
wall-clock times are in the JSON. Writes peers.json and peers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

TASKS = ("CartPole-v1", "Pendulum-v1")
OURS, PEERS = ("ppo", "vaco", "sb3"), ("sbx", "rllib")
NAMES = {
    "ppo": "ppo",
    "vaco": "vaco",
    "sb3": "Stable-Baselines3",
    "sbx": "sbx (JAX)",
    "rllib": "RLlib",
    "cleanrl": "CleanRL",
}
PACKAGES = {"sb3": "stable-baselines3", "sbx": "sbx-rl", "rllib": "ray", "cleanrl": "cleanrl"}
ENVS, PHASE_STEPS, MINIBATCH, EPOCHS, WARM_UP = 16, 128, 512, 10, 3
BATCH, TARGET = ENVS * PHASE_STEPS, 1.3
Clock = Callable[[], None]


class Times:
    """When each phase began, by the processor and by the wall."""

    def __init__(self, warm_up: int = WARM_UP) -> None:
        self.warm_up = warm_up
        self.seconds: list[tuple[float, float]] = []

    def __call__(self) -> None:
        """A phase begins, or the last has ended."""
        self.seconds.append((time.process_time(), time.perf_counter()))

    def speeds(self, steps: float) -> dict[str, float]:
        """Of so many steps, all after the phases of warming up."""
        first, last = self.seconds[self.warm_up], self.seconds[-1]
        return {"steps_per_second": steps / (last[0] - first[0]), "by_the_wall": steps / (last[1] - first[1])}


def ours(task: str, algorithm: str, phases: int) -> dict[str, float]:
    """`vaco train`, without evaluation."""
    from vaco.control.collect import Collector
    from vaco.control.train import Run
    from vaco.runs.config import build

    run, times, live = Run(build({"env": task, "algorithm": algorithm, "steps": 10_000_000})), Times(), [0]
    collect = Collector.collect

    def counted(collector: Collector, *arguments: Any) -> Any:
        batch = collect(collector, *arguments)
        live.append(int((~batch.dead).sum()))
        return batch

    Collector.collect = counted  # type: ignore[method-assign]
    for _ in range(WARM_UP + phases):
        times()
        run.advance()
    times()
    return times.speeds(sum(live[-phases:]))


def baselines(task: str, library: str, phases: int) -> dict[str, float]:
    """PPO of Stable-Baselines3, or of sbx, which has its interface."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    settings: dict[str, Any] = {"n_steps": PHASE_STEPS, "batch_size": MINIBATCH, "n_epochs": EPOCHS, "seed": 0}
    if library == "sb3":
        import torch
        from stable_baselines3 import PPO

        torch.set_num_threads(1)
        settings |= {"device": "cpu", "policy_kwargs": {"net_arch": [64, 64], "activation_fn": torch.nn.Tanh}}
    else:
        import flax.linen
        from sbx import PPO

        settings |= {"policy_kwargs": {"net_arch": [64, 64], "activation_fn": flax.linen.tanh}}
    times = Times()

    class Watch(BaseCallback):
        def _on_rollout_start(self) -> None:
            times()

        def _on_step(self) -> bool:
            return len(times.seconds) <= WARM_UP + phases

    env = VecNormalize(make_vec_env(task, n_envs=ENVS, seed=0))
    PPO("MlpPolicy", env, **settings).learn(10_000_000, callback=Watch())
    return times.speeds(phases * BATCH)


def rllib_algorithm(name: str, task: str, runners: int, **more: Any) -> Any:
    """An algorithm of RLlib, such as PPO, that learns in this process, with the settings that all contestants have."""
    from importlib import import_module

    import ray
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    # "local": not a cluster that somebody else may have on this machine.
    ray.init("local", include_dashboard=False, num_cpus=2, object_store_memory=100_000_000, log_to_driver=False)
    config = getattr(import_module(f"ray.rllib.algorithms.{name.lower()}"), f"{name}Config")()
    return (
        config.environment(task)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=ENVS, rollout_fragment_length=PHASE_STEPS)
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=BATCH,
            minibatch_size=MINIBATCH,
            num_epochs=EPOCHS,
            lr=3e-4,
            grad_clip=0.5,
            **more,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh"))
        .build_algo()
    )


def rllib(task: str, phases: int) -> dict[str, float]:
    """PPO of RLlib, collecting and learning in this process."""
    algorithm = rllib_algorithm("PPO", task, 0, lambda_=0.95, clip_param=0.2, use_kl_loss=False)
    times, sampled = Times(), 0.0
    for phase in range(WARM_UP + phases):
        times()
        result = algorithm.train()
        sampled += result["env_runners"]["num_env_steps_sampled"] if phase >= WARM_UP else 0.0
    times()
    return times.speeds(sampled)


def cleanrl(task: str, phases: int) -> dict[str, float]:
    """PPO of CleanRL: its script, with the words of its command line, in this process."""
    import runpy

    import torch
    from torch.utils import tensorboard

    torch.set_num_threads(1)
    times = Times()

    class Watch(tensorboard.SummaryWriter):
        def add_scalar(self, tag: str, *values: Any, **more: Any) -> None:
            if tag == "charts/learning_rate":  # written once a phase, at its end
                times()
            super().add_scalar(tag, *values, **more)

    tensorboard.SummaryWriter = Watch  # type: ignore[misc]
    script = "ppo" if task.startswith("CartPole") else "ppo_continuous_action"
    settings = {
        "gym-id": task,
        "num-envs": ENVS,
        "num-steps": PHASE_STEPS,
        "n-minibatch": BATCH // MINIBATCH,
        "update-epochs": EPOCHS,
        "total-timesteps": (WARM_UP + phases + 1) * BATCH,
        "capture-video": False,
        "cuda": False,
    }
    sys.argv = [script, *(f"--{name}={value}" for name, value in settings.items())]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # its logs go where it is called
        runpy.run_module(f"cleanrl.{script}", run_name="__main__")
        os.chdir("/")
    return times.speeds(phases * BATCH)


def worker(library: str, task: str, phases: int) -> dict[str, Any]:
    """Measure one library in this process."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if library in ("ppo", "vaco"):
        return ours(task, library, phases)
    if library in ("sb3", "sbx"):
        return baselines(task, library, phases)
    return {"rllib": rllib, "cleanrl": cleanrl}[library](task, phases)


def interpreter(given: str) -> str:
    """Where it is, seen from any folder; a link stays one, since it is what makes an environment."""
    from vaco.errors import UserError

    found = shutil.which(Path(given).expanduser())
    if found is None:
        raise UserError(
            f"there is no interpreter '{given}': name that of an environment which `{Path(sys.argv[0]).name} --help` "
            "says how to make"
        )
    return str(Path(found).absolute())


def measure(python: str, script: str, *words: str) -> dict[str, Any]:
    """What a worker of such a script says last, in a process of its own."""
    from vaco.errors import UserError

    command = [python, str(Path(script).resolve()), "--worker", *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tempfile.gettempdir(), check=False)
    if done.returncode:
        last = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise UserError(
            f"the worker '{' '.join(words)}' under '{python}' ended with code {done.returncode} and said '{last}': "
            f"make its environment as `{Path(script).name} --help` says"
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def render(summary: dict[str, Any]) -> str:
    """The table of the book."""
    speeds, libraries = summary["speeds"], summary["libraries"]
    lines = [
        f"| steps a second of processor time | {' | '.join(NAMES[one] for one in libraries)} | ppo / SB3 | target |",
        f"|---|{'---|' * len(libraries)}---|---|",
    ]
    for task in TASKS:
        cells = " | ".join(f"{speeds[f'{task}/{one}']:,.0f}" for one in libraries)
        ratio = speeds[f"{task}/ppo"] / speeds[f"{task}/sb3"]
        lines.append(f"| {task} | {cells} | **{ratio:.2f}** | {TARGET} |")
    made = ", ".join(f"{NAMES[one]} {summary['versions'][one]}" for one in libraries if one in summary["versions"])
    lines += [
        "",
        f"{summary['processor']}, one core, {summary['rounds']} rounds of {summary['phases']} phases, {made}.",
    ]
    return "\n".join([*lines, summary["note"]]).rstrip() + "\n"


def main() -> None:
    """Measure everything, or, with --worker, one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="interpreter with sbx-rl and ray[rllib]; without, they are left out")
    parser.add_argument("--cleanrl", help="interpreter with cleanrl; without, it is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--phases", type=int, default=30)
    parser.add_argument("--note", default="", help="a sentence on the machine, for the table")
    parser.add_argument("--out", default=str(Path(__file__).parent / "out"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        library, task, phases = options.worker
        found = worker(library, task, int(phases))
        print(json.dumps(found | ({"version": version(PACKAGES[library])} if library in PACKAGES else {})))
        return
    # The interpreter of the peers has none of these.
    from throughput import describe_machine

    from vaco.paths import path_flag

    out = path_flag(options.out)
    pythons = dict.fromkeys(OURS, sys.executable)
    pythons |= dict.fromkeys(PEERS, interpreter(options.peers)) if options.peers else {}
    pythons |= {"cleanrl": interpreter(options.cleanrl)} if options.cleanrl else {}
    libraries = tuple(pythons)
    samples: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.rounds):
        for task in TASKS:
            for one in libraries:
                found = measure(pythons[one], __file__, one, task, str(options.phases))
                samples.setdefault(f"{task}/{one}", []).append(found)
                print(
                    f"round {number + 1}  {task}/{one:8} {found['steps_per_second']:9,.0f}", file=sys.stderr, flush=True
                )
    machine = describe_machine()
    summary = {
        "processor": machine["processor"],
        "revision": machine["revision"],
        "rounds": options.rounds,
        "phases": options.phases,
        "note": options.note,
        "libraries": libraries,
        "speeds": {name: median(one["steps_per_second"] for one in each) for name, each in samples.items()},
        "versions": {one: samples[f"{TASKS[0]}/{one}"][0]["version"] for one in libraries if one in PACKAGES},
        "samples": samples,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "peers.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (out / "peers.md").write_text(render(summary), encoding="utf-8")
    print(render(summary))


if __name__ == "__main__":
    if "--worker" in sys.argv:
        main()
    else:
        from vaco.command import run_command

        run_command(main)
