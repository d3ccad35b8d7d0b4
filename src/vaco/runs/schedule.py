"""What an asynchronous run did, as data: which actor's segment, collected with which policies, entered which update.

A *segment* is T steps of one actor's environments. An *actor* starts anew as another *incarnation* when its process was
lost or the learner was restarted. What an actor collects depends only on the run's seed, its number, its incarnation
and the versions of the policies that it used, in order, not on time: these suffice to collect the same data again.

``schedule.parquet`` has a row for every *piece* of a segment, a stretch of steps with one policy. All are int64:

* `order`: place of the segment in the order in which the learner took them, from 0; the rows are sorted by it;
* `update`: how many updates were complete when the learner took it; of a segment that was used, the update's number;
* `actor`, `incarnation`, `segment`: whose it is, and its number within the incarnation, from 0;
* `first_step`, `steps`: the piece's place within the segment;
* `version`: of the policy, in updates that had made it; the age is `update` − `version`;
* `fate`: 0, used in the update; 1, dropped for its age; 2, lost: the learner was interrupted and the update undone.

Segments that were under way or waiting when an actor or the learner ended are nowhere: nobody took them.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaco.errors import UserError
from vaco.paths import user_path
from vaco.runs import tables

USED, DROPPED, LOST = 0, 1, 2
COLUMNS = ("order", "update", "actor", "incarnation", "segment", "first_step", "steps", "version", "fate")
Columns = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Entry:
    """One segment that the learner took.

    Attributes:
        update: updates completed when it was taken.
        actor: whose.
        incarnation: which incarnation of it.
        number: of the segment within the incarnation, from 0.
        pieces: (steps, version) in order of time.
        fate: `USED`, `DROPPED` or `LOST`.
    """

    update: int
    actor: int
    incarnation: int
    number: int
    pieces: tuple[tuple[int, int], ...]
    fate: int = USED

    @property
    def key(self) -> tuple[int, int, int]:
        """What no other segment of the run has."""
        return self.actor, self.incarnation, self.number

    @property
    def steps(self) -> int:
        """T."""
        return sum(steps for steps, _ in self.pieces)

    @property
    def oldest(self) -> int:
        """The age of its oldest piece."""
        return self.update - min(version for _, version in self.pieces)

    def versions(self) -> NDArray[np.int64]:
        """The version at every step, [T]."""
        return np.repeat([version for _, version in self.pieces], [steps for steps, _ in self.pieces]).astype(np.int64)


def pieces(versions: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """The inverse of `Entry.versions`."""
    starts = np.flatnonzero(np.diff(versions, prepend=-1))
    lengths = np.diff(starts, append=len(versions))
    return tuple(zip(lengths.tolist(), versions[starts].tolist(), strict=True))


def to_columns(entries: Iterable[Entry]) -> Columns:
    """The table of entries, see the module's docstring."""
    rows = []
    for order, entry in enumerate(entries):
        first = 0
        for steps, version in entry.pieces:
            rows.append((order, entry.update, *entry.key, first, steps, version, entry.fate))
            first += steps
    table = np.array(rows, np.int64).reshape(-1, len(COLUMNS))
    return {name: table[:, index].copy() for index, name in enumerate(COLUMNS)}


def from_columns(columns: Columns) -> list[Entry]:
    """The inverse of `to_columns`.

    Raises:
        UserError: what the columns say is no schedule; a clause without the file's name.
    """
    for name in COLUMNS:
        if name not in columns or columns[name].dtype.kind != "i":
            raise UserError(f"it has no column '{name}' of whole numbers")
    table = np.stack([columns[name].astype(np.int64) for name in COLUMNS], axis=1)
    table = table[np.lexsort((columns["first_step"], columns["order"]))]
    entries: list[Entry] = []
    for rows in np.split(table, np.flatnonzero(np.diff(table[:, 0])) + 1) if len(table) else []:
        order, update, actor, incarnation, number, *_, fate = rows[0].tolist()
        lengths = rows[:, 6]
        if (rows[:, [1, 2, 3, 4, 8]] != rows[0, [1, 2, 3, 4, 8]]).any():
            raise UserError(f"the pieces of the segment with order {order} disagree on whose it is")
        if (lengths < 1).any() or (rows[:, 5] != np.cumsum(lengths) - lengths).any():
            raise UserError(f"the pieces of the segment with order {order} leave out steps or overlap")
        found = tuple(zip(lengths.tolist(), rows[:, 7].tolist(), strict=True))
        entries.append(Entry(update, actor, incarnation, number, found, fate))
    return entries


