"""The DAG with a real Snakemake: what it would run, what reruns after which edit, and what it never runs.

A test costs some seconds for each call, so the calls follow each other in few tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from vaco.lm.verify import LANGUAGE
from vaco.runs.stale import stale_runs

from vaco.lm.tiers import load_lm_tier
from vaco.runs.kinds import CONTROL, Kind
from vaco.runs.lock import RunLock
from vaco.runs.provenance import language_hash
from vaco.runs.tables import write_json
from vaco.runs.tiers import load_tier

ROOT = Path(__file__).parents[2]
Snakemake = Callable[..., "subprocess.CompletedProcess[str]"]
# Drawn for real where one stands for all; each takes seconds.
DRAWN = {"factorial", "constraint"}

REPORTING = {"figure3", "figure4", "curves", "scores", "diagnostics", "profiles", "improvement", "rank_stability"}
REPORTING |= {"constraint"}
TYPESET = {"hyperparameters", "score_table"}
# Figures 1 and 2 belong to no tier; their measurements are tracked, which the copy for these tests leaves out.
SCHEMATIC = {"figure1", "figure2", "measured_asynchrony", "simulated_asynchrony", "method_data"}
DOWNSTREAM = {"aggregate": 1, "tier_readme": 1, "everything": 1}
DOWNSTREAM |= dict.fromkeys(REPORTING | TYPESET | SCHEMATIC, 1)
# Only the desk tier has studies, published results of its length, and the numbers of the prose.
STUDIES = {"factorial", "contributions", "cost", "sensitivity", "forward_lag"}
DESK = STUDIES | {"published", "numbers", "explorer"}


def jobs(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Rule and number of jobs from the table that a dry run prints."""
    assert done.returncode == 0, done.stdout + done.stderr
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", done.stdout + done.stderr, re.MULTILINE | re.DOTALL)
    return Counter({line.split()[0]: int(line.split()[1]) for line in table.group(1).splitlines()} if table else {})


@pytest.mark.parametrize(
    ("tier", "runs", "tasks"),
    [("smoke", 72, 3), ("desk", 615, 3), pytest.param("paper", 1440, 6, marks=pytest.mark.slow)],
)
def test_every_tier_dry_runs_in_full(snakemake: Snakemake, tier: str, runs: int, tasks: int) -> None:
    more = dict.fromkeys({"smoke": (), "desk": DESK, "paper": ("explorer",)}[tier], 1)
    assert jobs(snakemake("-n", tier=tier)) == Counter(DOWNSTREAM | more | {"train": runs, "reference": tasks})


def test_the_training_command_is_that_of_the_tier(snakemake: Snakemake) -> None:
    done = snakemake("-n", "--printshellcmds", "runs")
    assert jobs(done) == Counter({"train": 24, "runs": 1})
    path = "results/tiny/runs/Hopper-v5/vaco/lag8/seed1"
    expected = (
        f"vaco train --env Hopper-v5 --algorithm vaco --lag 8 --seed 1 --steps 20480 --out {path} --eval-points 4 "
        f"--eval-episodes 2 --quiet > logs/tiny/train/Hopper-v5/vaco/lag8/seed1.log 2>&1"
    )
    assert expected in done.stdout + done.stderr


@pytest.mark.slow
def test_from_finished_runs_to_figures_and_what_reruns_after_an_edit(finished: Path, snakemake: Snakemake) -> None:
    # Three products stand for all, since each takes seconds to make.
    made = {"figure3": 1, "figure4": 1, "score_table": 1}

    def make(*flags: str, **config: str) -> subprocess.CompletedProcess[str]:
        return snakemake(*made, *flags, bootstrap="{repetitions: 100}", **config)

    # A fresh clone: run folders, no memory of how they were made, file times of no meaning. Nothing trains.
    assert jobs(make()) == Counter(made | {"aggregate": 1})
    for path in ("figures/tiny/figure3.pdf", "figures/tiny/figure4.png", "tables/tiny/score_table.tex"):
        assert (finished / "paper" / path).stat().st_size > 100
    # Now Snakemake is told that the runs are what it would have made itself: from here on, edits are noticed.
    assert make("--touch", "--forceall").returncode == 0

    def edit(path: str) -> None:
        with (finished / path).open("a") as stream:
            stream.write("\n\nEDITED = 1\n")

    # A figure's module redraws that figure.
    edit("src/vaco/report/figure3.py")
    assert jobs(make("-n")) == Counter({"figure3": 1})

    # A filter retrains the runs of its algorithm, 2 tasks x 2 capacities x 2 seeds, and what is made of them.
    filters = finished / "src/vaco/objectives/filters.py"
    source = filters.read_text()
    assert source.count("def spo(") == 1
    start = source.index("return", source.index("def spo("))
    filters.write_text(source[:start] + "unused = 0\n    " + source[start:])
    assert jobs(make("-n")) == Counter(made | {"aggregate": 1, "train": 8})

    # What all algorithms share retrains everything.
    edit("src/vaco/lag.py")
    assert jobs(make("-n"))["train"] == 24

    # With redraw_only nothing can train, whatever was edited; nor with allow_missing.
    assert jobs(make("-n", redraw_only="true")).keys() & {"train", "aggregate"} == set()
    assert jobs(make("-n", allow_missing="true")).keys() & {"train", "aggregate"} == {"aggregate"}


