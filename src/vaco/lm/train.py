"""One language-model run, from a configuration to a finished folder: generate a round, filter, step, repeat.

    vaco lm train --algorithm vaco --minibatches 16 --seed 0 --out DIR

`train` reads top to bottom. All state that one gradient step leaves to the next is in `Run`; saved after any step and
restored, it continues bit for bit on a CPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaco.errors import UserError
from vaco.lag import PolicyBuffer
from vaco.lm import rounds, state
from vaco.lm.config import LMConfig, build_lm
from vaco.lm.evaluate import accuracy, eval_problems
from vaco.lm.learner import Learner, Round, evaluate_logp
from vaco.lm.model import load_model
from vaco.lm.sample import Abandoned
from vaco.lm.task import make_task
from vaco.lm.warm import load_warm_start, parameters, warm_start
from vaco.runs import checkpoint, provenance
from vaco.runs.folder import RunFolder
from vaco.runs.preemption import Preempted, termination_noticed
from vaco.runs.progress import Progress
from vaco.runs.threads import one_thread

GENERATORS = ("problems", "noise", "order", "assignment")

Row = dict[str, float]


@dataclass
class Clock:
    """Training seconds so far, evaluations not counted, and those of the current step by part."""

    total: float = 0.0
    generate: float = 0.0
    recompute: float = 0.0
    update: float = 0.0


class Run:
    """Everything that one gradient step leaves to the next."""

    def __init__(self, config: LMConfig, warm: Path | None = None, quiet: bool = True) -> None:
        """Build the run at its very beginning.

        Args:
            config: the configuration.
            warm: file with the warm start's weights; None makes them here.
            quiet: show no progress of the warm start.

        Raises:
            UserError: unknown task or model, or a warm start of other settings.
        """
        self.config, self.update, self.clock = config, 0, Clock()
        self.task = make_task(config.task, config.task_settings)
        self.loaded = load_model(
            config.model, device=config.device, dtype=config.precision, size=config.model_settings or None
        )
        self.model: Any = self.loaded.model
        self.eval_set = eval_problems(self.task, config.eval_problems)
        self.facts: dict[str, float] = {}
        if config.warm_target > 0 and warm is not None:
            self.facts = load_warm_start(warm, config, self.loaded)
        elif config.warm_target > 0:
            self.facts = warm_start(config, self.loaded, self.task, quiet=quiet)
        self.reference = parameters(self.model)  # π_ref of TBA
        self.learner = Learner(config, self.model)
        seeds = np.random.SeedSequence(config.seed).spawn(len(GENERATORS))
        self.generators = {n: np.random.default_rng(s) for n, s in zip(GENERATORS, seeds, strict=True)}
        self.buffer: PolicyBuffer[rounds.Snapshot] = PolicyBuffer(config.lag)
        self.round: Round | None = None
        self.proximal: Tensor | None = None
        self.rows: list[Row] = []
        self.evals: list[Row] = []

    def advance(self, stop: Callable[[], bool] | None = None) -> Row:
        """Make one gradient step, after a generation round if one is due.

        Args:
            stop: asked between batches of generation; True abandons the round with nothing changed.

        Returns:
            The step's row of ``phases.parquet``.

        Raises:
            UserError: the gradient is not finite.
            Abandoned: `stop` said so.
        """
        started, place = time.perf_counter(), self.update % self.config.minibatches
        if place == 0:
            self.round = rounds.generate_round(self, stop)
        generated = time.perf_counter()
        assert self.round is not None
        self._evaluate_proximal(place)
        recomputed = time.perf_counter()
        batch, proximal = rounds.minibatch(self.round, self.proximal, place, self.config)
        diagnostics = self.learner.step(batch, proximal, self.update)
        self.update += 1
        finished = time.perf_counter()
        self.clock.total += finished - started
        row: Row = {
            "update": self.update,
            "round": (self.update - 1) // self.config.minibatches,
            "place": place,
            "wall_seconds": self.clock.total,
            "reward": float(batch.rewards.mean()),
            "responses": len(batch.rewards),
            "tokens": int(batch.responses.response_lengths.sum()),
            **diagnostics,
            "generate_seconds": generated - started,
            "recompute_seconds": recomputed - generated,
            "update_seconds": finished - recomputed,
        }
        self.rows.append(row)
        return row

    def _evaluate_proximal(self, place: int) -> None:
        """Evaluate the proximal policy where the algorithm's rule reads it and it is not the behaviour policy.

        Decoupled PPO evaluates it every `proximal_updates` steps, on the minibatches until the next time; the other
        rules take it to be the policy at the start of the round, which generated the round unless K > 1.
        """
        config, round_ = self.config, self.round
        assert round_ is not None
        rule = config.parsed
        if rule.recompute and place % config.proximal_updates == 0:
            if place == 0:
                self.proximal = torch.zeros_like(round_.responses.behaviour_logp)
            rows = rounds.rows_of(round_, place, place + config.proximal_updates, config)
            part = evaluate_logp(self.model, round_.responses.take(rows), config.tokens_at_once)
            assert self.proximal is not None
            self.proximal[rows, : part.shape[1]] = part
        elif place == 0 and not rule.recompute:
            needed = rule.filter is not None and rule.filter.proximal and config.lag > 1
            at_once = config.tokens_at_once
            self.proximal = evaluate_logp(self.model, round_.responses, at_once) if needed else None

    def evaluate_if_due(self) -> None:
        """Evaluate the current policy where the fixed grid has a point at this update."""
        grid = evaluation_grid(self.config)
        if self.update not in grid or len(self.evals) > grid.index(self.update):
            return
        source = np.random.default_rng(np.random.SeedSequence((self.config.seed, 2, self.update)))
        result = accuracy(self.loaded, self.task, self.eval_set, self.config.new_tokens, source)
        self.evals.append(
            {
                "update": self.update,
                "responses": self.update * self.config.prompts * self.config.samples,
                "accuracy": result.greedy,
                "sampled_accuracy": result.sampled,
                "problems": len(self.eval_set),
                "length": result.length,
                "wall_seconds": self.clock.total,
            }
        )


def evaluation_grid(config: LMConfig) -> list[int]:
    """The updates after which the policy is evaluated, from 0 to the last."""
    return sorted({round(point * config.updates / config.eval_points) for point in range(config.eval_points + 1)})


def train(
    config: LMConfig,
    out: Path,
    *,
    warm: Path | None = None,
    checkpoint_seconds: float = 60.0,
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Run a configuration to its end, or continue it where an earlier process stopped.

    Args:
        config: the configuration.
        out: the run's folder; see `RunFolder` for what it may hold.
        warm: file with the warm start's weights; None makes them first.
        checkpoint_seconds: time between checkpoints; no influence on results.
        quiet: show no progress.
        say: called with each sentence for the user; standard error by default.

    Raises:
        UserError: the folder is not this run's, the disk is full, or training diverged.
        Preempted: SIGTERM came; a checkpoint was saved.
    """
    say = say or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
    folder = RunFolder(out, config.run_id, config=config.resolved(), rebuild=build_lm)
    with one_thread(), termination_noticed() as preempted, folder:
        if folder.status() == "complete":
            say(f"{out} already holds this run, complete: nothing to do")
            return
        run, started = Run(config, warm, quiet), provenance.utc_now()
        saved = checkpoint.load_latest(folder.checkpoints, warn=say)
        if saved is not None:
            _, arrays, meta = saved
            state.restore(run, meta, arrays)
            started = meta["started"]
            say(f"resuming {out} at update {run.update:,} of {config.updates:,}")
        run.evaluate_if_due()
        last_saved = time.monotonic()

        def save() -> None:
            folder.heartbeat()  # first: a folder that another process took over must not be written to
            meta = {"started": started, **state.facts(run)}
            checkpoint.save(folder.checkpoints, progress=run.update, arrays=state.arrays(run), meta=meta)

        with Progress(_name(config), config.updates, run.update, quiet=quiet) as progress:
            while run.update < config.updates:
                try:
                    row = run.advance(preempted)
                    run.evaluate_if_due()
                except Abandoned:
                    save()
                    raise Preempted(f"asked to stop at update {run.update}; the same command continues") from None
                except UserError as error:
                    raise UserError(f"training stopped after update {run.update}: {error}") from error
                except torch.OutOfMemoryError:
                    raise UserError(
                        f"the GPU's memory was full after update {run.update}: lower tokens_at_once (now "
                        f"{config.tokens_at_once:,}), prompts or samples, or use a smaller model"
                    ) from None
                progress.advance(1, _facts(run, row))
                if run.update < config.updates and (preempted() or time.monotonic() - last_saved >= checkpoint_seconds):
                    save()
                    last_saved = time.monotonic()
                    if preempted():
                        raise Preempted(f"asked to stop at update {run.update}; the same command continues from there")
        _finish(folder, run, started)


