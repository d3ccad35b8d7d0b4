"""What each optimisation buys, each against the plain version it replaced, in one run and on one core.

    python benchmarks/optimisations.py            about one minute; prints a table, writes out/optimisations.json

Pairs take turns, and the ratio is of medians over the turns. `NOTES.md` says what was expected of each beforehand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np
import torch

from vaco.command import Parser, run_command
from vaco.control.adam import Adam
from vaco.control.envs import make_vector_env
from vaco.control.networks import ActorCritic
from vaco.control.policy import Actors, Normaliser, take_snapshot
from vaco.objectives.align import linear_recurrence
from vaco.paths import path_flag

Pair = tuple[str, Callable[[], Any], Callable[[], Any]]
OBSERVATIONS, ACTIONS, SAMPLES = 17, 6, 512
GENERATOR = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    """Standard normal float32 numbers."""
    return GENERATOR.standard_normal(shape).astype(np.float32)


def gradient() -> Pair:
    """The networks' gradient of one minibatch, written out in NumPy and by autograd."""
    networks = ActorCritic(OBSERVATIONS, ACTIONS, (64, 64))
    networks.initialise(np.random.default_rng(0), 0.0)
    x, d_mean, d_value, d_std = (
        floats(SAMPLES, OBSERVATIONS),
        floats(SAMPLES, ACTIONS),
        floats(SAMPLES),
        floats(ACTIONS),
    )

    def network(outputs: int) -> torch.nn.Sequential:
        linear, tanh = torch.nn.Linear, torch.nn.Tanh
        return torch.nn.Sequential(linear(OBSERVATIONS, 64), tanh(), linear(64, 64), tanh(), linear(64, outputs))

    actor, critic, tx, tm, tv = network(ACTIONS), network(1), *map(torch.from_numpy, (x, d_mean, d_value))
    parameters = [*actor.parameters(), *critic.parameters()]

    def ours() -> None:
        networks.forward(x)
        networks.backward(d_mean, d_value, d_std)

    def autograd() -> None:
        loss = (actor(tx) * tm).sum() + (critic(tx)[:, 0] * tv).sum()
        torch.autograd.grad(loss, parameters)

    return "gradient of a minibatch of 512: written out / autograd", ours, autograd


def hyperbolic_tangent() -> Pair:
    """Tanh of one layer's activations."""
    array = floats(SAMPLES, 128)
    out, tensor = np.empty_like(array), torch.from_numpy(array)
    result = torch.empty_like(tensor)
    return "tanh of 512 x 128: NumPy / PyTorch", lambda: np.tanh(array, out=out), lambda: torch.tanh(tensor, out=result)


def adam() -> Pair:
    """One step of the optimizer; that ours loads nothing is measured by `import_seconds`."""
    parameters, step = floats(11_000), floats(11_000)
    ours, tensor = Adam(11_000, 1e-5), torch.from_numpy(parameters.copy())
    tensor.grad = torch.from_numpy(step)
    reference = torch.optim.Adam([tensor], fused=True)
    return (
        "Adam step, 11,000 parameters: NumPy / torch fused",
        lambda: ours.step(parameters, step, 3e-4),
        reference.step,
    )


def acting() -> Pair:
    """One action for each of 16 actors with snapshots of their own."""
    networks, snapshots = ActorCritic(OBSERVATIONS, ACTIONS, (64, 64)), []
    for version in range(16):
        networks.initialise(np.random.default_rng(version), 0.0)
        snapshots.append(take_snapshot(networks, Normaliser(OBSERVATIONS), version, 10.0))
    together, x = Actors(snapshots, networks), floats(16, OBSERVATIONS)
    alone = [Actors([snapshot], networks) for snapshot in snapshots]

    def loop() -> None:
        for row, actor in zip(x, alone, strict=True):
            actor.mean(row[None])

    return "16 snapshots act: batched / loop over actors", lambda: together.mean(x), loop


