"""Whether a SLURM cluster will take the jobs of a Snakemake profile, asked before anything is submitted.

Snakemake's plugin reports such mistakes too, but for every job, in a traceback or in a log of SLURM. Here each is one
sentence. Site specifics come from the profile alone; `sinfo` says what the cluster has.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaco.campaign import pace
from vaco.campaign.tiers import Tier
from vaco.errors import UserError, nearest
from vaco.runs.config import RunConfig
from vaco.yaml_file import read_yaml

LEAST = 5
"""Minutes below which a job is no use: it starts, loads what it needs, and stops a fifth of its time before the end."""
LONGEST = "job_minutes"
"""The default resource by which a profile says how long a job of a training run may be, whatever the run takes.

A default resource, since `set-resources` of a profile that is laid over another replaces the other's.
"""
EMPTY = "PARTITION"
"""What stands in the profile for the partition until its user has written one."""
_MINUTES = {"": 1, "m": 1, "h": 60, "d": 1440, "w": 10080}


@dataclass(frozen=True)
class Partition:
    """One partition of a cluster. `minutes` is its time limit, None for no limit."""

    name: str
    default: bool
    minutes: int | None


def read_profile(path: Path) -> dict[str, Any]:
    """Read a Snakemake profile.

    Args:
        path: the profile's folder or its `config.yaml`.

    Raises:
        UserError: there is none, or it is not YAML.
    """
    file = path / "config.yaml" if path.is_dir() else path
    try:
        file.stat()
    except OSError as error:
        raise UserError(
            f"there is no profile {path} ({error.strerror}): give a folder such as profiles/slurm"
        ) from None
    profile = read_yaml(file)
    if not isinstance(profile, dict):
        raise UserError(f"the profile {file} must be a mapping, such as 'executor: slurm'")
    return profile


def check(profile: Mapping[str, Any], tier: Tier | None = None) -> list[str]:
    """Say what keeps this cluster from running the jobs of a profile.

    Args:
        profile: from `read_profile`.
        tier: whose runs must fit into the time limits; None looks at no time limit.

    Returns:
        One sentence a problem; none for a profile of another executor.
    """
    if profile.get("executor") != "slurm":
        return []
    missing = [tool for tool in ("sbatch", "srun", "squeue", "sinfo", "scancel") if shutil.which(tool) is None]
    if missing:
        return [
            f"there is no {missing[0]} on this machine: start from a login node of the cluster, or without a profile "
            "to run here"
        ]
    try:
        partitions = ask()
    except UserError as problem:
        return [str(problem)]
    named = _default(profile, "slurm_partition")
    return [*_partition_problems(named, partitions), *_time_problems(profile, partitions, named, tier)]


def ask() -> list[Partition]:
    """The partitions of the cluster.

    Raises:
        UserError: the cluster does not answer.
    """
    try:
        done = subprocess.run(
            ["sinfo", "-h", "-o", "%P|%l"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["no answer"]
        raise UserError(
            f"the cluster does not answer sinfo ({said[0]}): ask again later, or its administrators"
        ) from None
    found = {}
    for line in done.stdout.splitlines():
        name, _, limit = line.partition("|")
        found[name.rstrip("*")] = Partition(name.rstrip("*"), name.endswith("*"), minutes(limit))
    return list(found.values())


def minutes(limit: str) -> int | None:
    """Read a time limit as SLURM prints it: `30:00`, `1:00:00`, `2-00:00:00`; None for `infinite` and the like."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or not (days.isdigit() or not days):
        return None
    hours, whole, _seconds = ([0, 0, 0] + [int(part) for part in parts])[-3:]
    return (int(days or 0) * 24 + hours) * 60 + whole


def _partition_problems(named: str | None, partitions: list[Partition]) -> Iterator[str]:
    names = [partition.name for partition in partitions]
    if named is None or named == EMPTY:
        if named is None and any(partition.default for partition in partitions):
            return
        yield (
            f"the profile names no partition and this cluster needs one: write slurm_partition under default-resources "
            f"in the profile's config.yaml, one of {', '.join(names)}"
        )
    # A list means that the first free one is taken.
    for name in (named or "").split(","):
        if name and name != EMPTY and name not in names:
            yield f"this cluster has no partition '{name}', which the profile names: {nearest(name, names)}"


