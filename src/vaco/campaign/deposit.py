"""A deposit: everything that results rest on, in a few files with checksums and a description that machines read.

    README.md                   what each file is, and how to draw every figure from them
    ro-crate-metadata.json      the same for machines: RO-Crate 1.1, https://w3id.org/ro/crate/1.1
    SHA256SUMS                  of all other files: `sha256sum -c`
    requirements.lock, CITATION.cff, LICENSE
    source.tar.gz               the repository at its commit, with its published archives
    TIER.tar                    the archive of a tier
    policies-TIER.tar           run folders with their policies, of the runs of a tier that are here
    figures.tar, book.tar       figures, tables and numbers; the book, if it is built

The same content gives the same bytes: members of a tar are in order, and nobody's, of no time. `vaco.campaign.fetch`
gets these files by name.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaco.archive import INDEX, Archive
from vaco.campaign import archives
from vaco.campaign.kinds import AnyTier
from vaco.errors import UserError
from vaco.runs import atomic, tables
from vaco.runs.folder import EVALS, MANIFEST, PHASES, POLICY
from vaco.yaml_file import read_yaml

SUMS, CRATE, README = "SHA256SUMS", "ro-crate-metadata.json", "README.md"
COPIED = {
    "requirements.lock": "every package that results were made with, in its version",
    "CITATION.cff": "how to cite",
    "LICENSE": "under what terms this may be used",
}
POLICIES = "policies-"
LICENCES = {"MIT": "https://spdx.org/licenses/MIT"}


@dataclass(frozen=True)
class Part:
    """A file of a deposit, and what it is in words."""

    path: Path
    words: str

    @property
    def kind(self) -> str:
        """Its media type."""
        known = {".tar": "application/x-tar", ".gz": "application/gzip", ".json": "application/json"}
        return known.get(self.path.suffix, "text/plain")


def deposit(root: Path, out: Path, *, tiers: Sequence[AnyTier] = ()) -> list[Part]:
    """Write a deposit.

    Args:
        root: the repository; what git tracks there at the present commit is the source.
        out: a new or empty folder.
        tiers: those of whose runs the policies go in, as far as their folders are here.

    Returns:
        Its files.

    Raises:
        UserError: the folder holds something, the repository is none of git or has uncommitted changes, an archive is
            damaged, or a file cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: give --out a new folder, or delete that one first")
    commit, when = _commit(root)
    out.mkdir(parents=True, exist_ok=True)
    parts = [*_copied(root, out), _source(root, out), *_archives(root, out), *_policies(root, out, tiers)]
    shown = [path for name in ("figures", "tables", "numbers.json") for path in _files(root / "paper" / name)]
    parts.append(_tar(out / "figures.tar", root / "paper", shown, "figures, typeset tables, and numbers of the text"))
    book = root / "paper" / "book" / "_build" / "html"
    if (book / "index.html").is_file():
        parts.append(_tar(out / "book.tar", book, _files(book), "the book, to be read from disk: index.html"))
    atomic.write_bytes(out / README, _readme(parts, commit).encode())
    parts.append(Part(out / README, "what each file is, and how to draw the figures"))
    about = read_yaml(root / "CITATION.cff")
    tables.write_json(out / CRATE, crate(parts, about if isinstance(about, dict) else {}, commit, when))
    described = [*parts, Part(out / CRATE, "the description that machines read")]
    sums = "".join(f"{tables.sha256_file(part.path)}  {part.path.name}\n" for part in described)
    atomic.write_bytes(out / SUMS, sums.encode())
    return [*described, Part(out / SUMS, "checksums")]


