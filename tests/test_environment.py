"""pyproject.toml, requirements.lock and environment.yml describe one environment, and this is it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]
# Exact, because other versions give other returns (MuJoCo), other bits, or do not import (rliable with newer arch).
EXACT = ("torch", "mujoco", "gymnasium", "snakemake", "rliable")


def locked() -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines), (
        "plain NAME==VERSION lines, no paths, no hosts"
    )
    return {canonicalize_name(name): number for name, number in (line.split("==") for line in lines)}


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_every_requirement(requirement: Requirement) -> None:
    assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)])


def test_the_lock_installs_on_the_oldest_python_that_the_project_names() -> None:
    """pip refuses a package whose own Requires-Python excludes it, such as >=3.11.5 on Debian 12's 3.11.2."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    refusing = {}
    for name, number in locked().items():
        found = metadata(name)
        assert found["Version"].split("+")[0] == number.split("+")[0], f"{name}: run `make test`, or remove .venv"
        if wanted := found["Requires-Python"]:
            refusing |= {} if SpecifierSet(wanted).contains(oldest) else {name: wanted}
    assert not refusing


@pytest.mark.parametrize("name", EXACT)
def test_what_decides_results_is_pinned_in_pyproject_too(name: str) -> None:
    (requirement,) = (r for r in DIRECT if r.name == name)
    assert [specifier.operator for specifier in requirement.specifier] == ["=="]


def test_conda_users_get_the_same_python_and_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    rules = yaml.safe_load((ROOT / "workflow/envs/vaco.yaml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    python = "python =3.11"
    assert python in environment["dependencies"] and python in rules["dependencies"]
    assert Requirement("python" + PROJECT["requires-python"]).specifier.contains("3.11")


@pytest.mark.parametrize("name", ["vaco", "book"])
def test_environments_that_snakemake_makes_have_the_lock_and_the_source_as_it_is(name: str) -> None:
    """Snakemake does not make them anew when ``src/`` is edited, so the package in them must not be a copy."""
    lines = (ROOT / f"workflow/envs/{name}.post-deploy.sh").read_text().splitlines()
    installing = [line for line in lines if "pip install" in line]
    assert any(" -e " in line for line in installing) and any("requirements.lock" in line for line in installing)
    assert all(" -e " in line or " -r " in line for line in installing)


@pytest.mark.parametrize("name", [requirement.name for requirement in DIRECT])
def test_this_environment_is_the_locked_one(name: str) -> None:
    assert version(name).split("+")[0] == locked()[canonicalize_name(name)], "run `make test`, or remove .venv"
