"""pyproject.toml, requirements.lock and environment.yml describe one environment, and this is it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vaco.extras import EXTRAS as EXTRA_OF

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Adapters, the optimizer of 8 bits and their tests are not part of the environment that results are made in.
APART = {
    "sb3",
    "torchrl",
    "trl",
    "ray",
    "lora",
    "eight-bit",
    "benchmarks",
    "log",
    "video",
    "onnx",
    "dm-control",
    "minigrid",
    "atari",
}
DIRECT = list(
    {
        requirement.name: requirement
        for texts in (PROJECT["dependencies"], *(texts for extra, texts in EXTRAS.items() if extra not in APART))
        for requirement in map(Requirement, texts)
        if requirement.name != "vaco"
    }.values()
)


def locked() -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines), (
        "plain NAME==VERSION lines, no paths, no hosts"
    )
    return {canonicalize_name(name): number for name, number in (line.split("==") for line in lines)}


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_every_requirement(requirement: Requirement) -> None:
    assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)])


def test_the_lock_installs_on_the_python_that_results_are_made_with() -> None:
    """pip refuses a package whose own Requires-Python excludes it, such as >=3.11.5 on Debian 12's 3.11.2."""
    oldest = "3.11.0"  # the core runs on older ones, but not everything that results are made with
    refusing = {}
    for name, number in locked().items():
        found = metadata(name)
        assert found["Version"].split("+")[0] == number.split("+")[0], f"{name}: run `make test`, or remove .venv"
        if wanted := found["Requires-Python"]:
            refusing |= {} if SpecifierSet(wanted).contains(oldest) else {name: wanted}
    assert not refusing


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_pins_are_in_the_lock_alone(requirement: Requirement) -> None:
    """A package that pins torch or Snakemake exactly cannot be installed beside an inference engine."""
    assert not {specifier.operator for specifier in requirement.specifier} & {"==", "==="}


def test_the_core_is_torch_and_numpy() -> None:
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == {"numpy", "torch"}


def test_repro_holds_every_extra_that_results_need() -> None:
    (everything,) = map(Requirement, EXTRAS["repro"])
    assert everything.extras == set(EXTRAS) - APART - {"repro", "dev"}


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


def test_every_import_outside_the_core_has_an_extra_that_brings_it() -> None:
    """So that its absence ends in a sentence; by reading the source, nothing is imported."""
    known = {"vaco", "theory", "torch", "numpy", *sys.stdlib_module_names, *EXTRA_OF}
    found = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.split(".")[0]: path.name for name in names if name.split(".")[0] not in known}
    assert not found
    modules = {
        "flint": "python-flint",
        "yaml": "pyyaml",
        "reasoning_gym": "reasoning-gym",
        "imageio_ffmpeg": "imageio-ffmpeg",
    }
    for module, extra in EXTRA_OF.items():
        if extra and module not in ("tensordict", "huggingface_hub", "tokenizers", "imageio"):  # brought by others
            listed = {canonicalize_name(Requirement(text).name) for text in EXTRAS[extra]}
            assert canonicalize_name(modules.get(module, module)) in listed, module


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        (["algorithms"], "gymnasium", None),
        (["train", "--out", "x"], "pydantic", "control"),
        (["lm", "algorithms"], "pydantic", None),
        (["lm", "train", "--out", "x"], "transformers", "lm"),
        (["lm", "train", "--out", "x"], "pydantic", "lm"),
    ],
)
def test_a_command_whose_extra_is_missing_says_how_to_install_it(
    command: list[str], module: str, extra: str | None, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\nfrom vaco import cli\nsys.exit(cli.run({command!r}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    if extra is None:
        assert result.returncode == 0, result.stderr
    else:
        assert result.returncode == 2
        assert result.stderr == f'vaco: this needs {module}, which is not installed: pip install "vaco[{extra}]"\n'
    assert not list(tmp_path.iterdir())
