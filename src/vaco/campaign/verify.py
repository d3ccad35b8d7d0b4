"""Whether results are what they say: every run whole, unaltered, complete, and of one arithmetic and one physics.

`verify` reads; it never writes. It finds everything that is wrong rather than the first thing. What stops a comparison
is an error: a missing or altered file, a run that is not what its manifest says, a run that the tier does not ask for,
runs of one algorithm of two training versions, runs of two versions of MuJoCo. What a reader should know is a warning:
other versions of packages or processors, uncommitted changes, several commits.

`sidecars` checks the other end: that figures, typeset tables and numbers were drawn from the archive that is there now.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vaco.archive import INDEX, SUMS, Archive, Entry
from vaco.campaign import archives
from vaco.campaign.kinds import AnyTier, Kind
from vaco.campaign.tiers import Tier
from vaco.errors import UserError
from vaco.runs import identity, tables
from vaco.runs.folder import CHECKPOINTS, EVALS, LOCK, MANIFEST, MARKER, NOT_ARCHIVED, PHASES, POLICY, SCHEDULE
from vaco.runs.identity import SCHEMA, recorded_id
from vaco.runs.live import LIVE, LOGS
from vaco.runs.provenance import PACKAGES

_WORKING = (CHECKPOINTS, MARKER, LOCK, *LIVE)
_WRITTEN = {MANIFEST, PHASES, EVALS, POLICY, SCHEDULE, *_WORKING, LOGS}
# What every manifest must say, and as what.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "identity": dict,
    "config": dict,
    "config_hash": str,
    "versions": dict,
    "checksums": dict,
    "completed_steps": int,
    "wall_seconds": (int, float),
}

Level = Literal["error", "warning"]
_AGAIN = "delete the folder and run its command again"


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
    """A run that holds what its manifest says, whatever else was found about it: where it is, what it is."""

    place: Path
    run: str
    manifest: Mapping[str, Any]


def verify_folders(root: Path, kinds: Sequence[Kind]) -> tuple[list[Finding], int]:
    """Check every run folder at or below a folder, each for itself and those of a kind against each other.

    Returns:
        The findings, and the number of finished runs.

    Raises:
        UserError: the folder does not exist or holds no run.
    """
    findings: list[Finding] = []
    runs: dict[str, list[VerifiedRun]] = {kind.name: [] for kind in kinds}
    folders = sorted(run_folders(root))
    if not folders:
        raise UserError(f"{root} holds no run, so nothing was verified: give a run, results/runs or results/desk")
    for folder in folders:
        kind = kind_of_folder(folder, kinds)
        found, run = check_folder(folder, kind)
        findings += found
        if run is not None:
            runs[kind.name].append(run)
    for kind in kinds:
        findings += mixture(root, runs[kind.name], kind)
    return findings, sum(map(len, runs.values()))


def verify_archive(
    folder: Path, tier: AnyTier | None, kinds: Sequence[Kind], *, allow_missing: bool = False
) -> tuple[list[Finding], int]:
    """Check an archive: its files, every run in it, the runs against each other, and all against its tier.

    Args:
        folder: such as `results/desk/archive`.
        tier: what it should hold; None checks it for itself.
        kinds: the kinds of run there are.
        allow_missing: runs of the tier that it lacks are warnings.

    Returns:
        The findings, and the number of runs.
    """
    try:
        archive = Archive(folder, tier.name if tier else None)
        kind = next(kind for kind in kinds if kind.name == archive.kind)
        entries = archive.entries
    except UserError as problem:
        return [Finding("error", folder, str(problem))], 0
    findings, runs = [], []
    for run, entry in entries.items():
        place = folder / run
        problems = list(_wrong_entry(entry, kind))
        findings += [Finding("error", place, text) for text in problems]
        if not problems:
            runs.append(VerifiedRun(place, run, entry.manifest))
    findings += mixture(folder, runs, kind)
    if tier is not None:
        findings += _against_tier(folder, set(entries), tier, "warning" if allow_missing else "error")
        if isinstance(tier, Tier):
            findings += _references(folder, archive.references, tier)
    return findings, len(runs)


def run_folders(root: Path) -> Iterator[Path]:
    """Every folder at or below `root` that holds a file of a run; links are not followed, archives are none.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give a run folder, results/runs or results/desk")
    for place, below, files in os.walk(root):
        if INDEX in files or SUMS in files:
            below[:] = []
        elif {MANIFEST, MARKER, PHASES, EVALS} & set(files):
            below[:] = []
            yield Path(place)


