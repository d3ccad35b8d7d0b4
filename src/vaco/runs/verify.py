"""Whether a results tree is what it says: every run whole, unaltered, complete, and of one code and one physics.

`verify` reads; it never writes. It finds everything that is wrong rather than the first thing. What stops a comparison
is an error: a missing or altered file, a run in another run's place, a run that the tier does not ask for, runs of one
algorithm made by two versions of the training code, runs of two versions of MuJoCo. What a reader should know is a
warning: other versions of packages or processors, uncommitted changes, another commit with the same training code.

`sidecars` checks the other end: that figures, typeset tables and numbers name the tables that are there now.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vaco.errors import UserError
from vaco.runs import tables
from vaco.runs.folder import CHECKPOINTS, EVALS, LOCK, MANIFEST, MARKER, PHASES, POLICY
from vaco.runs.kinds import CONTROL, AnyTier, Asked, Kind
from vaco.runs.provenance import PACKAGES, reference_hash
from vaco.runs.tiers import Tier

RUNS, TABLES, REFERENCES = "runs", "tables", "references"
SUMMARY = "summary.json"
"""One of a tier's tables, by which they are told from other folders of that name."""
_WORKING = (CHECKPOINTS, MARKER, LOCK)
_WRITTEN = {MANIFEST, PHASES, EVALS, POLICY, *_WORKING}
# What every manifest must say, and as what.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "identity": dict,
    "config": dict,
    "config_hash": str,
    "source_hash": str,
    "versions": dict,
    "checksums": dict,
    "completed_steps": int,
    "wall_seconds": (int, float),
}

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Attributes:
        level: an error must be mended before results are shown; a warning must be known.
        path: what it is about.
        text: one sentence, without the path.
    """

    level: Level
    path: Path
    text: str

    def __str__(self) -> str:
        # On one line, whatever names it quotes.
        return " ".join(f"{self.level}: {self.path}: {self.text}".split())


@dataclass(frozen=True)
class VerifiedRun:
    """A run that holds what its manifest says, whatever else was found about it."""

    folder: Path
    manifest: dict[str, Any]


def verify(
    root: Path, tier: AnyTier | None = None, *, kind: Kind = CONTROL, allow_missing: bool = False
) -> tuple[list[Finding], int]:
    """Check every run below a folder, and what belongs to them all.

    Args:
        root: a run folder, `results/<tier>`, or any folder above run folders of one tier.
        tier: what the results should be, or that part of them which lies below `root`; None checks the runs for
            themselves and against each other.
        kind: what kind of run is to be there.
        allow_missing: runs of the tier that are not there, or not finished, are warnings.

    Returns:
        The findings, and the number of finished runs.

    Raises:
        UserError: the folder does not exist, or it holds no run and no tier says which should be there.
    """
    folders = sorted(run_folders(root))
    if not folders and tier is None:
        raise UserError(f"{root} holds no run, so nothing was verified: give a run folder or one such as results/smoke")
    findings: list[Finding] = []
    runs = []
    for folder in folders:
        found, manifest = check_run(folder, kind=kind, unfinished="warning" if allow_missing else "error")
        findings += found
        if manifest is not None:
            runs.append(VerifiedRun(folder, manifest))
            findings += _of_its_place(folder, manifest, kind)
    findings += mixture(root, runs, kind)
    findings += other_code(runs, kind)
    if tier is not None:
        findings += against_tier(root, runs, set(folders), tier, kind, "warning" if allow_missing else "error")
        if isinstance(tier, Tier) and is_tier(root):
            findings += _references(root, tier, "warning" if allow_missing else "error")
    return findings, len(runs)


def subjects(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders to check: one that holds several tiers, such as `results`, stands for each of them.

    Raises:
        UserError: there is no such folder, or it lies further above several tiers.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: give a run, results/<tier>, or a folder of figures")
        tiers = sorted(path for path in folder.iterdir() if is_tier(path))
        if not tiers and not is_tier(folder):
            above = sorted({place for run in run_folders(folder) if (place := _above_runs(run, folder)) is not None})
            if len(above) > 1:
                raise UserError(
                    f"{folder} holds several tiers, such as {above[0]} and {above[1]}: give the folder that they are in"
                )
        yield from tiers or [folder]


def is_tier(folder: Path) -> bool:
    """Whether a folder holds the runs of a tier, or tables made of them."""
    runs = folder / RUNS
    return (folder / TABLES / SUMMARY).is_file() or (runs.is_dir() and next(run_folders(runs), None) is not None)


def holds_products(folder: Path) -> bool:
    """Whether a folder holds figures or typeset tables with their sidecars, rather than runs."""
    if is_tier(folder) or next(run_folders(folder), None):
        return False
    return any(isinstance((_record(path) or {}).get("tables"), dict) for path in folder.rglob("*.json"))


def run_folders(root: Path) -> Iterator[Path]:
    """Every folder at or below `root` that holds a file of a run; links are not followed out of the tree.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give a run folder or a folder such as results/smoke")
    for place, below, files in os.walk(root):
        # The tables of a tier may bear the names of a run's.
        if Path(place).name == TABLES and (SUMMARY in files or (Path(place).parent / RUNS).is_dir()):
            below[:] = []
        elif {MANIFEST, MARKER, PHASES, EVALS} & set(files):
            below[:] = []
            yield Path(place)


