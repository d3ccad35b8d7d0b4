"""The DAG with a real Snakemake: what it would run, what reruns after which edit, and what it never runs.

A test costs some seconds for each call, so the calls follow each other in few tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Snakemake

from vaco.campaign.tiers import load_tier
from vaco.runs.lock import RunLock
from vaco.runs.tables import read_json, write_json


def jobs(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Rule and number of jobs from the table that Snakemake prints."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", done.stdout + done.stderr, re.MULTILINE | re.DOTALL)
    return Counter({line.split()[0]: int(line.split()[1]) for line in table.group(1).splitlines()} if table else {})


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


PRODUCTS = {"tables_of_tier": 1, "tier_readme": 1, "demonstration_data": 1, "all_figures": 1}


@pytest.mark.parametrize(
    ("tier", "runs", "tasks", "figures", "typeset"),
    [
        ("smoke", 24, 2, 11, 2),
        ("desk", 615, 3, 16, 3),
        ("paper", 1440, 6, 11, 2),
    ],
)
def test_every_tier_dry_runs_in_full(
    snakemake: Snakemake, tier: str, runs: int, tasks: int, figures: int, typeset: int
) -> None:
    """The paper tier without being told to leave out its language models, which need a GPU."""
    planned = jobs(snakemake("-n", tier=tier, lm_tier="auto" if tier == "paper" else "none", runs="all"))
    expected = PRODUCTS | {"archive": 1, "train": runs, "reference": tasks, "figure": figures, "typeset": typeset}
    # The numbers of the prose are of the desk tier and of its language models, which are left out here.
    assert planned == Counter(expected | {"explorer": 1} if tier in ("desk",) else expected)


def test_the_training_command_is_made_of_what_the_run_is(repository: Path, snakemake: Snakemake) -> None:
    done = snakemake("-n", "--printshellcmds", "runs", tier="tiny", runs="missing")
    assert jobs(done) == Counter({"train": 4, "runs": 1})
    config = load_tier(repository / "config/tiny.yaml").find("InvertedPendulum-v5", "vaco", 4, 0).config
    folder = f"results/runs/InvertedPendulum-v5/once+tv/lag4/seed0/{config.run_id}"
    assert (
        "vaco train --env InvertedPendulum-v5 --algorithm once+tv --lag 4 --seed 0 --steps 12288 --eval-points 2 "
        f"--eval-episodes 1 --out {folder} --run-id {config.run_id} --quiet > "
        f"logs/train/InvertedPendulum-v5/once+tv/lag4/seed0/{config.run_id}.log 2>&1"
    ) in said(done)


@pytest.mark.slow
def test_from_nothing_to_figures_and_what_reruns_after_an_edit(repository: Path, snakemake: Snakemake) -> None:
    def make(*flags: str, **more: str) -> subprocess.CompletedProcess[str]:
        wanted = ("aggregate_scores", "score_table")
        return snakemake(
            *wanted, *flags, tier="tiny", lm_tier="none", runs="missing", bootstrap="{repetitions: 100}", **more
        )

    made = {"aggregate_scores": 1, "figure": 1, "score_table": 1, "typeset": 1}
    drawn = {"tables_of_tier": 1, **made}
    everything = drawn | {"train": 4, "reference": 1, "archive": 1}
    assert jobs(make()) == Counter(everything)
    for path in (
        "figures/tiny/aggregate_scores.pdf",
        "figures/tiny/aggregate_scores.png",
        "tables/tiny/score_table.tex",
    ):
        assert (repository / "build/paper" / path).stat().st_size > 100
    assert jobs(make("-n")) == Counter()

    def edit(path: str, text: str = "\n\nEDITED = 1\n") -> None:
        with (repository / path).open("a") as stream:
            stream.write(text)

    # A figure's module redraws that figure; the source of training trains nothing, whatever is edited there.
    edit("src/vaco/report/figures/aggregate_scores.py")
    assert jobs(make("-n")) == Counter({"aggregate_scores": 1, "figure": 1})
    for path in ("src/vaco/objectives/filters.py", "src/vaco/control/learner.py", "src/vaco/runs/config.py"):
        edit(path)
    assert jobs(make("-n")) == Counter({"aggregate_scores": 1, "figure": 1})
    # Nor does another alias of a pair, nor another tier that asks for the same.
    (repository / "config/other.yaml").write_text(
        (repository / "config/tiny.yaml").read_text().replace("tier: tiny", "tier: other").replace("vaco", "once+tv")
    )
    assert "train" not in jobs(snakemake("-n", tier="other", lm_tier="none", runs="missing"))
    # One more seed trains that seed, and what is made of the tier is made again.
    tier = repository / "config/tiny.yaml"
    tier.write_text(tier.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    assert jobs(make()) == Counter(everything) - Counter({"reference": 1})
    assert len(list((repository / "results/runs").rglob("manifest.json"))) == 8
    # Archived and published, it is drawn without a rule that could train; what is missing stands in the captions.
    tier.write_text(tier.read_text().replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    (repository / "results/tiny").mkdir()
    (repository / "build/results/tiny/archive").rename(repository / "results/tiny/archive")
    published = snakemake("aggregate_scores", tier="tiny", lm_tier="none", bootstrap="{repetitions: 100}")
    assert jobs(published) == Counter({"tables_of_tier": 1, "aggregate_scores": 1, "figure": 1})
    sidecar = read_json(repository / "build/paper/figures/tiny/aggregate_scores.json")
    assert len(sidecar["missing"]) == 4 and "Incomplete: 4 of 12" in sidecar["caption"]
    assert jobs(snakemake("-n", "runs", tier="tiny", lm_tier="none", runs="missing"))["train"] == 4
    assert jobs(snakemake("-n", "runs", tier="tiny", lm_tier="none", runs="all"))["train"] == 4  # the others are here


@pytest.mark.slow
def test_a_tier_may_list_tasks_that_gymnasium_alone_steps(repository: Path, snakemake: Snakemake) -> None:
    text = (repository / "config/tiny.yaml").read_text().replace("tier: tiny", "tier: classic")
    text = text.replace("steps: 12288", "steps: 16384\ntraining: {learning_rate: 0.001, normalise_rewards: false}")
    (repository / "config/classic.yaml").write_text(text.replace("InvertedPendulum-v5", "CartPole-v1"))
    made = snakemake("aggregate_scores", tier="classic", lm_tier="none", runs="missing")
    assert jobs(made)["train"] == 4 and jobs(made)["reference"] == 1
    manifests = [read_json(path) for path in (repository / "results/runs/CartPole-v1").rglob("manifest.json")]
    assert [manifest["config"]["backend"] for manifest in manifests] == ["gymnasium"] * 4
    caption = read_json(repository / "build/paper/figures/classic/aggregate_scores.json")["caption"]
    assert "1 task (CartPole-v1)" in caption and "restarted" not in caption


@pytest.mark.slow
def test_code_edited_under_way_stops_the_jobs_that_would_import_it(repository: Path, snakemake: Snakemake) -> None:
    """They would carry a name that nobody planned them with, and be kept once the edit is undone."""
    path = repository / "src/vaco/control/adam.py"
    source, folder = path.read_text(), repository / "results/runs"

    def edit() -> None:
        while not list(folder.rglob("manifest.json")):
            time.sleep(0.05)
        path.write_text(source + "\n# edited\n")

    editor = threading.Thread(target=edit)
    editor.start()
    done = snakemake("runs", "--keep-going", tier="tiny", runs="missing")
    editor.join()
    assert done.returncode != 0
    logs = [log.read_text() for log in (repository / "logs/train").rglob("*.log")]
    assert any("the training code was edited after the workflow was planned" in log for log in logs)
    digests = {read_json(found)["source_digest"] for found in folder.rglob("manifest.json")}
    assert len(digests) == 1 and not list(folder.rglob("run.json"))
    path.write_text(source)
    assert jobs(snakemake("runs", tier="tiny", runs="missing"))["train"] == 4 - sum("edited" not in log for log in logs)
    assert {read_json(found)["source_digest"] for found in folder.rglob("manifest.json")} == digests


def test_a_job_waits_for_who_is_at_work_and_gives_up_what_other_settings_began(
    repository: Path, snakemake: Snakemake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a Snakemake was killed: a process of it is at work on what an edited tier no longer asks for."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    place = load_tier(repository / "config/tiny.yaml").find("InvertedPendulum-v5", "ppo", 1, 0).config.place
    folder, log = repository / "results/runs" / place, repository / f"logs/train/{place}.log"
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {"schema": 2, "config_hash": "other", "training_version": 1, "config": {}})
    lock, over = RunLock(folder / "run.lock"), threading.Event()
    lock.acquire()

    def leave() -> None:
        while not over.wait(0.1) and not (log.is_file() and "waiting up to" in log.read_text()):
            pass
        lock.release()

    leaver = threading.Thread(target=leave)
    leaver.start()
    done = snakemake(f"results/runs/{place}/manifest.json", tier="tiny", runs="missing")
    over.set()
    leaver.join()
    text = log.read_text()
    assert done.returncode == 0 and "was discarded" in text, done.stderr + text
    # For as long as a job may ask for, here eleven minutes; some seconds of them are gone before it is said.
    assert 300 < int(re.findall(r"waiting up to (\d+) s", text)[0]) <= 660


def test_language_models_share_one_warm_start_which_finished_runs_do_not_need(
    repository: Path, snakemake: Snakemake
) -> None:
    text = (repository / "config/lm_smoke.yaml").read_text().split("studies:")[0].replace("lm_smoke", "lm_tiny")
    text = text.replace("[ppo, vaco]", "[vaco]").replace("[1, 8]", "[1]")
    (repository / "config/lm_tiny.yaml").write_text(text.replace("seeds: [0]", "seeds: [0, 1, 2]"))

    def planned() -> Counter[str]:
        return jobs(snakemake("-n", "lm_runs", tier="tiny", lm_tier="lm_tiny", runs="missing"))

    assert planned() == Counter({"warm_start": 1, "lm_train": 3, "lm_runs": 1})
    from vaco.lm.tiers import load_lm_tier

    first, *_ = load_lm_tier(repository / "config/lm_tiny.yaml").runs
    folder = repository / "results/runs" / first.config.place
    folder.mkdir(parents=True)
    for name in ("manifest.json", "phases.parquet", "evals.parquet"):
        (folder / name).write_text("{}")
    assert planned() == Counter({"warm_start": 1, "lm_train": 2, "lm_runs": 1})


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    """One sentence, the last of what is said, without frames of Snakemake's own. `tests/test_dag.py` has the others."""
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(message), done.stderr
    assert not re.search(r'Traceback|Error|File "|\.smk|line \d', said(done))


