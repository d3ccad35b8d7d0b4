from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaco.errors import UserError
from vaco.runs import checkpoint

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "float32", "float64", ">f4", ">i8"]

any_array = hnp.arrays(
    dtype=st.sampled_from(DTYPES).map(np.dtype), shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
layouts = st.sampled_from([lambda a: a, lambda a: a.T, lambda a: a[::-1] if a.ndim else a, np.asfortranarray])
any_name = st.text(min_size=1).filter(lambda name: name != "__metadata__")
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def same(first: np.ndarray, second: np.ndarray) -> bool:
    """Bitwise the same values, shape and kind."""
    native = first.astype(first.dtype.newbyteorder("="))
    return first.shape == second.shape and native.dtype == second.dtype and native.tobytes("C") == second.tobytes("C")


def complain(message: str) -> None:
    raise AssertionError(f"unexpected warning: {message}")


def small() -> dict[str, np.ndarray]:
    return {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7, np.int64)}


# Of `small`, as the version that wrote format 1 wrote it.
OLD = (
    b"\x10\x01\0\0\0\0\0\0"
    rb'{"__metadata__":{"vaco":"{\"sha256\":\"dbfd55565374c2dab763eaf6a15eb832cae9bcc6296ae185898a20d16985afe4\",'
    rb'\"format\":1,\"content\":{\"env\":\"E\"}}"},"count":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
    rb'"weights":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}}    '
    b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\0\0\xa0@"
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestPack:
    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(any_name, st.tuples(any_array, layouts), max_size=4), any_json)
    def test_round_trip_is_bitwise(self, made: dict[str, Any], content: Any) -> None:
        arrays = {name: layout(array) for name, (array, layout) in made.items()}
        back, content_back = checkpoint.unpack(checkpoint.pack(arrays, content))
        assert back.keys() == arrays.keys()
        assert all(same(arrays[name], back[name]) for name in arrays)
        # repr, so that NaN equals itself and 1 differs from 1.0
        assert repr(_sorted(content_back)) == repr(_sorted(content))

    def test_nan_payloads_and_signed_zeros_survive(self) -> None:
        words = np.array([0x7FF8000000000001, 0xFFF0000000000001, 1 << 63], np.uint64)
        back, _ = checkpoint.unpack(checkpoint.pack({"x": words.view(np.float64)}, None))
        assert back["x"].view(np.uint64).tolist() == words.tolist()

    def test_arrays_come_back_writable(self) -> None:
        back, _ = checkpoint.unpack(checkpoint.pack(small(), None))
        back["weights"][0, 0] = 5.0
        assert back["weights"][0, 0] == 5.0

    def test_same_content_gives_same_bytes_whatever_the_order(self) -> None:
        forth = checkpoint.pack({"a": np.zeros(2), "b": np.ones(2)}, {"x": 1, "y": 2})
        back = checkpoint.pack({"b": np.ones(2), "a": np.zeros(2)}, {"y": 2, "x": 1})
        assert forth == back

    def test_other_programs_can_read_it(self) -> None:
        plain = safetensors.numpy.load(checkpoint.pack(small(), {"anything": "at all"}))
        assert all(same(array, plain[name]) for name, array in small().items())

    @pytest.mark.parametrize("flip", [1 << bit for bit in range(8)])
    def test_every_flipped_bit_that_changes_anything_is_noticed(self, flip: int) -> None:
        content = {"seed": 3, "rate": 1e-05, "who": "\u00e9", "deep": [None, True, -0.0, float("nan"), 2**127 + 1]}
        data = checkpoint.pack(small(), content)
        unnoticed = []
        for offset in range(len(data)):
            altered = bytearray(data)
            altered[offset] ^= flip
            with suppress(checkpoint.DamagedError):
                arrays, found = checkpoint.unpack(bytes(altered))
                unnoticed.append((data[offset : offset + 1], bytes(altered[offset : offset + 1])))
                assert arrays.keys() == small().keys() and repr(_sorted(found)) == repr(_sorted(content))
                assert all(same(array, arrays[name]) for name, array in small().items())
        # The exponent's e and a hexadecimal digit of an escape mean the same in capitals.
        assert unnoticed == ([(b"e", b"E")] * 2 if flip == 0x20 else [])

    def test_the_digest_tells_apart_what_differs_in_anything(self) -> None:
        kinds: list[tuple[dict[str, np.ndarray], Any]] = [
            ({"a": np.zeros(2, np.float32)}, None),
            ({"a": np.zeros(1, np.float64)}, None),
            ({"a": np.zeros(1, np.int64)}, None),
            ({"a": np.zeros((1, 1), np.int64)}, None),
            ({"a": np.array([-0.0])}, None),
            ({"b": np.zeros(1)}, None),
            ({"a": np.zeros(1), "b": np.zeros(0)}, None),
            ({"a": np.zeros(1)}, 1),
            ({"a": np.zeros(1)}, 1.0),
            ({"a": np.zeros(1)}, True),
            ({"a": np.zeros(1)}, [1]),
        ]
        assert len({checkpoint.digest(*kind) for kind in kinds}) == len(kinds)
        assert checkpoint.digest({"a": np.ones((2, 3), ">f8").T}, {}) == checkpoint.digest({"a": np.ones((3, 2))}, {})

    def test_a_file_says_its_digest(self) -> None:
        data = checkpoint.pack(small(), {2: "b", 10: ("a",)})
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["vaco"])
        content = {"2": "b", "10": ["a"]}
        assert header == {"format": 2, "sha256": checkpoint.digest(small(), content), "content": content}

    def test_every_truncation_and_any_addition_is_noticed(self) -> None:
        data = checkpoint.pack(small(), {"seed": 3})
        for length in range(len(data)):
            with pytest.raises(checkpoint.DamagedError):
                checkpoint.unpack(data[:length])
        with pytest.raises(checkpoint.DamagedError):
            checkpoint.unpack(data + b"\0")

    def test_a_foreign_safetensors_file_is_refused(self) -> None:
        with pytest.raises(checkpoint.DamagedError, match="not a whole checkpoint"):
            checkpoint.unpack(safetensors.numpy.save(small(), {"made": "elsewhere"}))

    def test_another_format_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(checkpoint.DamagedError, match="of format 1, this version reads format 2"):
            checkpoint.unpack(OLD)
        monkeypatch.setattr(checkpoint, "FORMAT", 3)
        data = checkpoint.pack(small(), None)
        monkeypatch.undo()
        with pytest.raises(checkpoint.DamagedError, match="of format 3, this version reads format 2"):
            checkpoint.unpack(data)

    def test_a_digest_inside_the_content_is_not_mistaken_for_the_files_own(self) -> None:
        content = {'{"sha256":"': "0" * 64, "sha256": "0" * 64, "text": '{"sha256":"' + "0" * 64}
        assert checkpoint.unpack(checkpoint.pack({'{"sha256":"' + "0" * 64: np.ones(1)}, content))[1] == content

    @pytest.mark.parametrize(
        "array", [np.array([None]), np.array(["text"]), np.zeros(1, complex), np.zeros(1, "M8[s]")]
    )
    def test_other_kinds_of_array_are_a_mistake(self, array: np.ndarray) -> None:
        with pytest.raises(TypeError, match="'odd' is of type"):
            checkpoint.pack({"odd": array}, None)

    def test_the_reserved_name_is_a_mistake(self) -> None:
        with pytest.raises(ValueError, match="__metadata__"):
            checkpoint.pack({"__metadata__": np.zeros(1)}, None)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


