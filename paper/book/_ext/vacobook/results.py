"""What the workflow left behind: figures, tables and numbers with the files that say where they come from.

Nothing here knows Sphinx, so that the tests can ask the same questions as the pages.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Json = dict[str, Any]
DIGITS = 16  # of a sha256, shown


class StaleError(Exception):
    """A product was made from an archive or files that have changed since."""


@dataclass(frozen=True)
class Product:
    """A figure or table and its provenance.

    Attributes:
        name: path below ``paper/figures`` or ``paper/tables``, without suffix.
        files: existing files of that name, by suffix.
        sidecar: the JSON beside it, empty where there is none.
    """

    name: str
    files: dict[str, Path]
    sidecar: Json = field(default_factory=dict)


def find(folder: Path, name: str) -> Product:
    """Look for a product below a folder such as ``paper/figures``."""
    stem = folder / name
    files = {path.suffix[1:]: path for path in sorted(stem.parent.glob(f"{stem.name}.*")) if path.is_file()}
    sidecar = json.loads(files["json"].read_text(encoding="utf-8")) if "json" in files else {}
    return Product(name, files, sidecar)


def sources(sidecar: Json) -> dict[str, str]:
    """The tracked files that a product was made of, with their hashes: its archive's list of checksums, or its inputs.

    What lies between an archive and its figures is in build/, which may be of another tier's runs at any time.
    """
    if "archive" in sidecar:
        return {f"results/{sidecar['tier']}/archive/SHA256SUMS": sidecar["archive"]}
    return dict(sidecar.get("tables", {}))


def check_sources(root: Path, sidecar: Json) -> None:
    """Compare the archive on disk with the one the product was made of; or files, of a product that has none.

    Raises:
        StaleError: one is there with other content. One that is not there is no contradiction.
    """
    for name, digest in sources(sidecar).items():
        path = root / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise StaleError(f"{name} has changed since this was made: run make release")


def command(product: Product) -> str:
    """The command that makes a product: its own word for it, else the rule of its name in its tier."""
    said = product.sidecar.get("command")
    if said:
        return " ".join(said) if isinstance(said, list) else str(said)
    name, tier = Path(product.name).name, product.sidecar.get("tier") or Path(product.name).parent.name
    # The target comes first: everything after --config is read as a setting.
    setting = f"lm_tier={tier}" if tier.startswith("lm_") else f"tier={tier}"
    return f"snakemake {name} --config {setting}"


def provenance(product: Product) -> list[tuple[str, str]]:
    """Configuration, runs, seeds, steps and source, as words: label and text of every fact that the sidecar gives."""
    side = product.sidecar
    facts = []
    if "config_hash" in side:
        facts.append(("configuration", str(side["config_hash"])[:DIGITS]))
    if "runs" in side:
        planned = side.get("planned_runs")
        facts.append(
            ("runs of the tier", f"{side['runs']:,}" + (f" of {planned:,} planned" if planned is not None else ""))
        )
    seeds = side.get("seeds")
    if seeds:
        facts.append(("seeds", str(seeds) if isinstance(seeds, str | int) else ", ".join(str(seed) for seed in seeds)))
    steps = side.get("steps")
    if steps:
        facts.append(("steps a run", f"{steps:,}" if isinstance(steps, int) else str(steps)))
    if "archive" in side:
        facts.append(("made from", f"results/{side['tier']}/archive ({side['archive'][:8]})"))
    elif side.get("tables"):
        facts.append(("made from", ", ".join(f"{name} ({digest[:8]})" for name, digest in side["tables"].items())))
    return facts


def folded(caption: str) -> tuple[str, str]:
    """A caption in two: what is shown and at what scale, up to the sentence that names the tier; and the rest."""
    scale = re.search(r"Tier '.*?\.(?= [A-Z])", caption)
    end = scale.end() if scale else len(caption)
    return caption[:end], caption[end:].strip()


def incomplete(sidecar: Json) -> str:
    """One sentence on missing runs, or nothing."""
    missing = len(sidecar.get("missing") or [])
    if not missing:
        return ""
    return f"Incomplete: {missing:,} of {sidecar.get('planned_runs', missing):,} planned runs are not there yet."


def rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file, the header first."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def load_numbers(root: Path) -> dict[str, Json] | None:
    """``paper/numbers.json``, or None where it has not been computed."""
    path = root / "paper" / "numbers.json"
    if not path.is_file():
        return None
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, changed: int) -> dict[str, Json]:
    numbers: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
    return numbers


class UnknownError(Exception):
    """A passage waits for keys that no rule will ever write."""


def lacking(root: Path, requirements: list[str]) -> list[str]:
    """Which requirements of a passage are not met.

    Args:
        root: the repository.
        requirements: a file, recognised by its slash; or a key of numbers.json, met once it has a value; or the
            beginning of keys, in whole words, met once one of them has.

    Raises:
        UnknownError: there are numbers, but none with such a key.
    """
    numbers = load_numbers(root)
    return [needed for needed in requirements if not _met(root, numbers, needed)]


def _met(root: Path, numbers: dict[str, Json] | None, needed: str) -> bool:
    if "/" in needed:
        return (root / needed).exists()
    if numbers is None:
        return False
    below = [numbers[needed]] if needed in numbers else [x for k, x in numbers.items() if k.startswith(f"{needed}.")]
    if not below:
        raise UnknownError(f"there is no number '{needed}', nor any whose key begins so")
    return any(entry["value"] is not None for entry in below)


def keys(text: str) -> list[str]:
    """The keys of all numbers that a text states, in order."""
    return re.findall(r"\{num\}`([^`]+)`", text)


FIGURE = re.compile(r"^\s*(?:```|:::+)\{result-figure\}\s+(\S+)", re.MULTILINE)
IMAGE = re.compile(r"^\s*(?:```|:::+)\{(?:figure|image)\}\s+(\S+)|!\[[^\]]*\]\(([^)\s]+)\)", re.MULTILINE)


def shown_files(page: Path, figures: Path) -> list[Path]:
    """Every image file that a page's source shows, whether it exists or not."""
    text = page.read_text(encoding="utf-8")
    found = [figures / f"{match.group(1)}.png" for match in FIGURE.finditer(text)]
    for match in IMAGE.finditer(text):
        path = match.group(1) or match.group(2)
        if "://" not in path:
            found.append((page.parent / path).resolve())
    return found
