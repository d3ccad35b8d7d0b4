"""Look at a trained policy: in a window, in a video, or as a strip of pictures, rendered by Gymnasium."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vaco.control.envs.spaces import Actions, Observations
from vaco.control.saved import SavedPolicy
from vaco.errors import UserError, said
from vaco.runs import atomic

STRIP = 8
"""Pictures of a strip."""
FORMATS = (".mp4", ".gif", ".png")
DEFAULT_RATE = 30
"""Frames a second where the environment names none."""
_PURPOSE = 7  # of those for which a seed is hashed; 6 with zeros behind it are the streams of the first actor

Frame = NDArray[np.uint8]


def play(
    policy: SavedPolicy,
    *,
    video: Path | None = None,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 10_000,
) -> list[float]:
    """Let a policy act, and show it.

    Args:
        policy: from `saved.load`.
        video: a file to write, .mp4, .gif, or .png for a strip of pictures of the first episode; None opens a window.
        episodes: how many.
        seed: seed of the environment's resets and of sampled actions, hashed.
        deterministic: the policy's mode, or samples.
        max_steps: an episode is broken off after so many steps.

    Returns:
        The return of each episode.

    Raises:
        UserError: there is no display, nothing to render with, or the file cannot be written.
    """
    if video is not None and video.suffix not in FORMATS:
        raise UserError(f"{video} is no video: give a name that ends in {', '.join(FORMATS)}")
    if video is None and not _display():
        raise UserError("there is no display to show a window on: give --video FILE.mp4, FILE.gif or FILE.png")
    if not _display():
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo's own default needs a display
    env = policy.spec.make(render_mode="human" if video is None else "rgb_array")
    returns: list[float] = []
    try:
        frames = _episodes(env, policy, episodes, seed, deterministic, max_steps, returns)
        if video is None:
            for _ in frames:
                pass
        elif video.suffix == ".png":
            _write_strip(video, frames)
        else:
            _write_video(video, frames, int(env.metadata.get("render_fps", DEFAULT_RATE)))
    finally:
        env.close()
    return returns


def _episodes(
    env: gymnasium.Env[Any, Any],
    policy: SavedPolicy,
    episodes: int,
    seed: int,
    deterministic: bool,
    max_steps: int,
    returns: list[float],
) -> Iterator[Frame]:
    """The pictures of all episodes; enters their returns."""
    seen, done = Observations(policy.spec.name, env.observation_space), Actions(policy.spec.name, env.action_space)
    resets, sampling = np.random.SeedSequence((seed, _PURPOSE)).spawn(2)
    generator, first = np.random.default_rng(sampling), int(resets.generate_state(1)[0] >> 1)
    for episode in range(episodes):
        observation, _ = env.reset(seed=first if episode == 0 else None)
        returns.append(0.0)
        yield _picture(env, policy.spec.name)
        for _ in range(max_steps):
            action = policy(seen.flat(observation), deterministic, generator)
            clipped = np.clip(action.astype(np.float64), done.low, done.high)
            observation, reward, terminated, truncated, _ = env.step(done.native(clipped))
            returns[-1] += float(reward)
            yield _picture(env, policy.spec.name)
            if terminated or truncated:
                break


def _picture(env: gymnasium.Env[Any, Any], name: str) -> Frame:
    """What the environment looks like now; one pixel where it shows itself in a window.

    Raises:
        UserError: it cannot be rendered.
    """
    if env.render_mode == "human":
        return np.zeros((1, 1, 3), np.uint8)
    try:
        picture = env.render()
    except Exception as error:
        raise UserError(
            f"{name} cannot be rendered here ({said(error)[:200]}): install what it draws with "
            '(pip install "vaco[video]"; for '
            "MuJoCo libegl1 or libosmesa6, and set MUJOCO_GL to egl or osmesa)"
        ) from error
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        raise UserError(f"{name} renders no picture but {type(picture).__name__}: give it a render mode 'rgb_array'")
    return picture.astype(np.uint8)


def _write_video(path: Path, frames: Iterator[Frame], rate: int) -> None:
    """Write frames as they come; the file takes its name when it is whole.

    Raises:
        UserError: it cannot be written.
    """
    import imageio

    if path.suffix == ".mp4":
        import imageio_ffmpeg  # noqa: F401 (imageio would ask for it in words of its own)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    options: dict[str, Any] = (
        {"fps": rate, "macro_block_size": 1} if path.suffix == ".mp4" else {"duration": 1000 / rate}
    )
    try:
        with imageio.get_writer(temporary, **options) as writer:
            for frame in frames:
                writer.append_data(_even(frame))
        temporary.replace(path)
    except OSError as error:
        raise atomic.write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _even(frame: Frame) -> Frame:
    """A picture of even width and height, which video formats want."""
    return frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]


def _write_strip(path: Path, frames: Iterator[Frame]) -> None:
    """Write some pictures side by side, evenly spaced over all.

    Raises:
        UserError: the file cannot be written.
    """
    import imageio.v3

    kept: list[Frame] = []
    stride = 1
    for index, frame in enumerate(frames):
        if index % stride == 0:
            kept.append(frame)
        if len(kept) > 16 * STRIP:  # memory stays bounded, however long the episode
            kept, stride = kept[::2], 2 * stride
    chosen = np.linspace(0, len(kept) - 1, min(STRIP, len(kept))).round().astype(int)
    strip = np.concatenate([kept[index] for index in chosen], axis=1)
    atomic.write_bytes(path, imageio.v3.imwrite("<bytes>", strip, extension=".png"))


def _display() -> bool:
    """Whether windows can be shown."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
