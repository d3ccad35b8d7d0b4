"""One run, from a configuration to a finished folder: collect, align, filter, repeat.

    vaco train --env HalfCheetah-v5 --algorithm vaco --lag 8 --seed 0 --steps 1000000 --out DIR

`train` reads top to bottom. All state that a phase leaves to the next is in `Run`; saved at a phase boundary and
restored, it continues bit for bit, which is why a run can be killed at any moment.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaco.control import saved
from vaco.control.acting import networks_of
from vaco.control.collect import Batch, Collector, require_finite
from vaco.control.envs import VectorEnv, make_vector_env, spec_of
from vaco.control.evaluate import evaluate, random_observations
from vaco.control.learner import Learner
from vaco.control.normaliser_lag import normaliser_lag
from vaco.control.policy import Normaliser, Snapshot, take_snapshot
from vaco.control.record import EVAL_COLUMNS, PHASE_COLUMNS, Row, to_columns, to_rows
from vaco.control.reuse import Reuse
from vaco.errors import UserError
from vaco.lag import PolicyBuffer, Schedule
from vaco.runs import checkpoint, live, provenance
from vaco.runs.config import RunConfig, build
from vaco.runs.folder import RunFolder
from vaco.runs.identity import foreign_rules
from vaco.runs.preemption import Preempted, termination_noticed
from vaco.runs.progress import Progress
from vaco.runs.threads import one_thread

Arrays = dict[str, NDArray[Any]]

COLUMNS = {"phases": PHASE_COLUMNS, "evals": EVAL_COLUMNS}
GENERATORS = ("assignment", "noise", "shuffle")


class Run:
    """Everything that one phase leaves to the next."""

    def __init__(self, config: RunConfig, say: Callable[[str], None] = print, env_processes: int = 1) -> None:
        """Build the run at its very beginning.

        Args:
            config: the configuration.
            say: called with each sentence for the user.
            env_processes: how many processes step the environments; no influence on results.

        Raises:
            UserError: the environment is unknown or unsuitable.
        """
        self.config, self.say, self.phase, self.seconds = config, say, 0, 0.0
        self.env_processes, self._made = env_processes, list[VectorEnv]()
        env = self.eval_env = self._make_env(2 * config.eval_episodes)
        seeds = np.random.SeedSequence(config.seed).spawn(1 + len(GENERATORS))
        self.generators = {n: np.random.default_rng(s) for n, s in zip(GENERATORS, seeds[1:], strict=True)}
        self.networks = networks_of(config, env)
        self.networks.initialise(np.random.default_rng(seeds[0]), config.initial_log_std)
        self.normaliser = Normaliser(env.observation_size, env.indicators)
        if config.normaliser_start == "random":
            self._meet_random_observations()
        self.learner = Learner(config, self.networks, self.generators["shuffle"])
        self.reuse = Reuse(config.reuse)
        self.rows: list[Row] = []
        self.evals: list[Row] = []
        self.unstable = {"training": 0, "evaluation": 0}  # steps that MuJoCo undid
        self.restarts = 0  # how often every episode was begun anew, since the environments could not be saved
        self.buffer: PolicyBuffer[Snapshot] = PolicyBuffer(self._prepare_collection())
        self.snapshot = self._push()

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
        batch = self._collect()
        collected = time.perf_counter()
        require_finite(batch)
        progress = self.phase / self.config.phases
        decay = 1.0 - progress if self.config.learning_rate_decay else 1.0
        data = self.reuse.merge(batch)
        standardised = self.snapshot.standardise(data.observations)
        diagnostics = self.learner.optimise(data, standardised, decay * self.config.learning_rate, progress)
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
            "age_min": int(data.ages.min()),
            "age_mean": float(data.ages.mean()),
            "age_max": int(data.ages.max()),
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
        self._note_instability("evaluation", self.eval_env)
        self.seconds += time.perf_counter() - started
        steps = {"env_steps": self.env_steps, "grid_steps": grid[self.phase]}
        self.evals.append({**steps, **result.summary(), "wall_seconds": self.seconds})

    def _note_instability(self, where: str, env: VectorEnv) -> None:
        """Count the steps that MuJoCo undid, and say where and when the first was; see `VectorEnv`."""
        if env.unstable and not self.unstable[where]:
            actor, what = env.unstable[0]
            self.say(
                f"in phase {self.phase + 1}, after environment step {self.env_steps:,}, the simulation of {where} "
                f"environment {actor} became unstable (its {what}): the step is left out and the episode ended, as all "
                "further ones are, which the manifest counts"
            )
        self.unstable[where] += len(env.unstable)
        env.unstable.clear()

    def state(self) -> Arrays:
        """Everything a bitwise continuation needs, as arrays; the generators apart, see `draws`."""
        arrays: Arrays = {f"learner.{name}": value for name, value in self.learner.state().items()}
        arrays |= self._collection_state()
        arrays |= {f"reuse.{name}": value for name, value in self.reuse.state().items()}
        arrays |= {
            f"phases.{name}": column for name, column in to_columns(self.rows, PHASE_COLUMNS, np.float64).items()
        }
        arrays |= {f"evals.{name}": column for name, column in to_columns(self.evals, EVAL_COLUMNS, np.float64).items()}
        arrays["normaliser"] = self.normaliser.state()
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
            return checkpoint.subset(arrays, prefix)

        self.phase, self.seconds = phase, seconds
        for name in GENERATORS:
            self.generators[name].bit_generator.state = draws[name]
        self.learner.set_state(part("learner."))
        self._restore_collection(arrays)
        self.reuse.set_state(part("reuse."))
        self.normaliser.set_state(arrays["normaliser"])
        self.buffer = PolicyBuffer(self.buffer.schedule)
        held = [arrays[f"buffer.{name}"] for name in ("version", "flat", "shift", "scale")]
        for version, flat, shift, scale in zip(*held, strict=True):
            self.snapshot = Snapshot(int(version), flat, shift, scale, self.config.observation_limit)
            self.buffer.push(self.snapshot)
        self.rows, self.evals = to_rows(part("phases.")), to_rows(part("evals."))

    def start(self, folder: Path) -> None:
        """Called once, with the folder of checkpoints, after a restoration if any: start what collects beside this."""

    def stop(self) -> None:
        """Called at the end, whatever it is: end what `start` started, and close the environments."""
        while self._made:
            self._made.pop().close()

    def more_tables(self) -> dict[str, Arrays]:
        """Tables that a finished run leaves besides its phases and evaluations, by file name."""
        return {}

    def notes(self) -> dict[str, Any]:
        """What a finished run's manifest says besides."""
        return {} if self.eval_env.saved_exactly else {"episodes_restarted": self.restarts}

    def _prepare_collection(self) -> Schedule:
        """Make what collects; the schedule by which it is given policies."""
        config = self.config
        env = self._make_env(config.num_envs)
        self.collector = Collector(env, self.networks, config.phase_steps)
        self.collector.reset(_environment_seed(config.seed, 0))
        return config.ages

    def _collect(self) -> Batch:
        """The data of a phase."""
        batch = self.collector.collect(self.buffer, self.generators["assignment"], self.generators["noise"])
        self._note_instability("training", self.collector.env)
        return batch

    def _collection_state(self) -> Arrays:
        """What `state` must hold of what collects, the buffer and the generators apart."""
        if not self.collector.env.saved_exactly:
            return {}
        arrays = {f"env.{name}": value for name, value in self.collector.env.state().items()}
        arrays["collector.observations"] = self.collector.observations
        arrays["collector.returns"] = self.collector.running_returns
        return arrays

    def _restore_collection(self, arrays: Arrays) -> None:
        """Put back what `_collection_state` returned, among other arrays."""
        if not self.collector.env.saved_exactly:
            return self._restart_episodes()
        self.collector.env.set_state(checkpoint.subset(arrays, "env."))
        self.collector.observations = arrays["collector.observations"]
        self.collector.running_returns = arrays["collector.returns"]

    def _make_env(self, num_envs: int) -> VectorEnv:
        spec, backend = spec_of(self.config), self.config.backend
        env = make_vector_env(spec, num_envs=num_envs, backend=backend, processes=self.env_processes)
        self._made.append(env)
        return env

    def _restart_episodes(self) -> None:
        """Begin every episode anew, on a stream hashed from the seed and the phase.

        What an environment that cannot be saved comes to after a resumption: another run than the uninterrupted one,
        though the same for the same interruption. The manifest counts it.
        """
        self.restarts += 1
        stream = np.random.SeedSequence((self.config.seed, 5, self.phase))
        self.collector.reset(int(stream.generate_state(1)[0] >> 1))
        self.learner.scaler.returns[:] = 0.0

    def _meet_random_observations(self) -> None:
        """Start the observation statistics from one phase of uniformly random actions.

        In environments of their own and on a stream hashed from the run's seed, so that every later draw is the same as
        without. The steps are counted nowhere, the rewards not looked at.
        """
        stream = np.random.SeedSequence((self.config.seed, 4))
        env = self._make_env(self.config.num_envs)
        seed, generator = int(stream.generate_state(1)[0] >> 1), np.random.default_rng(stream.spawn(1)[0])
        met = random_observations(env, self.config.phase_steps, seed, generator)
        self.normaliser.update(met.reshape(-1, env.observation_size))

    def _push(self) -> Snapshot:
        snapshot = take_snapshot(self.networks, self.normaliser, self.phase, self.config.observation_limit)
        self.buffer.push(snapshot)
        return snapshot


