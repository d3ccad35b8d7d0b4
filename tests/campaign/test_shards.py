"""The runs of a tier in shares: every run in exactly one, trained once whatever happens to the processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from vaco import cli
from vaco.campaign import shards
from vaco.campaign.tiers import Tier, load_tier
from vaco.errors import UserError
from vaco.objectives import plugins
from vaco.runs import attempts
from vaco.runs.lock import RunLock

SIMULATED = Path(__file__).with_name("simulated.py")
ROOT = Path(__file__).parents[2]
TIER = """
tier: trial
description: A tier for tests.
environments: [InvertedPendulum-v5, Hopper-v5]
algorithms: [ppo, vaco, impala]
capacities: [1, 4]
seeds: [0, 1]
steps: 8192
evaluation: {points: 2, episodes: 1}
reference: {episodes: 20, seed: 0}
"""


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    (tmp_path / "trial.yaml").write_text(TIER)
    return load_tier(tmp_path / "trial.yaml")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, "VACO", (sys.executable, str(SIMULATED)))
    for name in (attempts.CALL, "SLURM_JOB_ID", "VACO_DEADLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "results"


def ledger(results: Path) -> Counter[str]:
    return Counter((results / "runs" / "ledger.txt").read_text().split())


def simulate(monkeypatch: pytest.MonkeyPatch, **settings: float) -> None:
    monkeypatch.setenv("VACO_SIMULATED", json.dumps(settings))


@pytest.mark.parametrize("count", [1, 2, 5, 24, 100])
def test_every_run_is_in_exactly_one_share(tier: Tier, results: Path, count: int) -> None:
    found = [job.run for i in range(1, count + 1) for job in shards.shard(tier, results, i, count).jobs]
    assert sorted(found) == sorted(str(run.config.run_id) for run in tier.planned()) and len(found) == 24


def test_a_share_keeps_the_order_of_the_plan_and_does_not_depend_on_what_is_finished(tier: Tier, results: Path) -> None:
    planned = [str(run.config.run_id) for run in tier.planned()]
    before = shards.shard(tier, results, 1, 3)
    assert [job.run for job in before.jobs] == [run for run in planned if run in {job.run for job in before.jobs}]
    gone = before.jobs[1]
    gone.folder.mkdir(parents=True)
    (gone.folder / "manifest.json").write_text("{}")
    after = shards.shard(tier, results, 1, 3)
    assert after.planned == before.planned == 8
    assert after.jobs == tuple(job for job in before.jobs if job != gone)


def test_a_share_is_no_stride_through_the_pattern_of_the_plan(results: Path) -> None:
    """Of the paper tier a stride of 144 would give a share one task and one method alone."""
    planned = load_tier(ROOT / "config/paper.yaml").planned()
    tasks = [len({run.env for run in shards.share(planned, i, 144)}) for i in range(1, 145, 16)]
    assert min(tasks) >= 3 and len({run.env for run in planned[::144]}) == 1


def test_published_runs_are_left_out() -> None:
    desk = load_tier(ROOT / "config/desk.yaml")
    assert shards.shard(desk, ROOT / "results").jobs == ()


def test_a_warm_start_is_of_the_file_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name alone would be looked for in config/."""
    path = tmp_path / "lm_mine.yaml"
    text = (ROOT / "config/lm_smoke.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("tier: lm_smoke", "tier: lm_mine"), encoding="utf-8")
    assert cli.run(["plan", "--tier", str(path), "--results", str(tmp_path)]) == 0
    assert f"vaco lm warm --tier {path} " in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "a/b", "-1/3", "1/0", "1/3/4"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write i/n"):
        shards.parse_shard(text)


def test_each_is_trained_once_though_processes_are_killed_stop_and_fail(
    tier: Tier, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(monkeypatch, kill=0.06, refuse=0.04, stop=0.2)
    said: list[str] = []
    shards.train(shards.shard(tier, results), slots=4, say=said.append)
    assert len(ledger(results)) == 24 and set(ledger(results).values()) == {1}
    kinds = Counter(one.outcome for job in (results / "runs").rglob("*.jsonl") for one in history(job))
    assert kinds["complete"] == 24 and min(kinds["vanished"], kinds["refused"], kinds["stopped"]) >= 1
    # Done already: nothing to do.
    assert shards.shard(tier, results).jobs == ()


def history(journal: Path) -> list[attempts.Attempt]:
    return attempts.history(journal.with_name(journal.name.removesuffix(".attempts.jsonl")))


def test_a_run_that_never_progresses_is_given_up_and_the_others_are_trained(
    tier: Tier, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(monkeypatch)
    work = shards.shard(tier, results, 1, 4)
    bad = work.jobs[0].folder
    bad.mkdir(parents=True)
    (bad / "checkpoints").write_text("in the way")  # a file where a folder must be
    with pytest.raises(UserError, match=r"1 runs failed, the first .*the same command tries them again"):
        shards.train(work, say=lambda _: None)
    assert len(ledger(results)) == len(work.jobs) - 1
    assert len(attempts.history(bad)) == attempts.PATIENCE
    # Mended, the same command trains it, whatever the journal says of earlier calls.
    (bad / "checkpoints").unlink()
    monkeypatch.setenv(attempts.CALL, "another")
    shards.train(shards.shard(tier, results, 1, 4), say=lambda _: None)
    assert len(ledger(results)) == len(work.jobs)


def test_where_no_journal_can_be_written_a_failing_run_is_given_up_all_the_same(
    tier: Tier, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, where it would else be tried for ever."""
    simulate(monkeypatch)
    work = shards.shard(tier, results, 1, 4)
    bad = work.jobs[0].folder
    bad.mkdir(parents=True)
    (bad / "checkpoints").write_text("in the way")
    attempts.journal(bad).mkdir()
    said: list[str] = []
    with pytest.raises(UserError, match="1 runs failed"):
        shards.train(work, say=said.append)
    assert sum(str(bad) in sentence for sentence in said) == attempts.PATIENCE
    assert len(ledger(results)) == len(work.jobs) - 1


def test_a_run_that_another_process_holds_is_left_to_it(
    tier: Tier, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(monkeypatch)
    monkeypatch.setattr(shards, "STALE_AFTER", -60.0)  # so that it is not waited for
    work = shards.shard(tier, results, 2, 4)
    held = work.jobs[0].folder
    held.mkdir(parents=True)
    lock = RunLock(held / "run.lock")
    lock.acquire()
    with pytest.raises(UserError, match=f"^1 runs are at work elsewhere, the first {re.escape(str(held))}:"):
        shards.train(work, say=lambda _: None)
    assert held.name not in ledger(results) and len(ledger(results)) == len(work.jobs) - 1
    lock.release()
    shards.train(shards.shard(tier, results, 2, 4), say=lambda _: None)
    assert set(ledger(results).values()) == {1} and len(ledger(results)) == len(work.jobs)


COMMAND = """
import sys
from vaco import cli
from vaco.campaign import shards
shards.VACO = (sys.executable, {simulated!r})
sys.exit(cli.run(sys.argv[1:]))
"""


def command(tier: Path, results: Path, *more: str, **settings: float) -> subprocess.Popen[str]:
    """`vaco plan` in a process of its own, on simulated runs."""
    words = ["plan", "--tier", str(tier), "--results", str(results), *more]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "VACO_"))}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(simulated=str(SIMULATED)), *words],
        env=inherited | {"VACO_SIMULATED": json.dumps(settings), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_asked_to_stop_it_saves_and_exits_with_75_and_goes_on(tier: Tier, tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = command(tmp_path / "trial.yaml", results, "--shard", "1/3", "--run", "--jobs", "2", seconds=0.1)
    until(lambda: list((results / "runs").rglob("checkpoint-*")))
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 75 and "asked to stop with" in said, said
    stopped = [one for path in (results / "runs").rglob("*.jsonl") for one in history(path)]
    assert {one.outcome for one in stopped} <= {"stopped", "complete"} and stopped
    second = command(tmp_path / "trial.yaml", results, "--shard", "1/3", "--run", "--jobs", "4", seconds=0.01)
    assert second.communicate(timeout=300) and second.returncode == 0
    assert len(ledger(results)) == 8 and set(ledger(results).values()) == {1}


def test_rules_of_ones_own_are_imported_by_every_run(
    tier: Tier, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "import_rules", lambda name: None)
    flags = ["--tier", str(tmp_path / "trial.yaml"), "--results", str(tmp_path / "results"), "--shard", "1/12"]
    for words in (["--import", "my.rules", "plan"], ["plan", "--import", "my.rules"]):
        assert cli.run([*words, *flags]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines and all(line.startswith("vaco --import my.rules train --env ") for line in lines)


def test_what_is_printed_is_a_command_a_line(tier: Tier, tmp_path: Path) -> None:
    printing = command(tmp_path / "trial.yaml", tmp_path / "results", "--shard", "3/3")
    out, said = printing.communicate(timeout=300)
    assert printing.returncode == 0 and "8 runs, 8 of them to be trained" in said
    assert len(out.splitlines()) == 8 and all(line.startswith("vaco train --env ") for line in out.splitlines())
