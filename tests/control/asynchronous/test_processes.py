"""Real asynchronous training: the record of it replays to the bit, whoever is killed, hangs or is late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaco.cli import run as command
from vaco.control.asynchronous import processes, replay, worker
from vaco.control.asynchronous.actor import Actor
from vaco.control.asynchronous.run import LiveRun
from vaco.control.policy import Normaliser, take_snapshot
from vaco.control.train import train
from vaco.errors import UserError
from vaco.runs import schedule, silence, tables
from vaco.runs.config import build
from vaco.runs.differences import differences
from vaco.runs.schedule import DROPPED, LOST, USED

SMALL: dict[str, Any] = {
    **{"env": "InvertedPendulum-v5", "num_envs": 4, "phase_steps": 16, "minibatch": 32, "epochs": 2, "hidden": [8, 8]},
    **{"eval_points": 2, "eval_episodes": 1, "actors": 2},
}


def small(updates: int, **more: Any) -> Any:
    return build({**SMALL, "steps": updates * 64, **more})


def entries(folder: Path) -> list[schedule.Entry]:
    return schedule.read(folder / "schedule.parquet").entries


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@contextmanager
def live(config: Any, folder: Path) -> Iterator[LiveRun]:
    """A run whose actors are running, outside `train`."""
    run = LiveRun(config, said.append)
    said.clear()
    run.start(folder)
    try:
        yield run
    finally:
        run.stop()


said: list[str] = []


def test_a_board_is_never_read_in_halves() -> None:
    """A writer in another thread, so fast that readers are overtaken."""
    size = 20_000
    memory = bytearray(worker.Board.bytes_needed(size))
    ours, theirs = worker.Board(memory, size), worker.Board(memory, size)
    ours.put(0, np.zeros(size, np.float32).tobytes())
    stop = threading.Event()

    def write() -> None:
        version = 0
        while not stop.is_set():
            version += 1
            ours.put(version, np.full(size, version, np.float32).tobytes())

    thread = threading.Thread(target=write)
    thread.start()
    try:
        found = [theirs.get() for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    for turn, version, numbers in found:
        assert turn == version + 1 or turn == version  # announced while it was copied
        assert np.unique(np.frombuffer(numbers, np.float32)).tolist() == [float(version)]
    versions = [version for _, version, _ in found]
    assert versions == sorted(versions) and versions[-1] > 0


def test_segments_and_policies_survive_their_way() -> None:
    config = small(1)
    actor = Actor(config, 2, 1, 3)
    networks = actor.collector.template
    networks.initialise(np.random.default_rng(0), 0.0)
    snapshot = take_snapshot(networks, Normaliser(4), 7, 10.0)
    again = worker.policy_of(7, worker.policy_bytes(snapshot), 4, 10.0)
    for name in ("flat", "shift", "scale"):
        assert np.array_equal(getattr(again, name), getattr(snapshot, name))
    segment = actor.collect(lambda step: again)
    data = worker.pack(segment)
    assert len(data) < processes._segment_bytes(config, 2, networks)
    back = worker.unpack(data, 1, 3, 0)
    assert back.entry(9, USED) == segment.entry(9, USED)
    for name, value in vars(segment.batch).items():
        assert np.array_equal(getattr(back.batch, name), value), name


def test_a_killed_and_a_hanging_actor_are_replaced_and_the_replay_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENCE", 1.5)
    config, out, stopped, times = small(60, pull="step", queue=2), tmp_path / "run", [], {}

    class Attacked(LiveRun):
        """Each blow falls when what it needs has been seen: which actor is first depends on the machine."""

        def taken(self) -> set[tuple[int, int]]:
            columns = self.journal.columns()
            return set(zip(columns["actor"].tolist(), columns["incarnation"].tolist(), strict=True))

        def advance(self) -> Any:
            row = super().advance()
            assert self.engine is not None
            if "killed" not in times and (0, 0) in self.taken():
                os.kill(self.engine.pids[0], signal.SIGKILL)
                times["killed"] = time.monotonic()
            elif "stopped" not in times and {(1, 0), (0, 1)} <= self.taken():
                stopped.append(self.engine.pids[1])
                os.kill(stopped[0], signal.SIGSTOP)
                times["stopped"] = time.monotonic()
            elif any("actor 1 gave no sign of life" in sentence for sentence in said):
                times.setdefault("noticed", time.monotonic())
            # One actor alone could fill the rest: time passes until everything has happened.
            if "noticed" not in times:
                time.sleep(0.2)
            return row

    said.clear()
    train(config, out, quiet=True, say=said.append, begin=Attacked)
    assert any("actor 0 was ended by SIGKILL; incarnation 1" in sentence for sentence in said)
    assert any("actor 1 gave no sign of life; incarnation 1" in sentence for sentence in said)
    assert times["noticed"] - times["stopped"] < 10.0
    assert gone(stopped[0])
    assert {entry.key[:2] for entry in entries(out)} >= {(0, 0), (0, 1), (1, 0)}
    replay.train_again(out, tmp_path / "again", quiet=True)
    assert differences(out, tmp_path / "again") == []


DRIVER = """
import os, signal, sys, time
from pathlib import Path
from vaco.control.asynchronous.run import LiveRun
from vaco.control.train import train
from vaco.runs.config import build