def check_run(
    folder: Path, *, kind: Kind = CONTROL, unfinished: Level = "error"
) -> tuple[list[Finding], dict[str, Any] | None]:
    """Check one run for itself.

    Args:
        folder: the run's folder.
        kind: what kind of run is to be there.
        unfinished: how bad it is that the run is still under way.

    Returns:
        The findings, and the manifest if it can be read and the run is finished.
    """
    if not (folder / MANIFEST).is_file():
        state = "is not finished" if (folder / MARKER).is_file() else f"has data files but no {MANIFEST}"
        return [Finding(unfinished, folder, f"the run {state}: run its command again")], None
    try:
        manifest = tables.read_json(folder / MANIFEST)
    except UserError:
        manifest = None
    wrong = _wrong_fields(manifest, kind)
    if wrong:
        text = f"the manifest {wrong}: delete the folder and run its command again"
        return [Finding("error", folder / MANIFEST, text)], None
    findings = [Finding("error", path, text) for path, text in _altered(folder, manifest)]
    findings += [Finding("error", folder / MANIFEST, text) for text in _contradictions(manifest)]
    if not findings:
        findings += [Finding("error", path, text) for path, text in _incomplete(folder, manifest, kind)]
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in _WRITTEN)
    findings += [Finding("error", folder / name, "is no part of a run: move it elsewhere") for name in strangers]
    if any((folder / name).exists() for name in _WORKING):
        text = "is finished but holds leftovers of a process that was killed: running its command again removes them"
        findings.append(Finding("warning", folder, text))
    return findings, manifest


def mixture(root: Path, runs: Sequence[VerifiedRun], kind: Kind) -> list[Finding]:
    """What runs that are compared with each other must have in common."""
    findings = []
    for package in ("python", *PACKAGES, "transformers"):
        groups = _groups(runs, lambda run, package=package: run.manifest["versions"].get(package))
        if len(groups) > 1:
            level: Level = "error" if package in kind.must_be_one else "warning"
            findings.append(Finding(level, root, f"the runs mix versions of {package}: {_examples(groups)}"))
    by_algorithm = _groups(runs, lambda run: kind.group(run.manifest))
    for algorithm, members in by_algorithm.items():
        groups = _groups(members, lambda run: run.manifest["source_hash"][:12])
        if len(groups) > 1:
            text = f"the runs of {algorithm} were made by several versions of the training code: {_examples(groups)}"
            findings.append(Finding("error", root, text))
    revisions = _groups(runs, lambda run: str(run.manifest.get("revision"))[:12])
    if len(revisions) > 1:
        findings.append(Finding("warning", root, f"the runs come from several commits: {_examples(revisions)}"))
    dirty = [run for run in runs if run.manifest.get("dirty")]
    if dirty:
        text = f"{len(dirty)} of {len(runs)} runs were made with uncommitted changes, such as {dirty[0].folder}"
        findings.append(Finding("warning", root, text))
    processors = _groups(runs, lambda run: run.manifest.get("cpu"))
    if len(processors) > 1:
        text = f"the runs come from several kinds of processor, between which bits may differ: {_examples(processors)}"
        findings.append(Finding("warning", root, text))
    return findings


def other_code(runs: Sequence[VerifiedRun], kind: Kind) -> list[Finding]:
    """Warn of runs that the training code installed here would not make again."""
    findings = []
    for algorithm, members in _groups(runs, lambda run: kind.group(run.manifest)).items():
        try:
            installed = kind.source(members[0].manifest)
        except UserError as problem:
            findings.append(Finding("error", members[0].folder, f"its algorithm is unknown here: {problem}"))
            continue
        others = [run for run in members if run.manifest["source_hash"] != installed]
        if others:
            text = (
                f"{len(others)} runs of {algorithm} were made by other training code than is installed here "
                f"({others[0].manifest['source_hash'][:12]}, here {installed[:12]})"
            )
            findings.append(Finding("warning", others[0].folder, text))
    return findings


