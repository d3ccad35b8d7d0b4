"""The runs of a tier without a workflow: which are to be trained, a share of them, and training that share.

A share, or shard, depends on the tier alone and not on what is finished, so that any scheduler can be given the numbers
1 to n, at any time and again. What is finished or published is left out when a share is looked at.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vaco.campaign import archives
from vaco.errors import UserError
from vaco.runs import attempts
from vaco.runs.lock import STALE_AFTER
from vaco.runs.preemption import REQUEUE, TEMPORARY_FAILURE, Preempted, termination_noticed

MANIFEST = "manifest.json"
WARM_STARTS = "warm_starts"
VACO = (sys.executable, "-m", "vaco")
"""How a process of its own is started: this Python, this package."""


@dataclass(frozen=True)
class Job:
    """A run to be trained: its folder, its identity, and the command that makes it, one shell word an element."""

    folder: Path
    run: str
    command: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command as a shell has it."""
        return shlex.join(self.command)

    @property
    def finished(self) -> bool:
        """Whether its folder holds the finished run."""
        return (self.folder / MANIFEST).is_file()


@dataclass(frozen=True)
class Shard:
    """A share of a tier's runs.

    Attributes:
        planned: how many runs it has.
        jobs: those that are to be trained, the most useful first.
        warm: what must be made before them, as the weights that runs of language models start from; if anything.
    """

    planned: int
    jobs: tuple[Job, ...]
    warm: Job | None = None