def test_with_allow_missing_the_finished_runs_are_drawn(finished: Path, snakemake: Snakemake) -> None:
    (finished / "results/tiny/runs/Hopper-v5/vaco/lag8/seed1/manifest.json").unlink()
    assert jobs(snakemake("-n"))["train"] == 1
    done = snakemake("results/tiny/tables/summary.json", allow_missing="true")
    assert jobs(done) == Counter({"aggregate": 1})
    assert '"runs/Hopper-v5/vaco/lag8/seed1"' in (finished / "results/tiny/tables/summary.json").read_text()
    # Whatever would be made again, finished runs are not: the rule that would delete them first is left out.
    again = jobs(snakemake("-n", "--forceall", allow_missing="true"))
    assert again["reference"] == 2 and again["aggregate"] == 1 and again["train"] == 0


def test_a_tracked_tier_is_redrawn_without_training_and_continued_on_demand(
    clone_of_desk: Path, snakemake: Snakemake
) -> None:
    """A clone holds some runs, all tables and all figures of the desk tier, and no memory of how they were made."""
    figures, tables = clone_of_desk / "paper/figures/desk", clone_of_desk / "results/desk/tables"

    def products() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in figures.iterdir()}

    before = products()
    shutil.rmtree(figures)
    for path in tables.iterdir():  # a clone's file times are in the order of names, which means nothing
        path.touch()
    done = snakemake(*DRAWN, tier="desk", redraw_only="true")
    assert jobs(done) == Counter(dict.fromkeys(DRAWN, 1))
    assert products() == {name: content for name, content in before.items() if Path(name).stem in DRAWN}
    everything = jobs(snakemake("-n", tier="desk", redraw_only="true"))
    assert everything.keys() >= (STUDIES | REPORTING) - DRAWN and not everything.keys() & {
        "train",
        "aggregate",
    }
    # Asked for without redraw_only, the tier goes on where it stands, although every product is there.
    assert jobs(snakemake("-n", tier="desk"))["train"] == 615 - 2


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is tracked, with the file times of a checkout: the order in which names are written."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    parts = ("Snakefile", "workflow/", "profiles/", "config/", "src/", "benchmarks/", "paper/", "results/")
    names = sorted(name for name in listed.stdout.split("\0") if name.startswith(parts) and (ROOT / name).is_file())
    for second, name in enumerate(names):
        copied = tmp_path / "clone" / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copied)
        os.utime(copied, (second, second))
    return tmp_path / "clone"


@pytest.fixture
def planned(clone: Path) -> Callable[..., Counter[str]]:
    """What `snakemake all_figures` would do in the clone, by the default configuration or with changed settings."""
    tiers = (load_tier(ROOT / "config/desk.yaml"), CONTROL), (load_lm_tier(ROOT / "config/lm_desk.yaml"), LANGUAGE)
    if any(stale_runs(tier, kind, ROOT / "results") for tier, kind in tiers):
        pytest.skip("the source differs from that of the tracked runs, so the workflow stops; 'vaco stale' lists them")

    def plan(*settings: str) -> Counter[str]:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "all_figures", "--dry-run"]
        environment = os.environ | {"PYTHONPATH": str(clone / "src"), "OMP_NUM_THREADS": "1"}
        command += ["--config", *settings] if settings else []
        found = jobs(subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True))
        for manifest in clone.glob("results/*/runs/**/manifest.json"):  # as if it had not been asked
            os.utime(manifest, (0, 0))
        return found

    return plan


# All that has a table under it is drawn, as a checkout writes tables after figures; nothing is trained or computed.
PRODUCTS = {*REPORTING, *STUDIES, *TYPESET, "published", "numbers", "explorer", "tier_readme", "figure1", "figure2"}
REDRAWN = Counter(dict.fromkeys(PRODUCTS | {"figure5", "lm_curves", "lm_methods", "lm_cost", "all_figures"}, 1))


