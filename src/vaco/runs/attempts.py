"""The attempts at a run, kept beside its folder where a workflow asks for it: a journal and a log that only grow.

    FOLDER.attempts.jsonl   one line when an attempt begins, one when it ends, by which `vaco status` tells a run that
                            waits from one that failed, and a job scheduler how much memory to give next time
    FOLDER.log              all that the attempts said, one after the other, with a line a percent while one trains

Kept where the environment variable `VACO_ATTEMPTS` is set, to any word; attempts with one word belong to one call of a
workflow. A process that is killed writes no second line: its attempt *vanished*. Neither file decides what a run is,
and one that cannot be written stops nothing.
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from vaco.errors import UserError
from vaco.runs import checkpoint, keep
from vaco.runs.lock import HeldError
from vaco.runs.preemption import Preempted
from vaco.runs.provenance import utc_now

CALL = "VACO_ATTEMPTS"
"""Environment variable that asks for journals; its value names the call of the workflow."""
PATIENCE = 3
"""Attempts of one call that end without progress, one after the other, before further ones are refused."""

Outcome = Literal["complete", "stopped", "held", "refused", "crashed", "interrupted", "vanished"]


@dataclass(frozen=True)
class Attempt:
    """One attempt.

    Attributes:
        began: when, UTC.
        call: the workflow's call that it belongs to.
        job: the scheduler's number of its job; empty without a scheduler.
        before: phases (of language models: gradient steps) that an earlier attempt had saved.
        after: the same at its end; None if it did not say.
        outcome: `stopped` was asked to, `held` met another process at work, `refused` ended with a sentence of ours,
            `vanished` was killed, or is at work.
        reason: that sentence, or what was raised; empty if all went well.
    """

    began: str
    call: str
    job: str
    before: int
    after: int | None
    outcome: Outcome
    reason: str


def journal(folder: Path) -> Path:
    """Where the attempts at the run of a folder are written down."""
    return folder.with_name(f"{folder.name}.attempts.jsonl")


def log(folder: Path) -> Path:
    """Where all that they said is."""
    return folder.with_name(f"{folder.name}.log")


def kept() -> bool:
    """Whether journals are asked for."""
    return bool(os.environ.get(CALL))


def saved(folder: Path) -> dict[int, float]:
    """What the checkpoints of a run say by their names: how far each is, and when it was written; newest first.

    Args:
        folder: the run's folder; it need not exist.

    Returns:
        Phases (gradient steps) to seconds since the epoch.
    """
    found = {}
    with suppress(OSError), os.scandir(folder / "checkpoints") as entries:
        for entry in entries:
            if match := checkpoint.NAME.fullmatch(entry.name):
                with suppress(OSError):
                    found[int(match[1])] = entry.stat().st_mtime
    return dict(sorted(found.items(), reverse=True))


def history(folder: Path) -> list[Attempt]:
    """The attempts at a run, oldest first; lines that cannot be read are passed over."""
    try:
        lines = journal(folder).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    begun: list[dict[str, Any]] = []
    ends: dict[str, dict[str, Any]] = {}
    for line in lines:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("attempt"), str):
                if record.get("event") == "began":
                    begun.append(record)
                else:
                    ends[record["attempt"]] = record
    return [_attempt(record, ends.get(record["attempt"])) for record in begun]


def _attempt(began: dict[str, Any], ended: dict[str, Any] | None) -> Attempt:
    after = ended.get("progress") if ended else None
    return Attempt(
        began=str(began.get("time", "")),
        call=str(began.get("call", "")),
        job=str(began.get("job", "")),
        before=int(began.get("progress") or 0),
        after=int(after) if isinstance(after, int) else None,
        outcome=ended.get("outcome", "vanished") if ended else "vanished",
        reason=str(ended.get("reason", "")) if ended else "",
    )


def fruitless(attempts: Iterable[Attempt], call: str, now: int) -> int:
    """How many attempts of a call, up to the last, failed one after the other without any progress.

    Being asked to stop, and meeting another process, are no failures.

    Args:
        attempts: from `history`, all of which are over.
        call: the call.
        now: progress that is saved now.
    """
    count = 0
    for attempt in reversed([one for one in attempts if one.call == call]):
        if attempt.outcome in ("stopped", "held"):
            continue
        if attempt.before < now or attempt.outcome == "complete":
            break
        count += 1
    return count


def hungry(attempts: list[Attempt]) -> int:
    """How many attempts may have ended for want of memory: killed, and not because the scheduler took their job back.

    A job that the scheduler took back, be it for another or since its node died, begins again under the same number.
    """
    following = [*attempts, None][1:]
    return sum(
        one.outcome == "vanished" and (after is None or not one.job or after.job != one.job)
        for one, after in zip(attempts, following, strict=True)
    )


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Write down an attempt at the run of a folder, and all that it says, if journals are asked for.

    Raises:
        UserError: `PATIENCE` attempts of this call have failed without any progress.
    """
    if not kept():
        yield
        return
    before, call = next(iter(saved(folder)), 0), os.environ[CALL]
    earlier = history(folder)
    if fruitless(earlier, call, before) >= PATIENCE and not (folder / "manifest.json").exists():
        raise UserError(
            f"{PATIENCE} attempts at {folder} failed one after the other without any progress, the last with: "
            f"{earlier[-1].reason or 'it was killed'}; mend that, then start the workflow again ({log(folder)} has all)"
        )
    job = os.environ.get("SLURM_JOB_ID", "")
    if job and keep.bring_back(folder):
        print(f"vaco: {folder} was finished, and what was deleted of it is brought back", file=sys.stderr)
    name, where = uuid.uuid4().hex[:16], f"{socket.gethostname()}, process {os.getpid()}{f', job {job}' if job else ''}"
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stream = _open_log(folder)
        if stream is not None:
            stack.enter_context(stream)
            stack.enter_context(redirect_stderr(_Both(sys.stderr, stream)))
            print(f"--- attempt {len(earlier) + 1}: {utc_now()}, {where}", file=stream)
        _write(folder, {"event": "began", "attempt": name, "call": call, "job": job, "progress": before})
        outcome: Outcome = "crashed"
        reason = ""
        try:
            yield
            outcome = "complete"
            if job:
                keep.keep(folder)
        except (UserError, Preempted, KeyboardInterrupt, Exception) as end:
            outcome, reason = _outcome(end), " ".join(str(end).split()) or type(end).__name__
            raise
        finally:
            if stream is not None:
                print(f"{outcome}{f': {reason}' if reason else ''}", file=stream)
            ended = {"event": "ended", "attempt": name, "outcome": outcome, "reason": reason[:600]}
            _write(folder, {**ended, "progress": next(iter(saved(folder)), 0)})


def _outcome(end: BaseException) -> Outcome:
    kinds: tuple[tuple[type[BaseException], Outcome], ...] = (
        (Preempted, "stopped"),
        (HeldError, "held"),
        (UserError, "refused"),
        (KeyboardInterrupt, "interrupted"),
    )
    return next((word for kind, word in kinds if isinstance(end, kind)), "crashed")


def _write(folder: Path, record: dict[str, Any]) -> None:
    """Append a line in one step, so that processes of several machines tear none."""
    line = json.dumps({"time": utc_now(), **record}, sort_keys=True) + "\n"
    with suppress(OSError):
        descriptor = os.open(journal(folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def _open_log(folder: Path) -> IO[str] | None:
    with suppress(OSError):
        return log(folder).open("a", encoding="utf-8", buffering=1)
    return None


class _Both(io.TextIOBase):
    """What is written goes to both streams; a failure of the second is nobody's."""

    def __init__(self, first: IO[str], second: IO[str]) -> None:
        self._first, self._second = first, second

    def write(self, text: str, /) -> int:
        with suppress(OSError, ValueError):
            self._second.write(text)
        return self._first.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._second.flush()
        self._first.flush()

    def isatty(self) -> bool:
        return False
