"""One run, from a configuration to a finished folder: collect, align, filter, repeat.

    vaco train --env HalfCheetah-v5 --algorithm vaco --lag 8 --seed 0 --steps 1000000 --out DIR

`train` reads top to bottom. All state that a phase leaves to the next is in `Run`; saved at a phase boundary and
restored, it continues bit for bit, which is why a run can be killed at any moment.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaco.control.collect import Collector, require_finite
from vaco.control.envs import TASKS, make_vector_env
from vaco.control.evaluate import evaluate, random_observations
from vaco.control.learner import Learner
from vaco.control.networks import ActorCritic
from vaco.control.normaliser_lag import normaliser_lag
from vaco.control.policy import Normaliser, Snapshot, take_snapshot
from vaco.control.record import EVAL_COLUMNS, PHASE_COLUMNS, Row, to_columns, to_rows
from vaco.errors import UserError
from vaco.lag import PolicyBuffer
from vaco.runs import checkpoint, provenance
from vaco.runs.config import RunConfig, build
from vaco.runs.folder import RunFolder
from vaco.runs.preemption import Preempted, termination_noticed
from vaco.runs.progress import Progress
from vaco.runs.threads import one_thread

Arrays = dict[str, NDArray[Any]]

GENERATORS = ("assignment", "noise", "shuffle")


class Run:
    """Everything that one phase leaves to the next."""

    def __init__(self, config: RunConfig) -> None:
        """Build the run at its very beginning.

        Args:
            config: the configuration.

        Raises:
            UserError: the environment is unknown or unsuitable.
        """
        self.config, self.phase, self.seconds = config, 0, 0.0
        env = make_vector_env(config.env, num_envs=config.num_envs, backend=config.backend)
        if config.env not in TASKS:
            raise UserError(
                f"{config.env} cannot be saved, so a run could not resume: choose one of {', '.join(TASKS)}"
            )
        self.eval_env = make_vector_env(config.env, num_envs=2 * config.eval_episodes, backend=config.backend)
        seeds = np.random.SeedSequence(config.seed).spawn(1 + len(GENERATORS))
        self.generators = {n: np.random.default_rng(s) for n, s in zip(GENERATORS, seeds[1:], strict=True)}
        self.networks = ActorCritic(env.observation_size, env.action_size, config.hidden)
        self.networks.initialise(np.random.default_rng(seeds[0]), config.initial_log_std)
        self.normaliser = Normaliser(env.observation_size)
        if config.normaliser_start == "random":
            self._meet_random_observations()
        self.collector = Collector(env, self.networks, config.phase_steps)
        self.collector.reset(_environment_seed(config.seed, 0))
        self.learner = Learner(config, self.networks, self.generators["shuffle"])
        self.buffer: PolicyBuffer[Snapshot] = PolicyBuffer(config.lag)
        self.snapshot = self._push()
        self.rows: list[Row] = []
        self.evals: list[Row] = []

    @property
    def env_steps(self) -> int:
        """Environment steps taken, dead slots included."""
        return self.phase * self.config.batch

    def advance(self) -> Row:
        """Run one phase: collect with buffered policies, optimise, and push the new policy into the buffer.

        Returns:
            The phase's row of ``phases.parquet``.

        Raises:
            UserError: something is no longer finite; what was saved before is still good.
        """
        started = time.perf_counter()
        batch = self.collector.collect(self.buffer, self.generators["assignment"], self.generators["noise"])
        collected = time.perf_counter()
        require_finite(batch)
        decay = 1.0 - self.phase / self.config.phases if self.config.learning_rate_decay else 1.0
        standardised = self.snapshot.standardise(batch.observations)
        diagnostics = self.learner.optimise(batch, standardised, decay * self.config.learning_rate)
        if self.config.normalise_observations:
            self.normaliser.update(batch.observations[:-1].reshape(-1, batch.observations.shape[-1]))
        self.phase += 1
        before, self.snapshot = self.snapshot, self._push()
        moved = normaliser_lag(before, self.snapshot, self.networks, batch)
        finished = time.perf_counter()
        self.seconds += finished - started
        row = {
            "phase": self.phase,
            "env_steps": self.env_steps,
            "wall_seconds": self.seconds,
            "episode_return": float(batch.episode_returns.mean()) if len(batch.episode_returns) else math.nan,
            "episodes": len(batch.episode_returns),
            **diagnostics,
            "kl_coefficient": self.learner.settings.kl_coefficient,
            "age_min": int(batch.ages.min()),
            "age_mean": float(batch.ages.mean()),
            "age_max": int(batch.ages.max()),
            "collect_seconds": collected - started,
            "normaliser_lag": moved,
        }
        self.rows.append(row)
        return row

    def evaluate_if_due(self) -> None:
        """Evaluate the current learner where the fixed grid has a point at this phase."""
        grid = evaluation_grid(self.config)
        if self.phase not in grid or len(self.evals) > list(grid).index(self.phase):
            return
        started, index = time.perf_counter(), list(grid).index(self.phase)
        noise = np.random.default_rng(np.random.SeedSequence((self.config.seed, 2, index)))
        seed = _environment_seed(self.config.seed, 1 + index)
        result = evaluate(self.eval_env, self.snapshot, self.networks, seed, noise)
        self.seconds += time.perf_counter() - started
        steps = {"env_steps": self.env_steps, "grid_steps": grid[self.phase]}
        self.evals.append({**steps, **result.summary(), "wall_seconds": self.seconds})

    def state(self) -> Arrays:
        """Everything a bitwise continuation needs, as arrays; the generators apart, see `draws`."""
        arrays: Arrays = {f"learner.{name}": value for name, value in self.learner.state().items()}
        arrays |= {f"env.{name}": value for name, value in self.collector.env.state().items()}
        arrays |= {
            f"phases.{name}": column for name, column in to_columns(self.rows, PHASE_COLUMNS, np.float64).items()
        }
        arrays |= {f"evals.{name}": column for name, column in to_columns(self.evals, EVAL_COLUMNS, np.float64).items()}
        arrays["normaliser"] = self.normaliser.state()
        arrays["collector.observations"] = self.collector.observations
        arrays["collector.returns"] = self.collector.running_returns
        arrays["buffer.version"] = np.array([snapshot.version for snapshot in self.buffer])
        for name in ("flat", "shift", "scale"):
            arrays[f"buffer.{name}"] = np.stack([getattr(snapshot, name) for snapshot in self.buffer])
        return arrays

    def draws(self) -> dict[str, Any]:
        """The states of the generators, as plain data."""
        return {name: self.generators[name].bit_generator.state for name in GENERATORS}

    def restore(self, phase: int, seconds: float, draws: dict[str, Any], arrays: Arrays) -> None:
        """Continue from what `draws` and `state` returned."""

        def part(prefix: str) -> Arrays:
            return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

        self.phase, self.seconds = phase, seconds
        for name in GENERATORS:
            self.generators[name].bit_generator.state = draws[name]
        self.learner.set_state(part("learner."))
        self.collector.env.set_state(part("env."))
        self.collector.observations = arrays["collector.observations"]
        self.collector.running_returns = arrays["collector.returns"]
        self.normaliser.set_state(arrays["normaliser"])
        self.buffer = PolicyBuffer(self.config.lag)
        held = [arrays[f"buffer.{name}"] for name in ("version", "flat", "shift", "scale")]
        for version, flat, shift, scale in zip(*held, strict=True):
            self.snapshot = Snapshot(int(version), flat, shift, scale, self.config.observation_limit)
            self.buffer.push(self.snapshot)
        self.rows, self.evals = to_rows(part("phases.")), to_rows(part("evals."))

    def _meet_random_observations(self) -> None:
        """Start the observation statistics from one phase of uniformly random actions.

        In environments of their own and on a stream hashed from the run's seed, so that every later draw is the same as
        without. The steps are counted nowhere, the rewards not looked at.
        """
        stream = np.random.SeedSequence((self.config.seed, 4))
        env = make_vector_env(self.config.env, num_envs=self.config.num_envs, backend=self.config.backend)
        seed, generator = int(stream.generate_state(1)[0] >> 1), np.random.default_rng(stream.spawn(1)[0])
        met = random_observations(env, self.config.phase_steps, seed, generator)
        self.normaliser.update(met.reshape(-1, env.observation_size))

    def _push(self) -> Snapshot:
        snapshot = take_snapshot(self.networks, self.normaliser, self.phase, self.config.observation_limit)
        self.buffer.push(snapshot)
        return snapshot


def train(
    config: RunConfig,
    out: Path,
    *,
    checkpoint_seconds: float = 20.0,
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Run a configuration to its end, or continue it where an earlier process stopped.

    Args:
        config: the configuration.
        out: the run's folder; see `RunFolder` for what it may hold.
        checkpoint_seconds: time between checkpoints; no influence on results.
        quiet: show no progress.
        say: called with each sentence for the user; standard error by default.

    Raises:
        UserError: the folder is not this run's, the disk is full, or training diverged.
        Preempted: SIGTERM came; a checkpoint was saved at the end of the phase.
    """
    if not 0.0 <= checkpoint_seconds <= 300.0:
        raise UserError(f"checkpoint_seconds is {checkpoint_seconds}, but it must lie between 0 and 300")
    say = say or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
    folder = RunFolder(out, config.run_id, config=config.resolved(), rebuild=build)
    with one_thread(), termination_noticed() as preempted, folder:
        if folder.status() == "complete":
            say(f"{out} already holds this run, complete: nothing to do")
            return
        run, started = Run(config), provenance.utc_now()
        saved = checkpoint.load_latest(folder.checkpoints, warn=say)
        if saved is not None:
            phase, arrays, meta = saved
            run.restore(phase, meta["seconds"], meta["draws"], arrays)
            started = meta["started"]
            say(f"resuming {out} at step {run.env_steps:,} of {config.steps:,}")
        run.evaluate_if_due()
        last_saved = time.monotonic()
        with Progress(_name(config), config.phases * config.batch, run.env_steps, quiet=quiet) as progress:
            while run.phase < config.phases:
                try:
                    row = run.advance()
                    run.evaluate_if_due()
                except UserError as error:
                    raise _stopped(error, run, folder) from error
                progress.advance(config.batch, _facts(run, row))
                if preempted() or time.monotonic() - last_saved >= checkpoint_seconds:
                    folder.heartbeat()  # first: a folder that another process took over must not be written to
                    meta = {"seconds": run.seconds, "started": started, "draws": run.draws()}
                    checkpoint.save(folder.checkpoints, progress=run.phase, arrays=run.state(), meta=meta)
                    last_saved = time.monotonic()
                if preempted() and run.phase < config.phases:
                    raise Preempted(f"asked to stop at step {run.env_steps:,}; the same command continues from there")
        _finish(folder, run, started)


