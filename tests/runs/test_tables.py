from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaco.errors import UserError
from vaco.runs import tables

DTYPES = ["bool", "int32", "int64", "float32", "float64"]


@st.composite
def any_table(draw: st.DrawFn) -> dict[str, np.ndarray]:
    rows = draw(st.integers(0, 20))
    names = draw(
        st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1), min_size=1, unique=True)
    )
    return {name: draw(hnp.arrays(np.dtype(draw(st.sampled_from(DTYPES))), rows)) for name in names}


def phases(rows: int = 500) -> dict[str, np.ndarray]:
    """A table like a run's: counters, and floats that wander."""
    rng = np.random.default_rng(0)
    table: dict[str, np.ndarray] = {"phase": np.arange(rows), "env_steps": np.arange(rows) * 2048}
    table |= {f"measure{i}": np.cumsum(rng.normal(size=rows)).astype(np.float32) for i in range(30)}
    return table | {"missing": np.full(rows, np.nan, np.float32)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "table.parquet"


class TestParquet:
    @settings(max_examples=100, deadline=None)
    @given(table=any_table())
    def test_round_trip_is_bitwise(self, path: Path, table: dict[str, np.ndarray]) -> None:
        tables.write_parquet(path, table)
        back = tables.read_parquet(path)
        assert list(back) == list(table)
        for name, column in table.items():
            assert back[name].dtype == column.dtype and back[name].tobytes() == column.tobytes()

    @settings(max_examples=50, deadline=None)
    @given(table=any_table())
    def test_columns_are_those_that_arrow_makes_itself(self, table: dict[str, np.ndarray]) -> None:
        for column in table.values():
            got, wanted = tables._arrow(column), pa.array(column)
            assert (got.type, got.null_count, len(got)) == (wanted.type, 0, len(wanted))
            bits = [array.to_numpy(zero_copy_only=False).tobytes() for array in (got, wanted)]
            assert bits[0] == bits[1]

    def test_writing_loads_no_pandas(self, path: Path) -> None:
        """A third of a second of every run."""
        code = (
            "import sys, numpy\nfrom pathlib import Path\nfrom vaco.runs import tables\n"
            "tables.write_parquet(Path(sys.argv[1]), {'x': numpy.ones(3), 'flag': numpy.ones(3, bool)})\n"
            "print('pandas' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        assert done.stdout == "False\n", done.stderr

    def test_nan_is_a_number_not_a_gap(self, path: Path) -> None:
        tables.write_parquet(path, {"x": np.array([np.nan, 1.0], np.float32)})
        assert pq.read_table(path)["x"].null_count == 0
        assert np.isnan(tables.read_parquet(path)["x"][0])

    def test_strided_and_foreign_byte_order(self, path: Path) -> None:
        column = np.arange(10, dtype=">f4")
        tables.write_parquet(path, {"x": column[::2], "y": np.arange(20).reshape(5, 4)[:, 1]})
        back = tables.read_parquet(path)
        assert back["x"].tolist() == [0, 2, 4, 6, 8] and back["y"].tolist() == [1, 5, 9, 13, 17]

    def test_columns_are_writable(self, path: Path) -> None:
        tables.write_parquet(path, {"x": np.zeros(2), "flag": np.zeros(2, bool)})
        back = tables.read_parquet(path)
        back["x"][0], back["flag"][0] = 1.0, True

    def test_small(self, path: Path) -> None:
        tables.write_parquet(path, phases())
        assert path.stat().st_size < 54_000
        noise = {f"m{i}": np.random.default_rng(i).normal(size=500).astype(np.float32) for i in range(32)}
        tables.write_parquet(path, noise)
        # 64,000 bytes of which 23 of 32 bits are pure noise
        assert path.stat().st_size < 62_000

    def test_same_content_gives_same_bytes_in_another_process(self, tmp_path: Path, script: Callable[..., Any]) -> None:
        np.savez(tmp_path / "table.npz", **phases(50))
        for name in ("first", "second"):
            script(
                "import sys, numpy as np\nfrom pathlib import Path\nfrom vaco.runs import tables\n"
                "with np.load(sys.argv[1]) as stored: tables.write_parquet(Path(sys.argv[2]), dict(stored))",
                tmp_path / "table.npz",
                tmp_path / name,
            )
        tables.write_parquet(tmp_path / "third", phases(50))
        assert len({tables.sha256_file(tmp_path / name) for name in ("first", "second", "third")}) == 1

    def test_nothing_but_the_columns_is_stored(self, path: Path) -> None:
        tables.write_parquet(path, phases(5))
        file = pq.ParquetFile(path)
        assert file.metadata.metadata is None
        assert not file.metadata.row_group(0).column(0).is_stats_set
        assert file.metadata.num_row_groups == 1

    @pytest.mark.parametrize(
        "column", [np.array(["a"]), np.array([None]), np.zeros(1, np.uint64), np.zeros(1, complex)]
    )
    def test_other_kinds_of_column_are_a_mistake(self, tmp_path: Path, column: np.ndarray) -> None:
        with pytest.raises(TypeError, match="column 'odd'"):
            tables.write_parquet(tmp_path / "t", {"odd": column})
        assert not (tmp_path / "t").exists()

    @pytest.mark.parametrize(
        "columns", [{}, {"x": np.zeros(())}, {"x": np.zeros((2, 2))}, {"x": np.zeros(2), "y": np.zeros(3)}]
    )
    def test_ragged_tables_are_a_mistake(self, tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
        with pytest.raises(ValueError, match="1-d and all of one length"):
            tables.write_parquet(tmp_path / "t", columns)

    def test_what_is_no_table_is_said(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        with pytest.raises(UserError, match="No such file"):
            tables.read_parquet(path)
        tables.write_parquet(path, phases(5))
        whole = path.read_bytes()
        for damaged in (b"", b"not parquet at all", whole[:-1], whole[: len(whole) // 2], whole[:-40] + whole[-39:]):
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=r"cannot read the table .*t\.parquet"):
                tables.read_parquet(path)

    def test_full_disk_keeps_the_old_table(self, small_disk: Path) -> None:
        path = small_disk / "t.parquet"
        tables.write_parquet(path, phases(10))
        before = path.read_bytes()
        noise = np.random.default_rng(0).normal(size=200_000)
        with pytest.raises(UserError, match="the disk is full"):
            tables.write_parquet(path, {"x": noise})
        assert path.read_bytes() == before and len(list(small_disk.iterdir())) == 1


class TestJson:
    def test_written_for_people(self, tmp_path: Path) -> None:
        path = tmp_path / "r.json"
        tables.write_json(path, {"b": [1, 2.5], "a": {"é": None}})
        text = path.read_text(encoding="utf-8")
        assert text == '{\n  "a": {\n    "é": null\n  },\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
        assert tables.read_json(path) == json.loads(text)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [-float("inf")]}])
    def test_no_nan(self, tmp_path: Path, value: Any) -> None:
        path = tmp_path / "r.json"
        tables.write_json(path, 1)
        with pytest.raises(ValueError, match="not JSON compliant"):
            tables.write_json(path, value)
        assert tables.read_json(path) == 1 and len(list(tmp_path.iterdir())) == 1

    def test_unreadable(self, tmp_path: Path) -> None:
        path = tmp_path / "r.json"
        with pytest.raises(UserError, match="No such file"):
            tables.read_json(path)
        path.write_bytes(b'{"cut": ')
        with pytest.raises(UserError, match="a JSON file is expected"):
            tables.read_json(path)
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match="a JSON file is expected"):
            tables.read_json(path)


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert tables.sha256_file(tmp_path / "f") == known


def test_a_file_name_that_is_no_utf8_is_kept_in_json(tmp_path: Path) -> None:
    """As Python has it: a lone surrogate for each byte that could not be read."""
    tables.write_json(tmp_path / "x.json", {"run": "caf\udce9"})
    assert tables.read_json(tmp_path / "x.json") == {"run": "caf\udce9"}
