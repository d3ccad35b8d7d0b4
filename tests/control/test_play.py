"""A trained policy is shown and exported, and does there what it does here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from own_environments import Painted

from vaco import cli
from vaco.control.asynchronous import actor
from vaco.control.export import export
from vaco.control.play import play
from vaco.control.saved import SavedPolicy, load
from vaco.control.train import train
from vaco.errors import UserError
from vaco.report.figures import own_runs
from vaco.runs.config import build

drawn = own_runs.draw
SMALL = {"num_envs": 4, "phase_steps": 32, "minibatch": 64, "steps": 256, "eval_points": 1, "eval_episodes": 1}


@pytest.fixture(scope="module", params=["Painted-v0", "Hopper-v5"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(build(SMALL | {"env": request.param}), out, quiet=True)
    return out


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> SavedPolicy:
    out = tmp_path_factory.mktemp("painted") / "run"
    train(build(SMALL | {"env": "Painted-v0"}), out, quiet=True)
    return load(out)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".mp4"])
def test_a_video_has_the_episode_and_its_return(suffix: str, painted: SavedPolicy, tmp_path: Path) -> None:
    import imageio.v3

    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    file = tmp_path / f"it{suffix}"
    returns = play(painted, video=file, episodes=2, seed=4)
    assert returns == play(painted, video=tmp_path / f"again{suffix}", episodes=2, seed=4)
    shown = imageio.v3.imread(file)
    if suffix == ".png":
        assert shown.shape == (21, 8 * 41, 3)
    else:
        assert len(shown) >= 2 and shown.shape[1:3] == (20, 40)
    assert list(tmp_path.iterdir()) == [file, tmp_path / f"again{suffix}"] or len(list(tmp_path.iterdir())) == 2
    # The same by hand: the likeliest category, step by step.
    env, total = Painted(), 0.0
    seeds = np.random.SeedSequence((4, 7)).spawn(2)[0]
    observation, _ = env.reset(seed=int(seeds.generate_state(1)[0] >> 1))
    for _ in range(30):
        observation, reward, *_ = env.step(int(painted(observation)[0]))
        total += reward
    assert returns[0] == total


def test_what_is_shown_begins_where_no_actor_of_training_began(
    painted: SavedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int | None] = []
    reset = Painted.reset
    monkeypatch.setattr(Painted, "reset", lambda self, **given: (seeds.append(given["seed"]), reset(self, **given))[1])
    play(painted, video=tmp_path / "it.png", seed=4)
    of_an_actor = np.random.SeedSequence((4, actor._STREAM, 0, 0)).spawn(2)[0]
    assert seeds and seeds[0] is not None and seeds[0] != int(of_an_actor.generate_state(1)[0] >> 1)


def test_sampling_is_asked_for(painted: SavedPolicy, tmp_path: Path) -> None:
    best, sampled = (
        play(painted, video=tmp_path / "it.png", episodes=3, deterministic=deterministic)
        for deterministic in (True, False)
    )
    assert best != sampled


def test_mistakes_are_one_sentence(painted: SavedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        with pytest.raises(UserError, match="no display to show a window on: give --video"):
            play(painted)
    with pytest.raises(UserError, match=r"is no video: give a name that ends in \.mp4"):
        play(painted, video=tmp_path / "it.avi")
    monkeypatch.setattr(Painted, "render", lambda self: 1 / 0)
    with pytest.raises(UserError, match=r"Painted-v0 cannot be rendered here \(ZeroDivisionError"):
        play(painted, video=tmp_path / "it.gif")
    assert list(tmp_path.iterdir()) == []


def test_mujoco_is_rendered_without_a_display(tmp_path: Path) -> None:
    """In a process of its own: MuJoCo chooses how to draw when it is first imported."""
    out = tmp_path / "run"
    train(build(SMALL | {"env": "InvertedPendulum-v5"}), out, quiet=True)
    hidden = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")}
    words = [sys.executable, "-m", "vaco", "play", "--run", str(out), "--video", str(tmp_path / "it.png")]
    done = subprocess.run(words, capture_output=True, text=True, env=hidden, timeout=120)
    if done.returncode == 2 and "cannot be rendered here" in done.stderr:
        pytest.skip("nothing to render with on this machine")
    assert done.returncode == 0, done.stderr
    assert "return " in done.stdout and (tmp_path / "it.png").stat().st_size > 1000


def test_torchscript_does_the_same(run: Path, tmp_path: Path) -> None:
    policy = load(run)
    assert cli.run(["export", "--run", str(run), "--to", "torchscript", "--out", str(tmp_path / "it.pt")]) == 0
    module = torch.jit.load(str(tmp_path / "it.pt"))
    observations = 3 * np.random.default_rng(0).standard_normal((9, policy.networks.observation_size))
    with torch.no_grad():
        np.testing.assert_allclose(
            module(torch.tensor(observations, dtype=torch.float32)), policy(observations), atol=1e-6
        )
    assert [path.name for path in tmp_path.iterdir()] == ["it.pt"]


def test_onnx_does_the_same(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    policy = load(run)
    export(policy, "onnx", tmp_path / "it.onnx")
    session = runtime.InferenceSession(str(tmp_path / "it.onnx"), providers=["CPUExecutionProvider"])
    observations = np.random.default_rng(0).standard_normal((5, policy.networks.observation_size)).astype(np.float32)
    (actions,) = session.run(None, {"observations": observations})
    np.testing.assert_allclose(actions, policy(observations), atol=1e-5)


def test_stable_baselines3_does_the_same(run: Path, tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    policy = load(run)
    export(policy, "sb3", tmp_path / "it.zip")
    model = sb3.PPO.load(tmp_path / "it.zip", device="cpu")
    usual = np.random.default_rng(0).standard_normal((5, policy.networks.observation_size)).astype(np.float32)
    observations = policy.snapshot.shift + usual / policy.snapshot.scale  # within the limit that is not exported
    actions, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(actions.reshape(5, -1), np.clip(policy(observations), -1, 2), atol=1e-4)


def test_an_unknown_format_is_refused(painted: SavedPolicy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no format 'onx': did you mean 'onnx'"):
        export(painted, "onx", tmp_path / "it")


def test_runs_are_drawn_as_picture_and_as_text(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plot", str(run)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("return of evaluations, ") and "vaco lag1 seed0" in printed[1]
    assert any(block in printed[1] for block in "▁█")
    assert cli.run(["plot", str(run), "--out", str(tmp_path / "it.png")]) == 0
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    assert cli.run(["plot", str(run), "--out", str(tmp_path / "it.doc")]) == 2
    assert cli.run(["plot", str(tmp_path)]) == 2
    assert cli.run(["status", str(run)]) == 0
    assert ": complete" in capsys.readouterr().out


def test_runs_that_differ_in_a_setting_alone_are_told_apart_by_their_folders(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither their own names nor algorithm, lag and seed say which is which."""
    folders = [tmp_path / name / "run" for name in ("a", "b")]
    for folder in folders:
        shutil.copytree(run, folder)
    flags = ["plot", *map(str, folders)]
    assert cli.run(flags) == 0
    printed = capsys.readouterr().out
    assert "a/run vaco lag1 seed0" in printed and "b/run vaco lag1 seed0" in printed
    assert cli.run([*flags, "--out", str(tmp_path / "it.png")]) == 0
    assert capsys.readouterr().out.endswith("it.png: 2 runs\n")