class TestSaveAndLoad:
    def test_round_trip(self, tmp_path: Path) -> None:
        meta = {"phase": 3, "best": -1.5e300, "state": 2**127 + 1}
        path = checkpoint.save(tmp_path / "deep" / "er", progress=4096, arrays=small(), meta=meta)
        assert path.name == "checkpoint-000000004096.safetensors"
        found = checkpoint.load_latest(path.parent, warn=complain)
        assert found is not None
        assert found[0] == 4096 and found[2] == meta
        assert all(same(array, found[1][name]) for name, array in small().items())

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert checkpoint.load_latest(tmp_path, warn=complain) is None
        assert checkpoint.load_latest(tmp_path / "missing", warn=complain) is None
        assert not checkpoint.exists(tmp_path / "missing")

    @pytest.mark.parametrize("keep", [1, 2, 3])
    def test_only_the_newest_are_kept(self, tmp_path: Path, keep: int) -> None:
        for progress in (5, 10, 200, 10**12, 10**13):
            checkpoint.save(tmp_path, progress=progress, arrays=small(), meta={}, keep=keep)
        progresses = [int(name[11:-12]) for name in names(tmp_path)]
        assert sorted(progresses) == [5, 10, 200, 10**12, 10**13][-keep:]
        found = checkpoint.load_latest(tmp_path, warn=complain)
        assert found is not None and found[0] == 10**13

    def test_falls_back_past_damaged_ones_and_says_so(self, tmp_path: Path) -> None:
        paths = [checkpoint.save(tmp_path, progress=p, arrays=small(), meta={"p": p}, keep=9) for p in (1, 2, 3, 4)]
        paths[3].write_bytes(paths[3].read_bytes()[:-1])
        paths[2].write_bytes(b"")
        warnings: list[str] = []
        found = checkpoint.load_latest(tmp_path, warn=warnings.append)
        assert found is not None and found[0] == 2 and found[2] == {"p": 2}
        assert warnings == [
            f"checkpoint {paths[3].name} is damaged (it is not a whole checkpoint, SafetensorError); "
            "using the previous good one",
            f"checkpoint {paths[2].name} is damaged (it is not a whole checkpoint, SafetensorError); "
            "using the previous good one",
        ]

    def test_a_renamed_file_is_passed_over(self, tmp_path: Path) -> None:
        old = checkpoint.save(tmp_path, progress=1, arrays=small(), meta={})
        new = checkpoint.save(tmp_path, progress=2, arrays=small(), meta={})
        new.rename(tmp_path / "checkpoint-000000000900.safetensors")
        warnings: list[str] = []
        found = checkpoint.load_latest(tmp_path, warn=warnings.append)
        assert found is not None and found[0] == 1 and old.exists()
        assert len(warnings) == 1 and "it holds progress 2" in warnings[0]

    def test_all_damaged_means_starting_again(self, tmp_path: Path) -> None:
        checkpoint.save(tmp_path, progress=1, arrays=small(), meta={}).write_bytes(b"x" * 100)
        warnings: list[str] = []
        assert checkpoint.load_latest(tmp_path, warn=warnings.append) is None
        assert len(warnings) == 1 and "the run starts again" in warnings[0]

    def test_a_damaged_newer_file_never_pushes_out_a_good_one(self, tmp_path: Path) -> None:
        for progress in (10, 20, 90):
            path = checkpoint.save(tmp_path, progress=progress, arrays=small(), meta={})
        path.write_bytes(b"broken")
        checkpoint.save(tmp_path, progress=30, arrays=small(), meta={})
        assert names(tmp_path) == [f"checkpoint-{p:012d}.safetensors" for p in (20, 30)]

    def test_other_files_are_left_alone_except_half_written_checkpoints(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / ".checkpoint-000000000001.safetensors.99.tmp").write_text("half")
        checkpoint.save(tmp_path, progress=1, arrays=small(), meta={})
        assert names(tmp_path) == ["checkpoint-000000000001.safetensors", "notes.txt"]

    @pytest.mark.parametrize(("progress", "keep"), [(-1, 2), (1, 0)])
    def test_impossible_numbers_are_a_mistake(self, tmp_path: Path, progress: int, keep: int) -> None:
        with pytest.raises(ValueError, match="must be at least"):
            checkpoint.save(tmp_path, progress=progress, arrays={}, meta={}, keep=keep)

    def test_a_megabyte_takes_little_time(self, tmp_path: Path) -> None:
        arrays = {f"layer{i}": np.ones((64, 64)) for i in range(32)}
        start = time.perf_counter()
        for progress in range(10):
            checkpoint.save(tmp_path, progress=progress, arrays=arrays, meta={})
        # About 5 ms each on an idle machine; the bound allows for a crowded one.
        assert (time.perf_counter() - start) / 10 < 0.5


