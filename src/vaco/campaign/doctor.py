"""What this machine offers, whether results repeat here to the bit, and what to fix before training."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from vaco.campaign import cluster
from vaco.campaign.tiers import Tier
from vaco.errors import UserError
from vaco.runs import atomic
from vaco.runs.lock import RunLock
from vaco.runs.provenance import PACKAGES, _cpu_model, source_revision
from vaco.runs.tables import sha256_file

Status = Literal["ok", "note", "fix"]

LEAST_DISK = 1 << 30
RUN_MEGABYTES = 600
"""Memory of a run, with some to spare."""
_NETWORK = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cephfs", "ceph", "cifs", "smb3", "fuse.sshfs", "9p"}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        found: what was found.
        status: `fix` must be mended, `note` should be known.
        hint: what to do about it, or what it means; empty if all is well.
    """

    name: str
    found: str
    status: Status = "ok"
    hint: str = ""


def examine(results: Path, *, profile: Path | None = None, tier: Tier | None = None, train: bool = True) -> list[Check]:
    """Look at everything that a run depends on.

    Args:
        results: where runs will be kept; it need not exist, and is not created.
        profile: a Snakemake profile to check against this cluster.
        tier: with `profile`, the tier whose runs must fit into its time limits.
        train: train the same short run twice and compare the bits; some ten seconds.

    Returns:
        The report, line by line.
    """
    checks = [*_versions(), *_machine(), *_disk(results), *_cluster(profile, tier)]
    if train:
        checks.append(repeats())
    return checks


