from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import CONFIG, FINAL, at, complete, finish, holder, names, save

from vaco.errors import UserError
from vaco.runs import checkpoint, provenance, tables
from vaco.runs.config import build
from vaco.runs.folder import discard_other
from vaco.runs.identity import SOURCES_OF_VERSION_1, RunId
from vaco.runs.lock import HeldError


class TestLife:
    def test_new_then_resumable_then_complete(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "run"
        with at(path) as folder:
            assert folder.status() == "new"
            save(folder)
        assert names(path) == ["checkpoints", "run.json"]
        marker = (path / "run.json").stat().st_ino
        with at(path) as folder:
            assert folder.status() == "resumable"
            # not written again: resuming needs no room on the disk
            assert (path / "run.json").stat().st_ino == marker
            assert checkpoint.load_latest(folder.checkpoints, warn=pytest.fail) is not None
            finish(folder)
            assert folder.status() == "complete"
        assert names(path) == FINAL
        before = {name: (path / name).read_bytes() for name in FINAL}
        with at(path) as folder:
            assert folder.status() == "complete"
        assert {name: (path / name).read_bytes() for name in names(path)} == before

    def test_what_finish_writes(self, tmp_path: Path) -> None:
        complete(tmp_path / "run")
        manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
        assert manifest["status"] == "complete" and manifest["config_hash"] == "h"
        assert manifest["checksums"] == {
            name: tables.sha256_file(tmp_path / "run" / name) for name in FINAL if name != "manifest.json"
        }
        assert tables.read_parquet(tmp_path / "run" / "phases.parquet")["phase"].tolist() == [0, 1, 2]
        assert tables.read_parquet(tmp_path / "run" / "evals.parquet")["mean"].tolist() == [0, 0]
        arrays, meta = checkpoint.read(tmp_path / "run" / "policy.safetensors")
        assert arrays["w"].tolist() == [1, 1, 1, 1] and meta == {"env": "E", "lag": 1}

    def test_data_files_are_bitwise_the_same_again(self, tmp_path: Path) -> None:
        complete(tmp_path / "a")
        complete(tmp_path / "b")
        assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in FINAL)

    def test_only_within_the_with_statement_and_with_its_own_manifest(self, tmp_path: Path) -> None:
        folder = at(tmp_path / "run")
        with pytest.raises(RuntimeError):
            folder.status()
        with folder, pytest.raises(ValueError, match="its own manifest"):
            finish(folder, "other")
        with folder:
            finish(folder)
            with pytest.raises(ValueError, match="unfinished"):
                finish(folder)

    def test_nothing_is_left_when_no_checkpoint_was_written(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), at(tmp_path / "run"):
            raise ZeroDivisionError
        assert names(tmp_path) == []
        (tmp_path / "empty").mkdir()
        with at(tmp_path / "empty"):
            pass
        assert names(tmp_path) == ["empty"] and names(tmp_path / "empty") == []

    def test_a_failed_run_keeps_its_checkpoints(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), at(tmp_path) as folder:
            save(folder)
            raise ZeroDivisionError
        assert names(tmp_path) == ["checkpoints", "run.json"]

    def test_after_snakemake_deleted_the_outputs_it_knows(self, tmp_path: Path) -> None:
        complete(tmp_path)
        for name in ("manifest.json", "phases.parquet", "evals.parquet"):
            (tmp_path / name).unlink()
        with at(tmp_path, "other configuration") as folder:
            assert folder.status() == "new"
            finish(folder, "other configuration")
        assert names(tmp_path) == FINAL

    def test_after_a_clone_that_has_no_policy(self, tmp_path: Path) -> None:
        complete(tmp_path)
        (tmp_path / "policy.safetensors").unlink()
        with at(tmp_path) as folder:
            assert folder.status() == "complete"

    def test_working_files_left_by_a_kill_are_tidied(self, tmp_path: Path) -> None:
        complete(tmp_path)
        checkpoint.save(tmp_path / "checkpoints", progress=1, arrays={}, meta={})
        tables.write_json(tmp_path / "run.json", {"schema": 2, "config_hash": "h", "training_version": 1})
        (tmp_path / ".manifest.json.123.tmp").write_text("half")
        with at(tmp_path) as folder:
            assert folder.status() == "complete"
        assert names(tmp_path) == FINAL


