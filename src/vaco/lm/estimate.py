"""What a tier of language models costs, cell by cell, before it is started.

On a processor a run's time comes from short runs made now, of each kind of algorithm that the tier has: seconds of
generation and of a gradient step, taken in proportion to how many a run makes. A GPU that is not here cannot be
measured: then the number of decoding steps and of operations is counted, and turned into time by two assumptions that
are stated with the result (`STEP_SECONDS`, `OPERATIONS`). Either is an upper bound in one respect: responses are taken
to be as long as `new_tokens` allows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vaco.errors import UserError
from vaco.lm.config import LM_DEFAULTS, LMConfig
from vaco.lm.tiers import LMRun, LMTier

STEP_SECONDS = 0.03
"""Assumed seconds of one decoding step of the engine `local` on a GPU, whatever the batch: launching some hundred
kernels from Python takes as long."""
OPERATIONS = 2e14
"""Assumed operations a second of training: a fifth of what an H100's data sheet names for bfloat16."""
PROMPT_TOKENS = 128
"""Assumed length of a prompt, where none can be measured."""
_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)([MB])(?![A-Za-z])")
_UNITS = {"M": 1e6, "B": 1e9}
_SHORT = {"updates": 2, "minibatches": 1, "lag": 1, "eval_points": 1, "eval_problems": 8, "warm_target": 0}


class Speed(NamedTuple):
    """Seconds of generating a minibatch's responses, of a gradient step on them, and of evaluating π_prox of them."""

    generate: float
    step: float
    proximal: float


Measure = Callable[[LMConfig], Speed]


@dataclass(frozen=True)
class Cell:
    """Runs that differ by seed alone: how many, and the seconds of one."""

    name: str
    config: LMConfig
    runs: int
    seconds: float


def estimate(tier: LMTier, measure: Measure | None = None) -> str:
    """The cost of a tier as text for a terminal, its cells in the order in which they are worth having.

    Args:
        tier: the tier.
        measure: gives the speed of a kind of run; by default short runs, or arithmetic for a GPU that is not here.

    Raises:
        UserError: a short run failed, or the model's size is unknown.
    """
    counted = tier.warm.device == "cuda" and not _gpu()
    known: dict[tuple[bool, bool], Speed] = {}
    cells: dict[tuple[str, int, int], list[LMRun]] = {}
    for run in tier.runs:
        cells.setdefault((run.name, run.config.lag, run.config.minibatches), []).append(run)
    priced = []
    for (name, _, _), runs in cells.items():
        config = runs[0].config
        if counted and measure is None:
            seconds = by_counting(config)
        else:
            kind = (config.parsed.recompute, config.parsed.filter is None or not config.parsed.filter.alone)
            if kind not in known:
                known[kind] = (measure or short_run)(config)
            seconds = by_speed(config, known[kind])
        priced.append(Cell(name, config, len(runs), seconds))
    return _render(tier, priced, counted and measure is None)


def by_speed(config: LMConfig, speed: Speed) -> float:
    """Seconds of a run, in proportion to what a minibatch took.

    Args:
        config: the run.
        speed: of runs of its kind.
    """
    minibatch = config.prompts * config.samples
    # The first minibatches until π_prox is evaluated anew are π_T's own where K = 1; the difference is small.
    lagging = config.minibatches > 1 or config.lag > 1
    proximal = speed.proximal if config.parsed.recompute and lagging else 0.0
    answered = 2 * (config.eval_points + 1) * config.eval_problems
    return config.updates * (speed.generate + speed.step + proximal) + answered / minibatch * speed.generate


