"""Lags met in training, read from a table as `vaco.report.tables.aggregate` writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from theory.training import read_lags


def test_reads_the_table_of_a_tier(tmp_path: Path) -> None:
    folder = tmp_path / "smoke" / "tables"
    folder.mkdir(parents=True)
    columns = {
        "name": np.array(["vaco", "ppo", "vaco", "vaco-delta0.8"]),
        "algorithm": np.array(["vaco", "ppo", "vaco", "vaco"]),
        "lag": np.array([1, 1, 8, 8]),
        "backward_lag": np.array([0.0, 0.0, 0.2, 0.4], np.float32),
        "forward_lag": np.array([0.1, 0.05, 0.1, 0.4], np.float32),
        "tv_after": np.array([0.1, 0.05, 0.25, 0.5], np.float32),
    }
    pd.DataFrame(columns).to_parquet(folder / "diagnostics.parquet")
    lags = read_lags(folder)
    assert [row["capacity"] for row in lags.rows] == [1, 8]
    assert lags.label == "vaco, smoke tier" and "2 phases" in lags.note
    assert read_lags(tmp_path).rows == []
