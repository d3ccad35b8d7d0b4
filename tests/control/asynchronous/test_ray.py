"""The same with Ray: recorded, an actor killed and another hanging, replayed to the bit. Where Ray is installed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from vaco.control.asynchronous import replay
from vaco.control.asynchronous.run import LiveRun
from vaco.control.train import train
from vaco.errors import UserError
from vaco.runs import schedule, silence
from vaco.runs.config import build
from vaco.runs.differences import differences
from vaco.runs.preemption import Preempted

SETTINGS = {
    **{"env": "InvertedPendulum-v5", "num_envs": 4, "phase_steps": 16, "minibatch": 32, "epochs": 2, "hidden": [8, 8]},
    **{"eval_points": 1, "eval_episodes": 1, "actors": 2, "engine": "ray", "slowness": [3.0], "steps": 60 * 64},
}


@pytest.mark.slow
def test_a_run_with_ray_replays_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(silence, "SILENCE", 3.0)
    said: list[str] = []

    class Attacked(LiveRun):
        def advance(self) -> Any:
            row = super().advance()
            places = {number: actor.place for number, actor in self.engine._actors.items()}  # type: ignore[union-attr]
            if self.phase == 5 and places[0] is not None:
                os.kill(places[0][1], signal.SIGKILL)
            if self.phase == 20 and places[1] is not None:
                os.kill(places[1][1], signal.SIGSTOP)
            return row

    config = build(SETTINGS)
    train(config, tmp_path / "run", quiet=True, say=said.append, begin=Attacked)
    assert any("actor 0 was lost; incarnation 1" in sentence for sentence in said), said
    assert any("actor 1 gave no sign of life; incarnation 1" in sentence for sentence in said), said
    entries = schedule.read(tmp_path / "run/schedule.parquet").entries
    assert {entry.key[:2] for entry in entries} >= {(0, 0), (1, 0), (0, 1)}
    replay.train_again(tmp_path / "run", tmp_path / "again", quiet=True)
    assert differences(tmp_path / "run", tmp_path / "again") == []


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves(tmp_path: Path) -> None:
    """Ray has handlers of its own for the signal, which would end the process at once."""
    pytest.importorskip("ray")

    class Asked(LiveRun):
        def advance(self) -> Any:
            if self.phase == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().advance()

    with pytest.raises(Preempted, match="asked to stop at step"):
        train(build(SETTINGS), tmp_path / "run", quiet=True, say=print, begin=Asked)
    assert list((tmp_path / "run/checkpoints").iterdir())


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(UserError, match="Ray cannot be started or reached"):
        train(build(SETTINGS), tmp_path / "run", quiet=True, say=print)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_node_that_leaves_and_one_that_joins(tmp_path: Path) -> None:
    """Two nodes of Ray's on this machine with a core each, so that the actors are on different ones."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    small = {"include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    said: list[str] = []

    class Moved(LiveRun):
        def advance(self) -> Any:
            row = super().advance()
            if self.phase == 5:
                cluster.remove_node(second, allow_graceful=False)
            if self.phase == 30:
                cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
            if 5 < self.phase < 150 and not said:
                time.sleep(0.2)  # until the loss has been noticed
            return row

    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
        config = build({**SETTINGS, "segments": 1, "steps": 200 * 64})
        train(config, tmp_path / "run", quiet=True, say=said.append, begin=Moved)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert any("; incarnation 1 of it goes on" in sentence for sentence in said), said
    replay.train_again(tmp_path / "run", tmp_path / "again", quiet=True)
    assert differences(tmp_path / "run", tmp_path / "again") == []
