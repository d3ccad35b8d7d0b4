"""Whole-loop throughput of one run, beside Stable-Baselines3 and beside the physics alone.

    make benchmark                                     the full table, on a quiet machine with 2 cores
    python benchmarks/throughput.py --rounds 1 --phases 5 --out /tmp/quick

Every measurement is a process of its own, pinned to one core, with one thread and 16 environments. Sizes, passes and
normalisations are the same for all (16 x 128 steps, 10 epochs, minibatch 512, two (64, 64) tanh networks, float32,
normalised observations and rewards); otherwise Stable-Baselines3 is as shipped. All measure the same phases of
training, so that episodes are about as long, and count live transitions only. The workers take turns within each
round, so that a drifting machine slows all of them alike; reported are ratios of medians over the rounds. Evaluation
is left out on all sides. Writes throughput.json and throughput.md, into benchmarks/out
unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from vaco.command import Parser, run_command
from vaco.paths import path_flag

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
ALGORITHMS = ("ppo", "impala", "vaco")
TARGETS = {"HalfCheetah-v5": 1.7, "Hopper-v5": 1.5, "Walker2d-v5": 1.35}
ENVS, PHASE_STEPS, WARM_UP = 16, 128, 3
BATCH = ENVS * PHASE_STEPS


def train_worker(task: str, algorithm: str, lag: int, phases: int) -> dict[str, float]:
    """Live transitions per second of our loop, and where the time of a phase goes."""
    from vaco import stopwatch
    from vaco.control.collect import Collector
    from vaco.control.train import Run
    from vaco.runs.config import build

    stopwatch.stop()  # as `vaco train` does
    run = Run(build({"env": task, "algorithm": algorithm, "lag": lag, "steps": 10_000_000}))
    for _ in range(max(WARM_UP, 2 * lag if lag > 1 else 0)):
        run.advance()
    collect, live = Collector.collect, 0

    def counted(collector: Collector, *arguments: Any) -> Any:
        nonlocal live
        batch = collect(collector, *arguments)
        live += int((~batch.dead).sum())
        return batch

    Collector.collect = counted  # type: ignore[method-assign]
    started = time.perf_counter()
    for _ in range(phases):
        run.advance()
    elapsed, rows = time.perf_counter() - started, run.rows[-phases:]
    parts = {f"{n}_ms": 1e3 * median(r[f"{n}_seconds"] for r in rows) for n in ("collect", "align", "update")}
    return {"steps_per_second": live / elapsed, "phases": run.phase, **parts}


def sb3_worker(task: str, phases: int) -> dict[str, float]:
    """Stable-Baselines3's PPO with the same hyper-parameters and normalisation."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)

    class Clock(BaseCallback):
        """Notes the time at the start of every phase, and stops when the time is up."""

        def _on_training_start(self) -> None:
            self.times: list[float] = []

        def _on_rollout_start(self) -> None:
            self.times.append(time.perf_counter())

        def _on_step(self) -> bool:
            return len(self.times) <= WARM_UP + phases

    env = VecNormalize(make_vec_env(task, n_envs=ENVS, seed=0))
    net = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh}
    model = PPO(
        "MlpPolicy", env, n_steps=PHASE_STEPS, batch_size=512, n_epochs=10, policy_kwargs=net, seed=0, device="cpu"
    )
    clock = Clock()
    model.learn(10_000_000, callback=clock)
    times = clock.times[WARM_UP:]
    return {"steps_per_second": (len(times) - 1) * BATCH / (times[-1] - times[0])}


def physics_worker(task: str, phases: int) -> dict[str, float]:
    """A bare mj_step loop over 16 simulations under random controls, without observation, reward, learner or timers."""
    import gymnasium
    import mujoco
    import numpy as np

    from vaco import stopwatch

    stopwatch.stop()
    reference = gymnasium.make(task).unwrapped
    model, skip = reference.model, reference.frame_skip  # type: ignore[attr-defined]
    simulations = [mujoco.MjData(model) for _ in range(ENVS)]
    generator = np.random.default_rng(0)
    controls = generator.uniform(-1, 1, (1000, ENVS, model.nu))
    steps, started = phases * PHASE_STEPS, time.perf_counter()
    for t in range(steps):
        for data, control in zip(simulations, controls[t % 1000], strict=True):
            data.ctrl[:] = control
            mujoco.mj_step(model, data, nstep=skip)
        if t % 20 == 19 and task != "HalfCheetah-v5":  # tasks that end early are reset about this often
            for data in simulations:
                mujoco.mj_resetData(model, data)
    return {"steps_per_second": steps * ENVS / (time.perf_counter() - started)}