def parse_shard(text: str) -> tuple[int, int]:
    """Read `i/n`, the i-th of n shares.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"the shard '{text}' is none: write i/n with i from 1 to n, such as 3/100")
    return int(match[1]), int(match[2])


def share(planned: Sequence[Any], index: int, count: int) -> list[Any]:
    """The runs of a share, in the order of the plan.

    Runs of a tier come in a fixed pattern of tasks and methods, which a stride would repeat: a share of slow tasks
    alone. So each is given a place by a hash of its identity, and every count-th is taken.

    Args:
        planned: the runs of a tier.
        index: which share, from 1.
        count: of how many.
    """
    mixed = sorted(range(len(planned)), key=lambda i: hashlib.sha256(str(planned[i].config.run_id).encode()).digest())
    return [planned[i] for i in sorted(mixed[index - 1 :: count])]


def shard(
    tier: Any, results: Path, index: int = 1, count: int = 1, *, asked: str = "", imported: Sequence[str] = ()
) -> Shard:
    """The runs of a share that are to be trained.

    Args:
        tier: of either kind.
        results: where archives and run folders are.
        index: which share, from 1.
        count: of how many.
        asked: what the tier was asked for by, where that is a file's path and not its name.
        imported: modules with rules of one's own, which the commands import, too.

    Raises:
        UserError: an archive is damaged.
    """
    mine = share(tier.planned(), index, count)
    known = archives.published_runs(results)
    warm_hash = getattr(getattr(tier, "warm", None), "warm_target", 0.0) and tier.warm.warm_hash
    weights = Path(results, archives.FOLDERS, WARM_STARTS, f"{warm_hash}.safetensors")
    vaco = ("vaco", *(word for module in imported for word in ("--import", module)))
    jobs = []
    for planned in mine:
        run, folder = str(planned.config.run_id), Path(results, archives.FOLDERS, planned.config.place)
        if run not in known:
            more = ("--warm-start", str(weights)) if warm_hash else ()
            command = (*vaco, *planned.command[1:], *more, "--out", str(folder), "--run-id", run)
            jobs.append(Job(folder, run, command))
    left = tuple(job for job in jobs if not job.finished)
    warm = None
    if warm_hash and left and not weights.is_file():
        warm = Job(weights, warm_hash, (*vaco, "lm", "warm", "--tier", asked or tier.name, "--out", str(weights)))
    return Shard(len(mine), left, warm)


def train(work: Shard, *, slots: int = 1, say: Callable[[str], None]) -> None:
    """Train the runs of a share, each in a process of its own, and go on where one fails.

    Args:
        work: from `shard`.
        slots: how many at a time.
        say: called with a sentence about every run.

    Raises:
        Preempted: asked to stop, or out of time; each run at work has saved a checkpoint.
        UserError: runs failed, or others hold them; all else is trained.
    """
    if slots < 1:
        raise UserError(f"jobs is {slots}, but at least one run must be trained at a time")
    call = os.environ.get(attempts.CALL) or f"plan-{int(time.time())}-{os.getpid()}"
    with termination_noticed() as stop:
        crew = _Crew(call, slots, stop, say)
        if work.warm is not None:
            crew.work([work.warm], wait=0.0)
            if not work.warm.folder.is_file():
                raise UserError(f"the weights that the runs start from were not made: {work.warm.line} says why")
        held = crew.work(work.jobs, wait=0.0)
        # The lock of a node that died counts as held for a while; one of a process that lives, for as long as it lives.
        held = crew.work(held, wait=STALE_AFTER + 60) if held else held
    if crew.failed or held:
        told = ""
        if crew.failed:
            job, reason = crew.failed[0]
            log = attempts.log(job.folder)
            told = f"{len(crew.failed)} runs failed, the first {job.folder} ({reason})"
            told += f", see {log}" if log.is_file() else ""
        busy = f"{len(held)} runs are at work elsewhere, the first {held[0].folder}" if held else ""
        raise UserError(f"{' and '.join(filter(None, (told, busy)))}: the same command tries them again")


class _Crew:
    """Processes at work on a share, some at a time."""

    def __init__(self, call: str, slots: int, stop: Callable[[], bool], say: Callable[[str], None]) -> None:
        self.call, self.slots, self.stop, self.say = call, slots, stop, say
        self.failed: list[tuple[Job, str]] = []  # and why
        # Of each run at work: what was saved when it began, and how often it has failed since without saving more. Its
        # journal says so, too, but cannot be written where the disk is full.
        self._tries: dict[Path, tuple[int, int]] = {}
        # What each process says, for where its log cannot be written: the disk is full, the folder somebody else's.
        self._said: dict[subprocess.Popen[bytes], IO[bytes]] = {}

    def work(self, jobs: Sequence[Job], wait: float) -> list[Job]:
        """Train runs; those that another process holds for longer than `wait` seconds are given back."""
        waiting, held = list(jobs), []
        active: dict[subprocess.Popen[bytes], Job] = {}
        try:
            while waiting or active:
                if self.stop():
                    raise Preempted(self._halt(active, len(waiting)))
                while waiting and len(active) < self.slots:
                    job = waiting.pop(0)
                    if not job.finished:
                        active[self._start(job, wait)] = job
                for process in _ended(active):
                    job = active.pop(process)
                    verdict = self._judge(job, process.returncode, _sentence(self._said.pop(process)))
                    if verdict == "again":
                        waiting.insert(0, job)
                    elif verdict == "held":
                        held.append(job)
        except BaseException:
            for process in active:
                process.send_signal(signal.SIGTERM)
            raise
        return held

    def _start(self, job: Job, wait: float) -> subprocess.Popen[bytes]:
        now = next(iter(attempts.saved(job.folder)), 0)
        self._tries[job.folder] = (now, self._tries.get(job.folder, (now, 0))[1])
        # Only this process knows whether the job as a whole is to be queued again.
        environment = {name: value for name, value in os.environ.items() if name != REQUEUE}
        environment |= {attempts.CALL: self.call, "VACO_DISCARD_OTHER": "1", "PYTHONUNBUFFERED": "1"}
        words = [*VACO, *job.command[1:]]
        if "--run-id" in words:
            words += ["--wait", str(wait), "--quiet"]
        nowhere, said = subprocess.DEVNULL, tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is read
        # In a group of its own, so that Ctrl-C comes to it once, through this process.
        process = subprocess.Popen(
            words, env=environment, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=said
        )
        self._said[process] = said
        return process

    def _judge(self, job: Job, code: int, sentence: str) -> str:
        """What to do about a run whose process has ended: nothing, `again`, or leave it to whom it is `held` by.

        Args:
            job: the run.
            code: of its process.
            sentence: the last that it said, empty if it said nothing to a user.
        """
        if code == 0:
            self.say(f"{job.folder}: complete")
            return "done"
        past = attempts.history(job.folder)
        if past and past[-1].outcome == "held":
            self.say(f"{job.folder}: {past[-1].reason}")
            return "held"
        now, (before, tries) = next(iter(attempts.saved(job.folder)), 0), self._tries[job.folder]
        tries += code != TEMPORARY_FAILURE
        self._tries[job.folder] = (now, 0 if now > before else tries)
        tries = self._tries[job.folder][1]
        if "--run-id" in job.command and (code == TEMPORARY_FAILURE or tries < attempts.PATIENCE):
            self.say(f"{job.folder}: ended with code {code} at {now}, tried again")
            return "again"
        reason = sentence or (past[-1].reason if past else "") or job.line
        self.failed.append((job, reason))
        self.say(f"{job.folder}: failed with code {code}: {reason}")
        return "failed"

    def _halt(self, active: dict[subprocess.Popen[bytes], Job], waiting: int) -> str:
        """Ask every process to stop and wait until it has; a sentence that says what is left."""
        for process in active:
            process.send_signal(signal.SIGTERM)
        for process in active:
            process.wait()
        left = waiting + sum(not job.finished for job in active.values())
        active.clear()
        return f"asked to stop with {left} runs left; the same command continues from there"


def _sentence(said: IO[bytes]) -> str:
    """The sentence with which a command of ours ended, of all that it said."""
    with said:
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4000))
        *_, last = [b"", *said.read().splitlines()]
    return last.decode(errors="replace").removeprefix("vaco: ") if last.startswith(b"vaco: ") else ""


def _ended(active: dict[subprocess.Popen[bytes], Job]) -> Iterator[subprocess.Popen[bytes]]:
    """The processes that have ended, after a moment."""
    for process in list(active):
        if process.poll() is not None:
            yield process
            return
    time.sleep(0.1)
