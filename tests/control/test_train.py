"""A run as its user sees it: the folder it leaves, the same bits twice, and the same bits after being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vaco import cli
from vaco.control.train import Run, evaluation_grid, train
from vaco.runs import checkpoint
from vaco.runs.config import RunConfig, build
from vaco.runs.preemption import SIGNALS, termination_noticed
from vaco.runs.tables import read_parquet

CLOCKS = {"wall_seconds", "collect_seconds", "align_seconds", "update_seconds"}
FILES = {"manifest.json", "phases.parquet", "evals.parquet", "policy.safetensors"}
SMALL = {"env": "Hopper-v5", "lag": 4, "steps": 12_288, "eval_points": 3, "eval_episodes": 2}


def small(**settings: object) -> RunConfig:
    return build(SMALL | settings)


def command(out: Path, *more: str, **changes: object) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in (SMALL | changes).items()]
    return [sys.executable, "-m", "vaco", "train", "--out", str(out), "--quiet", *settings, *more]


def assert_same_results(one: Path, other: Path) -> None:
    """Bitwise equality of the three data files, clock columns apart."""
    assert (one / "policy.safetensors").read_bytes() == (other / "policy.safetensors").read_bytes()
    for table in ("phases.parquet", "evals.parquet"):
        left, right = read_parquet(one / table), read_parquet(other / table)
        assert list(left) == list(right)
        for name in set(left) - CLOCKS:
            assert left[name].tobytes() == right[name].tobytes(), f"{table}: {name} differs"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(small(), out, quiet=True)
    return out


def test_leaves_exactly_the_four_files(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["config_hash"] == small().hash and manifest["completed_steps"] == 12_288
    assert manifest["identity"] == {"env": "Hopper-v5", "algorithm": "vaco", "lag": 4, "seed": 0, "steps": 12_288}


def test_one_row_a_phase_and_one_a_grid_point(finished: Path) -> None:
    phases, evals = read_parquet(finished / "phases.parquet"), read_parquet(finished / "evals.parquet")
    assert phases["phase"].tolist() == [1, 2, 3, 4, 5, 6]
    assert phases["env_steps"].tolist() == [2048 * phase for phase in range(1, 7)]
    assert (phases["age_max"] <= np.minimum(np.arange(6), 3)).all() and phases["age_max"].max() > 0
    assert evals["grid_steps"].tolist() == [0, 4096, 8192, 12288]
    assert evals["env_steps"].tolist() == [0, 4096, 8192, 12288]
    assert (np.diff(phases["learning_rate"]) < 0).all()
    assert ((phases["kept_fraction"] >= 0) & (phases["kept_fraction"] <= 1)).all()


def test_first_phase_has_no_lag_and_later_ones_have(finished: Path) -> None:
    lag = read_parquet(finished / "phases.parquet")["backward_lag"]
    assert lag[0] < 1e-6 and lag[1:].max() > 1e-3


@pytest.mark.parametrize("algorithm", ["vaco", "impala", "ppo_kl"])
def test_twice_the_same_bits(algorithm: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(small(algorithm=algorithm, steps=6_144), tmp_path / name, quiet=True)
    assert_same_results(tmp_path / "one", tmp_path / "two")


def test_without_normalisation_the_policy_sees_raw_observations(tmp_path: Path) -> None:
    run = Run(small(normalise_observations=False))
    run.advance()
    raw = np.linspace(-40, 40, run.networks.observation_size).astype(np.float32)
    np.testing.assert_allclose(run.snapshot.standardise(raw), raw, rtol=1e-6)
    train(small(normalise_observations=False, steps=2048), tmp_path / "run", quiet=True)


def test_first_statistics_of_random_actions_change_nothing_but_themselves(tmp_path: Path) -> None:
    """The steps are not counted, and no other stream notices: same environments, initial parameters and noise."""
    plain, random = Run(small()), Run(small(normaliser_start="random"))
    assert plain.normaliser.count == 0 and random.normaliser.count == random.config.batch
    assert (random.snapshot.scale != 1.0).any() and (plain.snapshot.scale == 1.0).all()
    assert (random.env_steps, random.draws()) == (0, plain.draws())
    skipped = ("normaliser", "buffer.shift", "buffer.scale")
    left, right = plain.state(), random.state()
    assert all(left[name].tobytes() == right[name].tobytes() for name in left if name not in skipped)
    other = Run(small(normaliser_start="random", seed=1)).normaliser.mean
    assert not np.array_equal(random.normaliser.mean, other), "it is the seed's own stream"
    assert np.array_equal(random.normaliser.mean, Run(small(normaliser_start="random")).normaliser.mean)
    assert random.advance()["normaliser_lag"] < plain.advance()["normaliser_lag"]
    for name in ("one", "two"):
        train(small(normaliser_start="random", steps=6_144), tmp_path / name, quiet=True)
    assert_same_results(tmp_path / "one", tmp_path / "two")


def test_a_checkpoint_of_before_a_column_existed_is_continued() -> None:
    config = small(steps=6_144)
    straight, relay = Run(config), Run(config)
    straight.advance()
    saved = {name: array.copy() for name, array in straight.state().items() if name != "phases.normaliser_lag"}
    relay.restore(1, 0.0, straight.draws(), saved)
    straight.advance()
    relay.advance()
    lag = relay.state()["phases.normaliser_lag"]
    assert np.isnan(lag[0]) and lag[1] == straight.rows[1]["normaliser_lag"]


def test_another_seed_gives_other_bits(finished: Path, tmp_path: Path) -> None:
    train(small(seed=1), tmp_path / "other", quiet=True)
    with pytest.raises(AssertionError):
        assert_same_results(finished, tmp_path / "other")


def test_killed_at_random_moments_it_ends_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    """SIGKILL a real process again and again, at a random moment after each has got a little further."""
    out, generator = tmp_path / "killed", np.random.default_rng(0)

    def progress() -> set[str]:
        return {path.name for path in (out / "checkpoints").glob("checkpoint-*[0-9].safetensors")}

    for kill in range(4):
        before = progress()
        process = subprocess.Popen(command(out, "--checkpoint-seconds=0"), stderr=subprocess.DEVNULL)
        while process.poll() is None and (kill and progress() == before):
            time.sleep(0.005)
        time.sleep(generator.uniform(0.0, 0.1 if kill else 2.0))
        process.kill()
        process.wait()
        assert not (out / "manifest.json").exists(), "the run must have been interrupted"
    assert progress(), "something must have been saved"
    subprocess.run(command(out), check=True)
    assert_same_results(finished, out)
    assert {path.name for path in out.iterdir()} == FILES


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals as in a terminal, also where the tests themselves run in the background, which ignores some."""
    fresh = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in fresh.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", SIGNALS)
