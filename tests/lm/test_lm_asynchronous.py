"""Generation beside training: the record of it replays to the bit, whoever ends, and what cannot be is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_helpers import small_config

from vaco import cli
from vaco.errors import UserError
from vaco.lm import asynchronous, replay, rounds
from vaco.lm.run import Run
from vaco.lm.train import make_source, train
from vaco.runs import tables
from vaco.runs.differences import differences
from vaco.runs.preemption import Preempted

said: list[str] = []


def schedule(folder: Path) -> dict[str, Any]:
    return tables.read_parquet(folder / "schedule.parquet")


@pytest.mark.parametrize(
    "changes",
    [
        {"generators": 1, "minibatches": 2, "algorithm": "vaco"},
        {"generators": 2, "ahead": 2, "algorithm": "decoupled", "engine": "process", "engine_precision": "bfloat16"},
    ],
    ids=["one", "two-in-bfloat16"],
)
def test_the_replay_is_the_run(changes: dict[str, Any], tmp_path: Path) -> None:
    config = small_config(**changes)
    train(config, tmp_path / "run", quiet=True)
    found = schedule(tmp_path / "run")
    assert found["round"].tolist() == list(range(config.rounds))
    assert (found["update"] == found["round"] * config.minibatches).all() and (
        found["version"] <= found["update"]
    ).all()
    # The first round that is generated beside training has the policy of before it.
    assert found["version"][0] == 0 and found["version"][1] == 0
    room = config.generators * config.ahead
    assert (found["update"] - found["version"]).max() <= room * config.minibatches
    assert set(found["generator"].tolist()) <= set(range(config.generators))
    replay.train_again(tmp_path / "run", tmp_path / "again", quiet=True)
    assert differences(tmp_path / "run", tmp_path / "again") == []


def test_a_round_does_not_depend_on_when_it_is_asked_for() -> None:
    """The same problems, noise and order, whatever came before; and other ones for another round or seed."""
    run = Run(small_config(generators=1, minibatches=2))
    first, noise = rounds.asked(run, 3)
    rounds.asked(run, 1)
    again, other = rounds.asked(run, 3)
    assert first == again and np.array_equal(noise.random((2, 3)), other.random((2, 3)))
    assert rounds.asked(run, 2)[0] != first
    drawn = [asynchronous.streams(seed, number)["noise"].random() for seed in (0, 1) for number in (0, 1)]
    assert len(set(drawn)) == 4
    # Also one by one: no stream is another's.
    own = asynchronous.streams(0, 0)
    assert len({source.random() for source in own.values()}) == len(asynchronous.STREAMS)


def test_a_record_is_followed_with_the_weights_of_its_versions() -> None:
    """Also where a newer policy is held already, since a later round needs it; what none needs is let go."""
    weights = [{"w": np.full(1, version)} for version in range(3)]
    used: list[tuple[int, int, float]] = []

    def generate(number: int, version: int, own: Any) -> Any:
        used.append((number, version, float(own["w"][0])))

    source = asynchronous.Recorded([(0, 0), (0, 1), (1, 0)], generate)
    for number in range(3):
        source.publish(number, weights[number])
        assert set(source._held) == [{0}, {0, 1}, {1}][number]
        assert source.next(number, None).version == [0, 0, 1][number]
    assert used == [(0, 0, 0.0), (1, 0, 0.0), (2, 1, 1.0)] and source.taken == [(0, 0), (0, 1), (1, 0)]


def test_stopped_and_continued_with_a_killed_generator_it_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out, count = small_config(generators=2, updates=12), tmp_path / "run", 0
    advance = rounds.advance

    def disturbed(run: Any, stop: Any) -> Any:
        nonlocal count
        row = advance(run, stop)
        count += 1
        if run.update == 3:  # both are at work or wait for room
            for engine in getattr(run.source, "_engines", ()):
                if engine._child is not None:
                    os.kill(engine._child.pid, signal.SIGKILL)
        if run.update == 6 and count == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    monkeypatch.setattr(rounds, "advance", disturbed)
    with pytest.raises(Preempted):
        train(config, out, quiet=True, say=said.append)
    train(config, out, quiet=True, say=said.append)
    assert any("resuming" in sentence for sentence in said)
    found = schedule(out)
    assert len(found["round"]) == 12 and found["version"][6] == 6, "what was generated and not taken is made anew"
    assert cli.run(["lm", "replay", str(out), "--quiet"]) == 0
    # The replay can be stopped, too.
    count = 0
    with pytest.raises(Preempted):
        replay.train_again(out, tmp_path / "again", quiet=True)
    replay.train_again(out, tmp_path / "again", quiet=True)
    assert differences(out, tmp_path / "again") == []
    changed = {name: column.copy() for name, column in found.items()}
    changed["version"][8] = 0
    tables.write_parquet(out / "schedule.parquet", changed)
    replay.train_again(out, tmp_path / "other", quiet=True)
    assert any("phases.parquet differs from row 8" in clause for clause in differences(out, tmp_path / "other"))


def test_a_process_that_always_ends_is_not_replaced_for_ever() -> None:
    run = Run(small_config(generators=1))
    source = make_source(run, None, said.append)
    assert isinstance(source, asynchronous.Live)

    class Broken:
        def load(self, *_: Any) -> None: ...

        def close(self) -> None: ...

        def generate(self, *_: Any) -> Any:
            raise UserError("the process that generates ended (exit code 1): run the same command again")

    source._engines = [Broken()]
    run.source = source
    with pytest.raises(UserError, match="generator 0, 3 times in a row: the process that generates ended"):
        rounds.advance(run)
    assert source.replaced == 2
    source.close()


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with generators real asynchrony decides"):
        small_config(generators=1, lag=2)
    with pytest.raises(UserError, match="one server, but generators are processes"):
        small_config(generators=1, engine="vllm")
    with pytest.raises(UserError, match="holds no finished run"):
        replay.train_again(tmp_path, tmp_path / "out")
    config = small_config(generators=1, minibatches=2)
    good = asynchronous.to_columns([(0, 0), (0, 0), (2, 0), (4, 0)], 2)
    assert asynchronous.from_columns(good, config) == [(0, 0), (0, 0), (2, 0), (4, 0)]
    for name, place, value in (("version", 0, 2), ("version", 3, 3), ("version", 1, -2), ("round", 1, 0)):
        bad = {key: column.copy() for key, column in good.items()}
        bad[name][place] = value
        with pytest.raises(UserError, match="the schedule is not of this run"):
            asynchronous.from_columns(bad, config)


def test_a_setting_that_is_not_read_is_named() -> None:
    assert "ahead" in small_config().unread and "ahead" not in small_config(generators=1).unread
    assert small_config(generators=1).stale and small_config(lag=2).stale and not small_config().stale
