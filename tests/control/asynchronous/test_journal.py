"""The journal: what a killed learner had taken is entered as lost, once, in the order in which it was taken."""

from __future__ import annotations

from pathlib import Path

from vaco.control.asynchronous.journal import NAME, Journal
from vaco.runs.schedule import LOST, USED, Entry, from_columns


def entry(update: int, actor: int, incarnation: int, number: int) -> Entry:
    return Entry(update, actor, incarnation, number, ((2, 0), (2, update)) if update else ((4, 0),))


def told(journal: Journal) -> list[tuple[int, int, int, int]]:
    return [(e.update, e.actor, e.incarnation, e.fate) for e in from_columns(journal.columns())]


def test_a_life_with_interruptions(tmp_path: Path) -> None:
    first = Journal()
    assert first.follow(tmp_path / "checkpoints") == 0
    first.add([entry(0, 0, 0, 0), entry(0, 1, 0, 0)])
    saved = first.columns()
    first.add([entry(1, 1, 0, 1), entry(1, 0, 0, 1)])
    with (tmp_path / "checkpoints" / NAME).open("ab") as stream:
        stream.write(b"half a row")

    second = Journal()  # killed, and resumed from the checkpoint
    second.restore(saved)
    assert second.follow(tmp_path / "checkpoints") == 2
    second.add([entry(1, 0, 1, 0), entry(1, 1, 1, 0)])
    whole = [(0, 0, 0, USED), (0, 1, 0, USED), (1, 1, 0, LOST), (1, 0, 0, LOST), (1, 0, 1, USED), (1, 1, 1, USED)]
    assert told(second) == whole

    third = Journal()  # killed once more, before another checkpoint
    third.restore(saved)
    assert third.follow(tmp_path / "checkpoints") == 4
    third.add([entry(1, 0, 2, 0), entry(1, 1, 2, 0)])
    lost = [(u, a, i, LOST if u else USED) for u, a, i, _ in whole]
    assert told(third) == [*lost, (1, 0, 2, USED), (1, 1, 2, USED)]
    assert third.columns()["order"].tolist() == [0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]


def test_without_a_checkpoint_everything_is_lost(tmp_path: Path) -> None:
    first = Journal()
    first.follow(tmp_path)
    first.add([entry(0, 0, 0, 0)])
    second = Journal()
    assert second.follow(tmp_path) == 1 and told(second) == [(0, 0, 0, LOST)]
    assert int(second.columns()["incarnation"].max()) == 0