def _finish(folder: RunFolder, run: Run, started: str) -> None:
    """Write the four files that a finished run leaves."""
    config, networks = run.config, run.networks
    final = {"parameters": networks.flat, "observation_shift": run.snapshot.shift}
    shape = {"observation_size": networks.observation_size, "action_size": networks.action_size}
    folder.finish(
        phases=to_columns(run.rows, PHASE_COLUMNS, np.float32),
        evals=to_columns(run.evals, EVAL_COLUMNS, np.float32),
        policy={**final, "observation_scale": run.snapshot.scale},
        policy_meta={**shape, "env": config.env, "backend": config.backend, "clip": config.observation_limit}
        | {"hidden": list(networks.hidden)},
        manifest=provenance.manifest(
            identity=config.identity,
            config=config.resolved(),
            run_id=config.run_id,
            started=started,
            finished=provenance.utc_now(),
            wall_seconds=round(run.seconds, 3),
            completed_steps=run.env_steps,
        ),
    )


def evaluation_grid(config: RunConfig) -> dict[int, int]:
    """The evaluation points: phase boundary → nominal steps, from step 0 to the last.

    Each nominal point is evaluated at the first phase boundary at or after it; points that share a boundary are one.
    The last is at the last boundary, up to a phase before its nominal steps.
    """
    grid = {}
    for point in range(config.eval_points + 1):
        nominal = round(point * config.steps / config.eval_points)
        grid[min(-(-nominal // config.batch), config.phases)] = nominal
    return grid


def _environment_seed(seed: int, purpose: int) -> int:
    """A 31-bit seed for a vector environment, distinct for each purpose within a run."""
    return int(np.random.SeedSequence((seed, 1, purpose)).generate_state(1)[0] >> 1)


def _stopped(error: UserError, run: Run, folder: RunFolder) -> UserError:
    """Say when and where training stopped, and what is still good."""
    when = f"training stopped in phase {run.phase + 1} (after environment step {run.env_steps:,}): {error}"
    if checkpoint.exists(folder.checkpoints):
        return UserError(f"{when}; the last good checkpoint is kept in {folder.checkpoints}")
    return UserError(f"{when}; no checkpoint had been written yet")


def _name(config: RunConfig) -> str:
    return f"{config.env} {config.algorithm} lag{config.lag} seed{config.seed}"


def _facts(run: Run, row: Row) -> dict[str, str]:
    """What the progress display says of a phase."""
    return {
        "phase": f"{run.phase}/{run.config.phases}",
        "eval": f"{run.evals[-1]['mean']:.1f}",
        "lag": f"{row['backward_lag']:.3f}+{row['forward_lag']:.3f}",
        "kept": f"{row['kept_fraction']:.3f}",
    }
