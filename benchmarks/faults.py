"""Inject faults into real training processes and ask whether anything is lost or, worse, silently different.

    python benchmarks/faults.py                     # the whole campaign; writes benchmarks/results/faults.*
    python benchmarks/faults.py --kinds sigterm     # one kind
    python benchmarks/faults.py --share 0.1         # a tenth of every kind

A case starts the same short run (Hopper-v5, six phases) in a folder of its own, disturbs it, mends what a user would
mend (makes room, remounts, does nothing), and runs the same command until it ends. Outcomes:

* `identical`: it ended, and its tables and policy are bit for bit those of the undisturbed run, clocks apart;
* `refused`: it ended with one clear sentence and exit code 2, and no file was changed;
* `SILENT DIFFERENCE`, `FAILED`: everything else, which must not happen.

Where a case says so, it also requires what the fault must show on the way: exit code 75 within five seconds of SIGTERM,
a sentence that names the holder of a lock, resumption from the newest checkpoint that was whole.

Every run is a process of its own, forked from one that has imported everything, so that faults fall into training
rather than into imports. Faults that need root (small and read-only file systems, a memory limit) are skipped, and
counted as skipped, without it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from vaco import cli
from vaco.control import collect as collecting
from vaco.control import train as training
from vaco.runs import atomic, checkpoint, lock, provenance
from vaco.runs.tables import read_json, read_parquet, sha256_file

CLOCKS = {"wall_seconds", "collect_seconds", "align_seconds", "update_seconds"}
FILES = ("phases.parquet", "evals.parquet", "policy.safetensors")
SETTINGS = {"env": "Hopper-v5", "lag": 4, "steps": 12_288, "eval_points": 3, "eval_episodes": 2}
PHASES = 6
PATIENCE = 120.0
POLITE_SECONDS = 5.0
HERE = Path(__file__).resolve().parent


class SkippedError(Exception):
    """This machine cannot inject the fault, or the run ended before it."""


ENDED_FIRST = "the run ended before the fault"


class WrongError(Exception):
    """What the fault had to show did not happen."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    kind: str
    case: int
    result: str
    detail: str
    seconds: float


@dataclass
class Stage:
    """What a case works with: its own folder, its own random numbers, and the run that was not disturbed."""

    place: Path
    random: random.Random
    undisturbed: Path
    half: Path
    seconds: float

    @property
    def out(self) -> Path:
        """The run folder of the case."""
        return self.place / "run"

    def command(self, out: Path | None = None, *, every: float = 0.0) -> list[str]:
        """The command line of the run."""
        words = ["train", "--out", str(out or self.out), "--quiet", f"--checkpoint-seconds={every}"]
        return words + [f"--set={name}={value}" for name, value in SETTINGS.items()]

    def start(self, sabotage: Callable[[], None] | None = None, **options: Any) -> Process:
        """Start the run in a process of its own."""
        return Process(self.command(**options), self.place / f"said{time.monotonic_ns()}", sabotage)

    def begin_half(self) -> dict[int, Path]:
        """Put a run that was stopped after its fourth phase into the folder; its checkpoints by phase."""
        shutil.copytree(self.half, self.out)
        return checkpoints(self.out)

    def moment(self) -> float:
        """A random moment of the run, from before its first file to the writing of its last."""
        return self.random.uniform(0.0, 0.85 * self.seconds)


class Process:
    """One forked process that runs the command line."""

    def __init__(self, command: list[str], said: Path, sabotage: Callable[[], None] | None = None) -> None:
        self.said = said
        self.code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, said, sabotage)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        until = time.monotonic() + patience
        while self.poll() is None:
            if time.monotonic() > until:
                self.kill()
                raise WrongError(f"a process did not end within {patience:.0f} s")
            time.sleep(0.005)
        assert self.code is not None
        return self.code

    def poll(self) -> int | None:
        """The exit code if the process has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        self.wait()

    @property
    def words(self) -> str:
        """What the process said."""
        return self.said.read_text(errors="replace")


def _become(command: list[str], said: Path, sabotage: Callable[[], None] | None) -> NoReturn:
    """In the child: run the command line and leave, whatever happens, without the parent's clean-up."""
    code = 70
    try:
        with said.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        if sabotage is not None:
            sabotage()
        code = cli.run(command)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


