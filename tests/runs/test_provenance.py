"""What a manifest records of source and machine, and the guard between the plan of a workflow and its jobs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
from vaco.runs import provenance
from vaco.runs.identity import RunId

SOURCE = Path(vaco.__file__).parent


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class TestManifest:
    def manifest(self) -> dict[str, Any]:
        return provenance.manifest(
            identity={"env": "E", "algorithm": "vaco", "lag": 1, "seed": 0, "steps": 10},
            config={"delta": 0.2},
            run_id=RunId("c", 3),
            started="2026-01-01T00:00:00+00:00",
            finished="2026-01-01T01:00:00+00:00",
            wall_seconds=3600.0,
            completed_steps=10,
        )

    def test_holds_what_the_contract_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in provenance.ARITHMETIC:  # where one is set it is recorded, too
            monkeypatch.delenv(name, raising=False)
        record = self.manifest()
        contract = "schema identity config config_hash training_version revision dirty source_digest versions host cpu"
        assert set(record) == {
            *contract.split(),
            *("platform", "threads", "started", "finished", "wall_seconds", "completed_steps"),
        }
        assert (record["schema"], record["config_hash"], record["training_version"]) == (2, "c", 3)
        assert record["identity"]["algorithm"] == "vaco"
        assert json.loads(json.dumps(record, allow_nan=False)) == record

    def test_versions_are_those_imported(self) -> None:
        found = self.manifest()["versions"]
        # PyTorch adds what it was built for, which its package on PyPI has not in its own version.
        assert found.pop("torch").partition("+")[0] == torch.__version__.partition("+")[0]
        assert found == {
            "python": sys.version.split()[0],
            "numpy": np.__version__,
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

    def test_variables_that_choose_instructions_are_recorded_where_they_are_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in provenance.ARITHMETIC:
            monkeypatch.delenv(name, raising=False)
        assert "environment" not in provenance.machine()
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
        assert provenance.machine()["environment"] == {"ATEN_CPU_CAPABILITY": "default"}

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

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_a_repository_of_somebody_else(self, package: Path) -> None:
        revision, _ = provenance.source_revision(package)
        for path in (package.parents[1], *package.parents[1].rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
        assert revision and provenance.source_revision(package) == (revision, False)

    def test_no_git(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert provenance.source_revision(package) == (None, False)

    def test_inside_a_hook_of_another_repository(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = git(package, "rev-parse", "HEAD")
        monkeypatch.setenv("GIT_DIR", str(package))
        assert provenance.source_revision(package) == (expected, False)


class TestSourceDigest:
    """Recorded, and compared within one workflow only: a text of the training code, whatever it means."""

    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        ignored = shutil.ignore_patterns("__pycache__")
        return Path(shutil.copytree(SOURCE, tmp_path / "vaco", ignore=ignored))

    def test_it_is_that_of_the_source_wherever_it_lies(self, copy: Path) -> None:
        assert provenance.source_digest(copy) == provenance.source_digest()
        assert len(provenance.source_digest()) == 16

    @pytest.mark.parametrize(
        ("name", "counts"),
        [
            ("objectives/filters.py", True),
            ("control/learner.py", True),
            ("control/envs/new.py", True),
            ("lm/train.py", True),
            ("runs/rng.py", True),
            ("lag.py", True),
            ("cli.py", False),
            ("report/tables/stats.py", False),
            ("control/notes.txt", False),
        ],
    )
    def test_which_edits_it_notices(self, copy: Path, name: str, counts: bool) -> None:
        before = provenance.source_digest.__wrapped__(copy)
        with (copy / name).open("a") as stream:
            stream.write("\n# a remark\n")
        assert (provenance.source_digest.__wrapped__(copy) != before) is counts

    def test_a_process_keeps_what_it_found_first(self, copy: Path) -> None:
        """A run that takes hours records the code that it runs, not the one that lies there when it ends."""
        before = provenance.source_digest(copy)
        (copy / "lag.py").write_text("")
        assert provenance.source_digest(copy) == before


class TestPlanned:
    RUN = RunId("abc", 2)

    def test_what_was_planned_may_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(provenance.PLANNED, raising=False)
        provenance.require_planned(None, self.RUN)
        provenance.require_planned("abc-v2", self.RUN)
        monkeypatch.setenv(provenance.PLANNED, provenance.source_digest())
        provenance.require_planned("abc-v2", self.RUN)

    @pytest.mark.parametrize("planned", ["abd-v2", "abc-v1", "abc", ""])
    def test_another_run_may_not(self, planned: str) -> None:
        with pytest.raises(UserError, match=f"planned as run {planned}, but .* would be abc-v2: nothing was trained"):
            provenance.require_planned(planned, self.RUN)

    def test_nor_one_of_edited_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(provenance.PLANNED, "0" * 16)
        with pytest.raises(UserError, match=r"edited after the workflow was planned \(source 0{16} then") as caught:
            provenance.require_planned("abc-v2", self.RUN)
        assert "\n" not in str(caught.value)