def against_tier(
    root: Path, runs: Sequence[VerifiedRun], present: set[Path], tier: AnyTier, kind: Kind, missing: Level
) -> list[Finding]:
    """Compare what is there with what the tier asks for, down to the last setting of every run."""
    wanted = _wanted_below(root, {Path(folder).relative_to(tier.name): run for folder, run in kind.asked(tier).items()})
    absent = [folder for folder in wanted if folder not in present]
    findings = []
    if absent:
        shown = ", ".join(str(folder.relative_to(root)) for folder in absent[:4])
        more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
        text = f"{len(absent)} of the {len(wanted)} runs of the tier '{tier.name}' are missing: {shown}{more}"
        findings.append(Finding(missing, root, text))
    for folder in sorted(present - wanted.keys()):
        text = f"the tier '{tier.name}' asks for no such run: move the folder elsewhere, or add the run to the tier"
        findings.append(Finding("error", folder, text))
    for run in runs:
        if run.folder in wanted and run.manifest["config_hash"] != wanted[run.folder].hash:
            differing = _differing(run.manifest["config"], wanted[run.folder].resolved())
            text = f"was trained with other settings than the tier '{tier.name}' asks for{differing}: train it again"
            findings.append(Finding("error", run.folder, text))
    return findings


def _wanted_below(root: Path, asked: dict[Path, Asked]) -> dict[Path, Asked]:
    """What a tier asks for at or below `root`: all of it, or a part where `root` is the tier's `runs` or lies in it."""
    tier = _above_runs(root.absolute(), Path("/"))
    inside = root.absolute().relative_to(tier) if tier else Path()
    part = {root / path.relative_to(inside): run for path, run in asked.items() if path.is_relative_to(inside)}
    return part or {root / path: run for path, run in asked.items()}


def _above_runs(path: Path, top: Path) -> Path | None:
    """The folder whose `runs` a path is or lies in, looked for below `top`."""
    return next((place.parent for place in (path, *path.parents) if place.name == RUNS and top in place.parents), None)


def sidecars(folder: Path, base: Path) -> tuple[list[Finding], int]:
    """Check that products name the tables that are there now.

    Args:
        folder: where figures and typeset tables are, such as `paper/figures/smoke`; every JSON file with an entry
            `tables` (path to sha256) is a sidecar.
        base: folder that paths in sidecars are relative to, the root of the repository.

    Returns:
        The findings, and the number of sidecars.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give a folder of figures such as paper/figures/smoke")
    findings, count = [], 0
    known: dict[Path, str | None] = {}
    for path in sorted(folder.rglob("*.json")):
        record = _record(path)
        if record is None:
            findings.append(Finding("error", path, "is not JSON: draw the product again"))
            continue
        if not isinstance(record.get("tables"), dict):
            continue
        count += 1
        for name, digest in record["tables"].items():
            table = base / name
            if table not in known:
                known[table] = tables.sha256_file(table) if table.is_file() else None
            if known[table] != digest:
                state = "is not there" if known[table] is None else "has changed since"
                text = f"was made from {name}, which {state}: draw it again with snakemake"
                findings.append(Finding("error", path, text))
        products = [other for other in path.parent.glob(f"{_literal(path.stem)}.*") if other.suffix != ".json"]
        if not products:
            findings.append(Finding("error", path, "describes a product that is not there: draw it again"))
    return findings, count


def _wrong_fields(manifest: Any, kind: Kind) -> str | None:
    """What keeps a manifest from being one, as a clause; None if nothing does."""
    if not isinstance(manifest, dict):
        return "cannot be read"
    if manifest.get("schema") != 1:
        return f"is of schema {manifest.get('schema')!r}, and this version reads schema 1"
    for name, wanted in _FIELDS.items():
        if not isinstance(manifest.get(name), wanted):
            return f"has no '{name}', or of another kind"
    if kind.subject not in manifest["identity"]:
        return f"has no '{kind.subject}' in its identity, so it is no run of {kind.name}"
    for name in (kind.subject, "algorithm"):
        if not isinstance(manifest["identity"].get(name), str):
            return f"has no '{name}' in its identity, or one that is no word"
    if manifest.get("status") != "complete":
        return f"says that the run is {manifest.get('status')!r} rather than complete"
    return None


def _altered(folder: Path, manifest: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files that are missing or do not match their checksum; the policy alone may be missing."""
    for name in (PHASES, EVALS, POLICY):
        path = folder / name
        expected = manifest["checksums"].get(name)
        if not path.is_file():
            if name != POLICY:
                yield path, "is missing: delete the folder and run its command again"
        elif tables.sha256_file(path) != expected:
            yield path, f"does not match its checksum in {MANIFEST}: delete the folder and run its command again"


