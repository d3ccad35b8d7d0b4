"""What a tier costs before it is started: runs, environment steps, core-hours, disk, from measured throughput.

The time of a run is that of a process to start, of its steps, and of its evaluations:

* stepping depends on the task and learning on the algorithm, above all on its alignment, so seconds a step =
  collect(task) + learn(algorithm), learning in proportion to the number of passes over its data;
* an evaluation episode is taken at full length, 1,000 steps, as it is once a policy has learnt; this is the larger of
  what was measured and of 1,000 steps at the speed of collection.

Each term comes from finished runs where there are any, else from a short run made now in a temporary folder; the
estimate says which. Only runs that finished on this machine count: results may come with the repository, and say how
fast their authors' machine was. A manifest names its machine by host and processor, and both must be those found here:
the same name on another processor is another machine, and so is the same processor under another name. Where a name
changes from one session to the next, as in containers, the price is a few short runs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median

import numpy as np

from vaco.archive import Entry
from vaco.campaign import archives
from vaco.campaign.doctor import cores
from vaco.campaign.kinds import CONTROL
from vaco.campaign.tiers import RunSpec, Tier
from vaco.errors import UserError
from vaco.objectives.table import parse
from vaco.runs.config import RunConfig, build
from vaco.runs.provenance import _cpu_model

EPISODE_STEPS = 1000
SAMPLES_A_KIND = 3
"""Finished runs read for each task, algorithm and number of passes; more would change the mean little."""
MEASURED_PHASES = 5
_BYTES_A_CELL = 4
_FIXED_BYTES = 120_000
"""A run folder but for its phases: policy, evaluations, manifest."""


@dataclass(frozen=True)
class Sample:
    """The measured cost of one run.

    Attributes:
        env: task.
        algorithm: canonical name.
        passes: over a phase's worth of data, the epochs times the phases that an update takes together.
        collect: seconds a step spent collecting.
        learn: seconds a step spent aligning and optimising.
        episode: seconds an evaluation episode.
        columns: columns of `phases.parquet`.
        fresh: measured now rather than read from a finished run.
    """

    env: str
    algorithm: str
    passes: int
    collect: float
    learn: float
    episode: float
    columns: int
    fresh: bool


Measure = Callable[[str, str], Sample]


@dataclass(frozen=True)
class Cost:
    """What one run takes."""

    spec: RunSpec
    seconds: float
    disk_bytes: float
    finished: bool


@dataclass(frozen=True)
class Estimate:
    """The cost of a tier, run by run, and what it was measured on; `elsewhere` counts runs of other machines."""

    tier: Tier
    costs: tuple[Cost, ...]
    startup_seconds: float
    samples: tuple[Sample, ...]
    elsewhere: int = 0

    @property
    def runs(self) -> int:
        """Number of runs, shared ones counted once."""
        return len(self.costs)

    @property
    def environment_steps(self) -> int:
        """Steps of training of all runs together, without evaluation."""
        return sum(cost.spec.steps for cost in self.costs)

    @property
    def core_hours(self) -> float:
        """Hours of one core for all runs."""
        return sum(cost.seconds for cost in self.costs) / 3600

    @property
    def remaining_core_hours(self) -> float:
        """Hours of one core for the runs that are not finished."""
        return sum(cost.seconds for cost in self.costs if not cost.finished) / 3600

    @property
    def disk_bytes(self) -> float:
        """Bytes of all run folders, an upper bound: numbers do not compress to more than their size."""
        return sum(cost.disk_bytes for cost in self.costs)

    def render(self) -> str:
        """The estimate as text for a terminal."""
        finished = sum(cost.finished for cost in self.costs)
        longest = max(self.costs, key=lambda cost: cost.seconds)
        (number, limit), to_go = cores(), self.remaining_core_hours
        lines = [
            *textwrap.wrap(f"tier {self.tier.name}: {self.tier.description}", 100),
            "",
            f"  runs               {self.runs:,} ({finished:,} finished)",
            f"  environment steps  {self.environment_steps:,}",
            f"  core-hours         {_hours(self.core_hours)} ({_hours(to_go)} to go; a run takes one core)",
            f"  wall-clock         {_hours(to_go / number)} h on {number} cores (by {limit})",
            f"  longest run        {_hours(longest.seconds / 3600)} h: {longest.spec.config.place}",
            f"  disk               at most {_size(self.disk_bytes)}",
            "",
            "  task                          runs   steps/s   core-hours",
        ]
        for env in self.tier.environments:
            of_task = [cost for cost in self.costs if cost.spec.env == env]
            seconds = sum(cost.seconds for cost in of_task)
            speed = sum(cost.spec.steps for cost in of_task) / seconds
            lines.append(f"  {env:<28} {len(of_task):>5} {speed:>9,.0f} {_hours(seconds / 3600):>12}")
        return "\n".join([*lines, "", *self._sources()])

    def _sources(self) -> list[str]:
        """Where the throughput comes from."""
        lines = [
            f"This machine is {' with '.join(this_machine())}.",
            f"Throughput, evaluation and start-up ({self.startup_seconds:.1f} s a process) included, comes from:",
        ]
        read = [sample for sample in self.samples if not sample.fresh]
        made = [sample for sample in self.samples if sample.fresh]
        if read:
            tasks = ", ".join(dict.fromkeys(sample.env for sample in read))
            lines.append(f"  {len(read)} runs that finished on this machine ({tasks})")
        if made:
            pairs = ", ".join(f"{sample.env} with {sample.algorithm}" for sample in made)
            text = f"{len(made)} short runs made now on this machine ({pairs})"
            lines += textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="  ")
        if self.elsewhere:
            lines.append(f"Not from the {self.elsewhere} finished runs under results/ that other machines made.")
        lines += [
            "Stepping is taken to depend on the task alone and learning on the alignment above all.",
            "A busier machine takes longer.",
        ]
        return lines


def estimate(tier: Tier, results_dir: Path, *, measure: Measure | None = None) -> Estimate:
    """Predict what a tier costs.

    Args:
        tier: the tier.
        results_dir: folder with finished runs of any tier, `results`.
        measure: makes a short run of a task and an algorithm; by default really trains, in a temporary folder.

    Returns:
        The estimate.

    Raises:
        UserError: a short run failed; the message holds its last line.
    """
    specs = tier.runs()
    samples, elsewhere = finished_samples(results_dir)
    samples += _measure_missing(specs, samples, measure or measure_run)
    startup = _startup_seconds() if measure is None else 0.0
    finished = archives.everything(Path(results_dir))
    costs = tuple(_cost(spec, samples, startup, finished) for spec in specs)
    used = {spec.env for spec in specs} | {spec.algorithm for spec in specs}
    relevant = tuple(sample for sample in samples if {sample.env, sample.algorithm} & used)
    return Estimate(tier, costs, startup, relevant, elsewhere)


def this_machine() -> tuple[str, str]:
    """Host and processor, by which manifests name the machine that finished a run."""
    return socket.gethostname(), _cpu_model()


def finished_samples(results_dir: Path) -> tuple[list[Sample], int]:
    """The costs of runs that finished on this machine, a few of each task, algorithm and number of passes.

    Args:
        results_dir: folder with finished runs of any tier.

    Returns:
        The samples, and how many finished runs were left out because another machine made them.

    Raises:
        UserError: a manifest cannot be read.
    """
    taken: dict[tuple[str, str, int], int] = defaultdict(int)
    samples: list[Sample] = []
    here, elsewhere = this_machine(), 0
    for entry in archives.finished(results_dir, CONTROL):
        manifest = entry.manifest
        if (manifest.get("host"), manifest.get("cpu")) != here:
            elsewhere += 1
            continue
        config = build(manifest["config"])
        kind = (config.env, config.algorithm, _passes(config))
        if taken[kind] < SAMPLES_A_KIND:
            taken[kind] += 1
            samples.append(_sample(entry, config, fresh=False))
    return samples, elsewhere


def _sample(entry: Entry, config: RunConfig, *, fresh: bool) -> Sample:
    """Read the costs of a finished run; the median phase, since a machine has bad moments."""
    table = entry.table("phases")
    phases = {name: np.array(table[name]) for name in ("collect_seconds", "align_seconds", "update_seconds")}
    collect, learn = phases["collect_seconds"], phases["align_seconds"] + phases["update_seconds"]
    wall_seconds = float(entry.manifest["wall_seconds"])
    training = float(collect.sum() + learn.sum())
    warm = slice(1, None) if len(collect) > 1 else slice(None)
    # Stochastic and deterministic episodes, at step 0 and at every point of the grid.
    episodes = 2 * config.eval_episodes * (config.eval_points + 1)
    return Sample(
        env=config.env,
        algorithm=config.algorithm,
        passes=_passes(config),
        collect=median(collect[warm].tolist()) / config.batch,
        learn=median(learn[warm].tolist()) / config.batch,
        episode=max(0.0, wall_seconds - training) / episodes,
        columns=table.num_columns,
        fresh=fresh,
    )


def _measure_missing(specs: Sequence[RunSpec], samples: Sequence[Sample], measure: Measure) -> list[Sample]:
    """Make as few short runs as cover every task and every alignment that no sample covers: they go in pairs."""
    envs = list(dict.fromkeys(spec.env for spec in specs))
    # One algorithm of each alignment: the filter costs next to nothing, the alignment does not.
    algorithms = list({_align(spec.algorithm): spec.algorithm for spec in reversed(specs)}.values())
    new_envs = [env for env in envs if env not in {sample.env for sample in samples}]
    known = {_align(sample.algorithm) for sample in samples}
    new_algorithms = [name for name in algorithms if _align(name) not in known]
    made = []
    for i in range(max(len(new_envs), len(new_algorithms))):
        env = new_envs[i] if i < len(new_envs) else envs[i % len(envs)]
        algorithm = new_algorithms[i] if i < len(new_algorithms) else algorithms[i % len(algorithms)]
        made.append(measure(env, algorithm))
    return made


def measure_run(env: str, algorithm: str) -> Sample:
    """Train a few phases in a temporary folder, in a process of its own with one thread, as a run of a tier would.

    Raises:
        UserError: the run failed.
    """
    steps = MEASURED_PHASES * build({"algorithm": algorithm}).batch
    with tempfile.TemporaryDirectory(prefix="vaco-estimate-") as scratch:
        folder = Path(scratch) / "run"
        flags = ["--env", env, "--algorithm", algorithm, "--lag", "1", "--seed", "0", "--steps", str(steps)]
        flags += ["--eval-points", "1", "--eval-episodes", "1", "--quiet", "--out", str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "vaco", "train", *flags],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=_one_thread(),
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"the short run of {algorithm} on {env} failed, so its speed is unknown: {last}")
        entry = archives.from_folder(folder, CONTROL)
        return _sample(entry, build(entry.manifest["config"]), fresh=True)


def _startup_seconds() -> float:
    """Time for a process to import what training needs."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import vaco.control.train"], check=False, capture_output=True)
    return time.perf_counter() - began


