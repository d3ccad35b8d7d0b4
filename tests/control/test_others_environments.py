"""Environments of other packages, where they are installed: each trains, and its policy is read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaco
from vaco.control.envs import make_vector_env
from vaco.control.train import train
from vaco.runs.config import build

SMALL = {"num_envs": 2, "phase_steps": 16, "minibatch": 32, "epochs": 1, "steps": 64, "eval_points": 1}
SMALL |= {"eval_episodes": 1, "time_limit": 20, "algorithm": "vaco", "lag": 2}
IMAGES = "minigrid.wrappers:ImgObsWrapper"
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any], int]] = {
    "dm_control": (("shimmy", "dm_control"), {"env": "shimmy:dm_control/cartpole-swingup-v0"}, 5),
    "MiniGrid": (
        ("minigrid",),
        {"env": "minigrid:MiniGrid-Empty-5x5-v0", "wrappers": [IMAGES], "network": "cnn", "hidden": [16]},
        7 * 7 * 3,
    ),
    "Atari": (
        ("ale_py", "cv2"),
        {
            "env": "ale_py:ALE/Pong-v5",
            "env_args": {"frameskip": 1},
            "wrappers": ["AtariPreprocessing", "FrameStackObservation stack_size=4"],
            "network": "cnn",
            "hidden": [16],
        },
        4 * 84 * 84,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_trains_and_its_policy_is_read(case: str, tmp_path: Path) -> None:
    modules, settings, size = CASES[case]
    for module in modules:
        pytest.importorskip(module)
    if case == "dm_control":
        import mujoco

        if not hasattr(mujoco.MjModel, "flex_vertedge"):
            pytest.skip("this dm_control is of an older MuJoCo than the installed one")
    train(build(SMALL | settings), tmp_path / "run", quiet=True)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["completed_steps"] == 64 and manifest["episodes_restarted"] == 0
    policy = vaco.load(tmp_path / "run")
    env = make_vector_env(policy.spec, num_envs=1)
    assert env.observation_size == size
    assert np.isfinite(policy(env.reset(0))).all()
    env.close()