class TestRead:
    def test_reads_what_pack_wrote(self, tmp_path: Path) -> None:
        (tmp_path / "policy").write_bytes(checkpoint.pack(small(), {"env": "E"}))
        arrays, content = checkpoint.read(tmp_path / "policy")
        assert content == {"env": "E"} and same(small()["weights"], arrays["weights"])

    def test_a_policy_of_format_1_is_still_read(self, tmp_path: Path) -> None:
        (tmp_path / "policy").write_bytes(OLD)
        arrays, content = checkpoint.read(tmp_path / "policy")
        assert content == {"env": "E"} and arrays.keys() == small().keys()
        assert all(same(array, arrays[name]) for name, array in small().items())
        (tmp_path / "policy").write_bytes(OLD[:-1])
        with pytest.raises(UserError, match="is damaged"):
            checkpoint.read(tmp_path / "policy")

    def test_an_altered_one_is_not_read(self, tmp_path: Path) -> None:
        data = bytearray(checkpoint.pack(small(), {"env": "E"}))
        data[-1] ^= 1
        (tmp_path / "policy").write_bytes(data)
        with pytest.raises(UserError, match="its checksum does not match its content"):
            checkpoint.read(tmp_path / "policy")

    def test_missing_and_damaged_are_said(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="No such file"):
            checkpoint.read(tmp_path / "policy")
        (tmp_path / "policy").write_bytes(struct.pack("<Q", 2**63) + b"{}")
        with pytest.raises(UserError, match="is damaged") as caught:
            checkpoint.read(tmp_path / "policy")
        # A warm start lies in the folder of all runs of its tier.
        assert "whole folder" not in str(caught.value) and "if a warm start, this file" in str(caught.value)


