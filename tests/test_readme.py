"""The README's code runs, its links lead somewhere, and its numbers are those that were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace: dict[str, object] = {}
    exec(example, namespace)
    assert "loss" in namespace


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_its_badges_are_true() -> None:
    """What a badge's picture says is what its text says, and that is what the project's own files say."""
    badges = {}
    for text, picture in re.findall(r"\[!\[([^\]]+)\]\((\S+\.svg)\)\]", README):
        title, *parts = re.findall(r"<t(?:itle|ext[^>]*)>([^<]+)<", (ROOT / picture).read_text())
        assert text == title == " ".join(parts)
        badges[parts[0]] = parts[1]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (snakemake,) = re.findall(r"^snakemake==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert badges == {
        "arXiv": re.findall(r"arXiv:([\d.]+)", (ROOT / "CITATION.cff").read_text())[0],
        # Of the locked environment; the core alone installs on older ones.
        "Python": f"≥{settings['tool']['mypy']['python_version']}",
        "Snakemake": snakemake,
        "Licence": settings["project"]["license"],
    }


def test_its_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_its_numbers_are_the_measured_ones() -> None:
    ratios = json.loads((ROOT / "benchmarks/results/throughput.json").read_text())["ratios"]
    faster = sorted(value for name, value in ratios.items() if name.endswith(" ppo / sb3"))
    assert re.findall(r"([\d.]+) to ([\d.]+) times Stable-Baselines3", README) == [
        (f"{faster[0]:.1f}", f"{faster[-1]:.1f}")
    ]
    injected = json.loads((ROOT / "benchmarks/results/faults.json").read_text())
    ((count, silent),) = re.findall(r"of (\d+) faults (\w+) silent", README)
    assert (int(count), silent) == (injected["injected"], "none")


def test_it_is_one_screen() -> None:
    assert len(README.splitlines()) < 80


@pytest.mark.parametrize("name", ["throughput.md", "faults.md"])
def test_the_book_shows_the_measured_tables(name: str) -> None:
    assert f"{{include}} ../../benchmarks/results/{name}" in (ROOT / "paper/book/machine.md").read_text()
