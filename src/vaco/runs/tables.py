"""Tables and plain records: parquet and JSON, written in one step, the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vaco.errors import UserError
from vaco.runs import atomic

# Counters grow by near-constant steps: differences take a few bits. The bytes of floats compress only when bytes of
# equal weight lie together. Measured on 500 rows of 32 float32 columns: 55 KB for random walks and 61 KB for white
# noise, of which 57 KB are incompressible; 90 KB for either with the library's defaults.
_ENCODINGS = {
    "bool": "PLAIN",
    "int32": "DELTA_BINARY_PACKED",
    "int64": "DELTA_BINARY_PACKED",
    "float32": "BYTE_STREAM_SPLIT",
    "float64": "BYTE_STREAM_SPLIT",
}
CLOCKS = ("wall_seconds", "collect_seconds", "align_seconds", "update_seconds", "generate_seconds", "recompute_seconds")
"""Columns that measure time: no two runs agree on them."""


def write_parquet(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a table, columns in the order given.

    Args:
        path: file to create or replace.
        columns: name to 1-d array, all of one length; bool, int32, int64, float32 or float64. NaN is kept as NaN, not
            turned into a missing value.

    Raises:
        UserError: the file cannot be written; what was there is untouched.
        TypeError: a column of another type.
        ValueError: no columns, or columns that are not 1-d of one length.
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, array in arrays.items():
        if array.dtype.name not in _ENCODINGS:
            raise TypeError(f"column '{name}' is of type {array.dtype}, expected one of {', '.join(_ENCODINGS)}")
    if len({array.shape for array in arrays.values()}) != 1 or next(iter(arrays.values())).ndim != 1:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise ValueError(f"a table needs columns, each 1-d and all of one length, not {shapes}")
    table = pa.Table.from_arrays([_arrow(array) for array in arrays.values()], names=list(arrays))
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table,
        buffer,
        row_group_size=max(1, table.num_rows),
        compression="zstd",
        compression_level=19,
        use_dictionary=False,
        column_encoding={name: _ENCODINGS[array.dtype.name] for name, array in arrays.items()},
        write_statistics=False,
        store_schema=False,
    )
    atomic.write_bytes(path, buffer.getvalue().to_pybytes())


def _arrow(array: NDArray[Any]) -> Any:
    """A column, as `pa.array` makes it of an array; that would load pandas, which takes longer than a short run."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))  # Arrow knows only the machine's order
    bits = np.packbits(native, bitorder="little") if native.dtype == bool else native
    return pa.Array.from_buffers(pa.from_numpy_dtype(native.dtype), len(native), [None, pa.py_buffer(bits)])


def read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    """Read a table whole.

    Returns:
        Column name to 1-d array, in the file's order, as given to `write_parquet`.

    Raises:
        UserError: the file is missing or not a whole parquet file.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot read the table {path} ({reason}): a parquet file is expected") from error
    return {name: np.array(table[name].to_numpy()) for name in table.column_names}


def write_json(path: Path, value: Any) -> None:
    """Write a record for people and machines: sorted keys, indented, a newline at the end.

    Raises:
        UserError: the file cannot be written; what was there is untouched.
        ValueError: the value holds NaN or an infinity, which JSON has not.
        TypeError: the value holds something else that JSON has not.
    """
    text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    # Of a file name that is no UTF-8 this makes the escape that JSON has for it.
    atomic.write_bytes(path, text.encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a record.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): a JSON file is expected") from error
    except (ValueError, RecursionError) as error:  # the latter from brackets nested by the thousand
        raise UserError(f"cannot read {path} ({error}): a JSON file is expected") from error


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