WRITER = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from vaco.runs import checkpoint
folder, start = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for progress in count(start):
    arrays = {"a": np.full(200_000, progress), "b": np.full((64, 64), progress, np.float32)}
    checkpoint.save(folder, progress=progress, arrays=arrays, meta={"progress": progress})
"""


def test_killed_at_any_moment_a_good_checkpoint_is_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    reached, halves = 0, 0
    for _ in range(12):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(reached + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.02, 0.15))
            process.send_signal(signal.SIGKILL)
        halves += any(path.suffix == ".tmp" for path in tmp_path.iterdir())
        found = checkpoint.load_latest(tmp_path, warn=complain)
        if found is None:
            assert reached == 0
            continue
        progress, arrays, meta = found
        assert progress >= reached and meta == {"progress": progress}
        assert (arrays["a"] == progress).all() and (arrays["b"] == progress).all()
        reached = progress
    assert reached > 12, "the writer hardly wrote: the test tests nothing"
    assert halves > 0, "no kill fell into a write: the test tests nothing"


class TestNoRoom:
    def big(self, progress: int) -> dict[str, np.ndarray]:
        return {"x": np.full(45_000, progress, np.float64)}

    def test_full_disk(self, small_disk: Path) -> None:
        for progress in (1, 2):
            checkpoint.save(small_disk, progress=progress, arrays=self.big(progress), meta={})
        before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
        with pytest.raises(UserError, match="the disk is full") as refusal:
            checkpoint.save(small_disk, progress=3, arrays=self.big(3), meta={})
        assert "\n" not in str(refusal.value)
        assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == before
        found = checkpoint.load_latest(small_disk, warn=complain)
        assert found is not None and found[0] == 2
        (small_disk / "checkpoint-000000000001.safetensors").unlink()
        checkpoint.save(small_disk, progress=3, arrays=self.big(3), meta={})

    def test_file_size_limit(self, tmp_path: Path, script: Callable[..., Any]) -> None:
        checkpoint.save(tmp_path, progress=1, arrays=small(), meta={})
        done = script(
            """