def kind_of_folder(folder: Path, kinds: Sequence[Kind]) -> Kind:
    """What kind of run a folder holds; the first kind if its manifest does not tell."""
    try:
        identity = tables.read_json(folder / MANIFEST)["identity"]
        return next(kind for kind in kinds if kind.subject in identity)
    except (UserError, KeyError, TypeError, StopIteration):
        return kinds[0]


def check_folder(folder: Path, kind: Kind) -> tuple[list[Finding], VerifiedRun | None]:
    """Check one run folder for itself.

    Returns:
        The findings, and the run if its manifest can be read and it is finished.
    """
    if not (folder / MANIFEST).is_file():
        state = "is not finished" if (folder / MARKER).is_file() else f"has data files but no {MANIFEST}"
        return [Finding("error", folder, f"the run {state}: run its command again")], None
    try:
        manifest = tables.read_json(folder / MANIFEST)
    except UserError:
        manifest = None
    wrong = _wrong_fields(manifest, kind)
    if wrong:
        return [Finding("error", folder / MANIFEST, f"the manifest {wrong}: {_AGAIN}")], None
    run = recorded_id(manifest, kind.rebuild)
    findings = [Finding("error", path, text) for path, text in _altered(folder, manifest)]
    findings += [Finding("error", folder / MANIFEST, text) for text in _contradictions(manifest, kind)]
    if not findings:
        findings += [Finding("error", folder / name, text) for name, text in _folder_incomplete(folder, manifest, kind)]
        findings += [Finding("error", folder, text) for text in _misplaced(folder, str(run))]
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in _WRITTEN)
    findings += [Finding("error", folder / name, "is no part of a run: move it elsewhere") for name in strangers]
    if any((folder / name).exists() for name in _WORKING):
        text = "is finished but holds leftovers of a process that was killed: running its command again removes them"
        findings.append(Finding("warning", folder, text))
    return findings, VerifiedRun(folder, str(run), manifest) if run else None


def mixture(root: Path, runs: Sequence[VerifiedRun], kind: Kind) -> list[Finding]:
    """What runs that are compared with each other must have in common."""
    findings = []
    for package in ("python", *PACKAGES, "transformers"):
        groups = _groups(runs, partial(_version, package))
        if len(groups) > 1:
            level: Level = "error" if package in kind.must_be_one else "warning"
            findings.append(Finding(level, root, f"the runs mix versions of {package}: {_examples(groups)}"))
    for algorithm, members in _groups(runs, lambda run: _row_of(run, kind)).items():
        groups = _groups(members, lambda run: f"training version {run.run.rpartition('-v')[2]}")
        if len(groups) > 1:
            text = f"the runs of {algorithm} are of several training versions: {_examples(groups)}"
            findings.append(Finding("error", root, text))
    revisions = _groups(runs, lambda run: str(run.manifest.get("revision"))[:12])
    if len(revisions) > 1:
        findings.append(Finding("warning", root, f"the runs come from several commits: {_examples(revisions)}"))
    dirty = [run for run in runs if run.manifest.get("dirty")]
    if dirty:
        text = f"{len(dirty)} of {len(runs)} runs were made with uncommitted changes, such as {dirty[0].place}"
        findings.append(Finding("warning", root, text))
    processors = _groups(runs, lambda run: run.manifest.get("cpu"))
    if len(processors) > 1:
        text = f"the runs come from several kinds of processor, between which bits may differ: {_examples(processors)}"
        findings.append(Finding("warning", root, text))
    return findings


def _against_tier(folder: Path, present: set[str], tier: AnyTier, missing: Level) -> list[Finding]:
    """Compare the runs that are there with those that the tier asks for."""
    wanted = {str(planned.config.run_id): planned.config.place for planned in tier.planned()}
    older = {theirs: ours for ours, theirs in archives.stale(tier, present)}
    absent = [place for run, place in wanted.items() if run not in present and run not in older.values()]
    findings = []
    if absent:
        shown = ", ".join(absent[:4]) + (f" and {len(absent) - 4} more" if len(absent) > 4 else "")
        text = f"{len(absent)} of the {len(wanted)} runs of the tier '{tier.name}' are missing: {shown}"
        findings.append(Finding(missing, folder, text))
    for run in sorted(present - wanted.keys()):
        if run in older:
            text = f"is of another training version than the code here would make ({older[run]}): train it again"
            findings.append(Finding("warning", folder / run, text))
        else:
            text = f"the tier '{tier.name}' asks for no such run: add it to the tier, or make the archive again"
            findings.append(Finding("error", folder / run, text))
    return findings


