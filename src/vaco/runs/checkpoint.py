"""Checkpoints: arrays and plain data in one file that is either whole and unaltered or recognised as damaged.

A file is in safetensors format (readable with that library, no pickle). Its metadata has one entry, `vaco`, a JSON text
``{"content": …, "format": 2, "sha256": …}`` with the `digest` of the content. One entry, because safetensors writes
several in random order and a policy file must come out bitwise the same. In format 1 the digest was that of the file's
bytes; `read` still reads such files, without checking it.

Files are written and read one array at a time, so that what a large model needs in memory is the model. An array may be
made when it is asked for: a mapping's values are taken twice, for the digest and for the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from vaco.errors import UserError
from vaco.runs import atomic

FORMAT = 2
NAME = re.compile(r"checkpoint-(\d{12,})\.safetensors")
_INTEGERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_DTYPES = {"bool", "float16", "float32", "float64"} | _INTEGERS
# In the order in which the library lays arrays out, the last ones first.
_TYPES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "float16": "F16"} | {
    **{"int32": "I32", "uint32": "U32", "float32": "F32", "float64": "F64", "int64": "I64", "uint64": "U64"},
}

Arrays = dict[str, NDArray[Any]]


class DamagedError(Exception):
    """The bytes are not those that were written; the message is a clause that says why."""


def digest(arrays: Mapping[str, NDArray[Any]], content: Any) -> str:
    """SHA-256 of what a file says, however its bytes say it.

    Hashed are the content as JSON with sorted keys and without blanks, and then, for each array in the order of names,
    ``[name, dtype, shape]`` in the same JSON and its values in C order, little-endian.

    Args:
        arrays: see `pack`.
        content: plain JSON, as it comes from a file: keys are strings.
    """
    return _measure(arrays, content)[0]


class _Kind(NamedTuple):
    """Of an array, what the header of a file says."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def _measure(arrays: Mapping[str, NDArray[Any]], content: Any) -> tuple[str, dict[str, _Kind]]:
    """The digest, and the kinds of the arrays, which are taken once each."""
    result, kinds = hashlib.sha256(_json(content).encode()), {}
    for name in sorted(arrays):
        stored = _storable(name, arrays[name])
        kinds[name] = _Kind(stored.dtype.name, stored.shape, stored.nbytes)
        result.update(_json([name, stored.dtype.name, stored.shape]).encode())
        result.update(_bytes_of(stored))
    return result.hexdigest(), kinds


def pack(arrays: Mapping[str, NDArray[Any]], content: Any) -> bytes:
    """Write arrays and plain data into one checksummed buffer, the same bytes for the same content.

    Args:
        arrays: name to array of any shape, 0-d and empty included, of booleans, integers or floats.
        content: anything that JSON holds. Floats survive exactly (also NaN and infinities, in Python's spelling);
            tuples come back as lists, and keys as strings.

    Returns:
        The content of a safetensors file.

    Raises:
        TypeError: an array of another type (objects, text, complex), or content that JSON cannot hold.
        ValueError: an array is called ``__metadata__``, which the format reserves.
    """
    stream = io.BytesIO()
    write(stream, arrays, content)
    return stream.getvalue()


def write(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
    """Write what `pack` returns, holding one array at a time.

    Args:
        stream: where to.
        arrays: see `pack`.
        content: see `pack`.

    Raises:
        TypeError: see `pack`.
        ValueError: see `pack`, or an array that is made when asked for was another the second time.
    """
    content = json.loads(_json(content))
    checksum, kinds = _measure(arrays, content)
    layout = list(_TYPES)
    names = sorted(kinds, key=lambda name: (-layout.index(kinds[name].dtype), name.encode()))
    header: dict[str, Any] = {
        "__metadata__": {"vaco": _json({"format": FORMAT, "sha256": checksum, "content": content})}
    }
    place = 0
    for name in names:
        dtype, shape, size = kinds[name]
        header[name] = {"dtype": _TYPES[dtype], "shape": shape, "data_offsets": (place, place + size)}
        place += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        stored = _storable(name, arrays[name])
        if (stored.dtype.name, stored.shape) != kinds[name][:2]:
            raise ValueError(f"array '{name}' changed while it was written")
        stream.write(_bytes_of(stored))


def unpack(source: bytes | Path, *, formats: tuple[int, ...] = (FORMAT,)) -> tuple[Arrays, Any]:
    """Read what `pack` wrote.

    Args:
        source: the whole file, or its path.
        formats: those that will do; of format 1 the digest is not checked.

    Returns:
        The arrays (own, writable memory) and the content.

    Raises:
        DamagedError: anything that the file says is altered or missing, or it is of another kind.
        OSError: the file cannot be opened.
    """
    # Whoever writes a file can write its checksum, so nothing here need come from `pack`.
    try:
        text, arrays = _from_bytes(source) if isinstance(source, bytes) else _from_file(source)
        header = json.loads(text)
        arrays = {name: _storable(name, array) for name, array in arrays.items()}
        kind, content = header["format"], header["content"]
        whole = kind == 1 or header["sha256"] == digest(arrays, content)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise DamagedError(f"it is not a whole checkpoint, {type(error).__name__}") from error
    if kind not in formats:
        raise DamagedError(f"it is of format {kind!r}, this version reads format {FORMAT}")
    if not whole:
        raise DamagedError("its checksum does not match its content")
    return arrays, content


def _from_bytes(data: bytes) -> tuple[Any, Arrays]:
    size = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + size])["__metadata__"]["vaco"]
    return text, {name: array.copy() for name, array in safetensors.numpy.load(data).items()}


