"""Every entry of every profile is explained, with its value, and a user of a cluster edits exactly one file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROFILES = Path(__file__).parents[1] / "profiles"
NAMES = sorted(path.parent.name for path in PROFILES.glob("*/config.yaml"))
# Entries whose values a site writes itself.
EDITED = {"default-resources: slurm_partition"}
MAPPINGS = {"default-resources", "resources", "set-resource-scopes"}


def entries(profile: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted by colons, as the tables write them: `set-resources: train: gpu`."""
    for key, value in profile.items():
        if isinstance(value, dict):
            assert prefix or key in MAPPINGS
            yield from entries(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", value


def explained(path: Path) -> dict[str, tuple[str, str]]:
    """Entry to (value, reason), from the tables of a page; one row may hold several, as `a: b, c`."""
    found = {}
    for entry, value, why in re.findall(r"^\| `([a-z-][^`]*)` \| (.+?) \| (.+?) \|$", path.read_text(), re.MULTILINE):
        prefix, _, names = entry.rpartition(": ")
        prefix += ": " if prefix else ""
        values = value.split(", ") if ", " in names else [value]
        for name, one in zip(names.split(", "), values, strict=True):
            found[prefix + name] = one.strip("`"), why
    return found


def plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def read(name: str) -> dict[str, Any]:
    profile = yaml.safe_load((PROFILES / name / "config.yaml").read_text())
    assert isinstance(profile, dict)
    return profile


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_explained_with_its_value(name: str) -> None:
    page = explained(PROFILES / ("README.md" if name == "default" else "slurm/README.md"))
    for entry, value in entries(read(name)):
        assert entry in page, f"{name}: {entry} is not explained"
        said, why = page[entry]
        assert len(why) > 10
        if entry not in EDITED:
            # "1000 MB" explains 1000, "100 a minute" explains 100/1m
            first = re.split(r"[ /]", plain(value))[0] if plain(value)[0].isdigit() else plain(value)
            assert said == first or said.startswith(f"{first} "), f"{entry} is {value}, but the page says {said}"


def test_a_user_of_a_cluster_edits_exactly_one_file() -> None:
    marked = {name for name in NAMES if "EDIT" in (PROFILES / name / "config.yaml").read_text()}
    assert marked == {"slurm"}
    shouted = {
        (name, entry)
        for name in NAMES
        for entry, value in entries(read(name))
        if isinstance(value, str) and re.search(r"[A-Z]{4}", value)
    }
    assert shouted == {("slurm", "default-resources: slurm_partition")}, "a placeholder that nobody was told to edit"


def test_what_a_site_writes_is_not_replaced_by_a_profile_that_is_laid_over_it() -> None:
    """Snakemake takes an entry of the profile laid over another in place of the other's, and merges nothing."""
    site = {*read("slurm"), "set-resources"}
    for name in NAMES:
        if name not in ("default", "slurm"):
            assert not site & read(name).keys(), name


def test_every_profile_is_listed_and_keeps_what_resuming_needs() -> None:
    page = (PROFILES / "README.md").read_text()
    assert NAMES == ["default", "slurm", "slurm-short"]
    for name in NAMES:
        assert f"| `{name}` |" in page
    for name in ("default", "slurm"):
        assert read(name)["rerun-incomplete"] is True and "params" in read(name)["rerun-triggers"]
