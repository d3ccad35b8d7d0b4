"""What an update of the observation normaliser alone does to the policy, against actions drawn and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vaco.control.normaliser_lag import STATES, normaliser_lag
from vaco.control.policy import Snapshot
from vaco.control.train import Run
from vaco.runs.config import build


def trained(**settings: object) -> Run:
    small = {"env": "Hopper-v5", "num_envs": 8, "phase_steps": 64, "minibatch": 128, "steps": 4096}
    run = Run(build(small | {"learning_rate": 3e-3} | settings))
    run.advance()
    return run


def stepped(run: Run) -> tuple[Snapshot, Snapshot, object]:
    """The snapshots before and after a phase, and its batch."""
    kept: list[object] = []
    collect = run.collector.collect

    def keeping(*arguments: object) -> object:
        kept.append(collect(*arguments))  # type: ignore[arg-type]
        return kept[-1]

    run.collector.collect = keeping  # type: ignore[method-assign,assignment]
    before = run.snapshot
    run.advance()
    return before, run.snapshot, kept[0]


def sampled(run: Run, before: Snapshot, after: Snapshot, observations: np.ndarray, live: np.ndarray) -> float:
    """½ mean|π'/π − 1| over live states, many actions of π each: both with the parameters of after."""
    generator, networks = np.random.default_rng(0), run.networks
    networks.flat[:] = after.flat
    std, total, count = np.exp(networks.parameters["log_std"].astype(np.float64)), 0.0, 0
    for t in range(len(observations)):
        old, new = (networks.forward(one.standardise(observations[t]))[0].astype(np.float64) for one in (before, after))
        for actor in range(observations.shape[1]):
            if not live[t, actor]:
                continue
            actions = old[actor] + std * generator.standard_normal((300, len(std)))
            logs = [-0.5 * (((actions - mean[actor]) / std) ** 2).sum(-1) for mean in (old, new)]
            total += 0.5 * float(np.abs(np.exp(logs[1] - logs[0]) - 1.0).mean())
            count += 1
    return total / count


def test_it_is_what_sampled_ratios_estimate() -> None:
    run = trained()
    before, after, batch = stepped(run)
    got = run.rows[-1]["normaliser_lag"]
    assert got == normaliser_lag(before, after, run.networks, batch)  # type: ignore[arg-type]
    stride = batch.dead.size // STATES  # type: ignore[attr-defined]
    assert stride == 2, "the test wants to see the subsample"
    states, live = batch.observations[:-1][::stride], ~batch.dead[::stride]  # type: ignore[attr-defined]
    assert got == pytest.approx(sampled(run, before, after, states, live), rel=0.05)
    whole = sampled(run, before, after, batch.observations[:-1], ~batch.dead)  # type: ignore[attr-defined]
    assert got == pytest.approx(whole, rel=0.25) and got > 1e-3


def test_dead_slots_do_not_count() -> None:
    run = trained()
    before, after, batch = stepped(run)
    one = normaliser_lag(before, after, run.networks, batch)  # type: ignore[arg-type]
    batch.dead[4, 2] = True  # type: ignore[attr-defined]
    other = normaliser_lag(before, after, run.networks, batch)  # type: ignore[arg-type]
    batch.observations[4, 2] = 1e6  # type: ignore[attr-defined]
    assert one != other == normaliser_lag(before, after, run.networks, batch)  # type: ignore[arg-type]


def test_same_statistics_move_nothing() -> None:
    run = trained(normalise_observations=False)
    assert [row["normaliser_lag"] for row in run.rows] == [0.0]
    before, after, batch = stepped(trained())
    same = replace(after, shift=before.shift, scale=before.scale)
    assert normaliser_lag(before, same, run.networks, batch) == 0.0  # type: ignore[arg-type]
