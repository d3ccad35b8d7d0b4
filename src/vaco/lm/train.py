"""One language-model run, from a configuration to a finished folder: generate a round, filter, step, repeat.

    vaco lm train --algorithm vaco --minibatches 16 --seed 0 --out DIR

`train` reads top to bottom. All state that one gradient step leaves to the next is in `run.Run`; saved after any step
and restored, it continues bit for bit on a CPU.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import torch

from vaco.errors import UserError
from vaco.lm import inputs, rounds, state
from vaco.lm.asynchronous import Live, Recorded, Source, to_columns
from vaco.lm.config import LMConfig, rebuild_lm
from vaco.lm.engines import Engine
from vaco.lm.evaluate import accuracy
from vaco.lm.parallel import here
from vaco.lm.run import Row, Run
from vaco.lm.sample import Abandoned, Responses
from vaco.lm.weights import Arrays, Lazy, trained
from vaco.runs import checkpoint, provenance
from vaco.runs.folder import SCHEDULE, RunFolder
from vaco.runs.identity import foreign_rules
from vaco.runs.preemption import Preempted, termination_noticed
from vaco.runs.progress import Progress
from vaco.runs.threads import one_thread


def evaluation_grid(config: LMConfig) -> list[int]:
    """The updates after which the policy is evaluated, from 0 to the last."""
    return sorted({round(point * config.updates / config.eval_points) for point in range(config.eval_points + 1)})


def evaluate_if_due(run: Run) -> None:
    """Evaluate the current policy where the fixed grid has a point at this update."""
    grid = evaluation_grid(run.config)
    if run.update not in grid or len(run.evals) > grid.index(run.update):
        return
    source = np.random.default_rng(np.random.SeedSequence((run.config.seed, 2, run.update)))
    result = accuracy(run.loaded, run.task, run.eval_set, run.config, source)
    run.evals.append(
        {
            "update": run.update,
            "responses": run.update * run.config.prompts * run.config.samples,
            "accuracy": result.greedy,
            "sampled_accuracy": result.sampled,
            "problems": len(run.eval_set),
            "length": result.length,
            "cut_fraction": result.cut,
            "wall_seconds": run.clock.total,
        }
    )


def train(
    config: LMConfig,
    out: Path,
    *,
    warm: Path | None = None,
    checkpoint_seconds: float = 60.0,
    keep_policy: bool = True,
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
    recorded: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Run a configuration to its end, or continue it where an earlier process stopped.

    Under ``torchrun`` all its processes call this; the first keeps the folder, see `parallel`.

    Args:
        config: the configuration.
        out: the run's folder; see `RunFolder` for what it may hold.
        warm: file with the warm start's weights; None makes them first.
        checkpoint_seconds: least time between checkpoints, see `Checkpoints`; no influence on results.
        keep_policy: whether the finished run keeps its policy.
        quiet: show no progress.
        say: called with each sentence for the user; standard error by default.
        recorded: the schedule of a run with generators, to be followed in this process instead.

    Raises:
        UserError: the folder is not this run's, the disk is full, or training diverged.
        Preempted: a signal asked it to stop; a checkpoint was saved.
    """
    say = say or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
    with one_thread(), termination_noticed() as preempted, here(config.device) as group:
        if not group.first:
            say, quiet = (lambda sentence: None), True
        folder = RunFolder(out, config.run_id, config=config.resolved(), rebuild=rebuild_lm)
        with folder if group.first else nullcontext():
            base = inputs.base_of(folder) if group.first else Path()
            done = group.first and folder.status() == "complete"
            if done:
                folder.require_inputs(inputs.at_hand(config, warm, base))
                say(f"{out} already holds this run, complete: nothing to do")
            if group.agree(done):
                return
            run = Run(config, warm, quiet, base, policies=folder.checkpoints / "policies", group=group)
            run.source = make_source(run, recorded, say)
            with closing(run.engine), closing(run.source) if run.source else nullcontext():
                checkpoints = Checkpoints(folder, run, checkpoint_seconds)
                checkpoints.begin(out, say)
                _loop(run, checkpoints, lambda: group.agree(preempted()), quiet, say)
                if group.first:
                    _finish(folder, run, checkpoints.started, keep_policy)