def test_a_mistake_in_the_configuration_is_one_sentence(snakemake: Snakemake) -> None:
    done = snakemake("-n", runz="all")
    refused(done, "vaco: --config: unknown key 'runz' at the top level: did you mean 'runs'?")


def test_reading_the_workflow_loads_no_pytorch_and_a_mistake_in_the_dag_is_one_sentence(repository: Path) -> None:
    """Every job of a cluster reads it anew, twice: a second and 200 MB or more each time. No archive here, so that the
    default target is refused, while the DAG is built, since other targets could be asked for."""
    code = (
        "import sys\nfrom snakemake.cli import main\n"
        "try:\n    main(['-n', '--cores', '1', '--config', 'tier=desk'])\n"
        "finally:\n    print('vaco.dag' in sys.modules, 'torch._C' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository / "src")},
        capture_output=True,
        text=True,
    )
    refused(done, "vaco: the tier 'desk' has no published archive")
    assert done.stdout.splitlines()[-1] == "True False"
    assert not list((repository / ".snakemake").glob("locks/*"))


def test_behind_config_a_target_needs_two_dashes(snakemake: Snakemake) -> None:
    """As config/README.md says: Snakemake itself takes the word for a setting, before it reads any Snakefile."""
    settings = ("--config", "tier=tiny", "runs=missing", "lm_tier=none")
    assert jobs(snakemake("-n", *settings, "--", "runs")) == Counter({"train": 4, "runs": 1})
    swallowed = snakemake("-n", *settings, "runs")
    assert swallowed.returncode == 1 and "(Unparsable value: 'runs')" in said(swallowed)