def recurrence() -> Pair:
    """V-trace's backward recursion over a phase."""
    terms, decays = torch.from_numpy(GENERATOR.random((128, 16))), torch.from_numpy(GENERATOR.random((128, 16)))

    def loop() -> torch.Tensor:
        out, later = torch.empty_like(terms), torch.zeros(16, dtype=terms.dtype)
        for t in reversed(range(128)):
            later = terms[t] + decays[t] * later
            out[t] = later
        return out

    return "backward recursion, 128 x 16: doubling / loop over time", lambda: linear_recurrence(terms, decays), loop


def stepping() -> Pair:
    """One step of 16 HalfCheetahs, physics included."""
    envs = [make_vector_env("HalfCheetah-v5", num_envs=16, backend=b) for b in ("batched", "gymnasium")]
    actions = GENERATOR.uniform(-1, 1, (16, ACTIONS))
    for env in envs:
        env.reset(0)
    return "step of 16 HalfCheetahs: batched / gymnasium", *(lambda e=env: e.step(actions) for env in envs)  # type: ignore[return-value]


def stopwatch_seconds() -> list[float]:
    """One step of a HalfCheetah without and with MuJoCo's stop-watch, in processes of their own: it stays stopped."""
    script = (
        "import sys, time, gymnasium, mujoco; from vaco import stopwatch\n"
        "if sys.argv[1] == 'off': assert stopwatch.stop()\n"
        "task = gymnasium.make('HalfCheetah-v5').unwrapped; model, data = task.model, task.data\n"
        "mujoco.mj_step(model, data, 500); began = time.perf_counter(); mujoco.mj_step(model, data, 20_000)\n"
        "print(task.frame_skip * (time.perf_counter() - began) / 20_000)\n"
    )
    times: list[list[float]] = [[], []]
    for _ in range(9):
        for index, state in enumerate(("off", "on")):
            done = subprocess.run(
                [sys.executable, "-c", script, state],
                check=True,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
            )
            times[index].append(float(done.stdout))
    return [median(t) for t in times]


def turns(first: Callable[[], Any], second: Callable[[], Any], count: int = 15, length: float = 0.1) -> list[float]:
    """Median seconds per call of each, taking turns."""
    times: list[list[float]] = [[], []]
    for turn in range(count + 1):
        for index, call in enumerate((first, second)):
            calls, started = 0, time.perf_counter()
            while time.perf_counter() - started < length:
                call()
                calls += 1
            if turn:  # the first turn warms up
                times[index].append((time.perf_counter() - started) / calls)
    return [median(t) for t in times]


def import_seconds() -> list[float]:
    """Process time of loading the trainer, alone and with torch.optim.Adam constructed."""
    ours = "import vaco.control.train"
    theirs = f"{ours}, torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
    times: list[list[float]] = [[], []]
    for _ in range(5):
        for index, script in enumerate((ours, theirs)):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", script], check=True)
            times[index].append(time.perf_counter() - started)
    return [median(t) for t in times]


def main() -> None:
    """Measure every pair."""
    parser = Parser(description="What each optimisation buys.")
    parser.add_argument("--out", type=path_flag, default=Path(__file__).parent / "out", metavar="DIR")
    out = parser.parse_args().out
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rows = []
    for make in (gradient, hyperbolic_tangent, adam, acting, recurrence, stepping):
        name, first, second = make()
        rows.append((name, *turns(first, second)))
    rows.append(("step of a HalfCheetah: MuJoCo's stop-watch off / on", *stopwatch_seconds()))
    rows.append(("start of a process: ours / with torch.optim.Adam", *import_seconds()))
    table = {name: {"ours_seconds": ours, "plain_seconds": plain, "ratio": ours / plain} for name, ours, plain in rows}
    out.mkdir(parents=True, exist_ok=True)
    (out / "optimisations.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("| optimisation | ours | plain | ratio |\n|---|---|---|---|")
    for name, ours, plain in rows:
        print(f"| {name} | {1e6 * ours:,.0f} µs | {1e6 * plain:,.0f} µs | {ours / plain:.2f} |")


if __name__ == "__main__":
    run_command(main)