def _wrong_entry(entry: Entry, kind: Kind) -> Iterator[str]:
    """What is wrong with an archived run, as sentences."""
    wrong = _wrong_fields(entry.manifest, kind)
    if wrong:
        yield f"the manifest {wrong}: make the archive again"
        return
    found = recorded_id(entry.manifest, kind.rebuild)
    if str(found) != entry.run:
        yield f"its manifest says that it is {found}: make the archive again"
    yield from _contradictions(entry.manifest, kind)
    try:
        rows = [
            {column: np.array(table[column]) for column in table.column_names}
            for table in (entry.table("phases"), entry.table("evals"))
        ]
        for name, text in kind.incomplete(entry.manifest, *rows):
            yield f"its {name} {text}"
    except (UserError, KeyError) as problem:
        yield f"cannot be checked, {problem!r}"


def holds_products(folder: Path) -> bool:
    """Whether a folder holds figures or typeset tables with their sidecars, rather than runs."""
    if (folder / archives.ARCHIVE).is_dir() or next(run_folders(folder), None):
        return False
    return any("archive" in (_record(path) or {}) for path in folder.rglob("*.json"))


def sidecars(folder: Path, base: Path) -> tuple[list[Finding], int]:
    """Check that products were drawn from the archive that is there now.

    Args:
        folder: where figures and typeset tables are, such as `paper/figures/desk`; every JSON file with an entry
            `archive` is a sidecar.
        base: the root of the repository.

    Returns:
        The findings, and the number of sidecars.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give a folder of figures such as paper/figures/desk")
    findings, count = [], 0
    for path in sorted(folder.rglob("*.json")):
        record = _record(path)
        if record is None:
            findings.append(Finding("error", path, "is not JSON: draw the product again"))
            continue
        if "archive" not in record:
            continue
        count += 1
        sums = base / "results" / str(record.get("tier")) / archives.ARCHIVE / SUMS
        now = tables.sha256_file(sums) if sums.is_file() else None
        if now != record["archive"]:
            state = "is not there" if now is None else "has changed since"
            text = f"was drawn from the archive {sums.parent.relative_to(base)}, which {state}: draw it again"
            findings.append(Finding("error", path, text))
        products = [other for other in path.parent.glob(f"{_literal(path.stem)}.*") if other.suffix != ".json"]
        if not products:
            findings.append(Finding("error", path, "describes a product that is not there: draw it again"))
    return findings, count


def _wrong_fields(manifest: Any, kind: Kind) -> str | None:
    """What keeps a manifest from being one, as a clause; None if nothing does."""
    if not isinstance(manifest, dict):
        return "cannot be read"
    if manifest.get("schema") not in (1, SCHEMA):
        return f"is of schema {manifest.get('schema')!r}, and this version reads schemas 1 and {SCHEMA}"
    for name, wanted in _FIELDS.items():
        if not isinstance(manifest.get(name), wanted):
            return f"has no '{name}', or of another kind"
    if kind.subject not in manifest["identity"]:
        return f"has no '{kind.subject}' in its identity, so it is no run of {kind.words}"
    for name in (kind.subject, "algorithm"):
        if not isinstance(manifest["identity"].get(name), str):
            return f"has no '{name}' in its identity, or one that is no word"
    if manifest.get("status") != "complete":
        return f"says that the run is {manifest.get('status')!r} rather than complete"
    version, newest = manifest.get("training_version"), identity.VERSIONS[kind.name][-1].number
    if isinstance(version, int) and version > newest:
        return f"is of training version {version}, and this version of the package knows versions up to {newest}"
    if recorded_id(manifest, kind.rebuild) is None:
        return "is of training code that is no known version"
    return None


def _altered(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files that are missing or do not match their checksum; what is not archived may be missing."""
    for name in (PHASES, EVALS, POLICY, SCHEDULE):
        path = folder / name
        if not path.is_file():
            if name not in NOT_ARCHIVED:
                yield path, f"is missing: {_AGAIN}"
        elif tables.sha256_file(path) != manifest["checksums"].get(name):
            yield path, f"does not match its checksum in {MANIFEST}: {_AGAIN}"


