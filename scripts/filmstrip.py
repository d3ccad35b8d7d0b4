#!/usr/bin/env python
"""Draw the policies of results/desk/policies as strips of pictures, one below the other.

    python scripts/filmstrip.py --out paper/book/_static/policies.png

An episode of each, deterministic actions, every fifth step from the hundredth on; rendered by Gymnasium, without a
display through EGL or OSMesa.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import vaco
from vaco.command import Parser, run_command
from vaco.paths import path_flag

POLICIES = Path("results/desk/policies")
FIRST, EVERY, PICTURES, PIXELS, COLOURS = 100, 5, 8, 120, 64


def strip(path: Path) -> np.ndarray:
    """Pictures of a policy side by side, [H, W, 3] uint8."""
    policy = vaco.load(path)
    camera = {"camera_name": "track", "width": 2 * PIXELS, "height": 2 * PIXELS}  # follows the body
    env = dataclasses.replace(policy.spec, arguments=camera).make(render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    pictures = []
    for step in range(FIRST + EVERY * PICTURES):
        if step >= FIRST and step % EVERY == 0:
            pictures.append(Image.fromarray(env.render()).resize((PIXELS, PIXELS), Image.Resampling.LANCZOS))
        observation, _, terminated, _, _ = env.step(np.clip(policy(observation), -1, 1))
        if terminated:
            break
    env.close()
    return np.concatenate([np.asarray(picture) for picture in pictures], axis=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(description="Draw the tracked policies as strips of pictures.")
    parser.add_argument("--out", type=path_flag, required=True, help="the PNG file to write")
    out: Path = parser.parse_args(arguments).out
    os.environ.setdefault("MUJOCO_GL", "egl")
    strips = [strip(path) for path in sorted(POLICIES.glob("*.safetensors"))]
    Image.fromarray(np.concatenate(strips)).quantize(COLOURS).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    run_command(main)
