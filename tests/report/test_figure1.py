"""Figure 1: the ages are those of the buffer that trains, and the simulated twin agrees with what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from vaco.errors import UserError
from vaco.report import figure1
from vaco.schematic import asynchrony, events, measure

ROOT = Path(__file__).parents[2]
TRACKED = ROOT / "results" / "schematic"


@pytest.mark.parametrize("capacity", [1, 4, 16])
def test_simulated_ages_are_those_of_the_closed_form(capacity: int) -> None:
    made = asynchrony.counted(capacity, actors=8, phases=400, generator=np.random.default_rng(1))
    share = np.array(made["counts"]) / np.sum(made["counts"])
    assert sum(made["counts"]) == 8 * 400 and sum(made["expected"]) == pytest.approx(1.0)
    # Five standard deviations of a share of 3,200 independent draws, each age with its own.
    expected = np.array(made["expected"])
    assert (np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / 3200)).all()


def test_the_first_phases_hold_fewer_policies() -> None:
    made = asynchrony.counted(4, actors=8, phases=2, generator=np.random.default_rng(1))
    assert made["expected"] == pytest.approx([0.75, 0.25, 0, 0]) and made["counts"][2:] == [0, 0]


def one_actor(update: float) -> events.Simulation:
    return events.Simulation(
        means=[1.0], spreads=[0.01], update=update, batch=1, queue=3, generator=np.random.default_rng(0)
    )


def test_a_lone_actor_with_a_fast_learner_is_one_update_behind() -> None:
    """It pulls before its last segment is learnt from, so its weights lack exactly that update."""
    assert set(one_actor(update=0.1).run(50)[1:].tolist()) == {1}


def test_a_full_queue_ages_what_it_holds() -> None:
    """Behind a slow learner: the queue's 3, the one in front of it, and no more."""
    assert set(one_actor(update=5.0).run(50)[10:].tolist()) == {4}


def test_mean_age_behind_a_full_queue_obeys_littles_law() -> None:
    """Segments in the system, queue and actors, over segments an update: 18/2."""
    simulation = events.Simulation(
        means=list(measure.SYSTEMS[1].paces), spreads=[0.3] * 6, update=0.016, batch=2, queue=12,
        generator=np.random.default_rng(0),
    )  # fmt: skip
    assert simulation.run(4000)[800:].mean() == pytest.approx(9.0, abs=0.02)


def test_the_twin_agrees_with_the_tracked_measurement() -> None:
    """In mean within 10 %, and in total variation within 0.1; the twin knows nothing of the operating system."""
    measured, made = (json.loads((TRACKED / f"{name}.json").read_text()) for name in ("measured", "asynchrony"))
    for system, twin in zip(measured["systems"], made["twins"], strict=True):
        size = max(len(system["counts"]), len(twin["counts"]))
        one, other = (np.pad(c := np.array(p["counts"]), (0, size - len(c))) / c.sum() for p in (system, twin))
        ages = np.arange(size)
        assert one @ ages == pytest.approx(system["mean_age"], rel=1e-4)
        assert other @ ages == pytest.approx(one @ ages, rel=0.1)
        assert np.abs(one - other).sum() / 2 < 0.1


def test_a_small_system_of_processes_is_measured() -> None:
    system = measure.System("test", (0.002, 0.004), update=0.001, batch=1, queue=2, updates=120)
    made = measure.measure(system)
    assert sum(made["counts"]) == made["segments"] == 120 - measure._WARM
    assert made["mean_age"] > 0.3 and len(made["window"]["updates"]) == measure._WINDOW
    # Nothing is taken before it is done, and nothing is done before it is pulled.
    assert all(pulled < done <= taken for _, _, pulled, done, taken, _ in made["window"]["segments"])


def test_the_figure_draws_twice_the_same_and_says_where_it_was_measured(tmp_path: Path) -> None:
    for side in "ab":
        assert figure1.main(["--data", str(TRACKED), "--out", str(tmp_path / side / "figure1")]) == 0
    for suffix in ("pdf", "svg", "png", "json"):
        first, second = (tmp_path / side / f"figure1.{suffix}" for side in "ab")
        assert first.read_bytes() == second.read_bytes(), suffix
    record = json.loads((tmp_path / "a" / "figure1.json").read_text())
    machine = json.loads((TRACKED / "measured.json").read_text())["machine"]
    assert machine["cpu"] in record["caption"] and re.search(r"Measured on \d{4}-\d\d-\d\d", record["caption"])
    assert record["command"] == "snakemake figure1"
    assert len(record["tables"]) == 2 and all(
        re.fullmatch("[0-9a-f]{64}", value) for value in record["tables"].values()
    )


def test_missing_data_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make it with snakemake schematic_data,"):
        figure1.main(["--data", str(tmp_path), "--out", str(tmp_path / "figure1")])
    with pytest.raises(UserError, match=r"vaco\.schematic\.measure"):
        asynchrony.main(["--measured", str(tmp_path / "no.json"), "--out", str(tmp_path / "a.json")])
    assert not list(tmp_path.iterdir())


def test_the_tracked_simulation_is_what_the_code_makes(tmp_path: Path) -> None:
    asynchrony.main(["--measured", str(TRACKED / "measured.json"), "--out", str(tmp_path / "a.json")])
    assert (tmp_path / "a.json").read_bytes() == (TRACKED / "asynchrony.json").read_bytes()
