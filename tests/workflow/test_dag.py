"""The DAG with a real Snakemake: what it would run, what reruns after which edit, and what it never runs.

A test costs some seconds for each call, so the calls follow each other in few tests.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Snakemake

from vaco.runs.lock import RunLock
from vaco.runs.tables import read_json, write_json
from vaco.runs.tiers import load_tier


def jobs(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Rule and number of jobs from the table that Snakemake prints."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", done.stdout + done.stderr, re.MULTILINE | re.DOTALL)
    return Counter({line.split()[0]: int(line.split()[1]) for line in table.group(1).splitlines()} if table else {})


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


PRODUCTS = {"tables_of_tier": 1, "tier_readme": 1, "schematic_figure": 2, "schematic_data": 1, "everything": 1}


@pytest.mark.parametrize(
    ("tier", "runs", "tasks", "figures", "typeset"),
    [
        ("smoke", 72, 3, 9, 2),
        ("desk", 615, 3, 14, 3),
        pytest.param("paper", 1440, 6, 9, 2, marks=pytest.mark.slow),
    ],
)
def test_every_tier_dry_runs_in_full(
    snakemake: Snakemake, tier: str, runs: int, tasks: int, figures: int, typeset: int
) -> None:
    planned = jobs(snakemake("-n", tier=tier, lm_tier="none", runs="all"))
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
        wanted = ("figure3", "score_table")
        return snakemake(
            *wanted, *flags, tier="tiny", lm_tier="none", runs="missing", bootstrap="{repetitions: 100}", **more
        )

    made = {"figure3": 1, "figure": 1, "score_table": 1, "typeset": 1}
    drawn = {"tables_of_tier": 1, **made}
    everything = drawn | {"train": 4, "reference": 1, "archive": 1}
    assert jobs(make()) == Counter(everything)
    for path in ("figures/tiny/figure3.pdf", "figures/tiny/figure3.png", "tables/tiny/score_table.tex"):
        assert (repository / "build/paper" / path).stat().st_size > 100
    assert jobs(make("-n")) == Counter()

    def edit(path: str, text: str = "\n\nEDITED = 1\n") -> None:
        with (repository / path).open("a") as stream:
            stream.write(text)

    # A figure's module redraws that figure; the source of training trains nothing, whatever is edited there.
    edit("src/vaco/report/figure3.py")
    assert jobs(make("-n")) == Counter({"figure3": 1, "figure": 1})
    for path in ("src/vaco/objectives/filters.py", "src/vaco/control/learner.py", "src/vaco/runs/config.py"):
        edit(path)
    assert jobs(make("-n")) == Counter({"figure3": 1, "figure": 1})
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
    published = snakemake("figure3", tier="tiny", lm_tier="none", bootstrap="{repetitions: 100}")
    assert jobs(published) == Counter({"tables_of_tier": 1, "figure3": 1, "figure": 1})
    sidecar = read_json(repository / "build/paper/figures/tiny/figure3.json")
    assert len(sidecar["missing"]) == 4 and "Incomplete: 4 of 12" in sidecar["caption"]
    assert jobs(snakemake("-n", "runs", tier="tiny", lm_tier="none", runs="missing"))["train"] == 4
    assert jobs(snakemake("-n", "runs", tier="tiny", lm_tier="none", runs="all"))["train"] == 4  # the others are here


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
    # For as long as a run may take, here ten minutes; some seconds of them are gone before it is said.
    assert 300 < int(re.findall(r"waiting up to (\d+) s", text)[0]) <= 600


def test_language_models_share_one_warm_start_which_finished_runs_do_not_need(
    repository: Path, snakemake: Snakemake
) -> None:
    text = (repository / "config/lm_smoke.yaml").read_text().split("studies:")[0].replace("lm_smoke", "lm_tiny")
    text = text.replace("[ppo, vaco, decoupled, a3po, cispo]", "[vaco]").replace("[1, 8]", "[1]")
    (repository / "config/lm_tiny.yaml").write_text(text.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))

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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"runz": "all"}, "config/config.yaml: unknown key 'runz' at the top level: did you mean 'runs'?"),
        ({"runs": "al"}, "config/config.yaml: 'runs' is \"al\""),
        ({"tier": "smokey"}, "there is no tier 'smokey' (no file config/smokey.yaml): did you mean 'smoke'?"),
        ({"tier": "smoke", "lm_tier": "none"}, "snakemake --cores 2 --config tier=smoke runs=missing"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_sentence(
    snakemake: Snakemake, setting: dict[str, str], message: str
) -> None:
    done = snakemake("-n", **setting)
    assert done.returncode != 0 and "Traceback (most recent call last)" not in said(done)
    assert message in said(done)


def test_what_is_not_concerned_by_a_mistake_works(snakemake: Snakemake) -> None:
    """No archive here, so the default target is refused; all else works."""
    for arguments in (("--list",), ("--unlock",), ("-n", "book"), ("-n", "theory_numbers")):
        done = snakemake(*arguments)
        assert done.returncode == 0, (arguments, said(done)[-2000:])


def test_the_layout_is_that_of_the_catalogue() -> None:
    for path in ("workflow/Snakefile", "config/README.md", ".snakemake-workflow-catalog.yml", "profiles/README.md"):
        assert (ROOT / path).is_file(), path
    figures = yaml.safe_load((ROOT / "workflow/figures.yaml").read_text(encoding="utf-8"))
    studies = {name for found in figures["studies"].values() for name in found}
    listed = {*figures["figures"], *studies, *figures["language"], *figures["typeset"], *figures["schematic"]}
    assert all((ROOT / f"src/vaco/report/{name}.py").is_file() for name in listed)
