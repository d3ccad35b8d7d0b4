"""Containers are built from the lock, on a base that is named by its digest or not at all."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from vaco.runs import provenance

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "containers"
DIGEST = "sha256:" + "a1" * 32


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the containers' files and stub commands that write down how they are called."""
    place = tmp_path / "clone"
    (place / "containers").mkdir(parents=True)
    for name in ("Dockerfile", "vaco.def", "build.sh", "base.txt"):
        (place / "containers" / name).write_bytes((PLACE / name).read_bytes())
    (place / "containers" / "build.sh").chmod(0o755)
    (place / "containers" / "base.txt").write_text("example.org/python:3.11\n")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    (tmp_path / "bin").mkdir()
    for name in ("docker", "podman", "apptainer"):
        script = f'echo "{name} $@" >>{tmp_path}/called; [ "$1" != buildx ] || echo {DIGEST}'
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return place


def build(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{clone.parent / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run([clone / "containers/build.sh", *words], env=environment, capture_output=True, text=True)


def test_the_base_is_looked_up_once_and_then_named_by_its_digest(clone: Path) -> None:
    first = build(clone)
    assert first.returncode == 0 and "commit containers/base.txt" in first.stdout, first.stderr
    pinned = f"example.org/python:3.11@{DIGEST}"
    assert (clone / "containers/base.txt").read_text() == f"{pinned}\n"
    called = (clone.parent / "called").read_text()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True).stdout.strip()
    assert f"--build-arg BASE={pinned} --build-arg REVISION={head} --tag vaco" in called
    assert build(clone).returncode == 2  # base.txt is to be committed first
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "pin"], cwd=clone, check=True)
    assert build(clone, "apptainer").returncode == 0
    last = (clone.parent / "called").read_text().splitlines()[-1]
    assert last.startswith(f"apptainer build --build-arg BASE={pinned}") and last.endswith(
        "vaco.sif containers/vaco.def"
    )


@pytest.mark.parametrize(
    ("tool", "problem"),
    [("podman", "names no digest"), ("apptainer", "names no digest"), ("crane", "there is no crane")],
)
def test_without_a_digest_nothing_is_built_on_a_guess(clone: Path, tool: str, problem: str) -> None:
    done = build(clone, tool)
    assert done.returncode == 2 and problem in done.stderr and not (clone.parent / "called").exists()


def test_an_answer_that_is_no_digest_is_refused(clone: Path) -> None:
    (clone.parent / "bin" / "docker").write_text("#!/bin/sh\necho latest\n")
    done = build(clone)
    assert done.returncode == 2 and "is no digest" in done.stderr
    assert "@" not in (clone / "containers/base.txt").read_text()


def test_the_tracked_base_is_pinned_or_said_not_to_be() -> None:
    base = (PLACE / "base.txt").read_text().strip()
    pinned = re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", base)
    assert bool(pinned) != ("the base has no digest yet" in (PLACE / "README.md").read_text())


@pytest.mark.parametrize("name", ["Dockerfile", "vaco.def"])
def test_both_install_the_lock_and_the_source_and_try_a_run(name: str) -> None:
    text = (PLACE / name).read_text()
    for words in (
        "pip install -r requirements.lock",
        "pip install --no-deps -e .",
        "vaco train --env",
        "VACO_REVISION",
    ):
        assert words in text, words
    assert text.index("-r requirements.lock") < text.index("--no-deps -e .") < text.index("vaco train")
    assert re.search(r"^(FROM|From:) (\$\{BASE\}|\{\{ BASE \}\})$", text, re.MULTILINE)


@pytest.mark.parametrize(("name", "extra"), [("vaco", ""), ("book", "[repro]")])
def test_an_environment_of_conda_is_made_from_the_workflows_own_folder(tmp_path: Path, name: str, extra: str) -> None:
    """From a folder that holds neither lock nor package, as a deployed workflow's: `jobs.prepare` says where."""
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    script = ROOT / "workflow/envs" / f"{name}.post-deploy.sh"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VACO_SOURCE": str(ROOT)}
    done = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert f"{ROOT}/requirements.lock" in done.stdout and f"-e {ROOT}{extra}" in done.stdout


def test_an_image_says_of_which_commit_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "source_revision", lambda: (None, False))
    monkeypatch.setenv("VACO_REVISION", "abc")
    provenance.process_revision.cache_clear()
    assert provenance.process_revision() == ("abc", False)
    monkeypatch.setattr(provenance, "source_revision", lambda: ("def", True))
    provenance.process_revision.cache_clear()
    assert provenance.process_revision() == ("def", True)
    provenance.process_revision.cache_clear()
