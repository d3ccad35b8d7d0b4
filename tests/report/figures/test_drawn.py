"""What the figures draw is what the tables hold: lines and bars read back from the axes, found by a method's colour."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vaco.report.figures.diagnostics import ROWS, quartiles
from vaco.report.figures.rank_stability import EDGE
from vaco.report.tables import methods
from vaco.report.tables.read import Tables

NAMES, CAPACITIES, TASKS = ("ppo", "spo", "vaco"), (1, 8), ("Hopper-v5", "HalfCheetah-v5")


@pytest.fixture(scope="module")
def tables(tables_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Tables in which the median differs from the mean, as it does not over two tasks.

    Of the seeds needed one range ends, and one is not known.
    """
    folder = Path(shutil.copytree(tables_folder, tmp_path_factory.mktemp("drawn") / "tables"))
    table = pd.read_parquet(folder / "aggregates.parquet")
    table.loc[table["metric"] == "median", ["point", "low", "high"]] += 0.03
    table.to_parquet(folder / "aggregates.parquet")
    table = pd.read_parquet(folder / "separation.parquet")
    row = (table["lag"] == 8) & (table["name"] == "vaco") & (table["opponent"] == "spo")
    table.loc[row, ["freedom", "seeds", "fewest", "most"]] = [5.0, 4.0, 3.0, 70.0]
    row = (table["lag"] == 1) & (table["name"] == "vaco") & (table["opponent"] == "spo")
    table.loc[row, ["freedom", "seeds", "fewest", "most"]] = [2.0, np.nan, np.nan, np.nan]
    table.to_parquet(folder / "separation.parquet")
    return Tables(folder)


def drawn(name: str, tables: Tables) -> Figure:
    figure: Figure = importlib.import_module(f"vaco.report.figures.{name}").draw(tables).figure
    return figure


def colour(name: str) -> str:
    return to_hex(methods.LOOKS[name].colour)