def make_source(run: Run, recorded: Sequence[tuple[int, int]] | None, say: Callable[[str], None]) -> Source | None:
    """Where a run's rounds come from; None if they are generated in turn.

    Args:
        run: whose rounds.
        recorded: a schedule to follow in this process.
        say: called with a sentence whenever a process is replaced.

    Raises:
        UserError: the work is shared by several processes, of which each would have generators.
    """
    config = run.config

    def generated(engine: Engine, number: int, stop: Callable[[], bool] | None) -> Responses:
        with asking:  # by one thread at a time
            ids, noise = rounds.asked(run, number)
        return engine.generate(ids, config.samples, config.new_tokens, noise, stop)

    def again(number: int, version: int, weights: Arrays) -> Responses:
        def answer() -> Responses:
            run.engine.load(version, trained(run.model))
            return generated(run.engine, number, None)

        return rounds.with_weights(run, weights, answer)

    asking = threading.Lock()
    if recorded is not None:
        return Recorded(recorded, again)
    if not config.generators:
        return None
    if run.group.size > 1:
        raise UserError(
            f"generators is {config.generators}, but {run.group.size} processes share the work: use one of the two"
        )
    from vaco.lm.engines.process import ProcessEngine

    return Live(config, [ProcessEngine(run.spec, run.loaded, config) for _ in range(config.generators)], generated, say)


def _loop(
    run: Run, checkpoints: Checkpoints, stop: Callable[[], bool], quiet: bool, say: Callable[[str], None]
) -> None:
    """Make the gradient steps that are left."""
    config = run.config
    evaluate_if_due(run)
    with Progress(_name(config), config.updates, run.update, quiet=quiet) as progress:
        while run.update < config.updates:
            try:
                # Several processes cannot agree within a round, in which each does its own number of batches.
                row = rounds.advance(run, stop if run.group.size == 1 else None)
                evaluate_if_due(run)
            except Abandoned:
                checkpoints.save()
                raise Preempted(f"asked to stop at update {run.update}; the same command continues") from None
            except UserError as error:
                raise UserError(f"training stopped after update {run.update}: {error}") from error
            except torch.OutOfMemoryError:
                raise UserError(
                    f"the GPU's memory was full after update {run.update}: lower tokens_at_once (now "
                    f"{config.tokens_at_once:,}) or logits_at_once, set gradient_checkpointing, or use a smaller model"
                ) from None
            progress.advance(1, _facts(run, row))
            _warn_of_cuts(run, row, say)
            stopping = stop()
            if run.update < config.updates and (stopping or checkpoints.due()):
                checkpoints.save()
                if stopping:
                    raise Preempted(f"asked to stop at update {run.update}; the same command continues from there")