def test_a_fresh_clone_draws_the_tracked_tier_and_trains_only_what_was_deleted(
    clone: Path, planned: Callable[..., Counter[str]]
) -> None:
    assert planned() == REDRAWN
    # One file of a run first: a run of which nothing is left has the tables made, which would ask for that file, too.
    (clone / "results/desk/runs/Hopper-v5/ppo/lag16/seed3/evals.parquet").unlink()
    assert planned() == REDRAWN + Counter({"train": 1, "aggregate": 1})
    shutil.rmtree(clone / "results/desk/runs/Hopper-v5/vaco/lag16/seed3")
    assert planned() == REDRAWN + Counter({"train": 2, "aggregate": 1})


@pytest.mark.slow
def test_tables_of_a_clone_are_made_again_when_what_they_are_made_of_changes(
    clone: Path, planned: Callable[..., Counter[str]]
) -> None:
    """Although Snakemake has no record of how they were made."""
    assert planned("bootstrap={repetitions: 100}") == REDRAWN + Counter({"aggregate": 1})
    for path, change in (("src/vaco/report/power.py", "\n\nEDITED = 1\n"), ("config/desk.yaml", "\n# edited\n")):
        original = (clone / path).read_text()
        (clone / path).write_text(original.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [0, 1, 2, 3]") + change)
        assert planned("lm_tier=none")["aggregate"] == 1
        (clone / path).write_text(original)
    with (clone / "src/vaco/report/lm_aggregate.py").open("a") as stream:
        stream.write("\n\nEDITED = 1\n")
    assert planned() == REDRAWN + Counter({"lm_aggregate": 1})
    shutil.rmtree(clone / "results/desk/runs/Hopper-v5/vaco/lag16/seed3")
    assert planned("allow_missing=true")["aggregate"] == 1, "captions have to say that one is missing"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("desk", CONTROL), ("lm_desk", LANGUAGE)])
def test_the_tracked_runs_are_those_of_this_source(name: str, kind: Kind) -> None:
    """Whoever edits what training uses trains the tracked runs again before the change goes in."""
    load = load_tier if kind is CONTROL else load_lm_tier
    assert stale_runs(load(ROOT / f"config/{name}.yaml"), kind, ROOT / "results") == []


def test_runs_of_other_code_that_snakemake_did_not_make_are_not_mixed_with_new_ones(
    finished: Path, snakemake: Snakemake
) -> None:
    """A clone in which a filter was edited: Snakemake has no record of the runs, so it would keep them."""
    shutil.rmtree(finished / "results/tiny/runs/Hopper-v5/vaco/lag8/seed1")
    filters = finished / "src/vaco/objectives/filters.py"
    source = filters.read_text()
    start = source.index("return", source.index("def spo("))
    filters.write_text(source[:start] + "unused = 0\n    " + source[start:])
    refused = snakemake("-n", "runs")
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "Traceback" not in said
    assert "8 finished runs of the tier 'tiny'" in said and "(code of spo " in said and "vaco stale --tier tiny" in said
    # What trains nothing is not held up, and what was given up is trained again.
    assert jobs(snakemake("-n", "figure3", allow_missing="true"))["aggregate"] == 1
    for manifest in finished.glob("results/tiny/runs/*/spo/*/*/manifest.json"):
        manifest.unlink()
    assert jobs(snakemake("-n", "runs")) == Counter({"train": 9, "runs": 1})


def test_a_job_waits_for_who_is_at_work_and_gives_up_what_other_settings_began(
    repository: Path, snakemake: Snakemake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a Snakemake was killed: a process of it is at work on what an edited tier no longer asks for."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    tier = repository / "config" / "tiny.yaml"
    tier.write_text(
        tier.read_text().replace("20480", "2048").replace("points: 4, episodes: 2", "points: 1, episodes: 1")
    )
    run = "tiny/{}/Hopper-v5/ppo/lag1/seed0"
    folder, log = repository / "results" / run.format("runs"), repository / "logs" / f"{run.format('train')}.log"
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {"schema": 1, "config_hash": "other", "config": {}})
    lock, over = RunLock(folder / "run.lock"), threading.Event()
    lock.acquire()

    def leave() -> None:
        while not over.wait(0.1) and not (log.is_file() and "waiting up to" in log.read_text()):
            pass
        lock.release()

    leaver = threading.Thread(target=leave)
    leaver.start()
    done = snakemake(f"results/{run.format('runs')}/manifest.json")
    over.set()
    leaver.join()
    said = log.read_text()
    assert done.returncode == 0 and "was discarded" in said, done.stderr + said
    # For as long as a run may take, here ten minutes; some seconds of them are gone before it is said.
    assert 300 < int(re.findall(r"waiting up to (\d+) s", said)[0]) <= 600


