"""A finished run whose declared files a workflow deleted is not trained again; a deleted or other one is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vaco import cli
from vaco.runs import keep
from vaco.runs.attempts import history

WORDS = ["train", "--env", "InvertedPendulum-v5", "--steps", "2048", "--eval-points", "1", "--eval-episodes", "1"]
DECLARED = ("manifest.json", "phases.parquet", "evals.parquet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that a job of SLURM has finished."""
    monkeypatch.setenv("VACO_ATTEMPTS", "call")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("VACO_DEADLINE", "99999999999")
    train(tmp_path / "run")
    return tmp_path / "run"


def train(folder: Path) -> None:
    assert cli.run([*WORDS, "--out", str(folder), "--quiet"]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_deleted_is_brought_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    for name in DECLARED:
        (folder / name).unlink()
    train(folder)
    assert contents(folder) == before, "trained again: its manifest has another time"
    assert "what was deleted of it is brought back" in capsys.readouterr().err
    assert [one.outcome for one in history(folder)] == ["complete"] * 2
    # And again: keeping twice loses nothing.
    (folder / "manifest.json").unlink()
    train(folder)
    assert contents(folder) == before


def test_no_file_that_is_kept_looks_like_a_run(folder: Path) -> None:
    assert [path.parent for path in folder.parent.rglob("manifest.json")] == [folder]
    assert {path.name for path in keep.place(folder).iterdir()} == {f"{name}.kept" for name in DECLARED}


def test_what_somebody_deleted_or_changed_is_trained_anew(folder: Path) -> None:
    before = contents(folder)
    shutil.rmtree(folder)
    train(folder)
    assert contents(folder)["manifest.json"] != before["manifest.json"]
    before = contents(folder)
    (folder / "manifest.json").unlink()
    kept = keep.place(folder) / "evals.parquet.kept"
    damaged = kept.read_bytes()[:-1]
    kept.unlink()
    kept.write_bytes(damaged)
    assert not keep.bring_back(folder) and not (folder / "manifest.json").exists()
    train(folder)
    assert contents(folder)["policy.safetensors"] == before["policy.safetensors"]


def test_without_a_job_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACO_ATTEMPTS", "call")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    train(tmp_path / "run")
    assert not keep.place(tmp_path / "run").exists()