def test_asked_to_stop_it_saves_and_says_how_to_continue(
    number: signal.Signals, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "preempted"
    process = subprocess.Popen(command(out, "--checkpoint-seconds=300"), stderr=subprocess.PIPE, text=True)
    while not (out / "run.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    started = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "the same command continues" in said and time.monotonic() - started < 30
    assert len(list((out / "checkpoints").iterdir())) == 1
    train(small(), out, quiet=True, say=lambda sentence: None)
    assert_same_results(finished, out)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("saved", [True, False])
def test_broken_off_at_once_it_says_what_is_there(
    saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    advance, count = Run.advance, 0

    def interrupted(run: Run) -> dict[str, float]:
        nonlocal count
        count += 1
        if count > 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return advance(run)

    monkeypatch.setattr(Run, "advance", interrupted)
    assert cli.run(command(tmp_path / "run", f"--checkpoint-seconds={300 * (not saved)}")[3:]) == 130
    said = capsys.readouterr().err
    assert ("continues from the last checkpoint" in said) == saved and ("starts from the beginning" in said) != saved
    assert list(tmp_path.glob("run/checkpoints/*")) if saved else not list(tmp_path.iterdir())


def test_what_is_to_be_ignored_stays_ignored() -> None:
    """As under nohup, or in the background of a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_noticed() as noticed:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and not noticed()
            os.kill(os.getpid(), signal.SIGTERM)
            assert noticed()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("algorithm", "backend", "settings"),
    [
        *(("ppo_kl", "batched", {}), ("none+kl_total", "batched", {}), ("impala", "batched", {})),
        ("vaco", "gymnasium", {}),
        ("geppo", "batched", {"reuse": [4, 3, 2, 1], "learning_rate_adaptive": True}),
        ("decoupled", "batched", {"proximal_decay": 0.8}),
    ],
)
def test_saved_at_every_phase_and_restored_it_continues_bit_for_bit(
    algorithm: str, backend: str, settings: dict[str, object]
) -> None:
    config = small(algorithm=algorithm, backend=backend, steps=8_192, **settings)
    straight, relay = Run(config), Run(config)
    straight.evaluate_if_due()
    relay.evaluate_if_due()
    for _ in range(config.phases):
        straight.advance()
        straight.evaluate_if_due()
        saved = {name: array.copy() for name, array in relay.state().items()}
        phase, draws, relay = relay.phase, json.dumps(relay.draws()), Run(config)
        relay.restore(phase, 0.0, json.loads(draws), saved)
        relay.advance()
        relay.evaluate_if_due()
    left, right = straight.state(), relay.state()
    assert straight.draws() == relay.draws()
    assert left.keys() == right.keys()
    for name in left:
        if name.split(".")[-1] not in CLOCKS:
            assert left[name].tobytes() == right[name].tobytes(), name


def test_a_damaged_checkpoint_is_reported_and_the_previous_one_used(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "damaged", []
    advance, count = Run.advance, 0

    def interrupted(run: Run) -> dict[str, float]:
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt
        return advance(run)

    monkeypatch.setattr(Run, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small(), out, checkpoint_seconds=0, quiet=True)
    monkeypatch.undo()
    newest = max((out / "checkpoints").iterdir())
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    train(small(), out, quiet=True, say=said.append)
    assert "damaged" in said[0] and "step 6,144" in said[1]
    assert_same_results(finished, out)


def test_a_finished_run_is_left_alone(finished: Path) -> None:
    said: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    train(small(), finished, quiet=True, say=said.append)
    assert "nothing to do" in said[0]
    assert before == {path: path.stat().st_mtime_ns for path in finished.iterdir()}


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaco import cli
    from vaco.control.collect import Collector

    collect, phases = Collector.collect, 0

    def poisoned(self: Collector, *generators: object) -> object:
        nonlocal phases
        phases += 1
        batch = collect(self, *generators)  # type: ignore[arg-type]
        if phases == 4:
            batch.rewards[3, 1] = np.nan
        return batch

    monkeypatch.setattr(Collector, "collect", poisoned)
    out = tmp_path / "nan"
    assert cli.run([*command(out)[3:], "--checkpoint-seconds=0"]) == 2
    message = capsys.readouterr().err
    assert "phase 4" in message and "actor 1" in message and "reward" in message and "last good checkpoint" in message
    found = checkpoint.load_latest(out / "checkpoints", warn=pytest.fail)
    assert found is not None and found[0] == 3


@pytest.mark.parametrize(("steps", "points"), [(2048, 20), (12_288, 3), (1_000_000, 20), (100_000, 7)])
def test_the_grid_covers_the_run(steps: int, points: int) -> None:
    config = small(steps=steps, eval_points=points)
    grid = evaluation_grid(config)
    assert min(grid) == 0 and max(grid) == config.phases
    for phase, nominal in grid.items():
        assert nominal - config.batch < phase * config.batch < nominal + config.batch


@pytest.mark.parametrize(
    "algorithm",
    [
        "ppo",
        "vaco",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("ppo_kl", "spo", "impala", "geppo", "decoupled")),
    ],
)
def test_every_algorithm_learns_to_balance(algorithm: str, tmp_path: Path) -> None:
    """InvertedPendulum: random and untrained policies last some tens of steps, 1000 are the limit."""
    config = build(
        {
            "env": "InvertedPendulum-v5", "algorithm": algorithm, "lag": 4, "steps": 65_536, "learning_rate": 1e-3,
            "eval_points": 1, "eval_episodes": 4, "num_envs": 16, "phase_steps": 64, "minibatch": 256,
        }
    )  # fmt: skip
    train(config, tmp_path / "run", quiet=True)
    returns = read_parquet(tmp_path / "run" / "evals.parquet")["deterministic_mean"]
    assert returns[0] < 50 and returns[-1] > 500


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ppo_learns_half_cheetah(seed: int, tmp_path: Path) -> None:
    """With the step size of a long run's beginning: decayed to zero within 200k steps, one of three stays below."""
    config = build(
        {"env": "HalfCheetah-v5", "algorithm": "ppo", "steps": 200_000, "learning_rate_decay": False, "seed": seed}
        | {"eval_points": 1}
    )
    train(config, tmp_path / "run", quiet=True)
    assert read_parquet(tmp_path / "run" / "evals.parquet")["mean"][-1] > 300


def test_one_thread_and_little_memory(tmp_path: Path) -> None:
    """The command settles for one thread, and a run's peak memory stays far below what a rule asks for."""
    script = (
        "from vaco.__main__ import main\n"
        "try: main()\nfinally:\n import pathlib, re, torch\n"
        " peak = re.search(r'VmHWM:\\s*(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1]\n"
        " print(torch.get_num_threads(), int(peak) // 1024)"
    )
    arguments = command(tmp_path / "run", steps=4096)[3:]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    threads, megabytes = map(int, done.stdout.split())
    assert threads == 1 and megabytes < 600 and time.monotonic() - started < 120


def test_a_run_counts_and_tells_of_simulations_that_became_unstable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over an interruption too; the episode's step is weighted by nothing, so that training goes on."""
    advance, said = Run.advance, []

    def breaking(run: Run) -> dict[str, float]:
        if run.phase in (1, 3):
            run.collector.env._simulators[2].qvel[:] = 1e11
        if run.phase == 4 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            raise KeyboardInterrupt
        return advance(run)

    monkeypatch.setattr(Run, "advance", breaking)
    with pytest.raises(KeyboardInterrupt, match="continues from the last checkpoint"):
        train(small(), tmp_path / "run", quiet=True, checkpoint_seconds=0, say=said.append)
    train(small(), tmp_path / "run", quiet=True, say=said.append)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["unstable_steps"] == {"training": 2, "evaluation": 0}
    told = [sentence for sentence in said if "unstable" in sentence]
    assert len(told) == 1 and "in phase 2, after environment step 2,048" in told[0]
    assert "training environment 2 became unstable (its velocity)" in told[0]