def by_counting(config: LMConfig) -> float:
    """Seconds of a run on a GPU, from decoding steps and operations.

    Args:
        config: the run.

    Raises:
        UserError: the model's name does not say how many parameters it has.
    """
    size = parameters_of(config.model)
    minibatch = config.prompts * config.samples

    def decoding(responses: int) -> float:
        return -(-responses // config.generate_batch) * config.new_tokens * STEP_SECONDS

    generating = config.rounds * decoding(minibatch * config.minibatches)
    evaluating = 2 * (config.eval_points + 1) * decoding(config.eval_problems)
    tokens = minibatch * (PROMPT_TOKENS + config.new_tokens)
    passes = 3.0 + (1.0 if config.gradient_checkpointing else 0.0)  # forward, and twice that backward
    alone = config.parsed.filter is not None and config.parsed.filter.alone
    passes += 0.0 if alone or tokens <= config.tokens_at_once else 1.0
    passes += 0.0 if config.exact else 1.0
    passes += 1.0 if config.parsed.recompute else 0.0
    return generating + evaluating + config.updates * tokens * passes * 2.0 * size / OPERATIONS


def parameters_of(name: str) -> float:
    """How many parameters a model has, from its name: ``Qwen2.5-0.5B`` has 0.5e9.

    Raises:
        UserError: the name does not say.
    """
    found = _PARAMETERS.findall(name.replace("smollm2", "135M"))
    if not found:
        raise UserError(
            f"the model's name '{name}' does not say how many parameters it has, as 0.5B does, and no GPU is here to "
            "measure on: estimate on the machine with the GPU"
        )
    number, unit = found[-1]
    return float(number) * _UNITS[unit]


def short_run(config: LMConfig) -> Speed:
    """Train two updates of a configuration in a temporary folder, in a process of its own with one thread.

    Raises:
        UserError: the run failed; the message holds its last line.
    """
    import pyarrow.parquet

    settings = config.resolved() | _SHORT
    unread = LMConfig(**settings).unread
    given = [
        f"--set={name}={value}"
        for name, value in settings.items()
        if (value != LM_DEFAULTS[name] and name not in unread) or name in _SHORT
    ]
    with tempfile.TemporaryDirectory(prefix="vaco-estimate-") as scratch:
        words = [
            sys.executable,
            "-m",
            "vaco",
            "lm",
            "train",
            *given,
            "--no-policy",
            "--quiet",
            "--out",
            f"{scratch}/run",
        ]
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", env=os.environ | one)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"the short run of {config.algorithm} failed, so its speed is unknown: {last}")
        rows = pyarrow.parquet.read_table(Path(scratch) / "run" / "phases.parquet").to_pylist()
    last_row = rows[-1]  # the first step allocates
    proximal = last_row["recompute_seconds"] if config.parsed.recompute else 0.0
    return Speed(last_row["generate_seconds"], last_row["update_seconds"], proximal)


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _render(tier: LMTier, cells: Sequence[Cell], counted: bool) -> str:
    hours = sum(cell.runs * cell.seconds for cell in cells) / 3600
    where = "GPU-hours" if tier.warm.device == "cuda" else "core-hours"
    lines = [
        *textwrap.wrap(f"tier {tier.name}: {tier.description}", 100),
        "",
        f"  runs            {sum(cell.runs for cell in cells):,}",
        f"  responses       {_responses(tier.warm):,} a run, of at most {tier.warm.new_tokens:,} tokens",
        f"  {where:<15} {hours:,.3g}, the warm start not counted",
        "",
        f"  {'cell, first ones first':<40} {'runs':>5} {'minutes a run':>14}",
    ]
    for cell in cells:
        named = f"{cell.name}, N = {cell.config.minibatches}, K = {cell.config.lag}"
        lines.append(f"  {named:<40} {cell.runs:>5} {cell.seconds / 60:>14,.3g}")
    source = (
        f"Counted, not measured, since no GPU is here: assumed are {STEP_SECONDS} s a decoding step, {OPERATIONS:.0e} "
        f"operations a second in training, prompts of {PROMPT_TOKENS} tokens, and responses as long as they may be."
        if counted
        else "Measured by short runs made now on this machine, in proportion; an untrained model's responses are "
        "longer, and a busier machine takes longer."
    )
    return "\n".join([*lines, "", *textwrap.wrap(source, 100)])


def _responses(config: LMConfig) -> int:
    return config.updates * config.prompts * config.samples
