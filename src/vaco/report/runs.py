"""Reading run folders: identify each by its manifest, and refuse what does not belong together."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vaco.errors import UserError
from vaco.report.plan import Cell, Plan

IDENTITY = ("env", "algorithm", "lag", "seed", "steps")
# The parts of a manifest that are records themselves.
SECTIONS = ("identity", "config", "checksums", "versions")
# What says where and how often a run looked, not how it learnt: left out of the table of hyper-parameters.
NOT_HYPERPARAMETERS = frozenset({"env", "algorithm", "lag", "seed", "steps", "eval_points", "eval_episodes"})


@dataclass(frozen=True)
class Run:
    """A finished run: the cell it fills, its folder and its manifest."""

    cell: Cell
    folder: Path
    manifest: Mapping[str, Any]

    def table(self, name: str) -> pd.DataFrame:
        """Read `phases` or `evals`."""
        return pd.read_parquet(self.folder / f"{name}.parquet")


def find_runs(plan: Plan, root: Path, *, allow_missing: bool) -> tuple[list[Run], list[Cell]]:
    """Read the manifest of every run that the plan asks for.

    Args:
        plan: what the tier asks for.
        root: `results/<tier>`.
        allow_missing: go on without the runs that are not there; otherwise they are an error.

    Returns:
        The runs in the plan's order, and the cells without one.

    Raises:
        UserError: runs are missing, a manifest contradicts its path, or a file does not match its checksum.
    """
    runs, missing = [], []
    for cell in plan.cells():
        folder = root / cell.folder
        manifest = _manifest(folder)
        if manifest is None:
            missing.append(cell)
        else:
            _check_identity(plan, cell, folder, manifest)
            runs.append(Run(cell, folder, manifest))
    if missing and not allow_missing:
        shown = ", ".join(cell.folder for cell in missing[:8])
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise UserError(
            f"{len(missing)} of {len(plan.cells())} runs of the tier '{plan.tier}' are missing below {root}: {shown}"
            f"{more}; run them, or set allow_missing: true in config/config.yaml to go on without them"
        )
    if not runs:
        raise UserError(f"no run of the tier '{plan.tier}' is finished below {root}: train some first")
    return runs, missing


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    """The manifest of a complete run, or None where there is no complete run."""
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:  # also text that is not UTF-8
        raise UserError(f"{path} is not JSON ({problem}): delete the folder and run it again") from problem
    if not isinstance(manifest, dict):
        raise UserError(f"{path} is no manifest of a run: delete the folder and run it again")
    if manifest.get("status") != "complete":
        return None
    if absent := [name for name in SECTIONS if not isinstance(manifest.get(name), dict)]:
        raise UserError(f"{path} does not say the {absent[0]} of its run: delete the folder and run it again")
    return manifest


def _check_identity(plan: Plan, cell: Cell, folder: Path, manifest: Mapping[str, Any]) -> None:
    method = plan.methods[cell.name]
    expected = dict(zip(IDENTITY, (cell.env, method.algorithm, cell.lag, cell.seed, plan.steps), strict=True))
    for key, value in expected.items():
        found = manifest["identity"].get(key)
        if found != value:
            raise UserError(
                f"{folder} should hold {key} = {value}, but its manifest says {found}: the folder was moved or the "
                "tier has changed; delete the folder and run it again"
            )
    for key, value in method.settings.items():
        found = manifest["config"].get(key)
        if found != value:
            raise UserError(
                f"{folder} should have been trained with {key} = {value}, but its manifest says {found}: delete the "
                "folder and run it again"
            )
    for name in ("phases.parquet", "evals.parquet"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else None
        if digest is None or manifest["checksums"].get(name) != digest:
            state = "is missing" if digest is None else "does not match the checksum in its manifest"
            raise UserError(f"{folder / name} {state}: delete the folder and run it again")


def check_mixture(runs: Iterable[Run]) -> list[str]:
    """Refuse runs that may not be compared, and name what a reader should know of the others.

    Returns:
        Warnings, one sentence each.

    Raises:
        UserError: runs were made with different versions of MuJoCo, whose returns are not comparable.
    """
    runs = list(runs)
    physics = _groups(runs, "mujoco")
    if len(physics) > 1:
        examples = "; ".join(f"{version}: {members[0].folder}" for version, members in sorted(physics.items()))
        raise UserError(
            f"these runs mix versions of MuJoCo, whose returns are not comparable ({examples}): run all with one"
        )
    warnings = []
    for package in ("torch", "numpy", "gymnasium", "python"):
        versions = sorted(_groups(runs, package))
        if len(versions) > 1:
            warnings.append(f"Runs mix versions of {package}: {', '.join(versions)}.")
    # The source hash covers only the filter that the algorithm uses, so it is compared within an algorithm.
    sources: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        sources[run.manifest["identity"]["algorithm"]].add(str(run.manifest.get("source_hash")))
    mixed = sorted(algorithm for algorithm, hashes in sources.items() if len(hashes) > 1)
    if mixed:
        warnings.append(f"Runs of {', '.join(mixed)} were made by more than one version of the training code.")
    dirty = sum(bool(run.manifest.get("dirty")) for run in runs)
    if dirty:
        warnings.append(f"{dirty} of {len(runs)} runs were made from a working tree with uncommitted changes.")
    return warnings


def _groups(runs: Iterable[Run], package: str) -> dict[str, list[Run]]:
    """Runs by the version of a package."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[str(run.manifest["versions"].get(package))].append(run)
    return groups


def configurations(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """The hyper-parameters behind each path name, from the manifests of its runs.

    Raises:
        UserError: two runs of one name were made with different settings.
    """
    found: dict[str, tuple[dict[str, Any], Path]] = {}
    for run in runs:
        config = {key: value for key, value in run.manifest["config"].items() if key not in NOT_HYPERPARAMETERS}
        first, where = found.setdefault(run.cell.name, (config, run.folder))
        for key in sorted(first.keys() | config.keys()):
            if first.get(key) != config.get(key):
                raise UserError(
                    f"runs of '{run.cell.name}' differ in {key}: {first.get(key)} in {where}, {config.get(key)} in "
                    f"{run.folder}; delete one of them and run it again"
                )
    return {name: config for name, (config, _) in found.items()}