def render(checks: Sequence[Check]) -> str:
    """The report as text, one line a check and one a hint."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<4}  {check.name:<{width}}  {check.found}")
        if check.hint:
            lines.append(f"{'':<{width + 8}}{check.hint}")
    return "\n".join(lines)


def cores() -> tuple[int, str]:
    """Cores that this process may use, and which limit says so: the machine, its affinity, a container, or SLURM."""
    limits = [(os.cpu_count() or 1, "the machine")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((len(os.sched_getaffinity(0)), "the process's affinity"))
    quota = _cgroup_cores()
    if quota is not None:
        limits.append((max(1, int(quota)), f"the container's quota of {quota:g}"))
    for variable in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if os.environ.get(variable, "").isdigit():
            limits.append((int(os.environ[variable]), variable))
            break
    return min(limits, key=lambda limit: limit[0])


def memory() -> tuple[int, str] | None:
    """Megabytes that this process may use, and which limit says so; None where the system does not tell."""
    limits = []
    total = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    if total:
        limits.append((int(total[1]) // 1024, "the machine"))
    for place in (*_cgroup_files("memory", "memory.max"), *_cgroup_files("memory", "memory.limit_in_bytes")):
        if _read(place).isdigit():
            limits.append((int(_read(place)) >> 20, "the container"))
    if os.environ.get("SLURM_MEM_PER_NODE", "").isdigit():
        limits.append((int(os.environ["SLURM_MEM_PER_NODE"]), "SLURM_MEM_PER_NODE"))
    return min(limits, key=lambda limit: limit[0]) if limits else None


def repeats() -> Check:
    """Train the same short run in two processes and compare the bits."""
    name = "repeats to the bit"
    with tempfile.TemporaryDirectory() as place:
        digests = set()
        for out in (Path(place, "one"), Path(place, "two")):
            flags = ["--env", "InvertedPendulum-v5", "--steps", "4096", "--eval-points", "1", "--eval-episodes", "1"]
            command = [sys.executable, "-m", "vaco", "train", "--out", str(out), "--quiet", "--lag", "2", *flags]
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, check=False
            )
            if done.returncode != 0:
                said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                return Check(
                    name, f"a short run failed: {said[-1]}", "fix", "mend what the short run says, then ask again"
                )
            digests.add(sha256_file(out / "policy.safetensors"))
    if len(digests) > 1:
        hint = "set OMP_NUM_THREADS=1 and run alone on a core; if that does not help, report it with this output"
        return Check(name, "no, two identical short runs differ", "fix", hint)
    return Check(name, f"yes, two short runs end with the same policy ({digests.pop()[:12]})")


def _demands() -> dict[str, SpecifierSet]:
    """What results were made with: the lock in a checkout; elsewhere the ranges of the installed package."""
    lock = Path(__file__).parents[3] / "requirements.lock"
    if lock.is_file():
        texts = [line for line in lock.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    else:
        texts = list(metadata.requires("vaco") or ())
    return {one.name: one.specifier for one in map(Requirement, texts)}


def _versions() -> Iterator[Check]:
    demands = _demands()
    yield Check("python", f"{platform.python_version()} ({sys.executable})")
    for package in PACKAGES:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield Check(package, "not installed", "fix", f"install {package}{demands.get(package, '')}: make test does")
            continue
        wanted = demands.get(package)
        if wanted is not None and not wanted.contains(version.split("+")[0], prereleases=True):
            hint = f"results are comparable only with {package}{wanted}: install that, as requirements.lock has it"
            yield Check(package, version, "fix", hint)
        else:
            yield Check(package, version)
    revision, dirty = source_revision()
    if revision is None:
        yield Check(
            "source", "not in a git repository", "note", "manifests will name no commit, only the source's hash"
        )
    elif dirty:
        yield Check("source", f"commit {revision[:12]} with uncommitted changes", "note", "commit before you train")
    else:
        yield Check("source", f"commit {revision[:12]}")


def _machine() -> Iterator[Check]:
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    capability = torch.backends.cpu.get_cpu_capability()
    yield Check("backend", f"batched stepping, PyTorch on the CPU ({capability}), {gpu}")
    yield Check("processor", f"{_cpu_model()}, {platform.machine()}, {platform.platform()}")
    number, reason = cores()
    yield Check("cores", f"{number}, by {reason}")
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    other = {name: value for name, value in threads.items() if value not in (None, "1")}
    if other:
        hint = f"a run takes one thread whatever it says, but other tools will not: export {next(iter(other))}=1"
        yield Check("threads", ", ".join(f"{name}={value}" for name, value in other.items()), "note", hint)
    else:
        yield Check("threads", "1 a run")
    limit = memory()
    if limit is not None and limit[0] < RUN_MEGABYTES:
        hint = f"a run needs {RUN_MEGABYTES} MB: ask for more, such as --mem={RUN_MEGABYTES}"
        yield Check("memory", f"{limit[0]} MB, by {limit[1]}", "fix", hint)
    elif limit is not None:
        yield Check("memory", f"{limit[0]} MB, by {limit[1]}; enough for {limit[0] // RUN_MEGABYTES} runs at a time")
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        yield Check("allocation", f"SLURM job {job} on {os.environ.get('SLURM_JOB_NODELIST', platform.node())}")


def _disk(results: Path) -> Iterator[Check]:
    place = results.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    kind = _file_system(place)
    found = f"{free / 1e9:.1f} GB free at {place} ({kind or 'unknown file system'})"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield Check("disk", found, "fix", f"{place} is not writable: give --results another place")
        return
    if free < LEAST_DISK:
        yield Check("disk", found, "fix", "make room: checkpoints and results need at least 1 GB")
    else:
        yield Check("disk", found)
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".vaco-doctor-") as trial:
            lock = RunLock(Path(trial) / "run.lock")
            lock.acquire()
            atomic.write_bytes(Path(trial) / "file", b"content")
            held = lock.held()
            lock.release()
    except (UserError, OSError) as error:
        yield Check("locks", f"a trial failed: {error}", "fix", "keep results on another file system")
        return
    if not held:
        yield Check("locks", "a lock was not kept", "fix", "keep results on another file system")
    elif kind in _NETWORK:
        hint = "a run whose node died is taken over after 10 minutes of silence, not at once"
        yield Check("locks", "work, on a network file system", "note", hint)
    else:
        yield Check("locks", "work")


def _cluster(profile: Path | None, tier: Tier | None) -> Iterator[Check]:
    if profile is None:
        if tier is not None:
            raise UserError("--tier says which runs a profile must have room for: give --profile with it, or neither")
        tool = shutil.which("sbatch")
        yield Check("cluster", f"SLURM ({tool})" if tool else "no SLURM here")
        return
    try:
        problems = cluster.check(cluster.read_profile(profile), tier)
    except UserError as mistake:
        problems = [str(mistake)]
    for problem in problems:
        yield Check("profile", str(profile), "fix", problem)
    if not problems:
        yield Check("profile", f"{profile} fits this cluster")


def _cgroup_cores() -> float | None:
    """The quota of processor time of this container, in cores."""
    for place in _cgroup_files("cpu", "cpu.max"):
        quota, _, period = _read(place).partition(" ")
        if quota.isdigit() and period.isdigit():
            return int(quota) / int(period)
    quotas = [_read(place) for place in _cgroup_files("cpu", "cpu.cfs_quota_us")]
    periods = [_read(place) for place in _cgroup_files("cpu", "cpu.cfs_period_us")]
    for quota, period in zip(quotas, periods, strict=True):
        if quota.isdigit() and period.isdigit():
            return int(quota) / int(period)
    return None


def _cgroup_files(controller: str, name: str) -> list[str]:
    """Where a limit of this process may be written, version 2 or 1, its own group before the root."""
    own = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for each in controllers.split(","):
            own[each] = path
    places = [f"/sys/fs/cgroup{own.get('', '/')}/{name}", f"/sys/fs/cgroup/{name}"]
    places += [f"/sys/fs/cgroup/{controller}{own.get(controller, '/')}/{name}", f"/sys/fs/cgroup/{controller}/{name}"]
    return [place for place in dict.fromkeys(places) if Path(place).is_file()]


def _file_system(place: Path) -> str:
    """The type of the file system that holds a path; empty where the system does not tell."""
    best, kind = "", ""
    for line in _read("/proc/self/mounts").splitlines():
        fields = line.split()
        mount = fields[1].encode().decode("unicode_escape")
        inside = place == Path(mount) or Path(mount) in place.parents
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
