"""The format of recorded schedules, what is refused, and schedules of other people's ages."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaco.cli import run
from vaco.errors import UserError
from vaco.runs import schedule, tables
from vaco.runs.config import build
from vaco.runs.schedule import DROPPED, LOST, Entry, Recording, from_columns, pieces, to_columns

ENTRIES = [
    Entry(0, 0, 0, 0, ((4, 0),)),
    Entry(1, 0, 0, 1, ((1, 0), (3, 1)), DROPPED),
    Entry(2, 1, 3, 5, ((4, 9),), LOST),
    Entry(1, 1, 0, 0, ((4, 0),)),
]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_pieces_are_the_versions_run_by_run(versions: list[int]) -> None:
    found = pieces(np.array(versions))
    assert [v for steps, v in found for _ in range(steps)] == versions
    assert all(first != second for (_, first), (_, second) in itertools.pairwise(found))
    assert Entry(9, 0, 0, 0, found).versions().tolist() == versions


def test_a_schedule_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "schedule.parquet"
    columns = to_columns(ENTRIES)
    tables.write_parquet(path, {name: column[::-1] for name, column in columns.items()})  # the order is a column
    recording = schedule.read(path)
    assert recording.entries == ENTRIES
    assert (recording.updates, recording.segments, recording.steps, recording.actors) == (2, 1, 4, 2)
    assert recording.capacity == 2 and ENTRIES[1].oldest == 1


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([replace(ENTRIES[0], fate=LOST)], "no segment in it was used"),
        ([ENTRIES[0], replace(ENTRIES[3], update=2)], "do not follow one another from 0"),
        (
            [ENTRIES[0], replace(ENTRIES[3], update=0), replace(ENTRIES[3], number=1)],
            "update 0 has 2 segments and update 1",
        ),
        ([replace(ENTRIES[0], number=1)], "does not follow the one before it"),
        ([ENTRIES[0], replace(ENTRIES[0], update=1)], "does not follow the one before it"),
        ([replace(ENTRIES[0], incarnation=1), replace(ENTRIES[0], update=1)], "does not follow the one before it"),
        ([replace(ENTRIES[0], fate=3)], "has the fate 3|no segment"),
        ([ENTRIES[0], replace(ENTRIES[3], fate=3), replace(ENTRIES[3], number=1)], "has the fate 3"),
        ([replace(ENTRIES[0], pieces=((4, 1),))], "a policy that update 0 cannot have had"),
        ([ENTRIES[0], replace(ENTRIES[3], pieces=((3, 0),))], "has 3 steps, the first one has 4"),
        ([ENTRIES[0], ENTRIES[3], replace(ENTRIES[1], update=0)], "comes after one of update 1"),
    ],
)
def test_what_no_run_can_have_done_is_refused(entries: list[Entry], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Recording(entries)


def test_damaged_tables_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path, columns = tmp_path / "s.parquet", to_columns(ENTRIES)
    for name, change, words in (
        ("version", lambda c: c.astype(np.float64), "no column 'version' of whole numbers"),
        ("first_step", lambda c: c + (c > 0), "order 1 leave out steps or overlap"),
        ("actor", lambda c: np.arange(len(c)), "order 1 disagree on whose it is"),
    ):
        tables.write_parquet(path, {**columns, name: change(columns[name])})
        with pytest.raises(UserError, match=words) as caught:
            schedule.read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.write_text("no table")
    with pytest.raises(UserError, match="a parquet file is expected"):
        build({"lag": f"file:{path}"})
    tables.write_parquet(path, {name: column[:0] for name, column in columns.items()})
    with pytest.raises(UserError, match="no segment in it was used"):
        schedule.read(path)


def test_no_entries_are_a_table_too() -> None:
    assert from_columns(to_columns([])) == []


def test_ages_of_another_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ages.csv").write_text("update,age,actor\n10,0,a\n10,3,b\n12,1,b\n12,0,c\n13,2,a\n13,0,c\n")
    words = ["schedule", str(tmp_path / "ages.csv"), "--out", str(tmp_path / "s.parquet"), "--steps", "8"]
    assert run(words) == 0
    said = capsys.readouterr()
    assert "3 updates of 2 segments each, 3 actors" in said.out and said.err.startswith("1 ages were cut")
    assert schedule.read(tmp_path / "s.parquet").entries == [
        Entry(0, 0, 0, 0, ((8, 0),)),
        Entry(0, 1, 0, 0, ((8, 0),)),
        Entry(1, 1, 0, 1, ((8, 0),)),
        Entry(1, 2, 0, 0, ((8, 1),)),
        Entry(2, 0, 0, 1, ((8, 0),)),
        Entry(2, 2, 0, 1, ((8, 2),)),
    ]
    (tmp_path / "ages.csv").write_text("age,update\n0,0\n0,0\n1,1\n0,1\n")
    recording, cut = schedule.from_ages(tmp_path / "ages.csv", 4)
    assert cut == 0 and [entry.key for entry in recording.entries] == [(0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("update\n0\n", "line 2: the columns are update,age"),
        ("update,age\n0,0\n1,x\n", "line 3: the columns are update,age"),
        ("update,age\n1,0\n0,0\n", "line 3: ages are at least 0, and updates never go back"),
        ("update,age\n1,-1\n", "line 2: ages are at least 0"),
        ("update,age\n0,0\n0,0\n1,0\n", "update 0 has 2 segments and update 1 has 1: every update needs the same"),
        ("update,age\n", "no segment in it was used"),
        ("", "no segment in it was used"),
    ],
)
def test_what_is_no_list_of_ages_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "ages.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        schedule.from_ages(tmp_path / "ages.csv", 4)
    assert run(["schedule", str(tmp_path / "none.csv"), "--out", str(tmp_path / "s.parquet")]) == 2
    assert not (tmp_path / "s.parquet").exists()