def test_a_run_of_a_language_model_is_not_drawn_as_one_of_an_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(
        json.dumps({"config": {"task": "chain_sum", "updates": 2, "algorithm": "tv", "seed": 0}})
    )
    (tmp_path / "phases.csv").write_text("update,reward\n1,0.5\n")
    assert cli.run(["plot", str(tmp_path), "--out", str(tmp_path / "it.png")]) == 2
    assert "vaco compare" in capsys.readouterr().err


def test_a_picture_says_that_episodes_were_restarted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"episodes_restarted": 3}))
    notes: list[str] = []
    monkeypatch.setattr(own_runs, "draw", lambda runs, note: (notes.append(note), drawn(runs, note))[1])
    for folder in (run, copy):
        assert cli.run(["plot", str(folder), "--out", str(tmp_path / "it.png")]) == 0
    assert notes[0] == "" and "episodes were restarted 3 times" in notes[1]
    written = drawn({"a seed0": {"evals": {}, "phases": {}}}, notes[1]).get_supxlabel()
    assert "episodes were restarted 3 times" in " ".join(written.split())


def test_a_sparkline_keeps_order_range_and_length() -> None:
    from vaco.cli_run import LINE, sparkline

    assert sparkline([0.0, 1.0, float("nan"), 0.5], 0.0, 1.0) == "▁█ ▅"
    long = sparkline([float(i) for i in range(1000)], 0.0, 999.0)
    assert len(long) == LINE and list(long) == sorted(long) and long[0] == "▁" and long[-1] == "█"
    assert sparkline([2.0, 2.0], 2.0, 2.0) == "▁▁"
