"""What the benchmark of an off-policy method reads out of runs."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def off_policy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS"):
        monkeypatch.setenv(name, "1")  # the script sets them: this puts them back
    spec = importlib.util.spec_from_file_location("off_policy", ROOT / "benchmarks/off_policy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "off_policy", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run() -> dict[str, Any]:
    return {"steps": [0, 100, 200, 300, 400], "mean": [1.0, 2.0, 4.0, 8.0, 16.0], "seconds": [0.5, 1, 2, 3, 4]}


def test_a_return_around_some_steps_is_the_mean_of_the_last_third_before_them(
    off_policy: ModuleType, run: dict[str, Any]
) -> None:
    # A phase ends a little after a round number of steps, and counts.
    run["steps"][3] = 302
    assert off_policy.around(run, 200) == 4.0
    assert off_policy.around(run, 300) == 8.0
    assert off_policy.around(run, 400) == (8.0 + 16.0) / 2


def test_what_a_run_had_reached_by_a_second(off_policy: ModuleType, run: dict[str, Any]) -> None:
    assert off_policy.within(run, 3.5) == 8.0 and off_policy.within(run, 3.0) == 8.0
    assert math.isnan(off_policy.within(run, 0.1))
    assert off_policy.spread([off_policy.within(run, 0.1)]) == {"mean": None, "each": None}
    assert off_policy.spread([1.0, 4.04]) == {"mean": 2.52, "each": [1.0, 4.0]}


def test_the_archive_has_the_runs_that_are_compared(off_policy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    archive = off_policy.Archive(off_policy.ARCHIVE)
    for task in off_policy.TASKS:
        for algorithm, lag in off_policy.OURS.values():
            runs = off_policy.ours(archive, task, algorithm, lag)
            assert len(runs) == 5 and all(np.all(np.diff(run["seconds"]) > 0) for run in runs)


def test_the_table_says_what_there_is_no_evaluation_of(off_policy: ModuleType) -> None:
    own = {"seeds": 5, "at_steps": {"mean": 3.0}, "final": {"mean": 5.0}, "seconds_to_final": 7.0}
    sac = {"seeds": 1, "at_steps": {"mean": 2.0}, "seconds_to_steps": 9.0, "published": {"where": "11 (1 run)"}}
    tasks = {"T": {"SAC": sac, "ours": own | {"sac_by_then": {"mean": None}}}}
    text = off_policy.table({"steps": 10, "tasks": tasks, "versions": {"sbx-rl": "1"}})
    assert "| T | SAC | 1 | 2 | published: 11 (1 run) | 9 |  |" in text
    assert "| T | ours | 5 | 3 | 5 | 7 | no evaluation yet |" in text and "sbx-rl 1" in text
