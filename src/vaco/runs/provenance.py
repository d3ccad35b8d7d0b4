"""Where a result comes from: the manifest of a run, and a hash of the source that determines a training run.

The hash decides what is trained again after the code was edited, so it leaves out all that cannot change a number:
comments, docstrings, layout, the other rows of the table of algorithms and the filters that a run does not use.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
import os
import platform
import socket
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "torch", "mujoco", "gymnasium", "vaco")
_ROOT = Path(__file__).resolve().parents[1]
_FILTERS, _TABLE = "objectives/filters.py", "objectives/table.py"
_SOURCES = ("objectives/**/*.py", "lag.py", "runs/config.py", "control/**/*.py")
_REPLAY = "control/replay.py"  # evaluates what is already trained
_TOKENS = "objectives/tokens.py"  # of language models only
_REFERENCE_SOURCES = ("control/envs/**/*.py", "control/evaluate.py", _REPLAY)
_LANGUAGE_SOURCES = ("objectives/**/*.py", "lag.py", "lm/**/*.py")
_LANGUAGE_SURFACE = (
    "lm/command.py",
    "lm/tiers.py",
    "lm/verify.py",
)  # decide which runs exist or are good, not what one does
# Arguments that are only printed: name and formula of a filter, meaning of a setting, formula of an alignment.
_PRINTED = {"register": (0, 1), "_setting": (1,), "Alignment": (3,)}


def utc_now() -> str:
    """The time in UTC as manifests write it, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def manifest(
    *,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
    config_hash: str,
    source_hash: str,
    started: str,
    finished: str,
    wall_seconds: float,
    completed_steps: int,
) -> dict[str, Any]:
    """Put together what ``manifest.json`` says of a run; `RunFolder.finish` adds checksums and status.

    Args:
        identity: environment, algorithm, lag, seed and steps.
        config: the resolved configuration, flat, plain JSON.
        config_hash: its hash.
        source_hash: from `training_hash`.
        started: when the run first started, from `utc_now`.
        finished: when it finished.
        wall_seconds: time spent, over all the run's processes if it was resumed.
        completed_steps: environment steps.

    Returns:
        A record for `tables.write_json`. ``revision`` and ``dirty`` are from `process_revision`: null and false if
        the source is not in a git repository.
    """
    revision, dirty = process_revision()
    return {
        "schema": 1,
        "identity": dict(identity),
        "config": dict(config),
        "config_hash": config_hash,
        "source_hash": source_hash,
        "revision": revision,
        "dirty": dirty,
        **machine(),
        "platform": platform.platform(),
        "threads": _threads(),
        "started": started,
        "finished": finished,
        "wall_seconds": wall_seconds,
        "completed_steps": completed_steps,
    }


