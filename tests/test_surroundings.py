"""What lies around a user must not leak in: style files, locales, a missing account."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest

from theory import style as theory_style
from vaco.report.figures import style

ROOT = Path(__file__).parents[1]


def report_bytes(folder: Path) -> bytes:
    figure = style.new_figure(2.0)
    figure.subplots().plot([0, 1], [0, 1], label="line")
    style.save(figure, folder / "a")
    return (folder / "a.png").read_bytes() + (folder / "a.pdf").read_bytes()


def theory_bytes(folder: Path) -> bytes:
    figure, (axes,) = theory_style.new_figure(2.0)
    axes.plot([0, 1], [0, 1], label="line")
    theory_style.save(figure, folder, "a")
    return (folder / "a.png").read_bytes() + (folder / "a.pdf").read_bytes()


@pytest.mark.parametrize("drawn", [report_bytes, theory_bytes])
def test_a_style_file_of_the_user_s_changes_no_figure(drawn: Callable[[Path], bytes], tmp_path: Path) -> None:
    plain = drawn(tmp_path)
    own = {"font.size": 20, "lines.linewidth": 5, "axes.facecolor": "pink", "savefig.pad_inches": 1}
    with matplotlib.rc_context(own):
        assert drawn(tmp_path) == plain


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_files_are_read_and_written_in_utf8_whatever_the_locale(locale: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("# naïve ± défaut\nsteps: 2048\n", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = str(ROOT)  # theory is no part of the installed package
    script = (
        "import sys, pathlib; assert sys.flags.utf8_mode == 0\n"
        "from vaco.runs.config import read_settings\n"
        "from theory.run import write\n"
        "write(pathlib.Path('out'), 'x', {chr(233): chr(961)})\n"
        "print(read_settings(pathlib.Path('settings.yaml'))['steps'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"2048\n"), done.stderr
    assert (tmp_path / "out" / "x.json").read_text(encoding="utf-8") == '{"é":"ρ"}\n'


def test_no_text_is_read_or_written_in_the_locale_s_encoding() -> None:
    """`read_text()`, `write_text(...)`, `open(...)` of text and `text=True` of subprocesses would."""
    found = []
    for folder in ("src", "theory", "benchmarks", "scripts", "paper/book/_ext"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _by_locale(node):
                    found.append(f"{path}: {node.lineno}")
    assert not found


def _by_locale(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg for keyword in call.keywords}
    if "encoding" in named:
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name == "open" and ast.unparse(call.func) not in (
        "os.open",
        "self._source.open",
        "self.open",
        "_open",
        "tarfile.open",
    ):
        words = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return bool(words) and not any("b" in word for word in words) and words[-1] in ("r", "w", "a", "r+", "x")
    return name in ("run", "Popen", "check_output") and "text" in named


def test_a_call_that_goes_by_the_locale_is_found() -> None:
    for text in ("p.read_text()", "p.write_text(x)", "open(p, 'w')", "p.open('r')", "subprocess.run(x, text=True)"):
        assert _by_locale(ast.parse(text).body[0].value)  # type: ignore[attr-defined]
    for text in ("p.read_text('utf-8')", "p.write_text(x, encoding='utf-8')", "p.open('rb')", "subprocess.run(x)"):
        assert not _by_locale(ast.parse(text).body[0].value)  # type: ignore[attr-defined]


def test_a_user_without_an_account_and_a_home_can_train(tmp_path: Path) -> None:
    """As in a container that is started with a number for a user."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    script = (
        "import pwd, sys\n"
        "def nobody(_): raise KeyError('uid not found')\n"
        "pwd.getpwuid = pwd.getpwnam = nobody\n"
        "from vaco.__main__ import main; main()"
    )
    words = [
        "train",
        "--out",
        "run",
        "--env",
        "InvertedPendulum-v5",
        "--steps",
        "2048",
        "--eval-points",
        "1",
        "--quiet",
    ]
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
