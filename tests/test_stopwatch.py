"""MuJoCo's stop-watch stops where runs are made, and no number depends on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In processes of their own: once stopped, it stays so.
PHYSICS = """
import sys, gymnasium, mujoco, numpy as np
from vaco import stopwatch
if sys.argv[2] == "stop":
    assert stopwatch.stop()
task = gymnasium.make(sys.argv[1]).unwrapped
task.reset(seed=0)
controls = np.random.default_rng(0).uniform(-1, 1, (200, task.model.nu))
for control in controls:
    task.data.ctrl[:] = control
    mujoco.mj_step(task.model, task.data, task.frame_skip)
state = np.concatenate([task.data.qpos, task.data.qvel, task.data.qacc])
print(task.data.timer[mujoco.mjtTimer.mjTIMER_STEP].duration > 0, state.tobytes().hex())
"""
RUN = """
import sys, mujoco
from pathlib import Path
from vaco.cli import run
from vaco.control.train import train
from vaco.runs.config import build
if sys.argv[1] == "library":
    settings = {"env": "InvertedPendulum-v5", "algorithm": "vaco", "lag": 2, "seed": 0, "steps": 8192}
    train(build(settings | {"eval_points": 2, "eval_episodes": 1}), Path(sys.argv[2]), quiet=True)
elif sys.argv[1] == "evaluate":
    assert run("evaluate --random --env InvertedPendulum-v5 --episodes 1".split()) == 0
else:
    flags = "--env InvertedPendulum-v5 --algorithm vaco --lag 2 --seed 0 --steps 8192 --eval-points 2 --eval-episodes 1"
    assert run(["train", *flags.split(), "--quiet", "--out", sys.argv[2]]) == 0
model = mujoco.MjModel.from_xml_string("<mujoco/>")
data = mujoco.MjData(model)
mujoco.mj_step(model, data, 100)
print(data.timer[mujoco.mjtTimer.mjTIMER_STEP].duration > 0)
"""


def output(script: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5"])
def test_without_the_stopwatch_the_physics_is_the_same_to_the_bit(task: str) -> None:
    (runs, state), (stopped, same_state) = output(PHYSICS, task, "leave"), output(PHYSICS, task, "stop")
    assert (runs, stopped) == ("True", "False")
    assert state == same_state


def test_it_stops_for_evaluations_too() -> None:
    assert output(RUN, "evaluate")[-1] == "False"


def test_the_command_stops_it_and_trains_the_same_bits(tmp_path: Path) -> None:
    assert output(RUN, "library", str(tmp_path / "library"))[-1] == "True"
    assert output(RUN, "command", str(tmp_path / "command"))[-1] == "False"
    library, command = ((tmp_path / name / "policy.safetensors").read_bytes() for name in ("library", "command"))
    assert library == command
