"""MuJoCo's stop-watch stops, and no number depends on it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In processes of their own: once stopped, it stays so.
SCRIPT = """
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


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5"])
def test_without_the_stopwatch_the_physics_is_the_same_to_the_bit(task: str) -> None:
    running, stopped = (
        subprocess.run(
            [sys.executable, "-c", SCRIPT, task, word], check=True, capture_output=True, text=True
        ).stdout.split()
        for word in ("leave", "stop")
    )
    assert (running[0], stopped[0]) == ("True", "False")
    assert running[1] == stopped[1]