def machine() -> dict[str, Any]:
    """What bits depend on besides source and settings: versions of packages, host and processor; plain JSON."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "cpu": _cpu_model(),
    }


@functools.cache
def process_revision() -> tuple[str | None, bool]:
    """`source_revision` of the code that this process runs, as it was when first asked: later commits are not it.

    `RunFolder` asks on entering, before the work that may take hours.
    """
    return source_revision()


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


def training_hash(algorithm: str, *, package: Path = _ROOT) -> str:
    """Hash the source that determines a training run of one algorithm.

    Hashed are ``objectives`` without its rules for tokens, ``lag.py``, ``runs/config.py`` and ``control``, as syntax
    trees without docstrings, error messages and what is only printed. Of ``objectives/table.py`` only the algorithm's
    row counts, and ``objectives/filters.py`` is hashed without the functions that only other filters use, so that
    editing one filter trains only its runs again.

    Args:
        algorithm: any name that `vaco.objectives.table.parse` knows; two names of one row have the same hash.
        package: folder of the package whose source is hashed; the row is that of the package imported.

    Returns:
        SHA-256 in hexadecimal; it does not depend on the machine.

    Raises:
        UserError: unknown algorithm.
    """
    # Imported here because they import torch, which the rest of this module does without.
    from vaco.objectives.filters import FILTERS
    from vaco.objectives.table import parse

    row = parse(algorithm)
    return _hash_sources(
        package,
        row=json.dumps({"align": _plain(row.align), "filter": _plain(row.filter)}, sort_keys=True),
        used=_function_names(row.filter),
        registered={name for rule in FILTERS.values() for name in _function_names(rule)},
    )


def language_hash(*, package: Path = _ROOT) -> str:
    """Hash the source that determines a training run of a language model, whatever its algorithm.

    Args:
        package: folder of the package whose source is hashed.

    Returns:
        SHA-256 in hexadecimal, blind to comments, docstrings and error messages like `training_hash`.
    """
    left_out = {package / name for name in _LANGUAGE_SURFACE}
    files = sorted({path for pattern in _LANGUAGE_SOURCES for path in package.glob(pattern)} - left_out)
    return _hash_files(package, files)


def reference_hash(*, package: Path = _ROOT) -> str:
    """Hash the source that determines the returns of the random policy: environments, evaluation and replay.

    Args:
        package: folder of the package whose source is hashed.

    Returns:
        SHA-256 in hexadecimal, blind to comments, docstrings and error messages like `training_hash`.
    """
    files = sorted({path for pattern in _REFERENCE_SOURCES for path in package.glob(pattern)})
    return _hash_files(package, files)


def _hash_files(package: Path, files: Iterable[Path]) -> str:
    parts = {
        path.relative_to(package).as_posix(): _canonical_source(path.read_text(encoding="utf-8")) for path in files
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_sources(root: Path, *, row: str, used: set[str], registered: set[str]) -> str:
    """`training_hash` of the package in `root`, for a row whose filter names the functions `used` of `registered`."""
    left_out = {root / name for name in (_TABLE, _REPLAY, _TOKENS)}
    files = sorted({path for pattern in _SOURCES for path in root.glob(pattern)} - left_out)
    trees = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in files}
    filters = trees.pop(_FILTERS)
    outside = {name for text in trees.values() for name in _taken_from_filters(text)}
    parts = {name: _canonical_source(text) for name, text in trees.items()}
    parts[_FILTERS] = _canonical(_without_other_filters(ast.parse(filters), used, registered, outside))
    parts[_TABLE] = row
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _without_other_filters(
    module: ast.Module, used: set[str], registered: set[str], outside: set[str]
) -> list[ast.stmt]:
    """The statements of ``filters.py`` without the functions that serve only filters other than the one used.

    A function is left out if, by name, it is reachable from a filter that is not used and from nothing else: not from
    the one used, from other modules, from statements that are no functions, or from functions that are no filter's.
    """
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    others = [node for node in module.body if not isinstance(node, ast.FunctionDef) and not _assigns(node, "FILTERS")]

    def reach(names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = [name for name in names if name in functions]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [n for n in _names(functions[name]) if n in functions]
        return found

    of_no_filter = set(functions) - reach(registered)
    named = {name for node in others for name in _names(node)}
    needed = reach(used | outside | named | of_no_filter)
    return [node for node in module.body if node in others or getattr(node, "name", None) in needed]


@functools.lru_cache(maxsize=256)
def _taken_from_filters(source: str) -> frozenset[str]:
    """Names that a module imports from ``filters.py`` or reads as ``filters.NAME``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2] in ("filters", "objectives"):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "filters":
            found.add(node.attr)
    return frozenset(found)


def _names(node: ast.AST) -> set[str]:
    """Every plain name that a piece of source reads; a name that it binds, such as a field `clip`, uses no function."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}


def _assigns(node: ast.stmt, name: str) -> bool:
    """Whether a statement binds a name."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


@functools.lru_cache(maxsize=256)
def _canonical_source(source: str) -> str:
    return _canonical(ast.parse(source))


def _canonical(node: Any) -> str:
    """Write a syntax tree as text, without what changes nothing.

    Left out are positions, bare strings (docstrings), the words of errors, formulas and meanings that are only printed,
    and empty fields: newer Pythons add some, and `ast.dump` writes them or not by version, which must not train
    everything again.
    """
    if isinstance(node, list):
        return "[" + ",".join(_canonical(item) for item in node if not _is_remark(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in ("kind", "type_comment")}
    if isinstance(node, ast.Raise):
        fields = {}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        printed = _PRINTED.get(node.func.id, ())
        fields["args"] = [argument for place, argument in enumerate(node.args) if place not in printed]
    kept = (f"{name}={_canonical(value)}" for name, value in fields.items() if value not in (None, []))
    return f"{type(node).__name__}({','.join(kept)})"


def _is_remark(node: Any) -> bool:
    """Whether a statement is a bare string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _function_names(rule: Any) -> set[str]:
    """The functions that a filter's entry names."""
    values = (getattr(rule, field.name) for field in dataclasses.fields(rule))
    return {value.__name__ for value in values if callable(value)}


def _plain(entry: Any) -> dict[str, str]:
    """An entry of the table of filters or alignments as text, without the formula that is only printed."""
    fields = (
        entry._asdict()
        if hasattr(entry, "_asdict")
        else {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry)}
    )
    return {
        name: value.__name__ if callable(value) else repr(value) for name, value in fields.items() if name != "formula"
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder; None if it fails, is missing or hangs."""
    # Inside a git hook, GIT_DIR and its like would point elsewhere.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        # Without optional locks, or many runs finishing at once would get in the way of the user's own git commands.
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
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
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _threads() -> int:
    """How many threads torch computes with."""
    import torch

    return torch.get_num_threads()
