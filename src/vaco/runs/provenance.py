"""Where a result comes from: what a manifest records of settings, source, packages and machine.

Nothing of it decides what needs training (`identity` does), but for one guard: a job of a workflow that finds other
training code than the workflow was planned with stops (`require_planned`).
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from vaco.errors import UserError
from vaco.runs.identity import SCHEMA, RunId

PACKAGES = ("numpy", "torch", "mujoco", "gymnasium", "vaco")
ARITHMETIC = (
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OPENBLAS_CORETYPE"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Environment variables by which libraries choose between instructions that round in another order."""
PLANNED = "VACO_PLANNED_SOURCE"
"""Environment variable by which a workflow tells its jobs the `source_digest` that it was planned with."""
_ROOT = Path(__file__).resolve().parents[1]
_TRAINING = ("objectives", "control", "lm", "runs", "lag.py")


def utc_now() -> str:
    """The time in UTC as manifests write it, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def manifest(
    *,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
    run_id: RunId,
    started: str,
    finished: str,
    wall_seconds: float,
    completed_steps: int,
    rules: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Put together what ``manifest.json`` says of a run; `RunFolder.finish` adds checksums and status.

    Args:
        identity: environment, algorithm, lag, seed and steps.
        config: the resolved configuration, flat, plain JSON.
        run_id: what the run is, see `identity`.
        started: when the run first started, from `utc_now`.
        finished: when it finished.
        wall_seconds: time spent, over all the run's processes if it was resumed.
        completed_steps: environment steps.
        rules: `identity.foreign_rules` of the run; left out if there are none.

    Returns:
        A record for `tables.write_json`. ``revision`` and ``dirty`` are from `process_revision`: null and false if
        the source is not in a git repository.
    """
    revision, dirty = process_revision()
    return {
        "schema": SCHEMA,
        "identity": dict(identity),
        "config": dict(config),
        "config_hash": run_id.config_hash,
        "training_version": run_id.version,
        **({"rules": list(rules)} if rules else {}),
        "revision": revision,
        "dirty": dirty,
        "source_digest": source_digest(),
        **machine(),
        "platform": platform.platform(),
        "threads": _threads(),
        "started": started,
        "finished": finished,
        "wall_seconds": wall_seconds,
        "completed_steps": completed_steps,
    }


def machine() -> dict[str, Any]:
    """What bits depend on besides source and settings: versions of packages, host and processor; plain JSON.

    ``environment`` is there only where a variable is set that chooses how a library computes.
    """
    chosen = {name: os.environ[name] for name in ARITHMETIC if name in os.environ}
    return {
        **({"environment": chosen} if chosen else {}),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "cpu": _cpu_model(),
    }


@functools.cache
def process_revision() -> tuple[str | None, bool]:
    """`source_revision` of the code that this process runs, as it was when first asked: later commits are not it.

    `RunFolder` asks on entering, before the work that may take hours. Where git knows nothing, as in a container, the
    environment variable `VACO_REVISION` says what the code is.
    """
    revision, dirty = source_revision()
    return revision or os.environ.get("VACO_REVISION") or None, dirty


def source_revision(package: Path = _ROOT) -> tuple[str | None, bool]:
    """Ask git for the commit of the source, and whether a tracked Python file of the package differs from it.

    Args:
        package: folder of the package. It must itself be tracked: a virtual environment may lie inside somebody's
            repository without being part of it.

    Returns:
        The commit's hash and the flag; (None, False) without git, or if the package is not tracked.
    """
    revision = _git(package, "rev-parse", "HEAD")
    if revision is None or _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, False
    clean = _git(package, "diff", "--quiet", "--no-ext-diff", "HEAD", "--", "*.py") is not None
    return revision, not clean


@functools.cache
def source_digest(package: Path = _ROOT) -> str:
    """Sixteen hexadecimal digits over the text of the training code, as this process found it first.

    Args:
        package: folder of the package.
    """
    digest = hashlib.sha256()
    for name in _TRAINING:
        place = package / name
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def require_planned(expected: str | None, run_id: RunId) -> None:
    """Stop a job that finds itself to be something else than it was planned as.

    Args:
        expected: the run's identity by plan; None outside a workflow.
        run_id: its identity here and now.

    Raises:
        UserError: the identity is another, or the training code was edited since the workflow was planned.
    """
    if expected is not None and expected != str(run_id):
        raise UserError(
            f"this job was planned as run {expected}, but with the settings and the code that are here it would be "
            f"{run_id}: nothing was trained; start the workflow again"
        )
    planned = os.environ.get(PLANNED)
    if planned and planned != source_digest():
        raise UserError(
            f"the training code was edited after the workflow was planned (source {planned} then, {source_digest()} "
            "now): nothing was trained; start the workflow again, or undo the edit first"
        )


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder; None if it fails, is missing or hangs."""
    # Inside a git hook, GIT_DIR and its like would point elsewhere.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        # Without optional locks, or many runs finishing at once would get in the way of the user's own git commands.
        done = subprocess.run(
            # Also in a repository of somebody else's, which git shuns as its configuration may run programs: this very
            # process runs the code that is in it.
            ["git", "-c", "safe.directory=*", "--no-optional-locks", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    """The installed version of a package, None if it is not installed (such as a source tree on PYTHONPATH)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's name; on Linux the standard library knows only the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _threads() -> int:
    """How many threads torch computes with."""
    import torch

    return torch.get_num_threads()
