"""Time limits from measurement: what archived runs took, task by task."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vaco.campaign import pace
from vaco.errors import UserError

ROOT = Path(__file__).parents[2]


def archive(results: Path, name: str, kind: str, rows: list[tuple[str, int, float]]) -> Path:
    folder = results / name / "archive"
    folder.mkdir(parents=True)
    (folder / "archive.json").write_text(json.dumps({"kind": kind}))
    task, steps, wall = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"run": list(task), "task": task, "completed_steps": steps, "wall_seconds": wall}),
        folder / "runs.parquet",
    )
    return folder


def test_it_is_the_median_of_each_task_over_all_archives_of_its_kind(tmp_path: Path) -> None:
    archive(tmp_path, "a", "control", [("Hopper-v5", 100, 1.0), ("Hopper-v5", 100, 9.0), ("Ant-v5", 10, 1.0)])
    archive(tmp_path, "b", "control", [("Hopper-v5", 1000, 20.0)])
    archive(tmp_path, "c", "language", [("chain_sum", 1, 1000.0)])
    assert pace.measured(tmp_path) == pytest.approx({"Hopper-v5": 0.02, "Ant-v5": 0.1})


def test_a_job_asks_for_half_as_much_again_and_a_start() -> None:
    known = {"Hopper-v5": 0.02, "Ant-v5": 0.1}
    assert pace.seconds("Hopper-v5", 6000, known) == pytest.approx(120)
    assert pace.minutes("Hopper-v5", 6000, known) == pace.START + 3
    assert pace.seconds("Humanoid-v5", 10, known) == pytest.approx(1.0)  # as the slowest that was measured
    assert pace.seconds("Humanoid-v5", 500, {}) == pytest.approx(1.0)


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    (archive(tmp_path, "a", "control", [("Ant-v5", 1, 1.0)]) / "runs.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"runs\.parquet"):
        pace.measured(tmp_path)


def test_what_the_paper_tier_asks_for_fits_a_partition_of_a_day_and_is_asked_in_no_time() -> None:
    began = time.perf_counter()
    known = pace.measured(ROOT / "results")
    asked = {task: pace.minutes(task, 100_000_000, known) for task in known}
    assert time.perf_counter() - began < 2
    assert asked.keys() >= {"HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"}
    assert all(60 < minutes < 1440 for minutes in asked.values()), asked