def _time_problems(
    profile: Mapping[str, Any], partitions: list[Partition], named: str | None, tier: Tier | None
) -> Iterator[str]:
    if tier is None:
        return
    longest, asked = _spoken(_default(profile, LONGEST)), _set_runtime(profile)
    for name, given in ((LONGEST, longest), ("set-resources, train, runtime", asked)):
        if given is not None and given < LEAST:
            yield (
                f"the profile gives a training job {given:g} minutes ({name}), of which starting and saving take most: "
                f"give it at least {LEAST}"
            )
    chosen = [p for p in partitions if p.name in (named or "").split(",") or (named is None and p.default)]
    limits = [partition.minutes for partition in chosen if partition.minutes is not None]
    limit = max(limits) if limits and len(limits) == len(chosen) else None
    wanted = asked if asked is not None else ask_minutes(tier, longest)
    if limit is not None and wanted > limit:
        names = ",".join(partition.name for partition in chosen)
        yield (
            f"a training job of the tier '{tier.name}' asks for {wanted:g} minutes, but partition '{names}' allows "
            f"{limit}: write {LONGEST}: {limit} under default-resources in the profile's config.yaml; a run that takes "
            "longer is then a chain of jobs, each of which continues where the one before stopped"
        )


def ask_minutes(asked: Tier | RunConfig, longest: float | None = None) -> int:
    """Minutes that the rule `train` asks for: what archived runs of the task took and half as much again, see `pace`.

    The same at every attempt, since each continues where the last one ended: a limit that grew would at some attempt
    exceed the partition's, and be refused for good.

    Args:
        asked: a run; of a tier, its longest.
        longest: no job may ask for more; a run that takes longer is a chain of jobs.
    """
    tasks = asked.environments if isinstance(asked, Tier) else (asked.env,)
    known = pace.measured()
    minutes = max(pace.minutes(task, asked.steps, known) for task in tasks)
    return minutes if longest is None else min(minutes, int(longest))


def longest(resources: Mapping[str, Any] | None) -> int | None:
    """The longest that a job may be, from Snakemake's default resources, which come from the profile."""
    given = _spoken(plain(resources).get(LONGEST))
    return None if given is None or math.isnan(given) else int(given)


def _default(profile: Mapping[str, Any], name: str) -> str | None:
    """A default resource, which a profile may write as a mapping or as a list of NAME=VALUE."""
    given = profile.get("default-resources") or {}
    if isinstance(given, list):
        given = dict(str(entry).split("=", 1) for entry in given if "=" in str(entry))
    value = given.get(name) if isinstance(given, dict) else None
    return str(value).strip("\"'") if value not in (None, "") else None


def _set_runtime(profile: Mapping[str, Any]) -> float | None:
    """Minutes that the profile sets for the rule `train`; None if it leaves them to the rule, NaN if it computes."""
    given = profile.get("set-resources") or {}
    if isinstance(given, list):
        entries = dict(str(entry).split("=", 1) for entry in given if "=" in str(entry))
        value: Any = entries.get("train:runtime")
    else:
        value = (given.get("train") or {}).get("runtime") if isinstance(given, dict) else None
    return _spoken(value)


def _spoken(value: Any) -> float | None:
    """A time as Snakemake reads it, in minutes; NaN for one that is computed."""
    if value is None:
        return None
    spoken = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhdw]?)\w*\s*", str(value))
    return float(spoken[1]) * _MINUTES[spoken[2]] if spoken else math.nan


def plain(resources: Mapping[str, Any] | None) -> dict[str, Any]:
    """Snakemake's resources as plain values; one that is computed for each job is left out."""
    values = {name: getattr(value, "raw", value) for name, value in (resources or {}).items()}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}