class TestMachines:
    """What a run was computed on: written down when it begins, compared when it is resumed."""

    def begun(self, path: Path, **changes: Any) -> None:
        with at(path) as folder:
            save(folder)
        marker = tables.read_json(path / "run.json")
        assert marker["processes"] == [provenance.machine()]
        marker["processes"][0] |= changes
        tables.write_json(path / "run.json", marker)

    @pytest.mark.parametrize("package", ["mujoco", "torch", "numpy"])
    def test_another_version_is_refused(self, tmp_path: Path, package: str) -> None:
        importlib.import_module(package)
        self.begun(tmp_path, versions=provenance.machine()["versions"] | {package: "1.0"})
        before = (tmp_path / "run.json").read_bytes()
        with pytest.raises(UserError, match=rf"begun with {package} 1\.0, and .* install {package} 1\.0 .*or delete"):
            at(tmp_path).__enter__()
        assert names(tmp_path) == ["checkpoints", "run.json"] and (tmp_path / "run.json").read_bytes() == before

    def test_another_version_of_what_this_process_does_not_use_is_no_obstacle(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As MuJoCo's to a run of language models."""
        monkeypatch.delitem(sys.modules, "mujoco", raising=False)
        self.begun(tmp_path, versions=provenance.machine()["versions"] | {"mujoco": "1.0"})
        with at(tmp_path) as folder:
            assert folder.status() == "resumable"

    def test_a_run_without_a_checkpoint_starts_anew_with_other_versions(self, tmp_path: Path) -> None:
        self.begun(tmp_path, versions=provenance.machine()["versions"] | {"numpy": "1.0"})
        shutil.rmtree(tmp_path / "checkpoints")
        with at(tmp_path) as folder:
            assert folder.status() == "new"
            assert tables.read_json(tmp_path / "run.json")["processes"] == [provenance.machine()]

    def test_another_processor_is_told_and_recorded(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.begun(tmp_path, cpu="Another", host="elsewhere")
        for _ in range(2):  # killed once more, here
            with at(tmp_path) as folder:
                assert folder.status() == "resumable"
        assert capsys.readouterr().err.count("other surroundings (processor: Another, here") == 1
        with at(tmp_path) as folder:
            finish(folder)
        processes = json.loads((tmp_path / "manifest.json").read_text())["processes"]
        assert [record["host"] for record in processes] == ["elsewhere", provenance.machine()["host"]]

    def test_a_marker_of_before_says_nothing(self, tmp_path: Path) -> None:
        self.begun(tmp_path)
        record = {"schema": 2, "config_hash": "h", "training_version": 1, "config": {}}
        tables.write_json(tmp_path / "run.json", record)
        with at(tmp_path) as folder:
            assert folder.status() == "resumable"
            finish(folder)
        assert "processes" not in json.loads((tmp_path / "manifest.json").read_text())

    def test_the_revision_is_that_of_the_beginning(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        commits = iter([("first", False), ("second", True)])
        monkeypatch.setattr(provenance, "source_revision", lambda: next(commits))
        provenance.process_revision.cache_clear()
        try:
            with at(tmp_path):
                facts = {"run_id": RunId("h", 1), "started": "", "finished": ""}
                record = provenance.manifest(identity={}, config={}, wall_seconds=0.0, completed_steps=0, **facts)
            assert (record["revision"], record["dirty"]) == ("first", False)
        finally:
            provenance.process_revision.cache_clear()


class TestDiscarding:
    """What another configuration began is removed; nothing else is."""

    def begun(self, path: Path) -> None:
        with at(path) as folder:
            checkpoint.save(folder.checkpoints, progress=1, arrays={}, meta={})

    def test_an_unfinished_run_of_another_configuration(self, tmp_path: Path) -> None:
        self.begun(tmp_path)
        assert discard_other(tmp_path, RunId("other", 1), build) and names(tmp_path) == []

    def test_an_unfinished_run_of_another_training_version(self, tmp_path: Path) -> None:
        self.begun(tmp_path)
        assert discard_other(tmp_path, RunId("h", 2), build) and names(tmp_path) == []

    def test_not_the_run_that_is_wanted(self, tmp_path: Path) -> None:
        self.begun(tmp_path)
        assert not discard_other(tmp_path, RunId("h", 1), build) and names(tmp_path) == ["checkpoints", "run.json"]

    def test_not_while_another_process_is_at_work(self, tmp_path: Path) -> None:
        self.begun(tmp_path)
        with holder(tmp_path), pytest.raises(HeldError):
            discard_other(tmp_path, RunId("other", 1), build)
        assert names(tmp_path) == ["checkpoints", "run.json"]

    def test_not_a_finished_run_with_leftovers_of_a_kill(self, tmp_path: Path) -> None:
        complete(tmp_path)
        tables.write_json(tmp_path / "run.json", {"schema": 2, "config_hash": "h", "training_version": 1})
        assert not discard_other(tmp_path, RunId("other", 1), build) and names(tmp_path) == sorted([*FINAL, "run.json"])

    def test_not_one_that_cannot_be_read(self, tmp_path: Path) -> None:
        self.begun(tmp_path)
        tables.write_json(tmp_path / "run.json", [])
        assert not discard_other(tmp_path, RunId("other", 1), build) and names(tmp_path) == ["checkpoints", "run.json"]


class TestRefusals:
    def refused(self, path: Path, match: str, config_hash: str = "h", **options: Any) -> None:
        """Entering raises one sentence and changes nothing."""
        before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} if path.is_dir() else None
        with pytest.raises(UserError, match=match) as refusal, at(path, config_hash, **options):
            pass
        assert "\n" not in str(refusal.value)
        if before is not None:
            assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("mine")
        self.refused(tmp_path / "run", "is a file")
        self.refused(tmp_path / "run" / "below", "Not a directory")

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "phases.csv", "manifest.json.bak", ".vimrc.tmp"])
    def test_files_that_are_no_runs(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("mine")
        self.refused(tmp_path, f"holds '{name}', which is not part of a run")

    def test_files_that_are_no_runs_beside_those_that_are(self, tmp_path: Path) -> None:
        complete(tmp_path)
        (tmp_path / "zebra").mkdir()
        self.refused(tmp_path, "'zebra'")

    def test_a_finished_run_of_another_configuration(self, tmp_path: Path) -> None:
        complete(tmp_path)
        self.refused(
            tmp_path,
            r"a finished run of another configuration \(delta is 0.2 there and 0.4 here, seed is 0 there and 1 here\)",
            "other",
            config=CONFIG | {"delta": 0.4, "seed": 1},
        )
        self.refused(tmp_path, "of another configuration: give another --out", "other")

    def test_a_run_of_another_training_version(self, tmp_path: Path) -> None:
        with at(tmp_path) as folder:
            save(folder)
        version = "of training version 1, and the code here has version 2: give another --out"
        self.refused(tmp_path, f"an unfinished run {version}", version=2)
        with at(tmp_path) as folder:
            finish(folder)
        self.refused(tmp_path, f"a finished run {version}", version=2)
        self.refused(tmp_path, "of another configuration", "other", version=2)

    @pytest.mark.parametrize("source", [min(SOURCES_OF_VERSION_1), "0" * 64])
    def test_a_run_from_before_there_were_versions(self, tmp_path: Path, source: str) -> None:
        """Recognised by the source that it names, and continued or refused like any other."""
        config = build({"seed": 3})
        old = {"schema": 1, "config_hash": "x", "source_hash": source, "config": config.resolved()}
        with at(tmp_path) as folder:
            save(folder)
        tables.write_json(tmp_path / "run.json", old)
        mine = {"config_hash": config.hash, "config": config.resolved()}
        if source == "0" * 64:
            self.refused(tmp_path, "an unfinished run of another configuration: give", **mine)
        else:
            with at(tmp_path, **mine) as folder:
                assert folder.status() == "resumable"
        self.refused(tmp_path, "of another configuration", build({"seed": 4}).hash)

    def test_an_unfinished_run_of_another_configuration(self, tmp_path: Path) -> None:
        with at(tmp_path, config=CONFIG) as folder:
            save(folder)
        changed = CONFIG | {f"new{i}": i for i in range(6)}
        self.refused(tmp_path, r"an unfinished run .*new0 is None there and 0 here.* and 2 more\)", "o", config=changed)

    def test_checkpoints_of_nobody(self, tmp_path: Path) -> None:
        with at(tmp_path) as folder:
            save(folder)
        (tmp_path / "run.json").unlink()
        self.refused(tmp_path, "checkpoints but no run.json")

    @pytest.mark.parametrize("name", FINAL)
    def test_a_damaged_file(self, tmp_path: Path, name: str) -> None:
        complete(tmp_path)
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2] ^= 1
        # a flipped bit in the manifest may leave it readable; a cut one never is
        (tmp_path / name).write_bytes(data if name != "manifest.json" else data[:-3])
        self.refused(tmp_path, "is damaged, .*delete the folder and run the same command again")

    @pytest.mark.parametrize("name", ["phases.parquet", "evals.parquet"])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        complete(tmp_path)
        (tmp_path / name).unlink()
        self.refused(tmp_path, f"is damaged, {name} is missing")

    @pytest.mark.parametrize("record", [[], {}, {"status": "complete"}])
    def test_a_manifest_that_is_none(self, tmp_path: Path, record: Any) -> None:
        complete(tmp_path)
        if isinstance(record, dict):
            record = {"schema": 2, "config_hash": "h", "training_version": 1, **record}
        tables.write_json(tmp_path / "manifest.json", record)
        self.refused(tmp_path, "is damaged")

    def test_a_configuration_that_no_manifest_could_hold_fails_before_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            at(tmp_path, config={"delta": float("nan")})

    def test_unwritable(self, tmp_path: Path, as_nobody: Callable[..., str]) -> None:
        printed = as_nobody(
            "from pathlib import Path\nfrom vaco.errors import UserError\nfrom vaco.runs.folder import RunFolder\n"
            "from vaco.runs.config import build\nfrom vaco.runs.identity import RunId\n",
            """
for path in (Path("."), Path("new")):
    try:
        RunFolder(path, RunId("h", 1), config={}, rebuild=build).__enter__()
    except UserError as error:
        print(error)
""",
            tmp_path,
        )
        assert printed.count("Permission denied") == 2 and names(tmp_path) == []

    def test_full_disk(self, small_disk: Path) -> None:
        with at(small_disk / "run") as folder:
            save(folder)
        room = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(b"0" * room.f_bavail * room.f_frsize)
        self.refused(small_disk / "new", "the disk is full")
        self.refused(small_disk / "run", "the disk is full")
        assert names(small_disk) == ["ballast", "run"] and names(small_disk / "run") == ["checkpoints", "run.json"]

    def test_full_disk_at_the_end(self, small_disk: Path) -> None:
        with at(small_disk / "run") as folder:
            save(folder)
            room = os.statvfs(small_disk)
            ballast = small_disk / "ballast"
            ballast.write_bytes(b"0" * (room.f_bavail - 2) * room.f_frsize)
            with pytest.raises(UserError, match="the disk is full"):
                finish(folder)
        assert "manifest.json" not in names(small_disk / "run")
        ballast.unlink()
        with at(small_disk / "run") as folder:
            assert folder.status() == "resumable"
            finish(folder)
        assert names(small_disk / "run") == FINAL