def crate(parts: Iterable[Part], about: Mapping[str, Any], commit: str, when: str) -> dict[str, Any]:
    """The description of a deposit as an RO-Crate.

    Args:
        parts: its files, but for this description and the checksums.
        about: `CITATION.cff`.
        commit: of the source.
        when: the commit's date, ISO 8601.
    """
    people = [_person(number, one) for number, one in enumerate(about.get("authors", []))]
    paper: Mapping[str, Any] = next(iter(about.get("references", [])), {})
    files = [
        {
            "@id": part.path.name,
            "@type": "File",
            "name": part.path.name,
            "description": part.words,
            "encodingFormat": part.kind,
            "contentSize": str(part.path.stat().st_size),
            "sha256": tables.sha256_file(part.path),
        }
        for part in parts
    ]
    licence = LICENCES.get(str(about.get("license")), str(about.get("license", "")))
    software = {
        "@id": "#vaco",
        "@type": "SoftwareSourceCode",
        "name": about.get("title", "vaco"),
        "version": str(about.get("version", "")),
        "identifier": commit,
        "programmingLanguage": "Python",
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": about.get("title", "vaco"),
        "description": " ".join(str(about.get("abstract", "")).split()),
        "datePublished": when,
        "license": {"@id": licence},
        "author": [{"@id": person["@id"]} for person in people],
        "hasPart": [{"@id": file["@id"]} for file in files],
        "mentions": {"@id": software["@id"]},
        "citation": {"@id": str(paper.get("url", "#paper"))},
    }
    descriptor = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    terms = {"@id": licence, "@type": "CreativeWork", "name": str(about.get("license", ""))}
    article = {"@id": str(paper.get("url", "#paper")), "@type": "ScholarlyArticle", "name": paper.get("title", "")}
    graph = [descriptor, root, software, terms, article, *people, *files]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def _person(number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    if "name" in record:
        return {"@id": f"#author{number}", "@type": "Organization", "name": record["name"]}
    name = " ".join(str(record.get(key, "")) for key in ("given-names", "family-names")).strip()
    return {"@id": str(record.get("orcid", f"#author{number}")), "@type": "Person", "name": name}


def _copied(root: Path, out: Path) -> Iterator[Part]:
    for name, words in COPIED.items():
        try:
            atomic.write_bytes(out / name, (root / name).read_bytes())
        except OSError as error:
            raise UserError(
                f"cannot read {root / name} ({error.strerror}): start in the root of the repository"
            ) from None
        yield Part(out / name, words)


def _source(root: Path, out: Path) -> Part:
    """The repository as git has it, packed without the time of packing."""
    packed = _git(root, "archive", "--format=tar", "--prefix=vaco/", "HEAD")
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream:
        stream.write(packed)
    atomic.write_bytes(out / "source.tar.gz", buffer.getvalue())
    return Part(out / "source.tar.gz", "the repository at its commit, with its published archives")


def _archives(root: Path, out: Path) -> Iterator[Part]:
    for index in sorted((root / "results").glob(f"*/{archives.ARCHIVE}/{INDEX}")):
        found = Archive(index.parent)  # which compares every checksum
        words = (
            f"every finished run of the tier {found.tier}: settings, evaluations, phases ({len(found.entries)} runs)"
        )
        yield _tar(out / f"{found.tier}.tar", found.folder, _files(found.folder), words)


def _policies(root: Path, out: Path, tiers: Sequence[AnyTier]) -> Iterator[Part]:
    base = root / "results" / archives.FOLDERS
    for tier in tiers:
        folders = [base / planned.config.place for planned in tier.planned()]
        here = [folder for folder in folders if (folder / MANIFEST).is_file() and (folder / POLICY).is_file()]
        files = [folder / name for folder in here for name in (MANIFEST, PHASES, EVALS, POLICY)]
        if not files:
            raise UserError(
                f"none of the runs of the tier '{tier.name}' has its policy here (archives hold none): train it, or "
                "leave --policies out"
            )
        words = f"{len(here)} of {len(folders)} run folders of the tier {tier.name}, with their policies"
        yield _tar(out / f"{POLICIES}{tier.name}.tar", base, files, words)


def _files(place: Path) -> list[Path]:
    """A file, or all files below a folder, in order; none where nothing is."""
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else []


def _tar(path: Path, base: Path, files: Iterable[Path], words: str) -> Part:
    """Pack files under their names below a folder, the same bytes for the same content."""
    temporary = atomic.temporary_name(path)
    try:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as packed:
            for file in sorted(files):
                member = tarfile.TarInfo(file.relative_to(base).as_posix())
                member.size, member.mode = file.stat().st_size, 0o644
                with file.open("rb") as stream:
                    packed.addfile(member, stream)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise atomic.write_error(path, error) from error
    return Part(path, words)


def _commit(root: Path) -> tuple[str, str]:
    """The commit and its date.

    Raises:
        UserError: there is none, or what is tracked differs from it.
    """
    if _git(root, "status", "--porcelain", "--untracked-files=no").strip():
        raise UserError("files that git tracks differ from the commit, which a deposit is of: commit them first")
    commit, when = _git(root, "log", "-1", "--format=%H %cI").decode().split()
    return commit, when


def _git(root: Path, *words: str) -> bytes:
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", b"") or str(error).encode()).decode(errors="replace").strip().splitlines()
        raise UserError(f"git does not say what is tracked here ({said[-1] if said else error}): use a clone") from None


def _readme(parts: Iterable[Part], commit: str) -> str:
    rows = "\n".join(f"| `{part.path.name}` | {part.words} |" for part in parts)
    return f"""# Align & Filter: results, and what they rest on

Commit {commit}. `sha256sum -c {SUMS}` checks the files; {CRATE} describes them for machines.

| file | what |
| --- | --- |
{rows}

## Draw every figure

With Python 3.11, pip, make and a C compiler (one package of the lock, pycosat, has no wheel), on Linux; nothing trains:

    tar xzf source.tar.gz && cd vaco && make figures

The figures are then in `build/paper/figures`. The archives are tables that `pandas.read_parquet` reads: unpack
`TIER.tar`; its README explains every column.

## Get a part of this by its name

    vaco fetch desk --location .

with a folder or an address that holds these files; what does not match its checksum is refused.
"""