def begin(config: RunConfig, say: Callable[[str], None], env_processes: int = 1) -> Run:
    """The run of a configuration at its very beginning; see `Run`.

    Raises:
        UserError: the environment is unsuitable, or not this process's to share out.
    """
    if not (config.recorded or config.actors):
        return Run(config, say, env_processes)
    if env_processes != 1:
        raise UserError(
            f"env-processes is {env_processes}, but this run's environments are its actors': ask for more actors"
        )
    from vaco.control.asynchronous.run import LiveRun, RecordedRun

    return LiveRun(config, say) if config.actors else RecordedRun(config, say)


def train(
    config: RunConfig,
    out: Path,
    *,
    checkpoint_seconds: float = 20.0,
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
    log: Sequence[str] = (),
    begin: Callable[[RunConfig, Callable[[str], None]], Run] = begin,
) -> None:
    """Run a configuration to its end, or continue it where an earlier process stopped.

    Args:
        config: the configuration.
        out: the run's folder; see `RunFolder` for what it may hold.
        checkpoint_seconds: time between checkpoints; no influence on results.
        quiet: show no progress.
        say: called with each sentence for the user; standard error by default.
        log: loggers that are told of every row, see `live.LOGGERS`; no influence on results.
        begin: makes the run.

    Raises:
        UserError: the folder is not this run's, the disk is full, or training diverged.
        Preempted: a signal asked it to stop; a checkpoint was saved at the end of the phase.
    """
    if not 0.0 <= checkpoint_seconds <= 300.0:
        raise UserError(f"checkpoint_seconds is {checkpoint_seconds}, but it must lie between 0 and 300")
    say = say or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
    folder = RunFolder(out, config.run_id, config=config.resolved(), rebuild=build)
    with one_thread(), termination_noticed() as preempted, folder:
        if folder.status() == "complete":
            say(f"{out} already holds this run, complete: nothing to do")
            return
        run, started = begin(config, say), provenance.utc_now()
        found = checkpoint.load_latest(folder.checkpoints, warn=say)
        if found is not None:
            phase, arrays, meta = found
            run.restarts = meta.get("restarts", 0)
            run.restore(phase, meta["seconds"], meta["draws"], arrays)
            started, run.unstable = meta["started"], meta.get("unstable", run.unstable)
            say(f"resuming {out} at step {run.env_steps:,} of {config.steps:,}{_restarted(run)}")
        last_saved = time.monotonic()
        with (
            collecting(run, folder.checkpoints),
            live.watched(live.sinks(log, out, COLUMNS, **_told(run), warn=say), run.rows, run.evals) as watch,
            Progress(_name(config), config.phases * config.batch, run.env_steps, quiet=quiet) as progress,
        ):
            run.evaluate_if_due()
            watch()
            while run.phase < config.phases:
                try:
                    row = run.advance()
                    run.evaluate_if_due()
                except UserError as error:
                    raise _stopped(error, run, folder) from error
                watch()
                progress.advance(config.batch, _facts(run, row))
                if preempted() or time.monotonic() - last_saved >= checkpoint_seconds:
                    folder.heartbeat()  # first: a folder that another process took over must not be written to
                    meta = {"seconds": run.seconds, "started": started, "draws": run.draws(), "unstable": run.unstable}
                    meta |= {"restarts": run.restarts} if run.restarts else {}
                    checkpoint.save(folder.checkpoints, progress=run.phase, arrays=run.state(), meta=meta)
                    last_saved = time.monotonic()
                if preempted() and run.phase < config.phases:
                    raise Preempted(f"asked to stop at step {run.env_steps:,}; the same command continues from there")
        _finish(folder, run, started)


