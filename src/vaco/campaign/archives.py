"""Runs found by what they are, wherever they lie: in archives of any tier, or in run folders.

    results/<tier>/archive     tracked: the finished runs of a tier, see `vaco.archive`
    results/runs/...           working files, not tracked: one folder a run, shared by all tiers, named by identity

A tier is a list of runs. `collect` finds those that exist, so that a larger list trains only what exists nowhere yet;
`restore` lays archived runs out as folders again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vaco import archive
from vaco.archive import Archive, Entry
from vaco.campaign.kinds import AnyTier, Kind
from vaco.errors import UserError
from vaco.runs import atomic, tables
from vaco.runs.folder import EVALS, MANIFEST, PHASES
from vaco.runs.identity import recorded_id

FOLDERS = "runs"
ARCHIVE = "archive"


@dataclass(frozen=True)
class Collected:
    """What exists of a tier: its runs in the order of the plan, and the places below `results/runs` of the others."""

    entries: list[Entry]
    missing: list[str]


def plan_hash(tier: AnyTier) -> str:
    """Sixteen hexadecimal digits that identify the set of runs that a tier asks for."""
    runs = sorted(str(planned.config.run_id) for planned in tier.planned())
    return hashlib.sha256("\n".join(runs).encode()).hexdigest()[:16]


def published(results: Path, own: str = "") -> list[Archive]:
    """The archives below a folder, by name.

    Args:
        results: the folder.
        own: a tier whose archive comes last, so that of runs that several hold its own are taken.

    Raises:
        UserError: one of them is damaged.
    """
    folders = [path.parent for path in Path(results).glob(f"*/{ARCHIVE}/{archive.INDEX}")]
    return [Archive(folder) for folder in sorted(folders, key=lambda folder: (folder.parent.name == own, folder))]


def published_runs(results: Path) -> set[str]:
    """The identities of all archived runs."""
    return {run for found in published(results) for run in found.entries}


def everything(results: Path) -> set[str]:
    """The identities of all finished runs, archived or in folders."""
    folders = Path(results, FOLDERS).rglob(MANIFEST)
    return published_runs(results) | {path.parent.name for path in folders}


def finished(results: Path, kind: Kind) -> Iterator[Entry]:
    """Every finished run of a kind, archived or in folders, each once.

    Raises:
        UserError: one of them is damaged.
    """
    known: set[str] = set()
    for found in published(results):
        if found.kind == kind.name:
            known |= set(found.entries)
            yield from found.entries.values()
    for path in sorted(Path(results, FOLDERS).rglob(MANIFEST)):
        manifest = tables.read_json(path)
        identity = manifest.get("identity") if isinstance(manifest, dict) else None
        # One that cannot be read may be of either kind, and is refused as one of each.
        if path.parent.name not in known and (not isinstance(identity, dict) or kind.subject in identity):
            yield from_folder(path.parent, kind)


def subjects(folders: Iterable[Path]) -> Iterator[Path]:
    """What `vaco verify` checks of the folders that it is given: the archives below them, or their runs.

    Raises:
        UserError: there is no such folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: give results/<tier>, an archive, runs, or figures")
        found = [path for path in [folder, *sorted(folder.rglob("*"))] if is_archive(path)]
        yield from found
        if not found or (folder / FOLDERS).is_dir():
            yield folder / FOLDERS if found else folder


def is_archive(folder: Path) -> bool:
    """Whether a folder is to be verified as an archive, be it one that lost a file; not one that is being written."""
    if not folder.is_dir() or folder.name.startswith("."):
        return False
    return folder.name == ARCHIVE or any((folder / name).is_file() for name in (archive.INDEX, archive.SUMS))


def references(tier: Any, files: Sequence[Path], results: Path) -> dict[str, Any]:
    """The measurements of the random policy that a tier needs: from files, else from what is published.

    Args:
        tier: the tier; one of language models needs none.
        files: measurements, as `vaco evaluate --random --out` writes them.
        results: where archives are.

    Raises:
        UserError: a task has none.
    """
    if not hasattr(tier, "reference_episodes"):
        return {}
    known = [record for found in published(results) for record in found.references.values()]
    records = [tables.read_json(path) for path in files]
    for path, record in zip(files, records, strict=True):
        if not isinstance(record, dict):
            raise UserError(f"{path} is no measurement of the random policy: make it with vaco evaluate --random --out")
    records += known
    asked, chosen = (tier.reference_episodes, tier.reference_seed), {}
    for env in tier.environments:
        fitting = [r for r in records if (r.get("env"), r.get("episodes"), r.get("seed")) == (env, *asked)]
        if not fitting:
            raise UserError(
                f"there is no measurement of the random policy on {env} with {asked[0]} episodes and seed {asked[1]}: "
                f"make it with vaco evaluate --env {env} --random --episodes {asked[0]} --seed {asked[1]} --out FILE, "
                "and give the file as --references"
            )
        # Measurements of an older evaluation version serve where there is no other; `vaco verify` names them.
        chosen[env] = max(fitting, key=lambda record: record.get("evaluation_version", 1))
    return chosen


