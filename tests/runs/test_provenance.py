from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

import vaco
from vaco.errors import UserError
from vaco.objectives.filters import FILTERS
from vaco.objectives.table import ALIASES
from vaco.runs import provenance
from vaco.runs.provenance import training_hash

SOURCE = Path(vaco.__file__).parent
Changed = Callable[[], set[str]]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class TestManifest:
    def manifest(self) -> dict[str, Any]:
        return provenance.manifest(
            identity={"env": "E", "algorithm": "vaco", "lag": 1, "seed": 0, "steps": 10},
            config={"delta": 0.2},
            config_hash="c",
            source_hash="s",
            started="2026-01-01T00:00:00+00:00",
            finished="2026-01-01T01:00:00+00:00",
            wall_seconds=3600.0,
            completed_steps=10,
        )

    def test_holds_what_the_contract_says(self) -> None:
        record = self.manifest()
        contract = "schema identity config config_hash source_hash revision dirty versions host cpu platform threads"
        assert set(record) == {*contract.split(), "started", "finished", "wall_seconds", "completed_steps"}
        assert record["schema"] == 1 and record["identity"]["algorithm"] == "vaco"
        assert json.loads(json.dumps(record, allow_nan=False)) == record

    def test_versions_are_those_imported(self) -> None:
        assert self.manifest()["versions"] == {
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "torch": torch.__version__,
            "mujoco": mujoco.__version__,
            "gymnasium": gymnasium.__version__,
            "vaco": vaco.__version__,
        }

    def test_machine(self) -> None:
        record = self.manifest()
        assert record["threads"] == torch.get_num_threads()
        assert record["cpu"] and record["host"] and "Linux" in record["platform"]
        if "model name" in (text := Path("/proc/cpuinfo").read_text()):
            assert f": {record['cpu']}\n" in text

    def test_a_package_that_is_not_installed_has_no_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package"))
        assert self.manifest()["versions"]["no-such-package"] is None

    def test_now_is_utc(self) -> None:
        now = datetime.fromisoformat(provenance.utc_now())
        assert now.utcoffset() == timedelta(0) and abs(datetime.now(now.tzinfo) - now) < timedelta(seconds=5)