def language_tier(repository: Path, seeds: str) -> list[Path]:
    """Write the tier `lm_tiny` and the manifests of its runs, as a fresh clone has them, without a warm start.

    Returns:
        The folders of the runs.
    """
    path = repository / "config/lm_tiny.yaml"
    text = (repository / "config/lm_smoke.yaml").read_text().split("studies:")[0].replace("lm_smoke", "lm_tiny")
    text = text.replace("[ppo, vaco, decoupled, a3po, cispo]", "[vaco]").replace("[1, 8]", "[1]")
    path.write_text(text.replace("seeds: [0, 1]", f"seeds: {seeds}"))
    folders = []
    for run in load_lm_tier(path).runs:
        folder = repository / "results" / run.folder
        folder.mkdir(parents=True)
        identity = {"identity": run.config.identity, "config_hash": run.config.hash, "source_hash": language_hash()}
        (folder / "manifest.json").write_text(json.dumps(identity))
        for name in ("phases.parquet", "evals.parquet"):
            (folder / name).write_text("")
        folders.append(folder)
    return folders


def test_without_the_warm_start_only_missing_language_models_are_trained(
    repository: Path, snakemake: Snakemake
) -> None:
    """Weights are not tracked, so a fresh clone has the runs without them."""
    folders = language_tier(repository, "[0, 1, 2]")
    assert len(folders) == 3 and jobs(snakemake("-n", "lm_runs", lm_tier="lm_tiny"))["lm_train"] == 0
    shutil.rmtree(folders[1])
    wanted = Counter({"lm_warm_start": 1, "lm_train": 1, "lm_runs": 1})
    assert jobs(snakemake("-n", "lm_runs", lm_tier="lm_tiny")) == wanted
    # With the weights made, by that run or by hand, the others stay as they are.
    (repository / "results/lm_tiny/warm_start.safetensors").write_text("")
    assert jobs(snakemake("-n", "lm_runs", lm_tier="lm_tiny")) == wanted - Counter({"lm_warm_start": 1})


def test_missing_language_models_are_trained_though_their_tables_are_tracked(
    repository: Path, snakemake: Snakemake
) -> None:
    """As after `vaco stale --tier lm_desk | xargs rm` in a fresh clone."""
    (folder,) = language_tier(repository, "[0]")
    for name in ("evals.parquet", "updates.parquet", "summary.json"):
        path = repository / "results/lm_tiny/tables" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    (folder / "manifest.json").unlink()
    planned = jobs(snakemake("-n", lm_tier="lm_tiny"))
    assert (planned["lm_train"], planned["lm_aggregate"]) == (1, 1)
    assert jobs(snakemake("-n", "figure5", lm_tier="lm_tiny", redraw_only="true"))["lm_train"] == 0


def test_settings_that_a_tier_of_language_models_shares_retrain_its_runs(
    repository: Path, snakemake: Snakemake
) -> None:
    (folder,) = language_tier(repository, "[0]")
    tier = repository / "config/lm_tiny.yaml"
    identity = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(identity | {"source_hash": "f" * 64}))
    refused = snakemake("-n", "lm_runs", lm_tier="lm_tiny")
    assert refused.returncode != 0 and "1 finished runs of the tier 'lm_tiny'" in refused.stdout + refused.stderr
    (folder / "manifest.json").write_text(json.dumps(identity))
    (folder.parents[5] / "warm_start.safetensors").write_text("")
    assert snakemake("lm_runs", "--touch", "--forceall", lm_tier="lm_tiny").returncode == 0

    tier.write_text(tier.read_text().replace(" learning_rate: 0.001", " learning_rate: 0.002"))
    assert jobs(snakemake("-n", "lm_runs", lm_tier="lm_tiny")) == Counter({"lm_train": 1, "lm_runs": 1})
    tier.write_text(tier.read_text().replace("warm_flaw: 0.4", "warm_flaw: 0.3"))
    assert jobs(snakemake("-n", "lm_runs", lm_tier="lm_tiny"))["lm_warm_start"] == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"redraw_onli": "true"},
            "config/config.yaml: unknown key 'redraw_onli' at the top level: did you mean 'redraw_only'?",
        ),
        ({"tier": "smokey"}, "there is no tier 'smokey' (no file config/smokey.yaml): did you mean 'smoke'?"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_sentence(
    snakemake: Snakemake, setting: dict[str, str], message: str
) -> None:
    done = snakemake("-n", **setting)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert message in done.stdout + done.stderr


def test_the_layout_is_that_of_the_catalogue() -> None:
    for path in ("workflow/Snakefile", "config/README.md", ".snakemake-workflow-catalog.yml", "profiles/README.md"):
        assert (ROOT / path).is_file(), path
    captions = {path.stem for path in (ROOT / "workflow/report").glob("*.rst")}
    ours = REPORTING | TYPESET | STUDIES | {"published", "figure1", "figure2"}
    # The language models' figures have rules and tests of their own.
    assert captions >= ours
    assert all((ROOT / f"src/vaco/report/{name}.py").is_file() for name in ours)