def measure(arguments: list[str], core: int = 0) -> subprocess.Popen[str]:
    """Start one worker on one core."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", *arguments, "--core", str(core)]
    # In a folder of its own: MuJoCo writes a log of warnings wherever it runs.
    folder = tempfile.gettempdir()
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace", cwd=folder
    )


def result(process: subprocess.Popen[str]) -> dict[str, float]:
    """Wait for a worker and read what it measured."""
    output, complaints = process.communicate()
    if process.returncode:
        raise SystemExit(f"the worker {process.args} failed: {complaints.strip().splitlines()[-1:]}")
    values: dict[str, float] = json.loads(output.splitlines()[-1])
    return values


def plan(phases: int) -> dict[str, list[str]]:
    """Name of each measurement → worker arguments."""
    workers = {}
    for task in TASKS:
        workers |= {f"{task}/{a}": ["train", task, a, "1", str(phases)] for a in ALGORITHMS}
        workers[f"{task}/sb3"] = ["sb3", task, str(phases)]
        workers[f"{task}/physics"] = ["physics", task, str(phases)]
    for align in ("none", "once", "continuous"):
        workers[f"align/{align}"] = ["train", "HalfCheetah-v5", f"{align}+tv", "16", str(phases)]
    workers["memory/short"] = ["train", "HalfCheetah-v5", "vaco", "16", str(phases // 2)]
    workers["memory/long"] = ["train", "HalfCheetah-v5", "vaco", "16", str(phases * 4)]
    return workers


def run_rounds(rounds: int, phases: int) -> dict[str, list[dict[str, float]]]:
    """All measurements, taking turns, then pairs side by side on two cores."""
    samples: dict[str, list[dict[str, float]]] = {}
    workers = plan(phases)
    for number in range(rounds):
        for name, arguments in workers.items():
            samples.setdefault(name, []).append(result(measure(arguments)))
            print(
                f"round {number + 1}/{rounds}  {name:28} {samples[name][-1]['steps_per_second']:9,.0f}", file=sys.stderr
            )
        if len(os.sched_getaffinity(0)) > 1:
            pair = [measure(workers["HalfCheetah-v5/ppo"], core) for core in (0, 1)]
            together = sum(result(process)["steps_per_second"] for process in pair)
            samples.setdefault("side_by_side", []).append({"steps_per_second": together})
    return samples


def describe_machine() -> dict[str, Any]:
    """What the ratios depend on: the processor, what the libraries make of it, and their versions."""
    import torch

    from vaco.runs.provenance import source_revision

    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    packages = ("numpy", "torch", "mujoco", "gymnasium", "stable-baselines3")
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in packages},
        "revision": source_revision()[0],
    }


def summarise(samples: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians, spreads, and the ratios that the targets speak of."""

    def middle(name: str, what: str = "steps_per_second") -> float:
        return median(sample[what] for sample in samples[name])

    speeds = {
        name: {
            "median": middle(name),
            "min": min(s["steps_per_second"] for s in values),
            "max": max(s["steps_per_second"] for s in values),
        }
        for name, values in samples.items()
    }
    ratios: dict[str, float] = {}
    for task in TASKS:
        ratios[f"{task} ppo / sb3"] = middle(f"{task}/ppo") / middle(f"{task}/sb3")
        ratios[f"{task} ppo / physics"] = middle(f"{task}/ppo") / middle(f"{task}/physics")
        ratios[f"{task} cost of vaco over ppo"] = middle(f"{task}/ppo") / middle(f"{task}/vaco") - 1.0
        # The physics of another policy's steps takes another time, so that the whole loop tells little of the method.
        own, whole = (
            {a: sum(middle(f"{task}/{a}", f"{n}_ms") for n in parts) for a in ("ppo", "vaco")}
            for parts in (("align", "update"), ("collect", "align", "update"))
        )
        ratios[f"{task} alignment and update of vaco over ppo"] = (own["vaco"] - own["ppo"]) / whole["ppo"]
    none, once, continuous = (middle(f"align/{a}", "align_ms") for a in ("none", "once", "continuous"))
    ratios["alignment once / continuous, ms"] = once / continuous
    if "side_by_side" in samples:
        ratios["two runs side by side / one"] = middle("side_by_side") / middle("HalfCheetah-v5/ppo")
    phase = {n: middle("HalfCheetah-v5/ppo", f"{n}_ms") for n in ("collect", "align", "update")}
    memory = {
        n: {"MB": middle(f"memory/{n}", "peak_mb"), "phases": middle(f"memory/{n}", "phases")}
        for n in ("short", "long")
    }
    align = {"none": none, "once": once, "continuous": continuous}
    return {"speeds": speeds, "ratios": ratios, "align_ms": align, "phase_ms": phase, "memory": memory}


