"""Runs that follow a recorded schedule: what they collect, that they resume, and that what is not theirs is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaco.control.asynchronous.actor import Actor, join
from vaco.control.asynchronous.run import RecordedRun
from vaco.control.gaussian import log_probability, standard_score
from vaco.control.policy import Actors, Normaliser, take_snapshot
from vaco.control.train import Run, begin
from vaco.errors import UserError
from vaco.runs import schedule, tables
from vaco.runs.config import build
from vaco.runs.schedule import DROPPED, LOST, USED, Entry, Recording, to_columns

SMALL = {
    **{"env": "Hopper-v5", "num_envs": 4, "phase_steps": 16, "minibatch": 32, "epochs": 2, "hidden": [8, 8]},
    **{"eval_points": 1, "eval_episodes": 1},
}
ENTRIES = [
    Entry(0, 0, 0, 0, ((16, 0),)),
    Entry(0, 1, 0, 0, ((16, 0),)),
    Entry(1, 0, 0, 1, ((6, 0), (10, 1))),
    Entry(2, 2, 0, 0, ((16, 1),), LOST),
    Entry(1, 1, 0, 1, ((16, 0),), DROPPED),
    Entry(1, 0, 1, 0, ((16, 1),)),
    Entry(2, 0, 1, 1, ((16, 1),)),
    Entry(2, 1, 0, 2, ((16, 2),)),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tables.write_parquet(tmp_path / "schedule.parquet", to_columns(ENTRIES))
    return tmp_path / "schedule.parquet"


def config(path: Path, **more: Any) -> Any:
    return build({**SMALL, "steps": 3 * 64, "lag": f"file:{path}", **more})


def bits(run: Run) -> bytes:
    return run.networks.flat.tobytes() + run.normaliser.state().tobytes()


def test_ages_are_those_of_the_schedule(path: Path) -> None:
    run = begin(config(path), print)
    assert isinstance(run, RecordedRun) and run.config.lag == 2
    rows = [run.advance() for _ in range(3)]
    # Two environments a segment. In update 1 ages are of steps: six of the 2 x 16 of two segments have age 1.
    assert [row["age_mean"] for row in rows] == [0.0, 6 / 32, 0.5]
    assert [row["age_max"] for row in rows] == [0, 1, 1]
    assert run.more_tables()["schedule.parquet"]["order"].tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 7]


def test_a_run_repeats_and_resumes_bit_for_bit(path: Path) -> None:
    whole, again = begin(config(path), print), begin(config(path), print)
    for phase in range(3):
        whole.advance()
        if phase == 2:  # in the middle of an incarnation, and after pieces, a loss and a drop
            state, draws = {k: v.copy() for k, v in again.state().items()}, again.draws()
            again = begin(config(path), print)
            again.restore(2, 0.0, draws, state)
        again.advance()
        assert bits(whole) == bits(again)
    assert bits(begin(config(path, seed=1), print)) != bits(begin(config(path), print))


def test_what_was_dropped_is_collected_all_the_same(path: Path, tmp_path: Path) -> None:
    """The actor goes on from where the dropped segment ended."""
    without = [entry for entry in ENTRIES if entry.fate != DROPPED]
    without[-1] = Entry(2, 1, 0, 1, ((16, 2),))
    tables.write_parquet(tmp_path / "other.parquet", to_columns(without))
    runs = [begin(config(p), print) for p in (path, tmp_path / "other.parquet")]
    same = []
    for _ in range(3):
        for run in runs:
            run.advance()
        same.append(bits(runs[0]) == bits(runs[1]))
    assert same == [True, True, False]


def test_another_method_sees_the_same_first_data(path: Path) -> None:
    ours, theirs = begin(config(path), print), begin(config(path, algorithm="ppo"), print)
    first, second = ours._collect(), theirs._collect()
    assert np.array_equal(first.observations, second.observations) and np.array_equal(first.actions, second.actions)


def test_segments_with_a_change_of_policy_have_the_densities_of_each(path: Path) -> None:
    """Against a loop over steps and environments."""
    settings = config(path)
    actor = Actor(settings, 2, 0, 0)
    networks = actor.collector.template
    networks.initialise(np.random.default_rng(0), 0.0)
    first = take_snapshot(networks, Normaliser(11), 0, 10.0)
    networks.flat += 0.1
    second = take_snapshot(networks, Normaliser(11), 1, 10.0)
    segment = actor.collect(lambda step: first if step < 6 else second)
    batch = join([segment], 3)
    assert segment.entry(3, USED).pieces == ((6, 0), (10, 1))
    assert batch.ages.tolist() == [[3, 3]] * 6 + [[2, 2]] * 10
    for t in range(16):
        for e in range(2):
            policy = Actors([first if t < 6 else second], networks)
            mean = policy.outputs(batch.observations[t, e][None])[0]
            score = standard_score(batch.actions[t, e], mean, policy.log_std[0])
            assert batch.behaviour_logp[t, e] == pytest.approx(log_probability(score, policy.log_std[0]), abs=1e-4)
            assert np.array_equal(batch.behaviour_log_std[t, e], policy.log_std[0])


def test_discounted_returns_are_carried_by_the_actor(path: Path) -> None:
    settings = config(path, discount=0.9)
    actor = Actor(settings, 2, 0, 0)
    networks = actor.collector.template
    networks.initialise(np.random.default_rng(0), 0.0)
    snapshot = take_snapshot(networks, Normaliser(11), 0, 10.0)
    expected = np.zeros(2)
    for _ in range(4):
        batch = actor.collect(lambda step: snapshot).batch
        assert batch.discounted is not None and np.allclose(batch.discounted, expected)
        for t in range(16):
            for e in range(2):
                expected[e] = 0.9 * expected[e] + batch.rewards[t, e]
                if batch.terminated[t, e] or batch.truncated[t, e]:
                    expected[e] = 0.0


def mistakes() -> Iterator[Any]:
    yield {"phase_steps": 32}, "segments of 16 steps, but phase_steps is 32"
    yield {"num_envs": 3, "minibatch": 16}, "2 segments a batch, which do not divide num_envs = 3"
    yield {"steps": 4 * 64}, "is of 3 updates, but 256 steps are 4"


@pytest.mark.parametrize(("settings", "words"), list(mistakes()))
def test_a_schedule_of_another_shape_is_refused(path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        begin(config(path, **settings), print)


def test_a_file_that_changed_is_refused(path: Path) -> None:
    settings = config(path)
    assert settings.hash == build({**settings.resolved(), "schedule": settings.schedule.replace("/", "//")}).hash
    assert build(settings.resolved()) == settings  # the record of the run needs no file
    tables.write_parquet(path, to_columns(ENTRIES[:-2]))
    assert build(settings.resolved()) == settings
    with pytest.raises(UserError, match="put back what it was"):
        begin(settings, print)
    assert config(path, steps=2 * 64).hash != settings.hash


def test_the_digest_is_of_what_is_said(path: Path) -> None:
    assert schedule.read(path).digest == Recording(ENTRIES).digest
    assert Recording(ENTRIES).digest != Recording(ENTRIES[:-2]).digest