out, settings = Path(sys.argv[1]), eval(sys.argv[2])

class Doomed(LiveRun):
    def _collect(self):
        batch = super()._collect()
        if self.phase > 4:
            time.sleep(0.5)  # however quick an update is, the loss is noticed before the learner's own end
        if self.phase == 4:
            os.kill(self.engine.pids[2], signal.SIGKILL)
        if self.phase == 9:
            print(*self.engine.pids, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

train(build(settings), out, quiet=True, checkpoint_seconds=0, begin=Doomed)
"""


def test_stragglers_a_killed_actor_and_a_killed_learner_replay_to_the_bit(tmp_path: Path) -> None:
    """The learner is killed between collecting and learning, with a checkpoint of the update before."""
    out = tmp_path / "run"
    settings = {**SMALL, "steps": 20 * 64, "actors": 3, "segments": 2, "slowness": [1.0, 6.0], "max_staleness": 1}
    killed = subprocess.run(
        [sys.executable, "-c", DRIVER, str(out), repr(settings)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "actor 2 was ended by SIGKILL; incarnation 1" in killed.stderr
    orphans = [int(pid) for pid in killed.stdout.split()]
    assert len(orphans) == 3 and wait_for(lambda: all(map(gone, orphans)), 20.0)

    said.clear()
    train(build(settings), out, quiet=True, say=said.append)
    assert any("resuming" in sentence and "at step 576 of 1,280" in sentence for sentence in said)
    found = entries(out)
    lost = [entry for entry in found if entry.fate == LOST]
    assert lost and {entry.update for entry in lost} == {9}
    assert any(f"{len(lost)} segments that an interrupted process took" in sentence for sentence in said)
    before, after = found[: found.index(lost[0])], found[found.index(lost[-1]) + 1 :]
    assert min(e.incarnation for e in after) > max(e.incarnation for e in [*before, *lost])
    assert max(entry.oldest for entry in found if entry.fate == USED) <= 1
    manifest = tables.read_json(out / "manifest.json")
    assert manifest["asynchrony"]["segments"]["lost"] == len(lost)
    assert manifest["asynchrony"]["segments"]["used"] == 40

    assert command(["replay", str(out), "--quiet"]) == 0
    # The same schedule as anybody's: the same method comes to the same policy.
    what_if = {name: value for name, value in settings.items() if name in {*SMALL, "steps"} - {"actors"}}
    train(build({**what_if, "lag": f"file:{out / 'schedule.parquet'}"}), tmp_path / "same", quiet=True)
    assert (tmp_path / "same/policy.safetensors").read_bytes() == (out / "policy.safetensors").read_bytes()
    other = build({**what_if, "algorithm": "ppo", "lag": f"file:{out / 'schedule.parquet'}"})
    train(other, tmp_path / "other", quiet=True)
    assert (tmp_path / "other/policy.safetensors").read_bytes() != (out / "policy.safetensors").read_bytes()
    ours, theirs = (tables.read_parquet(tmp_path / name / "phases.parquet") for name in ("run", "other"))
    assert np.array_equal(ours["age_mean"], theirs["age_mean"])


def test_a_difference_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small(3, actors=0)
    train(config, tmp_path / "run", quiet=True)
    assert command(["replay", str(tmp_path / "run"), "--quiet"]) == 0  # a simulated run, too
    path = tmp_path / "run/phases.parquet"
    columns = tables.read_parquet(path)
    columns["kl"][1] = np.nextafter(columns["kl"][1], 1.0, dtype=np.float32)
    tables.write_parquet(path, columns)
    assert command(["replay", str(tmp_path / "run"), "--quiet", "--out", str(tmp_path / "again")]) == 2
    assert "phases.parquet differs from row 1 on, in kl" in capsys.readouterr().err
    assert command(["replay", str(tmp_path), "--quiet"]) == 2
    assert command(["replay", str(tmp_path / "run"), "--quiet", "--out", str(tmp_path / "run")]) == 2


def test_what_is_too_old_is_dropped_and_weights_come_every_so_many_updates(tmp_path: Path) -> None:
    with live(small(8, broadcast=3, max_staleness=2, queue=1), tmp_path) as run:
        rows = [run.advance() for _ in range(8)]
        columns = run.more_tables()["schedule.parquet"]
    assert {*np.unique(columns["version"])} <= {0, 3, 6}
    ages = columns["update"] - columns["version"]
    assert (ages[columns["fate"] == USED] <= 2).all() and (ages[columns["fate"] == DROPPED] > 2).all()
    assert [row["age_max"] for row in rows] == [
        ages[(columns["update"] == update) & (columns["fate"] == USED)].max() for update in range(8)
    ]


def test_an_actor_that_cannot_begin_is_not_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_segment_bytes", lambda *_: 16)
    with (
        live(small(8), tmp_path) as run,
        pytest.raises(UserError, match=r"actor \d cannot go on: a segment of \d+ bytes"),
    ):
        run.advance()


def test_an_actor_that_always_ends_is_not_replaced_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = processes.Processes._start

    def start_and_kill(self: processes.Processes, number: int, incarnation: int) -> Any:
        started = start(self, number, incarnation)
        if number == 1:
            os.kill(started.process.pid, signal.SIGKILL)
        return started

    monkeypatch.setattr(processes.Processes, "_start", start_and_kill)
    with live(small(8, segments=1), tmp_path) as run:
        with pytest.raises(UserError, match="actor 1 was ended by SIGKILL, 3 times in a row before its first segment"):
            while True:
                run.engine.next()  # type: ignore[union-attr]
        pids = run.engine.pids  # type: ignore[union-attr]
    assert wait_for(lambda: all(map(gone, pids)), 5.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"actors": 3}, "num_envs is 4, which 3 segments cannot share"),
        ({"lag": 4}, "a schedule of lag 4 is asked for: leave out one"),
        ({"lag": "fifo:1"}, "leave out one of the two"),
        ({"slowness": [1, 2, 3]}, "slowness is [1.0, 2.0, 3.0], but it must list"),
        ({"slowness": [0.5]}, "a number of at least 1"),
        ({"slowness": ["a"]}, "slowness[0] is 'a', but it must be a number such as 4.0"),
        ({"engine": "threads"}, "engine is 'threads': valid names are processes, ray"),
        ({"queue": 0}, "queue is 0, but it must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        small(4, **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)