class Recording:
    """A schedule that can be collected again.

    Attributes:
        entries: all of them, in order.
        digest: sixteen hexadecimal digits of what it says.
        updates: how many updates it is of.
        segments: segments a batch.
        steps: T.
        actors: how many actors there were.
        capacity: how many of the newest policies must be held for it.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Check that a run can follow it.

        Raises:
            UserError: it cannot; a clause without the file's name.
        """
        self.entries = list(entries)
        alive = [entry for entry in self.entries if entry.fate != LOST]
        used = np.array([entry.update for entry in alive if entry.fate == USED], np.int64)
        if not len(used):
            raise UserError("no segment in it was used")
        if (np.diff(used) < 0).any() or not np.array_equal(np.unique(used), np.arange(used[-1] + 1)):
            raise UserError("its updates do not follow one another from 0")
        counts = np.bincount(used)
        if (counts != counts[0]).any():
            other = int(np.flatnonzero(counts != counts[0])[0])
            raise UserError(f"update 0 has {counts[0]} segments and update {other} has {counts[other]}")
        self.updates, self.segments, self.steps = len(counts), int(counts[0]), alive[0].steps
        _require_possible(alive, self.steps)
        self.actors = 1 + max(entry.actor for entry in alive)
        self.capacity = 1 + max(entry.oldest for entry in alive)
        table = np.stack(list(to_columns(self.entries).values()), axis=1)
        self.digest = hashlib.sha256(table.astype("<i8").tobytes()).hexdigest()[:16]


def _require_possible(entries: Sequence[Entry], steps: int) -> None:
    """Refuse what no run can have done.

    Raises:
        UserError: a clause without the file's name.
    """
    last: dict[int, Entry] = {}
    done = 0
    for entry in entries:
        whose = f"segment {entry.number} of actor {entry.actor} (incarnation {entry.incarnation})"
        before = last.get(entry.actor)
        started = before is None or entry.incarnation > before.incarnation
        expected = (entry.incarnation, 0) if started else (before.incarnation, before.number + 1)  # type: ignore[union-attr]
        if (entry.incarnation, entry.number) != expected or min(entry.key) < 0:
            raise UserError(f"{whose} does not follow the one before it")
        if entry.fate not in (USED, DROPPED):
            raise UserError(f"{whose} has the fate {entry.fate}, which is none of 0, 1 and 2")
        if entry.update < done:
            raise UserError(f"{whose} is of update {entry.update}, but comes after one of update {done}")
        if entry.steps != steps:
            raise UserError(f"{whose} has {entry.steps} steps, the first one has {steps}")
        if not all(0 <= version <= entry.update for _, version in entry.pieces):
            raise UserError(f"{whose} was collected with a policy that update {entry.update} cannot have had")
        last[entry.actor], done = entry, entry.update


def read(path: Path) -> Recording:
    """Read ``schedule.parquet``.

    Raises:
        UserError: it is missing, no table, or no schedule.
    """
    columns = tables.read_parquet(path)
    try:
        return Recording(from_columns(columns))
    except UserError as problem:
        raise UserError(
            f"{path} is no schedule that a run can follow, {problem}: give the schedule.parquet of a finished "
            "asynchronous run, or one that 'vaco schedule' made"
        ) from None


def pinned(written: str) -> tuple[str, int]:
    """Add to the path of a schedule what it says, so that a run's settings determine it.

    Args:
        written: a path, as a user wrote it, or one that is pinned.

    Returns:
        The path with ``#`` and the digest, and the capacity.

    Raises:
        UserError: it cannot be read, or says something else than the digest.
    """
    recording = read_pinned(written) if "#" in written else read(user_path(written))
    return f"{written.split('#')[0]}#{recording.digest}", recording.capacity


def read_pinned(written: str) -> Recording:
    """Read a schedule that `pinned` has pinned.

    Raises:
        UserError: it cannot be read, or says something else by now.
    """
    path, _, digest = written.rpartition("#")
    recording = read(user_path(path))
    if recording.digest != digest:
        raise UserError(
            f"the schedule {path} has the hash {recording.digest}, but the run was described with {digest}: put back "
            "what it was, or give another --out"
        )
    return recording


def from_ages(path: Path, steps: int) -> tuple[Recording, int]:
    """Make a schedule of the ages that some other system measured.

    Args:
        path: a CSV file with a row for every segment that was trained on, in the order of training, and the columns
            ``update`` (any numbers that grow; those of a row's batch are equal) and ``age`` (in updates); with the
            column ``actor`` (a name) also whose it was, else the n-th segment of each update is the n-th actor's.
        steps: T of the run that shall follow it.

    Returns:
        The schedule, and how many ages were cut: none can be older than the first policy.

    Raises:
        UserError: the file cannot be read, or is not of this kind.
    """
    example = "update,age with a row '0,3' for every segment"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read {path} ({reason}): a CSV file is expected, {example}") from error
    names: dict[str, int] = {}
    counts: dict[int, int] = {}
    place = cut = 0
    given: int | None = None
    update = -1
    entries = []
    for line, row in enumerate(rows, start=2):
        try:
            number, age = int(row["update"]), int(row["age"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}, line {line}: the columns are {example}, whole numbers both") from None
        if age < 0 or (given is not None and number < given):
            raise UserError(f"{path}, line {line}: ages are at least 0, and updates never go back")
        if number != given:
            given, update, place = number, update + 1, 0
        actor = names.setdefault(row.get("actor") or f"{place}", len(names))
        cut += age > update
        pieces_of_it = ((steps, max(0, update - age)),)
        entries.append(Entry(update, actor, 0, counts.get(actor, 0), pieces_of_it))
        counts[actor], place = counts.get(actor, 0) + 1, place + 1
    try:
        return Recording(entries), cut
    except UserError as problem:
        raise UserError(
            f"{path} is no schedule that a run can follow, {problem}: every update needs the same"
        ) from None