def _finish(folder: RunFolder, run: Run, started: str) -> None:
    """Write the four files that a finished run leaves."""
    config = run.config
    manifest = provenance.manifest(
        identity=config.identity,
        config=config.resolved(),
        run_id=config.run_id,
        started=started,
        finished=provenance.utc_now(),
        wall_seconds=round(run.clock.total, 3),
        completed_steps=run.update,
    )
    import transformers

    manifest["versions"]["transformers"] = transformers.__version__
    manifest["warm_start"] = run.facts
    # A task draws its problems independently, so that a small one repeats itself.
    manifest["distinct_eval_problems"] = len({problem.prompt for problem in run.eval_set})
    manifest["parameters"] = sum(value.numel() for value in run.model.parameters())
    folder.finish(
        phases=state.columns(run.rows),
        evals=state.columns(run.evals),
        policy=parameters(run.model),
        policy_meta={"config": config.resolved()},
        manifest=manifest,
    )


def _name(config: LMConfig) -> str:
    return f"{config.task} {config.algorithm} N{config.minibatches} lag{config.lag} seed{config.seed}"


def _facts(run: Run, row: Row) -> dict[str, str]:
    """What the progress display says of a gradient step."""
    config = run.config
    seconds = max(run.clock.total, 1e-9)
    generated = sum(r["tokens"] for r in run.rows)
    return {
        "reward": f"{row['reward']:.3f}",
        "accuracy": f"{run.evals[-1]['accuracy']:.3f}",
        "tokens/s": f"{generated / seconds:,.0f}",
        "forward lag": f"{row['forward_lag']:.3f}",
        "filtered": f"{row['filtered_fraction']:.3f}",
        "round": f"{int(row['round']) + 1}/{config.rounds}",
    }