import resource, sys
from pathlib import Path
import numpy as np
from vaco.errors import UserError
from vaco.runs import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(Path(sys.argv[1]), progress=2, arrays={"x": np.zeros(50_000)}, meta={})
except UserError as error:
    print(error)
""",
            tmp_path,
        )
        assert "the limit on file sizes is too low" in done.stdout
        assert names(tmp_path) == ["checkpoint-000000000001.safetensors"]
        assert checkpoint.load_latest(tmp_path, warn=complain) is not None

    def test_unwritable_folder(self, tmp_path: Path, as_nobody: Callable[..., str]) -> None:
        checkpoint.save(tmp_path, progress=1, arrays=small(), meta={})
        printed = as_nobody(
            "from pathlib import Path\nfrom vaco.errors import UserError\nfrom vaco.runs import checkpoint\n",
            """
for folder in (Path("."), Path("new")):
    try:
        checkpoint.save(folder, progress=2, arrays={}, meta={})
    except UserError as error:
        print(error)
""",
            tmp_path,
        )
        assert printed.count("Permission denied") == 2
        assert names(tmp_path) == ["checkpoint-000000000001.safetensors"]

    def test_a_file_in_the_folders_place(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("")
        with pytest.raises(UserError, match="cannot write"):
            checkpoint.save(tmp_path / "f", progress=1, arrays={}, meta={})

    def test_an_interrupt_leaves_no_half_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, progress=1, arrays=small(), meta={})
        assert names(tmp_path) == []


class TestStreaming:
    """Files are written and read one array at a time."""

    def test_the_bytes_are_those_of_the_library(self) -> None:
        many = {f"{kind}.{n}": np.arange(n).astype(kind) for kind in DTYPES for n in (0, 1, 5)}
        arrays = {**many, "grid": np.ones((2, 3), ">f8").T, "π/ü": np.ones(2), "Z": np.ones(1)}
        content = {"text": 'a "quoted" line\n', "π": 1.5}
        ours = checkpoint.pack(arrays, content)
        said = json.loads(ours[8 : 8 + int.from_bytes(ours[:8], "little")])
        plain = {name: np.asarray(a, np.asarray(a).dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
        assert ours == safetensors.numpy.save(plain, said["__metadata__"])

    def test_arrays_may_be_made_when_asked_for(self, tmp_path: Path) -> None:
        class Lazy(Mapping[str, Any]):
            alive, most = 0, 0

            def __getitem__(self, name: str) -> Any:
                Lazy.alive += 1
                Lazy.most = max(Lazy.most, Lazy.alive)
                array = np.full(1000, float(name))
                weakref.finalize(array, lambda: setattr(Lazy, "alive", Lazy.alive - 1))
                return array

            def __iter__(self) -> Iterator[str]:
                return iter([str(n) for n in range(20)])

            def __len__(self) -> int:
                return 20

        checkpoint.save(tmp_path, progress=1, arrays=Lazy(), meta={})
        found = checkpoint.load_latest(tmp_path, warn=lambda _: None)
        assert found is not None and all((array == float(name)).all() for name, array in found[1].items())
        assert len(found[1]) == 20 and Lazy.most <= 3

    def test_an_array_that_changes_is_not_written(self, tmp_path: Path) -> None:
        class Growing(dict[str, Any]):
            def __getitem__(self, name: str) -> Any:
                self["x"] = np.ones(len(super().__getitem__("x")) + 1)
                return super().__getitem__("x")

        with pytest.raises(ValueError, match="changed"):
            checkpoint.save(tmp_path, progress=1, arrays=Growing(x=np.ones(1)), meta={})
        assert not list(tmp_path.iterdir())