def render(summary: dict[str, Any]) -> str:
    """The table of the book."""
    speeds, ratios = summary["speeds"], summary["ratios"]
    columns = ("ppo", "impala", "vaco", "sb3", "physics")
    lines = ["| steps/s, one core | ppo | impala | vaco | Stable-Baselines3 ppo | physics alone | ppo / SB3 | target |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        cells = [f"{speeds[f'{task}/{c}']['median']:,.0f}" for c in columns]
        lines.append(f"| {task} | {' | '.join(cells)} | **{ratios[f'{task} ppo / sb3']:.2f}** | {TARGETS[task]} |")
    lines += ["", "| ratio of medians | measured | target |", "|---|---|---|"]
    lines.append(f"| whole loop / physics alone, HalfCheetah | {ratios['HalfCheetah-v5 ppo / physics']:.2f} | ≥ 0.5 |")
    for task in TASKS:
        cost, own = (ratios[f"{task} {what} of vaco over ppo"] for what in ("cost", "alignment and update"))
        measured = f"{cost:+.1%}, of which alignment and update {own:+.1%}"
        lines.append(f"| cost of `vaco` over `ppo`, {task} | {measured} | ≤ 5 % |")
    a, m = summary["align_ms"], summary["memory"]
    once = f"{a['once']:.2f} / {a['continuous']:.2f} ms a phase = {ratios['alignment once / continuous, ms']:.3f}"
    lines.append(f"| alignment once / continuously | {once} | ≤ 0.2 |")
    if "two runs side by side / one" in ratios:
        lines.append(f"| two runs side by side / one | {ratios['two runs side by side / one']:.2f} | ≥ 1.85 |")
    peak = f"{m['short']['MB']:.0f} MB, {m['long']['MB']:.0f} MB"
    phases = f"{m['short']['phases']:.0f} and {m['long']['phases']:.0f}"
    lines.append(f"| peak memory after {phases} phases, K = 16 | {peak} | ≤ 600 MB, constant |")
    machine = summary["machine"]
    lines += [
        "",
        f"{machine['processor']}, one core, {machine['rounds']} rounds of {machine['phases']} phases, turn by turn.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything, or, with --worker, one thing."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--phases", type=int, default=30, help="length of each measurement, in phases of 2048 steps")
    parser.add_argument("--out", type=path_flag, default=Path(__file__).parent / "out")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[options.core]})
        kind, task, *more = options.worker
        if kind == "train":
            values = train_worker(task, more[0], int(more[1]), int(more[2]))
        else:
            values = {"sb3": sb3_worker, "physics": physics_worker}[kind](task, int(more[0]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**values, "peak_mb": peak}))
        return
    samples = run_rounds(options.rounds, options.phases)
    machine = describe_machine() | {"rounds": options.rounds, "phases": options.phases}
    summary = {"machine": machine, **summarise(samples), "samples": samples}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "throughput.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (options.out / "throughput.md").write_text(render(summary), encoding="utf-8")
    print(render(summary))


if __name__ == "__main__":
    run_command(main)