FINISH_AND_DIE = """
import os, shutil, sys
from pathlib import Path
import numpy as np
from vaco.runs import checkpoint
from vaco.runs.config import build
from vaco.runs.folder import RunFolder
from vaco.runs import provenance
from vaco.runs.identity import RunId
root = Path(sys.argv[1])
provenance.process_revision(), provenance.source_digest()  # once, not in every child

def doomed(original, state):
    def call(*args, **kwargs):
        if state["left"] == 0:
            os.kill(os.getpid(), 9)
        state["left"] -= 1
        return original(*args, **kwargs)
    return call

for moment in range(40):
    child = os.fork()
    if child == 0:
        with RunFolder(root / str(moment), RunId("h", 1), config={}, rebuild=build) as folder:
            checkpoint.save(folder.checkpoints, progress=1, arrays={"x": np.ones(3)}, meta={})
            state = {"left": moment}
            for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "rmdir"), (os, "unlink")):
                setattr(owner, name, doomed(getattr(owner, name), state))
            folder.finish(phases={"a": np.ones(1)}, evals={"a": np.ones(1)}, policy={}, policy_meta={},
                          manifest={"schema": 2, "config_hash": "h", "training_version": 1})
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(moment)
        break
"""


def test_killed_at_any_step_of_finishing_it_resumes_or_is_complete(tmp_path: Path, script: Callable[..., Any]) -> None:
    moments = int(script(FINISH_AND_DIE, tmp_path).stdout)
    assert moments > 10
    found, locked = [], 0
    for moment in range(moments):
        path = tmp_path / str(moment)
        locked += "run.lock" in names(path)
        with at(path) as folder:
            found.append(folder.status())
            if folder.status() == "resumable":
                assert checkpoint.load_latest(folder.checkpoints, warn=pytest.fail) is not None
                finish(folder)
        assert names(path) == FINAL
    assert locked > moments - 4, "the kills came too late"
    # resumable up to some moment, complete ever after
    assert found == sorted(found, reverse=True) and set(found) == {"resumable", "complete"}
