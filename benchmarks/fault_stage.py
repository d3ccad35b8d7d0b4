"""What a fault is injected into and judged by: a short real run in a process of its own, and its folder afterwards.

Every run is a process of its own, forked from one that has imported everything, so that faults fall into training
rather than into imports. Faults that need root (small and read-only file systems, a memory limit) are skipped, and
counted as skipped, without it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")

import safetensors.numpy

from vaco import cli
from vaco.runs import checkpoint
from vaco.runs.tables import CLOCKS, read_json, read_parquet, sha256_file

FILES = ("phases.parquet", "evals.parquet", "policy.safetensors")
SETTINGS = {"env": "Hopper-v5", "lag": 4, "steps": 12_288, "eval_points": 3, "eval_episodes": 2}
PHASES = 6
PATIENCE = 120.0
POLITE_SECONDS = 5.0


class SkippedError(Exception):
    """This machine cannot inject the fault, or the run ended before it."""


ENDED_FIRST = "the run ended before the fault"


class WrongError(Exception):
    """What the fault had to show did not happen."""


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
        return self.said.read_text(errors="replace", encoding="utf-8")


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


def meaning(data: bytes) -> Any:
    """What a checkpoint says, read without its checksum and compared bit for bit; None if that cannot be read."""
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["vaco"])
        arrays = {n: (a.dtype, a.shape, a.tobytes()) for n, a in safetensors.numpy.load(data).items()}
        return arrays, repr((header["format"], header["content"]))
    except (ValueError, LookupError, TypeError, safetensors.SafetensorError):
        return None


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
    same = ("identity", "config", "config_hash", "training_version", "completed_steps", "status", "versions")
    for name in same:
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


def finish(stage: Stage, *, resumed_from: int | None = None, damaged: Sequence[int] = ()) -> str:
    """Run the same command to its end, and compare with the undisturbed run.

    It must say from which phase it resumed and, of the phases `damaged`, that their checkpoints are.
    """
    process = stage.start()
    code = process.wait()
    require(code == 0, f"the final run ended with {code}: {process.words[-300:]}")
    if resumed_from:
        said = f"resuming {stage.out} at step {resumed_from * 2048:,}"
        require(said in process.words, f"it did not resume from phase {resumed_from}: {process.words[-300:]}")
    for phase in damaged:
        said = f"checkpoint-{phase:012d}.safetensors is damaged"
        require(said in process.words, f"it did not say that checkpoint {phase} is damaged: {process.words[-300:]}")
    found = difference(stage.undisturbed, stage.out)
    return "identical" if found is None else f"SILENT DIFFERENCE: {found}"


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
        (group / limit).write_text(str(limit_bytes), encoding="utf-8")
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")

    try:
        yield join
    finally:
        for _ in range(100):
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)