def line(axes: Axes, name: str, points: int, *, marked: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The one line of a method with so many points; the thin lines that lead to labels have no marks."""
    found = [
        one
        for one in axes.lines
        if to_hex(one.get_color()) == colour(name)
        and len(one.get_xdata()) == points
        and (one.get_marker() not in ("None", "", None)) == marked
    ]
    assert len(found) == 1, (name, points, len(found))
    return np.asarray(found[0].get_xdata(), dtype=float), np.asarray(found[0].get_ydata(), dtype=float)


def segments(axes: Axes, name: str) -> np.ndarray:
    """The bars of a method, [bar, end, (x, y)]."""
    found = [
        one
        for one in axes.collections
        if isinstance(one, LineCollection) and to_hex(one.get_color()[0]) == colour(name)
    ]
    return np.concatenate([np.array(one.get_segments()) for one in found])


def outline(axes: Axes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the band of a method, at every x that it has."""
    (found,) = [
        one
        for one in axes.collections
        if isinstance(one, PolyCollection) and to_hex(one.get_facecolor()[0]) == colour(name)
    ]
    corners = found.get_paths()[0].vertices
    low, high = [], []
    for x in np.unique(corners[:, 0]):
        at = corners[corners[:, 0] == x, 1]
        low.append(at.min())
        high.append(at.max())
    return np.array(low), np.array(high)


def each(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name in NAMES:
        yield name, table[table["name"] == name]


def assert_against_capacity(axes: Axes, table: pd.DataFrame) -> None:
    for name, rows in each(table):
        rows = rows.set_index("lag").loc[list(CAPACITIES)]
        x, y = line(axes, name, len(CAPACITIES))
        assert y == pytest.approx(rows["point"].to_numpy())
        assert np.round(x).astype(int).tolist() == [0, 1] and [t.get_text() for t in axes.get_xticklabels()] == [
            "1",
            "8",
        ]
        bars = segments(axes, name)
        assert bars[:, 0, 1] == pytest.approx(rows["low"].to_numpy())
        assert bars[:, 1, 1] == pytest.approx(rows["high"].to_numpy()) and bars[:, 0, 0] == pytest.approx(x)


def assert_over_training(axes: Axes, table: pd.DataFrame, x: str = "grid_steps") -> None:
    for name, rows in each(table):
        rows = rows.sort_values(x)
        at, y = line(axes, name, len(rows))
        assert y == pytest.approx(rows["point"].to_numpy()) and at == pytest.approx(rows[x].to_numpy())
        low, high = outline(axes, name)
        assert low == pytest.approx(rows["low"].to_numpy()) and high == pytest.approx(rows["high"].to_numpy())


def test_figure3(tables: Tables) -> None:
    table = tables.read("aggregates")
    table = table[table["grid"] == "main"]
    panels = drawn("aggregate_scores", tables).axes
    for axes, metric in zip(panels, ("median", "iqm", "mean", "optimality_gap"), strict=True):
        assert metric.split("_")[0] in axes.get_title(loc="left").lower().replace("interquartile mean", "iqm")
        assert_against_capacity(axes, table[table["metric"] == metric])


def test_figure4(tables: Tables) -> None:
    curves, areas = tables.read("iqm_curves"), tables.read("aggregates")
    first, second, area = drawn("learning_curves", tables).axes[:3]
    for axes, lag in ((first, 1), (second, 8)):
        assert axes.get_title(loc="left").startswith(f"K = {lag}")
        assert_over_training(axes, curves[(curves["grid"] == "main") & (curves["lag"] == lag)])
    assert_against_capacity(area, areas[(areas["grid"] == "main") & (areas["metric"] == "auc_iqm")])


def test_curves(tables: Tables) -> None:
    table = tables.read("task_curves")
    for place, axes in enumerate(drawn("task_curves", tables).axes):
        env, lag = TASKS[place // 2], CAPACITIES[place % 2]
        assert_over_training(axes, table[(table["env"] == env) & (table["lag"] == lag)])


def test_scores(tables: Tables) -> None:
    table = tables.read("task_scores")
    table = table[(table["grid"] == "main") & (table["metric"] == "score")]
    for axes, env in zip(drawn("task_scores", tables).axes, TASKS, strict=False):
        assert axes.get_title(loc="left") == env
        assert_against_capacity(axes, table[table["env"] == env])


def test_profiles(tables: Tables) -> None:
    table = tables.read("profiles")
    for axes, lag in zip(drawn("profiles", tables).axes, CAPACITIES, strict=False):
        for name, rows in each(table[table["lag"] == lag]):
            rows = rows.sort_values("threshold")
            x, y = line(axes, name, len(rows), marked=False)
            assert x == pytest.approx(rows["threshold"].to_numpy()) and y == pytest.approx(rows["point"].to_numpy())


def test_diagnostics(tables: Tables) -> None:
    table = tables.read("diagnostics")
    table = table[table["name"].isin(NAMES)]
    table = table.assign(
        filter_tv=table["tv_statistic"] / 2, fired=table["trigger_fraction"].where(table["name"] == "vaco")
    )
    figure = drawn("diagnostics", tables)
    for place, axes in enumerate(figure.axes):
        value, lag = list(ROWS)[place // 2], CAPACITIES[place % 2]
        rows = quartiles(table[table["lag"] == lag], value)
        for name in rows["name"].unique():
            of_name = rows[rows["name"] == name].sort_values("progress")
            x, y = line(axes, name, len(of_name))
            assert y == pytest.approx(of_name["point"].to_numpy())
            assert x == pytest.approx(of_name["progress"].to_numpy() * tables.summary["steps"])
    assert set(quartiles(table, "fired")["name"]) == {"vaco"}


@pytest.mark.parametrize("figure", ["improvement", "rank_stability"])
def test_improvement(figure: str, tables: Tables) -> None:
    table = tables.read("improvement")
    table = table[(table["grid"] == "main") & (table["name"] == "vaco")].set_index(["lag", "opponent"])
    for axes, lag in zip(drawn(figure, tables).axes, CAPACITIES, strict=False):
        assert axes.get_title(loc="left") == f"K = {lag}"
        for place, opponent in enumerate(("ppo", "spo")):
            row = table.loc[(lag, opponent)]
            x, y = line(axes, opponent, 1)
            assert (x[0], y[0]) == (pytest.approx(row["point"]), place)
            (bar,) = segments(axes, opponent)
            assert bar[:, 0] == pytest.approx([row["low"], row["high"]]) and (bar[:, 1] == place).all()


def test_seeds_needed(tables: Tables) -> None:
    table = tables.read("separation")
    table = table[table["name"] == "vaco"].set_index(["lag", "opponent"])
    assert table["seeds"].notna().sum() == 3 and table["seeds"].isna().sum() == 1
    assert np.isinf(table["most"]).any() and np.isfinite(table["most"]).any()
    for axes, lag in zip(drawn("rank_stability", tables).axes[2:], CAPACITIES, strict=True):
        for place, opponent in enumerate(("ppo", "spo")):
            row = table.loc[(lag, opponent)]
            if np.isnan(row["seeds"]):
                assert not [one for one in axes.lines if to_hex(one.get_color()) == colour(opponent)]
                continue
            x, y = line(axes, opponent, 2, marked=False)
            assert x == pytest.approx([min(row["fewest"], EDGE), min(row["most"], EDGE)]) and (y == place).all()
            marks = [
                one for one in axes.lines if to_hex(one.get_color()) == colour(opponent) and one.get_marker() != ">"
            ]
            (mark,) = [one for one in marks if len(one.get_xdata()) == 1]
            assert mark.get_xdata()[0] == row["seeds"]
            hollow = to_hex(mark.get_markerfacecolor()) == "#ffffff"
            assert hollow == (row["difference"] < 0)