def _from_file(path: Path) -> tuple[Any, Arrays]:
    with path.open("rb"):  # a folder, or what may not be read, is no damaged file
        pass
    with safetensors.safe_open(path, "np") as file:
        return file.metadata()["vaco"], {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118


def save(
    folder: Path,
    *,
    progress: int,
    arrays: Mapping[str, NDArray[Any]],
    meta: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Write a checkpoint, then delete those it makes superfluous.

    Kept are the newest `keep` up to `progress`. A file of greater progress can only be one that `load_latest` found
    damaged (else the run would have resumed from it) and goes too: it must not push out a good one.

    Args:
        folder: of this run's checkpoints alone; created if needed.
        progress: how far the run is, in any unit that only grows.
        arrays: see `pack`.
        meta: see `pack`.
        keep: how many to keep, at least 1; two, so that a damaged newest one costs little.

    Returns:
        The file written.

    Raises:
        UserError: the disk is full or the folder not writable; older checkpoints are untouched.
        ValueError: negative progress, or `keep` below 1.
    """
    if progress < 0 or keep < 1:
        raise ValueError(f"progress must be at least 0 and keep at least 1, not {progress} and {keep}")
    path = folder / f"checkpoint-{progress:012d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.write_error(path, error) from error
    atomic.remove_temporaries(folder, "checkpoint-")
    with atomic.writing(path) as stream:
        write(stream, arrays, {"progress": progress, "meta": dict(meta)})
    stored = _stored(folder)
    useful = [number for number in stored if number <= progress][:keep]
    for number, old in stored.items():
        if number not in useful:
            # A file that cannot be deleted now will be tried again at the next checkpoint.
            with suppress(OSError):
                old.unlink()
    return path


def load_latest(folder: Path, *, warn: Callable[[str], None]) -> tuple[int, Arrays, dict[str, Any]] | None:
    """Read the newest checkpoint that is whole.

    Args:
        folder: as given to `save`; it need not exist.
        warn: called with one sentence for each newer checkpoint that had to be passed over.

    Returns:
        Progress, arrays and meta as given to `save`, or None if there is no good checkpoint.
    """
    damaged: list[tuple[str, str]] = []
    found = None
    for progress, path in _stored(folder).items():
        try:
            arrays, content = unpack(path)
            if not isinstance(content, dict) or not isinstance(content.get("meta"), dict):
                raise DamagedError("it is a policy or another file, not a checkpoint")
            if content.get("progress") != progress:
                raise DamagedError(f"it holds progress {content.get('progress')}, so it was renamed")
        except (DamagedError, OSError) as error:
            damaged.append((path.name, getattr(error, "strerror", None) or str(error)))
            continue
        found = progress, arrays, content["meta"]
        break
    way_out = "using the previous good one" if found else "there is no good one, so the run starts again"
    for name, reason in damaged:
        warn(f"checkpoint {name} is damaged ({reason}); {way_out}")
    return found


def exists(folder: Path) -> bool:
    """Whether a folder holds any checkpoint, good or damaged."""
    return bool(_stored(folder))


def read(path: Path) -> tuple[Arrays, Any]:
    """Read one file written with `pack`, or by format 1: the ``policy.safetensors`` of a run, a warm start.

    Raises:
        UserError: the file is missing, unreadable or damaged.
    """
    try:
        return unpack(path, formats=(1, FORMAT))
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): a file written by 'vaco train', 'vaco lm train' or 'vaco lm warm' "
            "is expected"
        ) from error
    except DamagedError as error:
        raise UserError(
            f"{path} is damaged, or nothing that vaco wrote ({error}): if it is a run's, delete that run's folder, if "
            "a warm start, this file, and run again the command that made it"
        ) from error


def _stored(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by progress, newest first."""
    if not folder.is_dir():
        return {}
    files = {int(match[1]): path for path in folder.iterdir() if (match := NAME.fullmatch(path.name))}
    return dict(sorted(files.items(), reverse=True))


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Bring an array into the layout that safetensors writes out unseen: C order, little-endian.

    The library copies the buffer whatever its strides, so a transposed array would come back scrambled.
    """
    if name == "__metadata__":
        raise ValueError("an array cannot be called '__metadata__', the safetensors format reserves that name")
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"array '{name}' is of type {array.dtype}, expected booleans, integers or floats")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """The memory of an array that `_storable` returned."""
    return array.reshape(-1).view(np.uint8).data


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def subset(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
