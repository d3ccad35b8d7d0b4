"""The README's code runs, its links lead somewhere, and its benchmark table is the one that was measured."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (snakemake,) = [name for name in project["dependencies"] if name.startswith("snakemake==")]
    assert badges == {
        "arXiv": re.findall(r"arXiv:([\d.]+)", (ROOT / "CITATION.cff").read_text())[0],
        "Python": project["requires-python"].replace(">=", "≥"),
        "Snakemake": snakemake.removeprefix("snakemake=="),
        "Licence": project["license"],
    }


def test_its_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize(("mark", "file"), [("benchmark", "throughput.md"), ("faults", "faults.md")])
def test_its_tables_are_the_measured_ones(mark: str, file: str) -> None:
    (shown,) = re.findall(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", README, re.DOTALL)
    assert shown.strip() == (ROOT / "benchmarks/results" / file).read_text().strip()


def test_its_one_number_of_theory_is_the_bounds() -> None:
    """Bound (c) stops saying anything at E TV = (1 − γ)/γ, see `theory/bounds.py`."""
    ((gamma, shown),) = re.findall(r"at γ = ([\d.]+) the off-policy penalty.*?passes ([\d.]+),", README, re.DOTALL)
    assert f"{(1 - float(gamma)) / float(gamma):.4f}" == shown
