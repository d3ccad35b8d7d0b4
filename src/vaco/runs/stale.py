"""Finished runs that the code or the settings of today would not make again.

Snakemake notices a changed source or setting by comparing it with its own record of the job. Of a run that it did not
make itself (one tracked in git, or finished while it was dead) it has no record, and keeps it whatever was edited; new
runs would then lie beside old ones, and nothing can be drawn of both. The manifests say what Snakemake does not know.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaco.errors import UserError
from vaco.runs import tables
from vaco.runs.folder import EVALS, MANIFEST, PHASES
from vaco.runs.kinds import AnyTier, Kind


@dataclass(frozen=True)
class Stale:
    """A finished run that would be made differently today.

    Attributes:
        folder: the run's folder.
        reason: in what, as a clause.
    """

    folder: Path
    reason: str


def stale_runs(tier: AnyTier, kind: Kind, results: Path = Path("results")) -> list[Stale]:
    """Compare the finished runs of a tier with its settings and with the training code that is installed.

    A manifest that cannot be read is left to `vaco verify`.

    Args:
        tier: what the runs should be.
        kind: what kind of run the tier has.
        results: where runs are kept.

    Returns:
        The runs that differ, in the order of the tier.
    """
    installed: dict[str, str] = {}
    found = []
    for place, asked in kind.asked(tier).items():
        manifest = _manifest(results / place)
        if manifest is None:
            continue
        if manifest["config_hash"] != asked.hash:
            found.append(Stale(results / place, _difference(manifest.get("config"), asked.resolved())))
            continue
        # Of the same settings, hence of an algorithm that is known here.
        group = kind.group(manifest)
        if group not in installed:
            installed[group] = kind.source(manifest)
        if manifest["source_hash"] != installed[group]:
            theirs = str(manifest["source_hash"])[:12]
            found.append(Stale(results / place, f"code of {group} {theirs} there and {installed[group][:12]} here"))
    return found


def recorded(memory: Path = Path(".snakemake")) -> set[str]:
    """The files that Snakemake has a record of making.

    Args:
        memory: where Snakemake keeps its records.

    Returns:
        Paths as the workflow writes them, relative to its folder.
    """
    root = memory / "metadata"
    found = set()
    for path in root.rglob("*"):
        # A record's name is that of the file, in base 64; a long one is split into folders, whose names start with @.
        coded = "".join(part.removeprefix("@") for part in path.relative_to(root).parts)
        try:
            found.add(base64.b64decode(coded, altchars=b"-_").decode())
        except ValueError:
            continue
    return found


def unrecorded(stale: Iterable[Stale], files: set[str]) -> list[Stale]:
    """Those of which Snakemake has no full record, so that it would keep them.

    Args:
        stale: from `stale_runs`.
        files: from `recorded`.
    """
    return [run for run in stale if not {f"{run.folder}/{name}" for name in (MANIFEST, PHASES, EVALS)} <= files]


def refusal(stale: Sequence[Stale], tier: str) -> str:
    """What to tell somebody who is about to train new runs beside these.

    Args:
        stale: at least one.
        tier: its name.

    Returns:
        One sentence: how many, in what they differ, and how to train them again, keep or only draw them.
    """
    reasons = Counter(run.reason for run in stale).most_common()
    shown = [f"{reason} in {count}" for reason, count in reasons[:3]]
    if len(reasons) > len(shown):
        shown.append(f"and {len(reasons) - len(shown)} differences more")
    return (
        f"{len(stale)} finished runs of the tier '{tier}' were trained by other code or settings than those here "
        f"({', '.join(shown)}), and Snakemake has no record by which it would train them again: to do so, delete their "
        f"manifests with 'vaco stale --tier {tier} | xargs rm' and run the same command; to draw them as they are, "
        "or for a target that trains nothing, add allow_missing=true or redraw_only=true to --config; to keep them, go "
        "back to the code that made them"
    )


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    """The manifest of a finished run, None if there is none that can be read."""
    try:
        manifest = tables.read_json(folder / MANIFEST)
    except UserError:
        return None
    whole = isinstance(manifest, dict) and {"identity", "config_hash", "source_hash"} <= manifest.keys()
    return manifest if whole and isinstance(manifest["identity"], dict) else None


def _difference(theirs: Any, ours: Mapping[str, Any]) -> str:
    """The first settings in which two configurations differ."""
    known = theirs if isinstance(theirs, dict) else {}
    names = [name for name in sorted({*known, *ours}) if known.get(name) != ours.get(name)]
    shown = [f"{name} {known.get(name)!r} there and {ours.get(name)!r} here" for name in names[:2]]
    return ", ".join(shown) or "config_hash"