# --- Looking at run folders


def checkpoints(out: Path) -> dict[int, Path]:
    """The checkpoints of a run by phase, oldest first."""
    return {int(path.stem.partition("-")[2]): path for path in sorted((out / "checkpoints").glob("checkpoint-*"))}


def whole(path: Path) -> bool:
    """Whether a checkpoint can be read."""
    try:
        checkpoint.unpack(path.read_bytes())
    except (OSError, checkpoint.DamagedError):
        return False
    return True


def newest_whole(out: Path) -> int:
    """The phase of the newest checkpoint that is whole, 0 if there is none."""
    return max((phase for phase, path in checkpoints(out).items() if whole(path)), default=0)


def difference(one: Path, other: Path) -> str | None:
    """The first thing in which two finished runs differ, clocks apart; None if they are the same."""
    names = {path.name for path in other.iterdir()}
    if names != {"manifest.json", *FILES}:
        return f"the folder holds {sorted(names)}"
    if (one / "policy.safetensors").read_bytes() != (other / "policy.safetensors").read_bytes():
        return "policy.safetensors"
    for table in ("phases.parquet", "evals.parquet"):
        left, right = read_parquet(one / table), read_parquet(other / table)
        if list(left) != list(right):
            return f"{table}: columns"
        for name in left:
            if name not in CLOCKS and left[name].tobytes() != right[name].tobytes():
                return f"{table}: {name}"
    mine, theirs = read_json(one / "manifest.json"), read_json(other / "manifest.json")
    for name in ("identity", "config", "config_hash", "source_hash", "completed_steps", "status", "versions"):
        if mine[name] != theirs[name]:
            return f"manifest.json: {name}"
    for name in FILES:
        if theirs["checksums"][name] != sha256_file(other / name):
            return f"manifest.json: checksum of {name}"
    return None


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def require(condition: bool, otherwise: str) -> None:
    """Raise `WrongError` unless the condition holds."""
    if not condition:
        raise WrongError(otherwise)


def require_refusal(process: Process, *words: str) -> None:
    """The process must have ended with exit code 2 and one sentence that has the words."""
    code, said = process.wait(), process.words
    sentences = [line for line in said.splitlines() if line.startswith("vaco: ")]
    require(code == 2 and len(sentences) == 1 and "Traceback" not in said, f"no clear refusal: {code}, {said[-300:]}")
    for word in words:
        require(word in sentences[0], f"the refusal does not say {word!r}: {sentences[0]}")


def finish(stage: Stage, *, resumed_from: int | None = None) -> str:
    """Run the same command to its end, and compare with the undisturbed run."""
    process = stage.start()
    code = process.wait()
    require(code == 0, f"the final run ended with {code}: {process.words[-300:]}")
    if resumed_from:
        said = f"resuming {stage.out} at step {resumed_from * 2048:,}"
        require(said in process.words, f"it did not resume from phase {resumed_from}: {process.words[-300:]}")
    found = difference(stage.undisturbed, stage.out)
    return "identical" if found is None else f"SILENT DIFFERENCE: {found}"


# --- The faults. Each disturbs a run and returns (result, detail).

Fault = Callable[[Stage], tuple[str, str]]
FAULTS: dict[str, tuple[int, str, Fault]] = {}


def fault(kind: str, cases: int, description: str) -> Callable[[Fault], Fault]:
    """Enter a fault into the campaign."""

    def enter(function: Fault) -> Fault:
        FAULTS[kind] = (cases, description, function)
        return function

    return enter


@fault("sigkill", 20, "SIGKILL at a random moment, up to three times in succession")
def _sigkill(stage: Stage) -> tuple[str, str]:
    kills = 0
    for _ in range(stage.random.randint(1, 3)):
        process = stage.start()
        time.sleep(stage.moment())
        kills += process.poll() is None
        process.kill()
        if process.code == 0:
            break
    if not kills:
        raise SkippedError(ENDED_FIRST)
    done = (stage.out / "manifest.json").exists()
    newest = 0 if done else newest_whole(stage.out)
    return finish(stage, resumed_from=newest), f"{kills} kills, newest checkpoint {newest}"