def test_what_is_not_concerned_by_a_mistake_works(snakemake: Snakemake) -> None:
    """No archive here, so the default target is refused; all else works."""
    for arguments in (("--list",), ("--unlock",), ("-n", "book", "theory_numbers")):
        done = snakemake(*arguments)
        assert done.returncode == 0, (arguments, said(done)[-2000:])


def test_a_rule_that_inherits_its_command_runs(repository: Path, snakemake: Snakemake) -> None:
    """Its environment's file is found, too, which Snakemake reads whether or not it is used."""
    made = "build/results/references/InvertedPendulum-v5-2-0.json"
    done = snakemake(made)
    assert jobs(done) == Counter({"reference": 1}) and read_json(repository / made)["episodes"] == 2, said(done)
    assert (repository / "logs/reference/InvertedPendulum-v5-2-0.log").read_text().startswith("InvertedPendulum-v5")


def test_the_matrix_of_conformance_is_made_by_name_from_an_environment_of_its_own(
    repository: Path, snakemake: Snakemake
) -> None:
    """With this environment in place of one that holds the libraries, which is why all of them may be missing."""
    (repository / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/conformance-matrix.sh", repository / "scripts")
    binary = repository / ".venv-conformance/bin"
    binary.mkdir(parents=True)
    (binary / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (binary / "python").chmod(0o755)
    done = snakemake("conformance")
    assert jobs(done) == Counter({"conformance": 1}), said(done)
    rows = read_json(repository / "build/results/conformance/matrix.json")
    assert {row["package"] for row in rows} > {"trl", "torchrl", "ray"} and len(rows) > 30
    assert "| library | your flag |" in (repository / "build/results/conformance/matrix.md").read_text()
    for path, expected in (("report/sources.py", 0), ("objectives/zoo.py", 1)):
        with (repository / "src/vaco" / path).open("a") as stream:
            stream.write("\n\nEDITED = 1\n")
        assert jobs(snakemake("-n", "conformance"))["conformance"] == expected


def test_the_layout_is_that_of_the_catalogue() -> None:
    for path in ("workflow/Snakefile", "config/README.md", ".snakemake-workflow-catalog.yml", "profiles/README.md"):
        assert (ROOT / path).is_file(), path
    figures = yaml.safe_load((ROOT / "workflow/figures.yaml").read_text(encoding="utf-8"))
    studies = {name for found in figures["studies"].values() for name in found}
    listed = {*figures["figures"], *studies, *figures["language"], *figures["demonstrations"]}
    assert all((ROOT / f"src/vaco/report/figures/{name}.py").is_file() for name in listed)
    assert all((ROOT / f"src/vaco/report/tables/{name}.py").is_file() for name in figures["typeset"])