@contextmanager
def collecting(run: Run, folder: Path) -> Iterator[None]:
    """Have what collects beside a run at work, within the ``with`` statement."""
    try:
        run.start(folder)
        yield
    finally:
        run.stop()


def _finish(folder: RunFolder, run: Run, started: str) -> None:
    """Write the files that a finished run leaves."""
    config, networks = run.config, run.networks
    statistics = {"observation_shift": run.snapshot.shift, "observation_scale": run.snapshot.scale}
    folder.finish(
        phases=to_columns(run.rows, PHASE_COLUMNS, np.float32),
        evals=to_columns(run.evals, EVAL_COLUMNS, np.float32),
        more=run.more_tables(),
        policy=saved.named(networks, networks.flat) | statistics,
        policy_meta=saved.described(config, networks, run.eval_env.observation_shape),
        manifest=provenance.manifest(
            identity=config.identity,
            config=config.resolved(),
            run_id=config.run_id,
            started=started,
            finished=provenance.utc_now(),
            wall_seconds=round(run.seconds, 3),
            completed_steps=run.env_steps,
            rules=foreign_rules(config.functions),
        )
        | {"unstable_steps": run.unstable}
        | run.notes(),
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


def _restarted(run: Run) -> str:
    """What a resumption says where it is no exact one."""
    if not run.restarts:
        return ""
    return (
        f"; {run.config.env} cannot be saved, so all episodes begin anew and the bits are not those of an "
        f"uninterrupted run (resumptions so far: {run.restarts})"
    )


def _stopped(error: UserError, run: Run, folder: RunFolder) -> UserError:
    """Say when and where training stopped, and what is still good."""
    if run.rows:
        folder.note_stop(f"in phase {run.phase + 1}: {error}")
    when = f"training stopped in phase {run.phase + 1} (after environment step {run.env_steps:,}): {error}"
    if checkpoint.exists(folder.checkpoints):
        return UserError(f"{when}; the last good checkpoint is kept in {folder.checkpoints}")
    curves = f", its rows so far are in {folder.path}" if run.rows else ""
    return UserError(f"{when}; no checkpoint had been written yet{curves}")


def _name(config: RunConfig) -> str:
    return f"{config.env} {config.algorithm} {config.asynchrony} seed{config.seed}"


def _told(run: Run) -> dict[str, Any]:
    """What loggers are told of a run."""
    return {"name": _name(run.config), "run": str(run.config.run_id), "config": run.config.resolved()}


def _facts(run: Run, row: Row) -> dict[str, str]:
    """What the progress display says of a phase."""
    return {
        "phase": f"{run.phase}/{run.config.phases}",
        "eval": f"{run.evals[-1]['mean']:.1f}",
        "lag": f"{row['backward_lag']:.3f}+{row['forward_lag']:.3f}",
        "kept": f"{row['kept_fraction']:.3f}",
    }
