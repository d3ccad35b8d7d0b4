"""How commands end: results before prints, streams that fail or lack characters, flags given twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaco import cli
from vaco.command import Parser
from vaco.errors import UserError

EVALUATE = "evaluate --random --env InvertedPendulum-v5 --episodes 1 --out"


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash, in which `vaco` is this package."""
    line = f'set -o pipefail; vaco() {{ {sys.executable} -m vaco "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, **environment}, capture_output=True, check=False
    )


@pytest.mark.parametrize("ending", ["| true", ">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_a_result_is_written_whoever_listens(ending: str, tmp_path: Path) -> None:
    done = shell(f"vaco {EVALUATE} x.json {ending}", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((tmp_path / "x.json").read_text())["episodes"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_full_output_is_said_and_fails(tmp_path: Path) -> None:
    done = shell(f"vaco {EVALUATE} x.json > /dev/full", tmp_path)
    assert done.returncode == 2 and (tmp_path / "x.json").is_file()
    assert done.stderr.startswith(b"vaco: the output could not be written") and done.stderr.count(b"\n") == 1
    for full in ("2> /dev/full", "> /dev/full 2>&1"):
        done = shell(f"vaco {EVALUATE} x.json {full}", tmp_path)
        assert done.returncode == (0 if full.startswith("2") else 2) and b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", ["algorithms", "lm algorithms", f"{EVALUATE} x.json"])
def test_characters_that_a_terminal_lacks_are_replaced(command: str, encoding: str, tmp_path: Path) -> None:
    done = shell(f"vaco {command}", tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout
    assert done.stdout.decode(encoding)


@pytest.mark.parametrize(
    "command",
    [
        "vaco algorithms", "vaco --help", "vaco --version", "vaco lm algorithms", "vaco theory --help",
        "python -m vaco.campaign.tiers ROOT/config/smoke.yaml", "python -m theory.run --instances 1 --quiet",
    ],
)  # fmt: skip
def test_every_command_ends_quietly(command: str, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[1])
    command = command.replace("python", sys.executable, 1) if command.startswith("python") else command
    command = command.replace("ROOT", root)
    for ending, code in (("| true", 0), (">&-", 0), ("> /dev/full", 2)):
        done = shell(f"{command} {ending}", tmp_path, PYTHONPATH=os.pathsep.join([f"{root}/src", root]))
        assert done.returncode == code and b"Traceback" not in done.stderr, (ending, done.stderr)


def test_an_error_of_a_library_loaded_with_a_closed_stderr_is_no_advice_to_install(tmp_path: Path) -> None:
    """glfw starts a process to load its library, which failed, and the sentence said to install what was missing."""
    done = shell("vaco train --out run --env Hopper-v5 --steps 2048 --eval-points 1 --eval-episodes 1 2>&-", tmp_path)
    assert done.returncode == 0 and (tmp_path / "run" / "manifest.json").is_file()


def test_a_flag_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ("train", "--out", "x", "--seed", "1", "--seed", "2"),
        ("train", "--out", "x", "--seed", "1", "--see", "1"),
        ("theory", "--seed", "1", "--seed", "2"),
        ("archive", "--tier", "smoke", "--out", "x", "--references", "a", "--references", "b"),
    ):
        assert cli.run(arguments) == 2
        assert "is given twice: keep one of them" in capsys.readouterr().err


def test_defaults_and_repeatable_flags_are_not_given_twice() -> None:
    parser = Parser(prog="x")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("files", nargs="*")
    assert parser.parse_args(["--set", "a", "--set", "b", "c", "d"]).set == ["a", "b"]
    assert parser.parse_args([]).seed == 3
    with pytest.raises(UserError, match="--seed is given twice"):
        parser.parse_args(["--seed", "1", "--seed", "1"])