def _contradictions(manifest: dict[str, Any]) -> Iterator[str]:
    """Where a manifest contradicts itself."""
    config = manifest["config"]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    if manifest["config_hash"] != digest[:16]:
        yield "its config_hash is not that of its configuration: one of the two was edited"
    for name, value in manifest["identity"].items():
        if config.get(name) != value:
            yield f"its identity says {name} = {value!r} but its configuration {config.get(name)!r}"


def _incomplete(folder: Path, manifest: dict[str, Any], kind: Kind) -> Iterator[tuple[Path, str]]:
    """Rows that should be there and are not, and values that no run writes."""
    try:
        phases, evals = tables.read_parquet(folder / PHASES), tables.read_parquet(folder / EVALS)
        yield from list(kind.incomplete(folder, manifest, phases, evals))
    except (UserError, KeyError) as problem:
        yield folder, f"cannot be checked, {problem}"


def _of_its_place(folder: Path, manifest: dict[str, Any], kind: Kind) -> list[Finding]:
    """A path is an identity: below `runs/`, compare the two."""
    return [
        Finding("error", folder, f"is the place of {name} {expected}, but holds a run of {name} {found}")
        for name, expected, found in kind.misplaced(folder, manifest["identity"], RUNS)
    ]


def _references(root: Path, tier: Tier, missing: Level) -> list[Finding]:
    """The measurements of the random policy that scores are normalised by."""
    findings = []
    for env in tier.environments:
        path = root / REFERENCES / f"{env}.json"
        record = _record(path) if path.is_file() else {}
        if not path.is_file():
            findings.append(Finding(missing, path, "is missing: run snakemake"))
        elif record is None or record.get("env") != env or record.get("policy") != "uniform random":
            findings.append(Finding("error", path, f"is no measurement of the random policy on {env}: delete it"))
        else:
            findings += [Finding("error", path, text) for text in _wrong_reference(record, tier)]
    return findings


def _wrong_reference(record: dict[str, Any], tier: Tier) -> Iterator[str]:
    returns = record.get("returns")
    asked = (tier.reference_episodes, tier.reference_seed)
    if (record.get("episodes"), record.get("seed")) != asked:
        found = (record.get("episodes"), record.get("seed"))
        yield f"has (episodes, seed) = {found}, but the tier asks for {asked}: delete it"
    elif not isinstance(returns, list) or len(returns) != asked[0]:
        yield "does not hold as many returns as it says: delete it"
    elif not math.isclose(float(np.mean(returns)), float(record.get("mean", math.nan)), rel_tol=1e-6, abs_tol=1e-6):
        yield "has a mean that is not that of its returns: delete it"
    elif record.get("source_hash") not in (None, reference_hash()):  # records of before name no source
        yield "was measured with other environments or another evaluation than are here: delete it and run snakemake"


def _record(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if the file holds none."""
    try:
        record = tables.read_json(path)
    except UserError:
        return None
    return record if isinstance(record, dict) else None


def _differing(config: dict[str, Any], asked: dict[str, Any]) -> str:
    """Name the first settings in which a run and its tier differ."""
    names = [name for name in sorted({*config, *asked}) if config.get(name) != asked.get(name)]
    shown = ", ".join(f"{name} is {config.get(name)!r}, asked for {asked.get(name)!r}" for name in names[:3])
    return f" ({shown})" if shown else ""


def _groups(runs: Iterable[VerifiedRun], key: Any) -> dict[str, list[VerifiedRun]]:
    groups: dict[str, list[VerifiedRun]] = defaultdict(list)
    for run in runs:
        groups[str(key(run))].append(run)
    return dict(sorted(groups.items()))


def _examples(groups: dict[str, list[VerifiedRun]]) -> str:
    return "; ".join(f"{value} in {len(found)} runs, such as {found[0].folder}" for value, found in groups.items())


def _literal(stem: str) -> str:
    """A name in which `glob` sees no pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)
