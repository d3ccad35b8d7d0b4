"""The command line, and the list of bad inputs: one sentence, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vaco import cli
from vaco.objectives.filters import FILTERS
from vaco.objectives.table import ALIASES
from vaco.runs import checkpoint
from vaco.runs.config import build
from vaco.runs.folder import discard_other
from vaco.runs.identity import RunId
from vaco.runs.provenance import PLANNED, source_digest
from vaco.runs.tables import read_parquet, write_json

FLAGS = {"--env": "Hopper-v5", "--steps": "2048", "--eval-points": "1", "--eval-episodes": "1"}


def quick(*arguments: str) -> tuple[str, ...]:
    """The flags of a run of one phase, but for those that `arguments` give, then these."""
    return *(word for flag in FLAGS.items() if flag[0] not in arguments for word in flag), "--quiet", *arguments


QUICK = quick()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail and return its one sentence."""
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("vaco: ") and printed.err.count("\n") == 1, printed
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--env", "HalfCheeta-v5"), "HalfCheetah-v5"),
        (("--env", "HalfCheetah"), "did you mean 'HalfCheetah-v"),
        (("--env", "Pendulum-v1", "--backend", "batched"), "leave the backend at 'auto'"),
        (("--checkpoint-seconds", "nan"), "between 0 and 300"),
        (("--algorithm", "vaca"), "did you mean 'vaco'?"),
        (("--algorithm", "vaco+"), "there is no"),
        (("--lag", "0"), "lag is 0"),
        (("--lag", "two"), "the lag is 'two', but it must be a whole number K or one of uniform:K"),
        (("--steps", "-1"), "steps is -1"),
        (("--steps", "100"), "one phase alone takes"),
        (("--seed", "-1"), "seed is -1"),
        (("--set", "delta=0"), "delta is 0.0"),
        (("--set", "delta=.nan"), "finite"),
        (("--set", "clip=0.3"), "clip is 0.3, but 'vaco' does not read it"),
        (("--algorithm", "ppo", "--set", "delta=1"), "delta is 1.0, but 'ppo' does not read it"),
        (("--set", "minibatch=4096"), "larger than the batch"),
        (("--set", "learning_rte=1"), "did you mean 'learning_rate'?"),
        (("--set", "epochs"), "--set NAME=VALUE"),
        (("--set", "env=2024-99-99"), "YAML cannot read"),
        (("--set", "epochs=!!int x"), "YAML cannot read"),
        (("--set", "kl_adaptive=!!bool x"), "YAML cannot read"),
        (("--set", "env=!!timestamp x"), "YAML cannot read"),
        (("--set", f"epochs={'9' * 400}"), "too large"),
        (("--config", "nowhere.yaml"), "cannot be read"),
        (("--nonsense",), "unrecognized arguments"),
        (("--wait", "nan"), "cannot wait for nan seconds"),
        (("--wait", "-1"), "cannot wait for -1.0 seconds"),
        (("--wait", "inf"), "cannot wait for inf seconds"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "train", "--out", str(tmp_path / "run"), *quick(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_unknown_commands_and_tiers(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'train'?" in refused(capsys, "trian")
    assert "smoke" in refused(capsys, "estimate", "--tier", "smok")
    assert "--out" in refused(capsys, "train", "--env", "Hopper-v5")
    assert "--run DIR" in refused(capsys, "evaluate")
    assert "belongs to --random" in refused(capsys, "evaluate", "--run", "x", "--env", "Hopper-v5")
    arguments = ("--random", "--env", "Hopper-v5", "--out", "/proc/nowhere/x.json")
    assert "cannot be written" in refused(capsys, "evaluate", *arguments)
    assert "give --env" in refused(capsys, "evaluate", "--random")
    assert "episodes is 0" in refused(capsys, "evaluate", "--random", "--env", "Hopper-v5", "--episodes", "0")


def test_a_folder_that_holds_a_different_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert cli.run(["train", "--out", str(out), *QUICK]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert "seed" in refused(capsys, "train", "--out", str(out), *QUICK, "--seed", "1")
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_an_unfinished_run_of_other_settings_or_code_is_discarded_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Snakemake asks for it: a job that runs has been decided on, whatever lies in its folder."""
    out = tmp_path / "run"
    command = ("train", "--out", str(out), *QUICK)

    def begun(config_hash: str, version: int) -> None:
        checkpoint.save(out / "checkpoints", progress=1, arrays={"x": np.ones(1)}, meta={})
        run = {"config_hash": config_hash, "training_version": version}
        write_json(out / "run.json", {"schema": 2, **run, "config": {}})

    begun("other", 1)
    assert "another configuration" in refused(capsys, *command)
    assert cli.run([*command, "--discard-other"]) == 0
    done = json.loads((out / "manifest.json").read_text())
    assert "was discarded" in capsys.readouterr().err

    # The same settings, another training version; and a finished run is never discarded.
    (out / "manifest.json").unlink()
    begun(done["config_hash"], 7)
    assert "of training version 7, and the code here has version 1" in refused(capsys, *command)
    assert cli.run([*command, "--discard-other"]) == 0 and "was discarded" in capsys.readouterr().err
    before = (out / "manifest.json").read_bytes()
    assert "another configuration" in refused(capsys, *command, "--seed", "1", "--discard-other")
    assert (out / "manifest.json").read_bytes() == before
    # Other source of the same version is the same run.
    write_json(out / "manifest.json", json.loads(before) | {"source_digest": "f" * 16, "revision": "f" * 40})
    assert cli.run(command) == 0 and "nothing to do" in capsys.readouterr().err
    # A mistyped folder must not read as advice to delete what is in it.
    assert "delete the folder" not in refused(capsys, *command, "--seed", "1")

    # What can be continued is.
    run = RunId(done["config_hash"], done["training_version"])
    assert not discard_other(out, run, build)
    (out / "manifest.json").unlink()
    begun(run.config_hash, run.version)
    assert not discard_other(out, run, build) and (out / "checkpoints").is_dir()


@pytest.mark.parametrize("command", [("train", *QUICK), ("lm", "train", "--set", "warm_target=0", "--quiet")])
def test_a_job_that_is_not_what_was_planned_stops_and_leaves_nothing(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--out", str(tmp_path / "run"))
    said = refused(capsys, *command, *out, "--run-id", "0123456789abcdef-v1")
    assert "planned as run 0123456789abcdef-v1, but" in said and "nothing was trained" in said
    here = said.split("it would be ")[1].split(":")[0]
    assert "start the workflow again" in refused(capsys, *command, *out, "--run-id", here.replace("-v1", "-v2"))
    monkeypatch.setenv(PLANNED, "0" * 16)
    said = refused(capsys, *command, *out, "--run-id", here)
    assert f"(source {'0' * 16} then, {source_digest()} now)" in said
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_what_was_planned_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLANNED, source_digest())
    run = build({"env": "Hopper-v5", "steps": 2048, "eval_points": 1, "eval_episodes": 1}).run_id
    assert cli.run(["train", "--out", str(tmp_path / "run"), *QUICK, "--run-id", str(run)]) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert RunId(manifest["config_hash"], manifest["training_version"]) == run
    assert manifest["source_digest"] == source_digest()


def test_a_folder_that_holds_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert "thesis.tex" in refused(capsys, "train", "--out", str(tmp_path), *QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/proc" in refused(capsys, "train", "--out", "/proc/run", *QUICK)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk, so that it needs no privileges; checkpoints exceed it."""
    out = tmp_path / "run"
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "from vaco.__main__ import main; main()"
    )
    arguments = ["train", "--out", str(out), *quick("--steps", "8192", "--checkpoint-seconds", "0")]
    done = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("vaco: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.tmp*")) and not (out / "manifest.json").exists()
    assert cli.run(arguments) == 0 and (out / "manifest.json").exists()


def test_hostile_names_are_refused_as_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("$(touch hit)", "; touch hit", "../../etc/passwd", "Hopper-v5\n", ""):
        refused(capsys, "train", "--out", str(tmp_path / "run"), "--env", name, *QUICK[2:])
    assert list(tmp_path.iterdir()) == [] and not Path("hit").exists()


def test_the_table_lists_every_algorithm_and_filter(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["algorithms"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*ALIASES, *FILTERS, "once", "continuous"))


def test_settings_come_from_file_then_set_then_flags(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("epochs: 7\ndelta: 0.3\nenv: Ant-v5\n")
    out = tmp_path / "run"
    settings = ("--config", str(tmp_path / "settings.yaml"), "--set", "epochs=2")
    assert cli.run(["train", "--out", str(out), *settings, *QUICK]) == 0
    config = json.loads((out / "manifest.json").read_text())["config"]
    assert (config["epochs"], config["delta"], config["env"]) == (2, 0.3, "Hopper-v5")


def test_evaluate_a_finished_run_and_random_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, result = tmp_path / "run", tmp_path / "results" / "policy.json"
    assert cli.run(["train", "--out", str(out), *QUICK]) == 0
    assert cli.run(["evaluate", "--run", str(out), "--episodes", "3", "--out", str(result)]) == 0
    policy = json.loads(result.read_text())
    assert policy["episodes"] == 3 == len(policy["returns"]) and policy["env"] == "Hopper-v5"
    assert cli.run(["evaluate", "--random", "--env", "Hopper-v5", "--episodes", "3", "--out", str(result)]) == 0
    random = json.loads(result.read_text())
    assert random["policy"] == "uniform random" and "source_hash" not in random
    assert random["versions"]["mujoco"]
    assert "Hopper-v5" in capsys.readouterr().out
    assert len(read_parquet(out / "evals.parquet")["mean"]) == 2


def test_a_run_of_a_language_model_is_not_evaluated_on_a_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"identity": {"task": "chain_sum", "seed": 0}}))
    assert "vaco lm evaluate --run" in refused(capsys, "evaluate", "--run", str(tmp_path))
    for other in ("[]", '{"identity": []}', '{"identity": {"env": "Hopper-v5"}}'):
        (tmp_path / "manifest.json").write_text(other)
        assert "holds no policy.safetensors" in refused(capsys, "evaluate", "--run", str(tmp_path))


def test_progress_is_one_line_a_percent_when_not_on_a_terminal(tmp_path: Path) -> None:
    arguments = [argument for argument in quick("--steps", "6144") if argument != "--quiet"]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "vaco", "train", "--out", str(tmp_path / "run"), *arguments],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert len(lines) == 3 and lines[-1].startswith("Hopper-v5 vaco lag1 seed0  100 %")
    assert all(word in lines[-1] for word in ("eval", "lag", "kept", "steps/s", "left"))


def test_help_of_train_lists_every_setting_with_meaning_range_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    from vaco.runs.config import SETTINGS

    with pytest.raises(SystemExit):
        cli.run(["train", "--help"])
    listed = capsys.readouterr().out.partition("settings, each for")[2]
    words = " ".join(listed.split())
    for name, field in SETTINGS.items():
        assert f"{name} {' '.join(str(field.description).split())} (" in words, name
    assert "one of auto, batched, gymnasium; default auto)" in words and "(≥ 1; default 16)" in words