class Checkpoints:
    """When a run's state is written, and where it is continued from.

    Writing takes at most a twentieth of the time: after one that took w seconds, the next is due no sooner than 19 w
    later.

    Args:
        folder: the run's.
        run: whose state it is.
        least: seconds between two at least.
    """

    SHARE = 0.05

    def __init__(self, folder: RunFolder, run: Run, least: float) -> None:
        self.folder, self.run, self.least = folder, run, least
        self.started = provenance.utc_now()
        self._writing = 0.0
        self._last = self._beat = time.monotonic()
        self._spoken: list[set[int]] = []

    def begin(self, out: Path, say: Callable[[str], None]) -> None:
        """Continue from the newest checkpoint, if there is one.

        Raises:
            UserError: what the run reads has changed since it began.
        """
        run, first = self.run, self.run.group.first
        if first:
            relative = inputs.has_relative_paths(run.config)
            self.folder.require_inputs(run.inputs, {inputs.STARTED_IN: inputs.started_in(out)} if relative else None)
            for sentence in _remarks(run):
                say(sentence)
        saved = checkpoint.load_latest(self.folder.checkpoints, warn=say)
        if saved is not None:
            _, arrays, meta = saved
            state.restore(run, meta, arrays)
            self.started = meta["started"]
            self._spoken = [set(meta["versions"])]
            say(f"resuming {out} at update {run.update:,} of {run.config.updates:,}")
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for one; shows others meanwhile that this process lives."""
        now = time.monotonic()
        if self.run.group.first and now - self._beat > HEARTBEAT_SECONDS:
            self.folder.heartbeat()
            self._beat = now
        wait = max(self.least, self._writing * (1 - self.SHARE) / self.SHARE)
        return self.run.group.agree(now - self._last >= wait)

    def save(self) -> None:
        """Write one.

        Raises:
            UserError: the disk is full, or another process took the folder over.
        """
        began, run = time.monotonic(), self.run
        facts = state.facts(run)
        # The newest two checkpoints are kept, and what they speak of is needed with them.
        self._spoken = [*self._spoken[-1:], set(facts["versions"])]
        if run.group.first:
            self.folder.heartbeat()  # first: a folder that another process took over must not be written to
            meta = {"started": self.started, **facts}
            checkpoint.save(self.folder.checkpoints, progress=run.update, arrays=state.arrays(run), meta=meta)
            run.forget(set().union(*self._spoken))
        self._last = self._beat = time.monotonic()
        self._writing = self._last - began


def _finish(folder: RunFolder, run: Run, started: str, keep_policy: bool) -> None:
    """Write the files that a finished run leaves."""
    config = run.config
    manifest = provenance.manifest(
        identity=config.identity,
        config=config.resolved(),
        run_id=config.run_id,
        started=started,
        finished=provenance.utc_now(),
        wall_seconds=round(run.clock.total, 3),
        completed_steps=run.update,
        rules=foreign_rules(config.parsed.functions),
    )
    import transformers

    begun = {key: folder.record[key] for key in (inputs.STARTED_IN,) if key in folder.record}
    manifest["versions"]["transformers"] = transformers.__version__
    manifest["warm_start"] = run.facts
    # A task draws its problems independently, so that a small one repeats itself.
    manifest["distinct_eval_problems"] = len({problem.prompt for problem in run.eval_set})
    manifest["cut_share"] = float(np.mean([row.get("cut_fraction", np.nan) for row in run.rows]))
    manifest["parameters"] = sum(value.numel() for value in run.model.parameters())
    manifest["trained_parameters"] = sum(value.numel() for _, value in trained(run.model))
    manifest["learner_processes"] = run.group.size
    manifest["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    if config.device == "cuda":
        manifest["peak_gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    more = {SCHEDULE: to_columns(run.source.taken, config.minibatches)} if run.source is not None else None
    folder.finish(
        more=more,
        phases=state.columns(run.rows),
        evals=state.columns(run.evals),
        policy=Lazy(dict(trained(run.model))) if keep_policy else None,
        policy_meta={"config": config.resolved(), **begun},
        manifest=manifest,
    )


HEARTBEAT_SECONDS = 30.0
LARGE_CUT = 0.1
"""Share of cut responses in a round from which on a run says so."""


def _remarks(run: Run) -> Iterator[str]:
    """What a user should know of a run that begins or goes on."""
    if run.loaded.unused:
        yield (
            f"the model's own sampling settings are not used ({', '.join(run.loaded.unused)}): responses are drawn at "
            "temperature 1 from all tokens, whose probabilities are those that training reads"
        )


def _warn_of_cuts(run: Run, row: Row, say: Callable[[str], None]) -> None:
    """Say so, once, when a large share of a round's responses was cut."""
    share = float(run.round.responses.cut(run.loaded.tokenizer.end_ids).float().mean()) if run.round else 0.0
    if share < LARGE_CUT or run.warned or row["place"] != 0:
        return
    run.warned = True
    earns = "earn nothing" if run.config.cut_responses == "no_reward" else "are judged as if complete"
    say(
        f"{share:.0%} of a round's responses were cut at new_tokens = {run.config.new_tokens}, where they {earns}: "
        "raise new_tokens, or set cut_responses to what they should earn"
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