def _contradictions(manifest: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    """Where a manifest contradicts itself."""
    config = manifest["config"]
    if manifest["schema"] == 1:  # a hash of all settings
        expected = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
    else:
        try:
            rebuilt = kind.rebuild(config)
        except UserError as problem:
            yield f"its configuration is none, {problem}"
            return
        # Of an older version the defaults may have been others, and so what differs from them.
        same = rebuilt.run_id.version == manifest["training_version"]
        expected = rebuilt.hash if same else manifest["config_hash"]
    if manifest["config_hash"] != expected:
        yield "its config_hash is not that of its configuration: one of the two was edited"
    for name, value in manifest["identity"].items():
        if config.get(name) != value:
            yield f"its identity says {name} = {value!r} but its configuration {config.get(name)!r}"


def _folder_incomplete(folder: Path, manifest: Mapping[str, Any], kind: Kind) -> Iterator[tuple[str, str]]:
    """Rows that should be there and are not, and values that no run writes, by file."""
    files = {"phases": PHASES, "evals": EVALS, "manifest": MANIFEST}
    try:
        phases, evals = tables.read_parquet(folder / PHASES), tables.read_parquet(folder / EVALS)
        yield from [(files[name], text) for name, text in kind.incomplete(manifest, phases, evals)]
    except (UserError, KeyError) as problem:
        yield "", f"cannot be checked, {problem}"


def _misplaced(folder: Path, run: str) -> Iterator[str]:
    """A folder of results/runs is named after the run's identity: compare the two."""
    if archives.FOLDERS in folder.absolute().parts[:-1] and "-v" in folder.name and folder.name != run:
        yield f"is the place of the run {folder.name}, but holds the run {run}"


def _references(folder: Path, records: Mapping[str, Any], tier: Tier) -> list[Finding]:
    """The measurements of the random policy that scores are normalised by."""
    findings = []
    for env in tier.environments:
        if env not in records:
            findings.append(Finding("error", folder, f"has no measurement of the random policy on {env}"))
            continue
        wrong = [Finding("error", folder, f"{env}: {text}") for text in _wrong_reference(env, records[env], tier)]
        if not wrong and (version := records[env].get("evaluation_version", 1)) < identity.EVALUATION_VERSION:
            text = f"{env}: its random policy is of evaluation version {version}, now {identity.EVALUATION_VERSION}"
            wrong.append(Finding("warning", folder, text))
        findings += wrong
    return findings


def _wrong_reference(env: str, record: Any, tier: Tier) -> Iterator[str]:
    if not isinstance(record, dict) or record.get("env") != env or record.get("policy") != "uniform random":
        yield "is no measurement of the random policy"
        return
    returns = record.get("returns")
    asked = (tier.reference_episodes, tier.reference_seed)
    if (record.get("episodes"), record.get("seed")) != asked:
        found = (record.get("episodes"), record.get("seed"))
        yield f"the random policy has (episodes, seed) = {found}, but the tier asks for {asked}"
    elif not isinstance(returns, list) or len(returns) != asked[0]:
        yield "the random policy does not have as many returns as it says"
    elif not math.isclose(float(np.mean(returns)), float(record.get("mean", math.nan)), rel_tol=1e-6, abs_tol=1e-6):
        yield "the random policy has a mean that is not that of its returns"


def _record(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, None if it is not one."""
    try:
        record = tables.read_json(path)
    except UserError:
        return None
    return record if isinstance(record, dict) else None


def _version(package: str, run: VerifiedRun) -> Any:
    return run.manifest["versions"].get(package)


def _row_of(run: VerifiedRun, kind: Kind) -> str:
    """The row of the table of algorithms that a run is of, under whatever alias it was trained."""
    try:
        return kind.rebuild(run.manifest["config"]).place.split("/")[1]
    except UserError:  # which is a finding of its own
        return str(run.manifest["identity"]["algorithm"])


def _groups(runs: Sequence[VerifiedRun], key: Callable[[VerifiedRun], Any]) -> dict[str, list[VerifiedRun]]:
    """Runs by what a function says of them, in the order of the names."""
    groups: dict[str, list[VerifiedRun]] = defaultdict(list)
    for run in runs:
        groups[str(key(run))].append(run)
    return dict(sorted(groups.items()))


def _examples(groups: Mapping[str, Sequence[VerifiedRun]]) -> str:
    return "; ".join(f"{value} in {len(found)} runs, such as {found[0].place}" for value, found in groups.items())


def _literal(stem: str) -> str:
    """A name in which `glob` sees no pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)