@fault("sigkill_in_write", 16, "SIGKILL inside the write of a checkpoint or of the final files, the file torn")
def _sigkill_in_write(stage: Stage) -> tuple[str, str]:
    write, at = stage.random.randint(1, 22), stage.random.choice(("before fsync", "before rename", "after rename"))
    share = stage.random.random()

    def sabotage() -> None:
        calls = 0
        fsync, replace = os.fsync, Path.replace

        def torn(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls >= write and at == "before fsync":
                with suppress(OSError):  # a folder cannot be truncated
                    os.truncate(descriptor, int(share * os.fstat(descriptor).st_size))
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        def stopped(path: Path, target: Any) -> Path:
            if calls >= write and at == "before rename":
                os.kill(os.getpid(), signal.SIGKILL)
            result = replace(path, target)
            if calls >= write and at == "after rename":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        os.fsync, Path.replace = torn, stopped  # type: ignore[assignment]

    process = stage.start(sabotage)
    require(process.wait() == -signal.SIGKILL, f"it was to die in write {write}, but ended with {process.code}")
    done = (stage.out / "manifest.json").exists()
    newest = 0 if done else newest_whole(stage.out)
    return finish(stage, resumed_from=newest), f"{at} of write {write}, newest checkpoint {newest}"


@fault("sigterm", 18, "SIGTERM at a random moment: a checkpoint and exit code 75 within 5 s")
def _sigterm(stage: Stage) -> tuple[str, str]:
    process = stage.start(every=300.0)
    time.sleep(stage.moment())
    begun = (stage.out / "run.json").exists()
    sent = time.monotonic()
    if process.poll() is not None:
        raise SkippedError(ENDED_FIRST)
    process.signal(signal.SIGTERM)
    code = process.wait()
    seconds = time.monotonic() - sent
    require(seconds < POLITE_SECONDS, f"it took {seconds:.1f} s to stop")
    require(code in (0, 75) or (code == -signal.SIGTERM and not checkpoints(stage.out)), f"exit code {code}")
    newest = newest_whole(stage.out)
    if code == 75:
        require(newest > 0 and begun, "it stopped politely but left no checkpoint")
    return finish(stage, resumed_from=newest), f"exit code {code} after {seconds:.2f} s, checkpoint {newest}"


@fault("truncated_checkpoint", 10, "the newest checkpoint cut off at a random length")
def _truncated_checkpoint(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    newest = max(stored)
    size = stored[newest].stat().st_size
    length = stage.random.choice((0, 7, 8, size - 1, stage.random.randrange(size)))
    os.truncate(stored[newest], length)
    return finish(stage, resumed_from=newest - 1), f"cut to {length} of {size} bytes"


@fault("flipped_bit", 10, "one bit of the newest checkpoint flipped, or of both")
def _flipped_bit(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    damaged = stage.random.choice(([max(stored)], sorted(stored)))
    for phase in damaged:
        data = bytearray(stored[phase].read_bytes())
        data[stage.random.randrange(len(data))] ^= 1 << stage.random.randrange(8)
        stored[phase].write_bytes(data)
    newest = newest_whole(stage.out)
    require(newest == max((set(stored) - set(damaged)), default=0), "a flipped bit was not noticed")
    return finish(stage, resumed_from=newest), f"checkpoints {damaged} flipped"


@fault("deleted_checkpoint", 8, "the newest checkpoint deleted, or all of them, or the marker too")
def _deleted_checkpoint(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    what = stage.random.choice(("newest", "all", "folder"))
    if what == "folder":
        shutil.rmtree(stage.out / "checkpoints")
        (stage.out / "run.json").unlink()
    else:
        for phase in [max(stored)] if what == "newest" else list(stored):
            stored[phase].unlink()
    return finish(stage, resumed_from=newest_whole(stage.out)), f"deleted: {what}"


@fault("full_disk", 8, "a file system of random size that fills up; then room is made")
def _full_disk(stage: Stage) -> tuple[str, str]:
    size = stage.random.randint(40, 800)  # three checkpoints, two kept and one being written, are 915 KiB
    with small_disk(stage.place / "disk", size) as disk:
        stage.place = disk
        said = disk.parent / "said"
        first = Process(stage.command(), said)
        require_refusal(first, "disk is full")
        newest = newest_whole(stage.out)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        return finish(stage, resumed_from=newest), f"{size} KiB, refused; checkpoint {newest} was kept"


@fault("read_only", 10, "the file system turns read-only at a random moment; then writable again")
def _read_only(stage: Stage) -> tuple[str, str]:
    with small_disk(stage.place / "disk", 65536) as disk:
        stage.place = disk
        first = Process(stage.command(), disk.parent / "said")
        time.sleep(stage.moment())
        # Busy while a file is open for writing.
        until = time.monotonic() + 20
        while subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
            require(time.monotonic() < until, "could not remount")
        if first.wait() == 0:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            raise SkippedError(ENDED_FIRST)
        require_refusal(first)
        newest = newest_whole(stage.out)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        return finish(stage, resumed_from=newest), f"refused; checkpoint {newest} was kept"


@fault("clock", 8, "the clock jumps back by up to a year, and files lie in the future")
def _clock(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    back = stage.random.choice((60.0, 3600.0, 86_400.0, 31_536_000.0))
    ahead = time.time() + back
    for path in [*stored.values(), stage.out / "run.json"]:
        os.utime(path, (ahead, ahead))
    after = stage.random.randint(0, 30)

    def sabotage() -> None:
        calls = 0
        real = time.time

        def jumping() -> float:
            nonlocal calls
            calls += 1
            return real() - (back if calls > after else 0.0)

        class Jumping(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.fromtimestamp(jumping(), tz or UTC)

        time.time = jumping
        time.time_ns = lambda: int(jumping() * 1e9)
        provenance.datetime = lock.datetime = Jumping  # type: ignore[attr-defined]

    process = stage.start(sabotage)
    require(process.wait() == 0, f"exit code {process.code}: {process.words[-300:]}")
    require("resuming" in process.words, "it did not resume")
    found = difference(stage.undisturbed, stage.out)
    return ("identical" if found is None else f"SILENT DIFFERENCE: {found}"), f"{timedelta(seconds=back)} back"


@fault("two_writers", 8, "two processes on one folder, a moment apart")
def _two_writers(stage: Stage) -> tuple[str, str]:
    delay = stage.random.choice((0.0, stage.random.uniform(0.0, 0.05), stage.random.uniform(0.0, stage.seconds)))
    one = stage.start()
    time.sleep(delay)
    two = stage.start()
    codes = sorted((one.wait(), two.wait()))
    said = one.words + two.words
    if codes == [0, 0]:
        require("nothing to do" in said, "both trained")
    else:
        require(codes == [0, 2], f"exit codes {codes}: {said[-300:]}")
        loser, winner = (two, one) if two.code == 2 else (one, two)
        require_refusal(loser, "in use by process", str(winner.pid), os.uname().nodename)
    found = difference(stage.undisturbed, stage.out)
    return ("identical" if found is None else f"SILENT DIFFERENCE: {found}"), f"{delay:.2f} s apart, exit codes {codes}"


@fault("nan_reward", 8, "a NaN in the rewards of a random phase and actor: refused, and nothing poisoned is kept")
def _nan_reward(stage: Stage) -> tuple[str, str]:
    phase, actor = stage.random.randint(1, PHASES), stage.random.randrange(16)

    def sabotage() -> None:
        collect, count = collecting.Collector.collect, 0

        def poisoned(self: Any, *generators: Any) -> Any:
            nonlocal count
            count += 1
            batch = collect(self, *generators)
            if count == phase:
                batch.rewards[stage.random.randrange(len(batch.rewards)), actor] = np.nan
            return batch

        collecting.Collector.collect = poisoned  # type: ignore[assignment,method-assign]

    process = stage.start(sabotage)
    require_refusal(process, f"phase {phase}", f"actor {actor}", "reward")
    require(newest_whole(stage.out) == phase - 1, "the last good checkpoint was not kept")
    return finish(stage, resumed_from=phase - 1), f"phase {phase}, actor {actor}"


@fault("out_of_memory", 6, "the kernel's out-of-memory killer, in a memory cgroup, at a random phase")
def _out_of_memory(stage: Stage) -> tuple[str, str]:
    phase = stage.random.randint(1, PHASES)
    with memory_cgroup(f"vaco-faults-{os.getpid()}-{time.monotonic_ns()}") as join:

        def sabotage() -> None:
            advance, hoard = training.Run.advance, []
            join(512 << 20)

            def greedy(self: Any) -> Any:
                if self.phase + 1 == phase:
                    while True:
                        hoard.append(np.ones(8 << 20, dtype=np.uint8))
                return advance(self)

            training.Run.advance = greedy  # type: ignore[method-assign]

        process = stage.start(sabotage)
        code = process.wait()
    require(code == -signal.SIGKILL, f"it was to be killed, but ended with {code}: {process.words[-300:]}")
    newest = newest_whole(stage.out)
    require(newest == phase - 1, f"checkpoint {newest} is the newest, {phase - 1} was expected")
    return finish(stage, resumed_from=newest), f"killed in phase {phase}"


@fault("dead_holder", 8, "the lock of a dead process, of a silent other host, or of a live other host")
def _dead_holder(stage: Stage) -> tuple[str, str]:
    newest = max(stage.begin_half())
    who = stage.random.choice(("dead process", "silent host", "live host", "torn lock"))
    record = lock._this_process() | {"token": "of-another", "since": "2026-01-01T00:00:00+00:00"}
    if who == "dead process":
        dead = os.fork()
        if dead == 0:
            os._exit(0)
        record |= {"process_start": lock._start_of(dead) or 1, "pid": dead}
        os.waitpid(dead, 0)
    else:
        record |= {"host": "node17", "boot": "of-node17"}
    held = stage.out / "run.lock"
    held.write_text("" if who == "torn lock" else json.dumps(record))
    if who in ("silent host", "torn lock"):
        old = time.time() - 2 * lock.STALE_AFTER
        os.utime(held, (old, old))
    if who != "live host":
        return finish(stage, resumed_from=newest), f"{who}, taken over"
    before = contents(stage.out)
    require_refusal(stage.start(), "node17")
    require(contents(stage.out) == before, "the refusal changed the folder")
    return "refused", f"{who} was named, nothing was touched"


@fault("damaged_result", 6, "a finished table or manifest altered: refused, never retrained or believed")
def _damaged_result(stage: Stage) -> tuple[str, str]:
    shutil.copytree(stage.undisturbed, stage.out)
    name = stage.random.choice(("phases.parquet", "evals.parquet", "policy.safetensors", "manifest.json"))
    data = bytearray((stage.out / name).read_bytes())
    if name == "manifest.json":
        data = data[: stage.random.randrange(len(data) - 2)]
    else:
        data[stage.random.randrange(len(data))] ^= 1 << stage.random.randrange(8)
    (stage.out / name).write_bytes(data)
    before = contents(stage.out)
    require_refusal(stage.start(), name, "damaged")
    require(contents(stage.out) == before, "the refusal changed the folder")
    return "refused", f"{name} altered"


# --- Means that need root


@contextmanager
def small_disk(mount: Path, kibibytes: int) -> Iterator[Path]:
    """A file system in memory of a given size."""
    mount.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(mount)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        raise SkippedError("mounting a file system needs root and the right to mount")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@contextmanager
def memory_cgroup(name: str) -> Iterator[Callable[[int], None]]:
    """A memory cgroup (version 1 or 2); what it yields puts the calling process into it, with a limit in bytes."""
    first = Path("/sys/fs/cgroup/memory")
    group = (first if first.is_dir() else Path("/sys/fs/cgroup")) / name
    limit = "memory.limit_in_bytes" if first.is_dir() else "memory.max"
    try:
        group.mkdir()
    except OSError as error:
        raise SkippedError("a memory cgroup needs root and a writable /sys/fs/cgroup") from error
    if not (group / limit).exists():
        group.rmdir()
        raise SkippedError("there is no memory controller")

    def join(limit_bytes: int) -> None:
        (group / limit).write_text(str(limit_bytes))
        (group / "cgroup.procs").write_text(str(os.getpid()))

    try:
        yield join
    finally:
        for _ in range(100):
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


# --- The campaign


def prepare(place: Path) -> tuple[Path, Path, float]:
    """The undisturbed run, made by the real command; one stopped after phase four; the seconds a forked run takes."""
    place.mkdir(parents=True, exist_ok=True)
    undisturbed, half = place / "undisturbed", place / "half"
    stage = Stage(place, random.Random(0), undisturbed, half, 0.0)
    command = [sys.executable, "-m", "vaco", *stage.command(undisturbed, every=300.0)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    again = Process(stage.command(place / "again"), place / "said-again")
    if again.wait() != 0 or difference(undisturbed, place / "again"):
        raise SystemExit(f"the undisturbed run does not repeat itself: {again.words}")
    seconds = time.monotonic() - started

    def stop_after_four() -> None:
        advance = training.Run.advance

        def stopping(run: Any) -> Any:
            if run.phase == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return advance(run)

        training.Run.advance = stopping  # type: ignore[assignment,method-assign]

    Process(stage.command(half), place / "said-half", stop_after_four).wait()
    if sorted(checkpoints(half)) != [3, 4]:
        raise SystemExit("a run stopped after phase four must hold the checkpoints of phases three and four")
    return undisturbed, half, seconds


def campaign(kinds: list[str], share: float, seed: int, place: Path, say: Callable[[str], None]) -> list[Outcome]:
    """Run every case, one after the other."""
    undisturbed, half, seconds = prepare(place)
    outcomes = []
    for kind in kinds:
        cases, _, inject = FAULTS[kind]
        for case in range(max(1, round(cases * share))):
            folder = place / f"{kind}{case}"
            folder.mkdir()
            started = time.monotonic()
            stage = Stage(folder, random.Random(f"{seed}/{kind}/{case}"), undisturbed, half, seconds)
            try:
                result, detail = inject(stage)
            except SkippedError as reason:
                result, detail = "skipped", str(reason)
            except (WrongError, AssertionError, OSError, subprocess.SubprocessError) as wrong:
                result, detail = "FAILED", str(wrong)
            outcomes.append(Outcome(kind, case, result, detail, round(time.monotonic() - started, 2)))
            say(f"{kind} {case}: {result} ({detail})")
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """The result as a Markdown table."""
    results = ("identical", "refused", "skipped")
    lines = ["| fault | injected | same bits | refused, nothing lost | silent differences or losses |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    total = [0] * 4
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind and outcome.result != "skipped"]
        counts = [sum(outcome.result == result for outcome in of_kind) for result in results[:2]]
        row = [len(of_kind), *counts, len(of_kind) - sum(counts)]
        total = [one + other for one, other in zip(total, row, strict=True)]
        lines.append(f"| {FAULTS[kind][1]} | " + " | ".join(map(str, row)) + " |")
    lines.append("| **all** | " + " | ".join(f"**{number}**" for number in total) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Inject faults into training and count what they change.")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="KIND")
    parser.add_argument("--share", type=float, default=1.0, help="share of the cases of every kind, at least one each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vaco-faults-") as place:
        outcomes = campaign(
            options.kinds, options.share, options.seed, Path(place), lambda line: print(line, flush=True)
        )
    bad = [outcome for outcome in outcomes if outcome.result not in ("identical", "refused", "skipped")]
    options.out.mkdir(parents=True, exist_ok=True)
    revision, dirty = provenance.source_revision()
    record = {
        "revision": revision,
        "dirty": dirty,
        "source_hash": provenance.training_hash("vaco"),
        "seed": options.seed,
        "run": SETTINGS,
        "seconds": round(time.monotonic() - started),
        "injected": sum(outcome.result != "skipped" for outcome in outcomes),
        "skipped": sum(outcome.result == "skipped" for outcome in outcomes),
        "silent_differences_or_losses": len(bad),
        "cases": [asdict(outcome) for outcome in outcomes],
    }
    atomic.write_bytes(options.out / "faults.json", (json.dumps(record, indent=1) + "\n").encode())
    atomic.write_bytes(options.out / "faults.md", table(outcomes).encode())
    print("\n" + table(outcomes))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
