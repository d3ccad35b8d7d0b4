"""The page on a rule of your own, carried out: its files laid out as an installed package, its commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "paper/book/own_rule.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def install(site: Path, files: dict[str, str]) -> None:
    """Lay files out as pip would: a package, and its metadata with entry points."""
    for name, text in files.items():
        if name.endswith(".py"):
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "top_level.txt").write_text("mypkg\n")
    groups = project["entry-points"].items()
    listed = [f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in points.items()) for group, points in groups]
    (info / "entry_points.txt").write_text("\n".join(listed))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("own")
    install(site / "site", FILES)
    (site / "work").mkdir()
    return site


def call(place: Path, *words: str) -> str:
    path = os.pathsep.join([str(ROOT / "src"), str(place / "site")])
    done = subprocess.run(
        [sys.executable, *words],
        cwd=place / "work",
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_what_is_tested() -> None:
    assert set(FILES) == {"mypkg/rules.py", "mypkg/mine.py", "pyproject.toml", "train.py"}
    assert [words.split()[:3] for words in COMMANDS] == [
        ["vaco", "algorithms"],
        ["vaco", "train", "--env"],
        ["vaco", "lm", "train"],
        ["vaco", "conformance", "--loss"],
        ["vaco", "algorithms", "--import"],
    ]


@pytest.mark.parametrize(
    "command", [pytest.param(words, marks=[pytest.mark.slow] if " lm " in words else []) for words in COMMANDS]
)
def test_a_command_of_the_page_runs(command: str, place: Path) -> None:
    words = shlex.split(command)
    said = call(place, "-m", *words)
    if words[1] == "algorithms":
        assert "  soft_tv " in said and "  short_trace " in said
        return
    if words[1] == "conformance":
        assert "equal to 'soft_tv'" in said
        return
    manifest = json.loads((place / "work" / words[words.index("--out") + 1] / "manifest.json").read_text())
    record = {rule["name"]: rule for rule in manifest["rules"]}
    assert {"mypkg.rules.soft_tv", "mypkg.rules.Soft"} <= set(record)
    assert ("mypkg.rules.short_trace" in record) == (words[1] == "train")
    for rule in record.values():
        assert (rule["package"], rule["version"]) == ("mypkg", "1.2") and len(rule["source"]) == 16


def test_the_script_of_the_page_runs(place: Path) -> None:
    """Two of four samples move outward, one up with A > 0 and one down with A < 0; mean|ρ − 1| is above δ."""
    (place / "work/train.py").write_text(FILES["train.py"])
    assert float(call(place, "train.py")) == 0.75
