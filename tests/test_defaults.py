"""Commands with their defaults write over nothing that git tracks: only an explicit path may name a tracked file."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# With defaults but for their length; the scripts of minutes are held by their options alone, below.
COMMANDS = [
    "vaco algorithms",
    "vaco lm algorithms",
    "vaco doctor --quick",
    "vaco stale --tier desk",
    "vaco verify results/lm_desk paper/figures/lm_desk",
    "vaco restore --tier lm_desk",
    "vaco evaluate --random --env InvertedPendulum-v5 --episodes 1",
    "vaco theory --instances 5 --parts checks --quiet",
    "vaco.campaign.tiers smoke",
    "vaco.lm.tiers lm_smoke",
    pytest.param("vaco estimate --tier smoke", marks=pytest.mark.slow),
    pytest.param("benchmarks/faults.py --kinds damaged_result --share 0.1", marks=pytest.mark.slow),
]
TRACKED = ("results", "paper", "README", "config")


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit, of what is tracked as the working tree has it now."""
    try:
        listed = git(ROOT, "ls-files", "-z").split("\0")
    except subprocess.CalledProcessError:
        pytest.skip("this is no checkout of git")
    place = tmp_path_factory.mktemp("copy") / "repository"
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    git(place, "init", "--quiet")
    git(place, "add", "--all", "--force")
    git(place, "commit", "--quiet", "--message", "all")
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leaves_what_is_tracked(command: str, copy: Path) -> None:
    first, *words = command.split()
    program = [first] if first.endswith(".py") else ["-m", first]
    paths = os.pathsep.join([str(copy / "src"), str(copy)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *program, *words], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    found_wanting = "doctor" in words  # it says what is to be mended on this machine by its exit code
    assert done.returncode == 0 or (found_wanting and done.returncode == 2), done.stdout + done.stderr
    assert git(copy, "status", "--porcelain") == "", "a file is changed, or there is a new one that git does not ignore"


def outputs(path: Path) -> list[tuple[str, str]]:
    """The options of a script that say where it writes, each with its default as it is in the source."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = [word.value for word in node.args if isinstance(word, ast.Constant)]
            default = next((ast.unparse(word.value) for word in node.keywords if word.arg == "default"), "None")
            found += [(str(name), default) for name in names if name in ("--out", "--readme")]
    return found


def test_no_default_of_an_output_is_a_tracked_place() -> None:
    """Where a default is a folder's name, it is one that git ignores, such as `benchmarks/out`."""
    sources = [path for folder in ("src", "theory", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py")]
    found = [(path.name, *option) for path in sources for option in outputs(path)]
    assert len(found) > 20 and ("lm_aggregate.py", "--out", "None") in found
    assert [one for one in found if one[2] != "None"], "no default was read at all"
    assert not [one for one in found if any(word in one[2] for word in TRACKED)]