def _one_thread() -> dict[str, str]:
    return os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def _cost(spec: RunSpec, samples: Sequence[Sample], startup: float, finished: set[str]) -> Cost:
    config = spec.config
    of_task = [sample for sample in samples if sample.env == spec.env]
    # The nearer the better: the same alignment at least, then algorithm, task, number of passes if there are such.
    learnt = [sample for sample in samples if _align(sample.algorithm) == _align(spec.algorithm)]
    learnt = [sample for sample in learnt if sample.algorithm == spec.algorithm] or learnt
    learnt = [sample for sample in learnt if sample.env == spec.env] or learnt
    learnt = [sample for sample in learnt if sample.passes == _passes(config)] or learnt
    collect = fmean(sample.collect for sample in of_task)
    learn = fmean(sample.learn * _passes(config) / sample.passes for sample in learnt)
    episode = max(fmean(sample.episode for sample in of_task), EPISODE_STEPS * collect)
    episodes = 2 * spec.episodes * (spec.points + 1)
    seconds = startup + spec.steps * (collect + learn) + episodes * episode
    columns = max(sample.columns for sample in samples)
    disk = _FIXED_BYTES + _BYTES_A_CELL * columns * config.phases
    return Cost(spec, seconds, disk, str(config.run_id) in finished)


def _passes(config: RunConfig) -> int:
    return config.epochs * max(1, len(config.reuse))


@cache
def _align(algorithm: str) -> str:
    return parse(algorithm).align.name


def _hours(hours: float) -> str:
    """Three significant figures for little, whole hours for much."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _size(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} kB"