def collect(tier: AnyTier, kind: Kind, results: Path, *, archives: bool = True) -> Collected:
    """Find the runs of a tier.

    Args:
        tier: the tier.
        kind: what its runs are.
        results: where archives and run folders are.
        archives: look into the archives, too; before the folders, since what is published stays as it is.

    Raises:
        UserError: an archive or a run's folder is damaged.
    """
    known = (
        {run: entry for found in published(results, tier.name) for run, entry in found.entries.items()}
        if archives
        else {}
    )
    entries, missing = [], []
    for planned in tier.planned():
        config = planned.config
        run, folder = str(config.run_id), Path(results, FOLDERS, config.place)
        if run in known:
            entries.append(known[run])
        elif (folder / MANIFEST).is_file():
            entries.append(from_folder(folder, kind, run))
        else:
            missing.append(config.place)
    return Collected(entries, missing)


def from_folder(folder: Path, kind: Kind, expected: str | None = None) -> Entry:
    """A finished run as an entry of an archive.

    Args:
        folder: the run's folder.
        kind: what it holds.
        expected: the run that it should be.

    Raises:
        UserError: it is damaged, or holds another run.
    """
    manifest = tables.read_json(folder / MANIFEST)
    found = recorded_id(manifest, kind.rebuild) if isinstance(manifest, dict) else None
    if found is None or expected not in (None, str(found)):
        raise UserError(
            f"{folder} should hold the run {expected or 'of a known version'}, but its manifest says {found}: move the "
            "folder away and run the same command again"
        )
    if manifest.get("status") != "complete":
        raise UserError(f"{folder / MANIFEST} is incomplete: delete the folder and train the run again")
    for name in (EVALS, PHASES):
        path = folder / name
        if not path.is_file() or tables.sha256_file(path) != (manifest.get("checksums") or {}).get(name):
            state = "is missing" if not path.is_file() else f"does not match its checksum in {MANIFEST}"
            raise UserError(f"{path} {state}: delete the folder and train the run again")
    return Entry(str(found), manifest, lambda name: pa.table(dict(tables.read_parquet(folder / f"{name}.parquet"))))


def restore(entry: Entry, kind: Kind, results: Path) -> Path | None:
    """Lay an archived run out as a folder, without its policy, which is not archived.

    Args:
        entry: from an archive.
        kind: what it is.
        results: where run folders are.

    Returns:
        The folder; None if there is a finished run already.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(results, FOLDERS, place_of(entry, kind))
    if (folder / MANIFEST).exists():
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.write_error(folder, error) from error
    manifest = dict(entry.manifest)
    for name in (EVALS, PHASES):
        table = entry.table(Path(name).stem)
        tables.write_parquet(folder / name, {column: np.array(table[column]) for column in table.column_names})
    # Other versions of Arrow write the same values in other bytes.
    written = {name: tables.sha256_file(folder / name) for name in (EVALS, PHASES)}
    manifest["checksums"] = {**manifest["checksums"], **written}
    tables.write_json(folder / MANIFEST, manifest)
    return folder


def place_of(entry: Entry, kind: Kind) -> str:
    """The path of an archived run's folder below `results/runs`: by the settings of its manifest, and its identity."""
    return str(Path(kind.rebuild(entry.manifest["config"]).place).with_name(entry.run))


def stale(tier: AnyTier, entries: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Runs that exist of another training version only: that which a tier asks for, and that which is there.

    Args:
        tier: the tier.
        entries: identities of the runs that exist.
    """
    entries = set(entries)
    others = {run.partition("-")[0]: run for run in entries}
    for planned in tier.planned():
        wanted = planned.config.run_id
        if str(wanted) not in entries and wanted.config_hash in others:
            yield str(wanted), others[wanted.config_hash]
