"""The workflow used from elsewhere: as a module, as snakedeploy lays it out, from another folder; and its report."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, call, git
from test_workflow import jobs, said

MODULE = """
configfile: "config/config.yaml"


module vaco:
    snakefile:
        "{snakefile}"
    config:
        config


use rule * from vaco
"""
REFERENCE = "build/results/references/InvertedPendulum-v5-2-0.json"
PLANNED = Counter({"reference": 1, "train": 4, "archive": 1, "tables_of_tier": 1, "tables": 1})
TINY = ("--config", "tier=tiny", "lm_tier=none", "runs=missing")


def deployed(repository: Path, place: Path) -> Path:
    """What `snakedeploy deploy-workflow` makes: configuration and profiles, and a Snakefile that names the workflow."""
    for part in ("config", "profiles"):
        shutil.copytree(repository / part, place / part)
    (place / "workflow").mkdir()
    (place / "workflow" / "Snakefile").write_text(MODULE.format(snakefile=repository / "workflow" / "Snakefile"))
    return place


def test_as_a_module_it_plans_the_same_and_its_rules_run(repository: Path, tmp_path: Path) -> None:
    place, source = deployed(repository, tmp_path / "deployed"), str(repository / "src")
    planned = call(place, "snakemake", "-n", "--cores", "1", "tables", *TINY, PYTHONPATH=source)
    assert jobs(planned) == PLANNED, said(planned)
    done = call(place, "snakemake", "--cores", "1", REFERENCE, PYTHONPATH=source)
    assert jobs(done) == Counter({"reference": 1}) and json.loads((place / REFERENCE).read_text())["episodes"] == 2
    # Nothing is made where the workflow lies, and what is missing here is one sentence.
    assert not (repository / "build").exists()
    missing = call(place, "snakemake", "-n", "--cores", "1", PYTHONPATH=source)
    assert missing.returncode == 2 and "the tier 'desk' has no published archive" in said(missing)


def test_from_another_folder_it_works_there(repository: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    shutil.copytree(repository / "config", place / "config")
    words = ("snakemake", "-n", "--cores", "1", "-s", str(repository / "workflow" / "Snakefile"), "tables", *TINY)
    assert jobs(call(place, *words, PYTHONPATH=str(repository / "src"))) == PLANNED


def test_snakedeploy_itself_deploys_it(origin: Path, tmp_path: Path) -> None:
    if not Path(sys.executable).with_name("snakedeploy").is_file():
        pytest.skip("snakedeploy is not installed beside this Python")
    place = tmp_path / "deployed"
    place.mkdir()
    done = call(place, "snakedeploy", "deploy-workflow", str(origin), str(place), "--branch", "main", "--name", "vaco")
    assert done.returncode == 0, done.stderr
    snakefile = place / "workflow" / "Snakefile"
    text = snakefile.read_text()
    assert "module vaco:" in text and text.count('"workflow/Snakefile"') == 1
    # Of a repository that is a folder it writes no path.
    snakefile.write_text(text.replace('"workflow/Snakefile"', f'"{origin}/workflow/Snakefile"'))
    words = ("-n", "--cores", "1", "runs", "--config", "tier=smoke", "lm_tier=none", "runs=missing")
    planned = call(place, "snakemake", *words, PYTHONPATH=str(origin / "src"))
    assert jobs(planned)["train"] == 24, said(planned)


@pytest.mark.slow
def test_its_report_groups_figures_by_claims_and_links_them_to_the_book(clone: Path) -> None:
    targets = ("filter_and_alignment", "policy_ages", "hyperparameters")
    few = ("--config", "bootstrap={repetitions: 100}")
    assert call(clone, "snakemake", "--cores", "1", *targets, *few).returncode == 0
    done = call(clone, "snakemake", "--cores", "1", *targets, "--report", "report.html", *few)
    assert done.returncode == 0, said(done)
    page = (clone / "report.html").read_text()
    for category, figure in (("Filter", targets[0]), ("Asynchrony, simulated", targets[1])):
        assert f'"{category}"' in page and figure in page
    for link in (
        "method.html#filter",
        "policy_lag.html#asynchrony-simulated",
        "experiments.html#table-1-hyper-parameters",
    ):
        assert f"paper/book/_build/html/{link}" in page, link
    assert (ROOT / "paper/book/method.md").is_file() and git(clone, "status", "--porcelain") == "?? report.html\n"
