"""The 1,440 runs of the paper tier on real SLURM daemons, simulated: they fail, stop and are preempted at random."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT, Workplace, until
from test_array import over, states

from vaco.campaign import status
from vaco.campaign.tiers import load_tier
from vaco.runs.attempts import history

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

RATES = {"seconds": 0.05, "phases": 4, "kill": 0.01, "refuse": 0.01, "stop": 0.02}
SHARDS = 24
# In place of `vaco`: the command itself, which starts simulated runs.
COMMAND = """#!{python}
import sys
from vaco import cli
from vaco.campaign import shards
shards.VACO = (sys.executable, {simulated!r})
sys.exit(cli.run(sys.argv[1:]))
"""


def submit(place: Workplace) -> str:
    environment = place.environment | {
        "PATH": f"{place.place / 'bin'}:{place.environment['PATH']}",
        "VACO_SIMULATED": json.dumps(RATES),
    }
    command = ["sbatch", "--parsable", "--partition=test", "--mem=800", f"--array=1-{SHARDS}"]
    done = subprocess.run(
        [*command, str(ROOT / "scripts/slurm-array.sh"), "paper", str(SHARDS)],
        cwd=place.place,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Preemption(threading.Thread):
    """Every few seconds a task is taken back by the scheduler, and the time that it holds it back is cut short."""

    def __init__(self, array: str) -> None:
        super().__init__(daemon=True)
        self.array, self.over, self.count = array, threading.Event(), 0
        self.start()

    def run(self) -> None:
        luck = random.Random(0)
        while not self.over.wait(5):
            now = states(self.array)
            running = sorted(task for task, state in now.items() if state == "RUNNING")
            if running:
                task = luck.choice(running)
                self.count += self.scontrol("requeue", f"{self.array}_{task}")
            for task, state in now.items():
                if state == "PENDING":
                    self.scontrol("update", f"JobId={self.array}_{task}", "StartTime=now")

    @staticmethod
    def scontrol(*words: str) -> bool:
        return subprocess.run(["scontrol", *words], capture_output=True).returncode == 0


def test_all_finish_none_twice_and_the_status_is_right_throughout(
    slurm: None, workplace: Callable[[str, str], Workplace]
) -> None:
    place = workplace("campaign", (ROOT / "config/smoke.yaml").read_text().replace("tier: smoke", "tier: trial"))
    (place.place / "bin").mkdir()
    vaco = place.place / "bin" / "vaco"
    simulated = Path(__file__).parents[1] / "campaign" / "simulated.py"
    vaco.write_text(COMMAND.format(python=sys.executable, simulated=str(simulated)))
    vaco.chmod(0o755)
    tier, results = load_tier(ROOT / "config/paper.yaml"), place.place / "results"
    places = {run.config.place for run in tier.planned()}
    assert len(places) == 1440
    calls, seen = 0, 0
    while True:
        array = submit(place)
        calls += 1
        preemption = Preemption(array)
        while not over(array):
            before = finished(results)
            found = status.campaign(tier, results)
            after = finished(results)
            totals = Counter(run.state for run in found.runs)
            assert sum(totals.values()) == 1440 and before <= totals["finished"] <= after
            assert totals["finished"] >= seen, "a finished run is no longer finished"
            assert totals["running"] <= SHARDS and totals["published"] == 0
            seen = totals["finished"]
            time.sleep(3)
        preemption.over.set()
        preemption.join()
        left = 1440 - finished(results)
        if not left or calls == 4:
            break
    ledger = Counter((results / "runs" / "ledger.txt").read_text().split())
    assert set(ledger.values()) == {1}, "trained twice"
    assert (
        len(ledger) == 1440
        and {str(path.parent.relative_to(results / "runs")) for path in manifests(results)} == places
    )
    outcomes = Counter(one.outcome for path in manifests(results) for one in history(path.parent))
    print(f"{calls} calls, {preemption.count} preempted in the last, attempts: {dict(outcomes)}")
    assert outcomes["complete"] == 1440 and min(outcomes[kind] for kind in ("stopped", "refused", "vanished")) > 0
    until(
        lambda: status.campaign(tier, results).of("finished") and not status.campaign(tier, results).of("running"), ""
    )


def manifests(results: Path) -> list[Path]:
    return list((results / "runs").rglob("manifest.json"))


def finished(results: Path) -> int:
    return len(manifests(results))
