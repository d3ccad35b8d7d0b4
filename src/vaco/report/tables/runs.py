"""The runs of a tier, taken from its archive: found by what they are, and refused where they do not belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vaco.archive import Archive, Entry
from vaco.errors import UserError
from vaco.report.tables.plan import Cell, Plan

# What says where and how often a run looked, not how it learnt: left out of the table of hyper-parameters.
NOT_HYPERPARAMETERS = frozenset({"env", "algorithm", "lag", "seed", "steps", "eval_points", "eval_episodes"})


@dataclass(frozen=True)
class Run:
    """A finished run: the cell it fills, its entry in the archive, and its algorithm as the tier spells it."""

    cell: Cell
    entry: Entry
    algorithm: str

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Its manifest."""
        return self.entry.manifest

    @property
    def version(self) -> str:
        """The training version of its algorithm."""
        return self.entry.run.rpartition("-")[2]

    def table(self, name: str) -> pd.DataFrame:
        """Its `phases` or `evals`."""
        frame: pd.DataFrame = self.entry.table(name).to_pandas()
        return frame


def find_runs(plan: Plan, archive: Archive) -> tuple[list[Run], list[Cell]]:
    """Find every run that the plan asks for, by what it is.

    A run that the archive has of another training version only is taken as it is; `check_mixture` says so.

    Args:
        plan: what the tier asks for.
        archive: the tier's archive.

    Returns:
        The runs in the plan's order, and the cells without one.

    Raises:
        UserError: there is no run at all.
    """
    others = {run.rpartition("-v")[0]: run for run in archive.entries}
    runs, missing = [], []
    for cell in plan.cells():
        wanted = plan.runs[cell.path]
        found = wanted if wanted in archive.entries else others.get(wanted.rpartition("-v")[0])
        if found is None:
            missing.append(cell)
        else:
            runs.append(Run(cell, archive.entries[found], plan.methods[cell.name].algorithm))
    if not runs:
        raise UserError(f"the archive {archive.folder} holds no run of the tier '{plan.tier}': train some first")
    return runs, missing


def check_mixture(runs: Iterable[Run], plan: Plan) -> list[str]:
    """Refuse runs that may not be compared, and name what a reader should know of the others.

    Returns:
        Warnings, one sentence each.

    Raises:
        UserError: runs were made with different versions of MuJoCo, whose returns are not comparable, or runs of one
            algorithm with different training versions.
    """
    runs = list(runs)
    physics = _groups(runs, "mujoco")
    if len(physics) > 1:
        examples = "; ".join(f"{version}: {members[0].cell.path}" for version, members in sorted(physics.items()))
        raise UserError(
            f"these runs mix versions of MuJoCo, whose returns are not comparable ({examples}): run all with one"
        )
    warnings = []
    for package in ("torch", "numpy", "gymnasium", "python"):
        versions = sorted(_groups(runs, package))
        if len(versions) > 1:
            warnings.append(f"Runs mix versions of {package}: {', '.join(versions)}.")
    by_algorithm: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        by_algorithm[run.algorithm].add(run.version)
    mixed = sorted(algorithm for algorithm, versions in by_algorithm.items() if len(versions) > 1)
    if mixed:
        raise UserError(
            f"the runs of {mixed[0]} are of several training versions ({', '.join(sorted(by_algorithm[mixed[0]]))}): "
            "train the older ones again, which 'vaco stale' lists"
        )
    old = sorted({run.cell.name for run in runs if plan.runs[run.cell.path] != run.entry.run})
    if old:
        warnings.append(f"Runs of {', '.join(old)} are of an older training version than the code here.")
    dirty = sum(bool(run.manifest.get("dirty")) for run in runs)
    if dirty:
        warnings.append(f"{dirty} of {len(runs)} runs were made from a working tree with uncommitted changes.")
    return warnings + restarts(runs)


def restarts(runs: Iterable[Run]) -> list[str]:
    """Says of runs whose environment cannot be saved how often their episodes began anew, in a sentence or none.

    Such a run has no `episodes_restarted` in its manifest where every state can be saved, and 0 where it was never
    interrupted.
    """
    counts = [int(run.manifest.get("episodes_restarted", 0)) for run in runs]
    if not any(counts):
        return []
    most = max(counts)
    return [
        f"Of {len(counts)} runs {sum(count > 0 for count in counts)} were interrupted in environments that cannot be "
        f"saved: their episodes restarted {'once' if most == 1 else f'up to {most} times'} a run, so they cannot be "
        "repeated bit for bit."
    ]


def _groups(runs: Iterable[Run], package: str) -> dict[str, list[Run]]:
    """Runs by the version of a package."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[str(run.manifest["versions"].get(package))].append(run)
    return groups


def configurations(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """The hyper-parameters behind each path name, from the manifests of its runs.

    A manifest of before a setting existed lacks it. Such a run has its default, by which a new setting changes nothing,
    and so agrees with a later run of the same identity.

    Raises:
        UserError: two runs of one name were made with different settings.
    """
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for run in runs:
        config = {key: value for key, value in run.manifest["config"].items() if key not in NOT_HYPERPARAMETERS}
        first, where = found.setdefault(run.cell.name, (config, run.cell.path))
        for key in sorted(first.keys() & config.keys()):
            if first[key] != config[key]:
                raise UserError(
                    f"runs of '{run.cell.name}' differ in {key}: {first[key]} in {where}, {config[key]} in "
                    f"{run.cell.path}; train one of them again"
                )
        found[run.cell.name] = (first | config, where)
    return {name: config for name, (config, _) in found.items()}