class TestRevision:
    @pytest.fixture
    def package(self, tmp_path: Path) -> Path:
        package = tmp_path / "repository" / "src" / "pack"
        (package / "deep").mkdir(parents=True)
        for name in ("__init__.py", "deep/module.py", "data.txt", "../outside.py"):
            (package / name).write_text("1\n")
        git(tmp_path / "repository", "init", "-q")
        git(package, "add", "..")
        git(package, "commit", "-q", "-m", "all")
        return package

    def test_clean(self, package: Path) -> None:
        assert provenance.source_revision(package) == (git(package, "rev-parse", "HEAD"), False)

    @pytest.mark.parametrize("name", ["__init__.py", "deep/module.py"])
    @pytest.mark.parametrize("staged", [False, True])
    def test_an_edited_module_is_dirty(self, package: Path, name: str, staged: bool) -> None:
        (package / name).write_text("2\n")
        if staged:
            git(package, "add", ".")
        assert provenance.source_revision(package) == (git(package, "rev-parse", "HEAD"), True)

    def test_other_edits_are_not(self, package: Path) -> None:
        (package / "data.txt").write_text("2\n")
        (package / ".." / "outside.py").write_text("2\n")
        (package / "untracked.py").write_text("2\n")
        # the same content under a new time stamp
        (package / "__init__.py").write_text("1\n")
        assert provenance.source_revision(package)[1] is False

    def test_an_installed_package_inside_somebodys_repository_has_none(self, package: Path) -> None:
        installed = package / "venv" / "pack"
        installed.mkdir(parents=True)
        (installed / "__init__.py").write_text("")
        assert provenance.source_revision(installed) == (None, False)

    def test_no_repository(self, tmp_path: Path) -> None:
        (tmp_path / "__init__.py").write_text("")
        assert provenance.source_revision(tmp_path) == (None, False)

    def test_no_git(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert provenance.source_revision(package) == (None, False)

    def test_inside_a_hook_of_another_repository(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = git(package, "rev-parse", "HEAD")
        monkeypatch.setenv("GIT_DIR", str(package))
        assert provenance.source_revision(package) == (expected, False)


ROWS = sorted({f"{align}+{rule}" for align, rule in ALIASES.values()} | {f"once+{rule}" for rule in FILTERS})


def hashes(package: Path) -> dict[str, str]:
    return {name: training_hash(name, package=package) for name in ROWS}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this package's source."""
    target = tmp_path_factory.mktemp("untouched") / "vaco"
    return Path(shutil.copytree(SOURCE, target, ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture(scope="module")
def before(untouched: Path) -> dict[str, str]:
    return hashes(untouched)


@pytest.fixture
def copy(untouched: Path, tmp_path: Path) -> Path:
    """Another copy, to edit."""
    return Path(shutil.copytree(untouched, tmp_path / "vaco"))


@pytest.fixture
def changed(copy: Path, before: dict[str, str]) -> Callable[[], set[str]]:
    """The rows whose hash changed with the edits to `copy`."""
    return lambda: {name for name, value in hashes(copy).items() if value != before[name]}


def test_the_reference_hash_is_that_of_the_environments(copy: Path) -> None:
    before = provenance.reference_hash(package=copy)
    for name, counts in (("control/learner.py", False), ("control/replay.py", True), ("control/envs/tasks.py", True)):
        path = copy / name
        text = path.read_text()
        path.write_text(text + "\n# a remark\n")
        assert provenance.reference_hash(package=copy) == before
        path.write_text(text + "\nEDITED = 1\n")
        assert (provenance.reference_hash(package=copy) != before) is counts
        path.write_text(text)


class TestTrainingHash:
    def test_one_hash_a_row_wherever_the_source_lies(self, copy: Path, changed: Changed) -> None:
        assert changed() == set()
        assert len(set(hashes(copy).values())) == len(ROWS)
        assert all(len(value) == 64 for value in hashes(copy).values())

    def test_an_alias_is_its_row(self) -> None:
        for name, (align, rule) in ALIASES.items():
            assert training_hash(name) == training_hash(f"{align}+{rule}")

    def test_unknown_algorithm(self) -> None:
        with pytest.raises(UserError, match="vaco"):
            training_hash("vacco")

    @pytest.mark.parametrize("rule", sorted(FILTERS))
    def test_editing_a_filter_trains_only_its_runs_again(self, copy: Path, changed: Changed, rule: str) -> None:
        name = FILTERS[rule].function.__name__
        path = copy / "objectives" / "filters.py"
        head, _, tail = path.read_text().partition(f"\ndef {name}(")
        path.write_text(f"{head}\ndef {name}(_new: int = 1, *, {tail.lstrip('*, ')}")
        assert changed() == {row for row in ROWS if row.endswith(f"+{rule}")}

    def test_cosmetic_edits_train_nothing_again(self, copy: Path, changed: Changed) -> None:
        for path in copy.rglob("*.py"):
            source = path.read_text()
            path.write_text(f'{source}\n\n# a remark\n"""And a bare text."""\n')
        path = copy / "objectives" / "filters.py"
        text = path.read_text()
        for rule in FILTERS.values():
            assert json.dumps(rule.formula, ensure_ascii=False) in text
            text = text.replace(json.dumps(rule.formula, ensure_ascii=False), '"another formula"')
        path.write_text(text)
        assert changed() == set()

    def test_docstrings_do_not_count(self, copy: Path, changed: Changed) -> None:
        edited = 0
        for path in sorted(copy.rglob("*.py")):
            lines = path.read_text().splitlines()
            for node in ast.walk(ast.parse(path.read_text())):
                kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
                if isinstance(node, kinds) and ast.get_docstring(node) is not None:
                    number = node.body[0].lineno - 1
                    lines[number] = lines[number].replace('"""', '"""Other words. ', 1)
                    edited += 1
            path.write_text("\n".join(lines))
        assert edited > 50 and changed() == set()

    @pytest.mark.parametrize("name", ["objectives/align.py", "lag.py", "runs/config.py"])
    def test_editing_what_every_run_uses_trains_all_again(self, copy: Path, changed: Changed, name: str) -> None:
        assert (copy / name).is_file()
        with (copy / name).open("a") as stream:
            stream.write("\n_NEW = 1\n")
        assert changed() == set(ROWS)

    @pytest.mark.parametrize("name", ["control/new.py", "control/envs/deeper/new.py", "objectives/new.py"])
    def test_a_new_module_trains_all_again(self, copy: Path, changed: Changed, name: str) -> None:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("X = 1\n")
        first = hashes(copy)
        (copy / name).write_text("X = 1.0\n")
        assert changed() == set(ROWS) and all(first[row] != value for row, value in hashes(copy).items())

    @pytest.mark.parametrize(
        "name", ["errors.py", "__init__.py", "cli.py", "runs/folder.py", "runs/provenance.py", "report/x.py", "lm/x.py"]
    )
    def test_editing_the_rest_trains_nothing_again(self, copy: Path, changed: Changed, name: str) -> None:
        (copy / name).parent.mkdir(exist_ok=True)
        with (copy / name).open("a") as stream:
            stream.write("\n_NEW = 1\n")
        assert changed() == set()

    def test_a_new_filter_and_a_new_row_train_nothing_again(
        self, copy: Path, before: dict[str, str], script: Callable[..., Any]
    ) -> None:
        with (copy / "objectives" / "filters.py").open("a") as stream:
            stream.write(
                '\n\n@register("novel", "c = 1")\n'
                "def novel(x: Samples, settings: FilterSettings = DEFAULTS) -> Filtered:\n    return _novel(x)\n"
                "\n\ndef _novel(x: Samples) -> Filtered:\n    raise NotImplementedError\n"
            )
        with (copy / "objectives" / "table.py").open("a") as stream:
            stream.write('\nALIASES["newest"] = ("once", "novel")\n')
        done = script(
            "import sys, json\nsys.path.insert(0, sys.argv[1])\n"
            "import vaco\nassert vaco.__file__.startswith(sys.argv[1])\n"
            "from vaco.runs.provenance import training_hash\n"
            "print(json.dumps({name: training_hash(name) for name in [*sys.argv[2:], 'newest']}))",
            copy.parent,
            *ROWS,
        )
        found = json.loads(done.stdout)
        newest = found.pop("newest")
        assert found == before and newest not in found.values()


FILTERS_SOURCE = """
from elsewhere import thing
FILTERS = {}
LIMIT = used_by_constant()
def register(name, formula): ...
def used_by_constant(): return 1
def for_learner(): return 1
def of_no_filter(): return 1
def shared(): return deep()
def deep(): return LIMIT
def only_a(): return deepest_a()
def deepest_a(): return 1
@register("a", "formula a")
def a(x): return shared() + only_a() + used_by_constant()
@register("b", "formula b")
def b(x): return shared()
"""


class TestWhichFunctionsCount:
    """A made-up package, in which each function of ``filters.py`` has one reason to count."""

    @pytest.fixture
    def package(self, tmp_path: Path) -> Path:
        (tmp_path / "objectives").mkdir()
        (tmp_path / "control").mkdir()
        (tmp_path / "objectives" / "filters.py").write_text(FILTERS_SOURCE)
        (tmp_path / "objectives" / "table.py").write_text("from vaco.objectives.filters import a, b\n")
        (tmp_path / "control" / "learner.py").write_text("from vaco.objectives.filters import for_learner\n")
        return tmp_path

    def hash(self, package: Path, used: str, row: str = "row") -> str:
        return provenance._hash_sources(package, row=row, used={used}, registered={"a", "b"})

    @pytest.mark.parametrize(
        ("old", "affected"),
        [
            ("def a(x):", "a"),
            ("def b(x):", "b"),
            ("def only_a():", "a"),
            ("def deepest_a():", "a"),
            ("def shared():", "ab"),
            ("def deep():", "ab"),
            ("def used_by_constant():", "ab"),
            ("def for_learner():", "ab"),
            ("def of_no_filter():", "ab"),
            ("def register(name, formula):", "ab"),
            ("import thing", "ab"),
            ("LIMIT = ", "ab"),
            ("formula a", ""),
            ("FILTERS = {}", ""),
        ],
    )
    def test_edit(self, package: Path, old: str, affected: str) -> None:
        before = {used: self.hash(package, used) for used in "ab"}
        path = package / "objectives" / "filters.py"
        new = {
            "import thing": "import stuff",
            "LIMIT = ": "LIMIT = 1 + ",
            "formula a": "other",
            "FILTERS = {}": "FILTERS = {'a': 1}",
        }
        path.write_text(path.read_text().replace(old, new.get(old, f"{old} 1 + ".replace(": 1 + ", ": 1;"))))
        assert path.read_text() != FILTERS_SOURCE
        assert "".join(used for used in "ab" if self.hash(package, used) != before[used]) == affected

    def test_a_helper_of_one_filter_that_the_learner_takes_too_counts_for_all(self, package: Path) -> None:
        for source in (
            "from vaco.objectives.filters import only_a",
            "from vaco.objectives import filters\nfilters.only_a",
        ):
            (package / "control" / "learner.py").write_text(source)
            (package / "objectives" / "filters.py").write_text(FILTERS_SOURCE)
            before = self.hash(package, "b")
            (package / "objectives" / "filters.py").write_text(
                FILTERS_SOURCE.replace("def deepest_a(", "def deepest_a(y, ")
            )
            assert self.hash(package, "b") != before

    def test_the_row_counts(self, package: Path) -> None:
        assert self.hash(package, "a", "one") != self.hash(package, "a", "other")

    def test_a_moved_module_counts(self, package: Path) -> None:
        before = self.hash(package, "a")
        (package / "control" / "learner.py").rename(package / "control" / "teacher.py")
        assert self.hash(package, "a") != before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = a - b", "x = b - a"),
        ("x = a < b", "x = a <= b"),
        ("f(x=1)", "f(y=1)"),
        ("def f(*, a, b=1): pass", "def f(*, a=1, b): pass"),
        ("{**a, 'b': c}", "{'b': c, **a}"),
        ("x = None", "x = ..."),
        ("x = 'text'", "x = 'Text'"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("return_ = [1, None]", "return_ = [None, 1]"),
    ],
)
def test_meaning_is_kept_in_the_canonical_text(first: str, second: str) -> None:
    assert provenance._canonical_source(first) != provenance._canonical_source(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x=1", "x = (1)  # one"),
        ("def f():\n  return 1", 'def f():\n    """One."""\n\n    return 1'),
        ("class A:\n  x: int = 1", 'class A:\n    """A."""\n    x: int = 1\n    """Of x."""'),
        ("f('a')", 'f(u"a",)'),
        ('register("a", "f", g)', 'register("b", "h", g)'),
    ],
)
def test_appearance_is_not(first: str, second: str) -> None:
    assert provenance._canonical_source(first) == provenance._canonical_source(second)
