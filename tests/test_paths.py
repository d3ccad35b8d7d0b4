"""Every path that a user gives goes through one function, in every command and configuration file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vaco import cli
from vaco.errors import UserError
from vaco.paths import user_path

ROOT = Path(__file__).parents[1]


def test_home_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x" and user_path("a/~/x") == Path("a/~/x") and user_path(".") == Path()
    with pytest.raises(UserError, match="a home folder that is not known"):
        user_path("~nobody-of-that-name/x")


@pytest.mark.parametrize("written", ["", " ", "a\0b"])
def test_a_path_that_names_nothing_is_refused(written: str) -> None:
    with pytest.raises(UserError, match="names no file and no folder"):
        user_path(written)


def test_a_link_to_nothing_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    for path in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(UserError, match="a link to gone, where nothing is"):
            user_path(path)
    (tmp_path / "gone").mkdir()
    assert user_path(tmp_path / "link" / "run") == tmp_path / "link" / "run"


@pytest.mark.parametrize(
    "command",
    [
        "train --env Hopper-v5 --out", "train --out x --config", "evaluate --run", "archive --tier smoke --out",
        "evaluate --random --env Hopper-v5 --out", "archive --tier smoke --out x --references",
        "estimate --results", "verify", "doctor --profile", "theory --out", "lm warm --out", "lm train --out",
        "lm train --out x --warm-start", "lm evaluate --run", "estimate --tier",
    ],
)  # fmt: skip
def test_every_command_refuses_an_empty_path(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run([*command.split(), ""]) == 2
    assert "names no file and no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_tier_below_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaco.lm.kind import load_any_tier

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("smoke", "lm_smoke"):
        (tmp_path / f"{name}.yaml").write_bytes((ROOT / "config" / f"{name}.yaml").read_bytes())
        assert load_any_tier(f"~/{name}.yaml").name == name


def test_no_flag_takes_a_path_literally() -> None:
    """`type=Path` would: in the package, the theory, the benchmarks and the scripts."""
    literal = []
    for folder in ("src", "theory", "benchmarks", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "type" and ast.unparse(node.value) == "Path":
                    literal.append(f"{path}: {node.value.lineno}")
    assert not literal
