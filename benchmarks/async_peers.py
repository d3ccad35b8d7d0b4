#!/usr/bin/env python
"""Asynchronous training on two cores, beside APPO and IMPALA of RLlib and APPO of Sample Factory.

    python benchmarks/async_peers.py --rllib ENV/bin/python --sample-factory SF/bin/python --out benchmarks/results
    python benchmarks/async_peers.py --updates 5 --rounds 1 --out /tmp/quick

`--rllib` and `--sample-factory` are interpreters of environments of their own, since both want another Gymnasium than
ours; without, they are left out:

    python3.11 -m venv ENV
    ENV/bin/pip install torch 'ray[rllib]' 'gymnasium[mujoco]'
    python3.11 -m venv SF
    SF/bin/pip install torch sample-factory==2.1.1 'gymnasium[mujoco]'

HalfCheetah, 16 environments x 128 steps a batch, 10 epochs, minibatch 512, two (64, 64) tanh networks, evaluation left
out. All processes of a contestant share the first two cores; `synchronous`, our own loop, has the first alone. The
contestants take turns within each round, so that a drifting machine slows all of them alike; reported are medians over
the rounds, and of ratios within a round. A step counts once, when it has been learnt from, and seconds are the wall's,
since most of the work is in other processes than the measured one.

Ours has two actors of 8 environments, Sample Factory two workers of 8, RLlib one runner of 16, and learns in the
process that drives it, which leaves the other core to the runner. APPO's replay of old batches is off: with it, a step
would be learnt from twice as often as in all others. Sample Factory's Gymnasium has HalfCheetah-v4, the same physics.
RLlib normalises neither observations nor rewards. All else is as shipped. The load of the machine before and after is
written down: on a machine that is busy with other things, the numbers say little. Writes async_peers.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

from peers import BATCH, ENVS, EPOCHS, MINIBATCH, PHASE_STEPS, Times, interpreter, measure, rllib_algorithm

TASK, OLD_TASK, ACTORS, WARM_UP, TARGET = "HalfCheetah-v5", "HalfCheetah-v4", 2, 5, 5.0
NAMES = {
    "asynchronous": "ours, two actors",
    "synchronous": "ours, synchronous, one core",
    "appo": "RLlib APPO",
    "impala": "RLlib IMPALA",
    "sample_factory": "Sample Factory APPO",
}
PACKAGES = {"appo": "ray", "impala": "ray", "sample_factory": "sample-factory"}
Speeds = dict[str, float]


def ours(name: str, updates: int) -> Speeds:
    """Our training, as asynchronous.py measures it."""
    from asynchronous import contestant

    with tempfile.TemporaryDirectory() as folder:
        found: Speeds = contestant(name, updates, Path(folder, "schedule.parquet"))
    return found


def rllib(name: str, updates: int) -> Speeds:
    """An asynchronous algorithm of RLlib: the runner is another process, the learner a thread of this one."""
    import ray

    more = {"lambda_": 0.95, "clip_param": 0.2, "use_circular_buffer": False} if name == "APPO" else {}
    algorithm = rllib_algorithm(name, TASK, 1, **more)
    learner, times = algorithm.learner_group._learner, Times(WARM_UP)
    update = learner.update

    def timed(*arguments: Any, **options: Any) -> Any:
        result = update(*arguments, **options)  # waits until the thread has learnt from the batch
        times()
        return result

    learner.update = timed
    # RLlib gives itself 10 seconds for an iteration, so there are a few batches more than asked for.
    while len(times.seconds) <= WARM_UP + updates:
        algorithm.train()
    speeds = times.speeds((len(times.seconds) - 1 - WARM_UP) * BATCH)
    algorithm.stop()
    ray.shutdown()  # or its helpers outlive this process, and slow down who is next
    return speeds


def make_environment(name: str, *_: Any, **__: Any) -> Any:
    """What Sample Factory's workers call, which find it by its name."""
    import gymnasium

    return gymnasium.make(name)


def sample_factory_words(folder: str, updates: int) -> list[str]:
    """The command line of Sample Factory for the settings that all contestants have."""
    settings: dict[str, Any] = {
        "algo": "APPO",
        "env": OLD_TASK,
        "experiment": "speed",
        "train_dir": folder,
        "device": "cpu",
        "num_workers": ACTORS,
        "num_envs_per_worker": ENVS // ACTORS,
        "rollout": PHASE_STEPS,
        "batch_size": MINIBATCH,
        "num_batches_per_epoch": BATCH // MINIBATCH,
        "num_epochs": EPOCHS,
        "shuffle_minibatches": True,
        "use_rnn": False,
        "nonlinearity": "tanh",
        "actor_critic_share_weights": False,
        "adaptive_stddev": False,
        "learning_rate": 3e-4,
        "gae_lambda": 0.95,
        "ppo_clip_ratio": 0.2,
        "max_grad_norm": 0.5,
        "exploration_loss_coeff": 0.0,
        # It ends with the first batch after more than so many steps, and hears of the steps one batch late.
        "train_for_env_steps": (WARM_UP + updates) * BATCH - 1,
        "seed": 0,
    }
    return [*(f"--{name}={value}" for name, value in settings.items()), "--encoder_mlp_layers", "64", "64"]


def sample_factory(updates: int) -> Speeds:
    """APPO of Sample Factory: workers, the policy and the learner are processes of their own."""
    from sample_factory.algo.runners.runner import AlgoObserver
    from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
    from sample_factory.envs.env_utils import register_env
    from sample_factory.train import make_runner

    times = Times(WARM_UP)

    class Watch(AlgoObserver):  # type: ignore[misc]
        def on_training_step(self, *_: Any) -> None:
            times()

    register_env(OLD_TASK, make_environment)
    with tempfile.TemporaryDirectory() as folder:
        words = sample_factory_words(folder, updates)
        parser, _ = parse_sf_args(words)
        _, runner = make_runner(parse_full_cfg(parser, words))
        runner.register_observer(Watch())
        if runner.init() or runner.run():
            raise SystemExit("Sample Factory did not end its training")
    return times.speeds((len(times.seconds) - 1 - WARM_UP) * BATCH)


def worker(name: str, updates: int) -> dict[str, Any]:
    """Measure one contestant, in this process and its children."""
    if name in ("asynchronous", "synchronous"):
        return {"by_the_wall": ours(name, updates)["steps_per_second"]}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    found = sample_factory(updates) if name == "sample_factory" else rllib(name.upper(), updates)
    return {"by_the_wall": found["by_the_wall"], "version": version(PACKAGES[name])}


def summarise(samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and of the ratios of ours to each other within a round."""
    speeds = {name: [one["by_the_wall"] for one in each] for name, each in samples.items()}
    mine = speeds["asynchronous"]
    others = {name: each for name, each in speeds.items() if name != "asynchronous"}
    return {
        "speeds": {name: median(each) for name, each in speeds.items()},
        "ratios": {n: median(a / b for a, b in zip(mine, each, strict=True)) for n, each in others.items()},
        "versions": {name: each[0]["version"] for name, each in samples.items() if "version" in each[0]},
        "samples": samples,
    }


def render(record: dict[str, Any]) -> str:
    """The table of the book."""
    lines = ["| HalfCheetah, two cores | steps a second | ours / it | target |", "|---|---|---|---|"]
    for name, speed in record["speeds"].items():
        ratio = f"**{record['ratios'][name]:.2f}**" if name in record["ratios"] else ""
        target = f"{TARGET:g}" if name in ("appo", "impala") else ""
        lines.append(f"| {NAMES[name]} | {speed:,.0f} | {ratio} | {target} |")
    made = "".join(f", {NAMES[name]} {number}" for name, number in record["versions"].items())
    load = f"load {record['machine']['load_1min']:.1f} before and {record['load_after']:.1f} after"
    rounds = f"{record['rounds']} rounds of {record['updates']} updates"
    lines += ["", f"{record['machine']['cpu']}, {rounds}{made}; {load}."]
    return "\n".join([*lines, record["note"]]).rstrip() + "\n"


def contestants(rllib_python: str | None, sample_factory_python: str | None) -> dict[str, str]:
    """Who takes part, each with its interpreter."""
    found = {"asynchronous": sys.executable, "synchronous": sys.executable}
    if rllib_python:
        found |= dict.fromkeys(("appo", "impala"), interpreter(rllib_python))
    if sample_factory_python:
        found["sample_factory"] = interpreter(sample_factory_python)
    return found


def main() -> None:
    """Measure everything, or, with --worker, one thing."""
    # The interpreters of the peers lack ours, so the usual parser is not to be had here.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rllib", help="interpreter with ray[rllib]; without, it is left out")
    parser.add_argument("--sample-factory", help="interpreter with sample-factory; without, it is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--note", default="", help="a sentence on the machine, for the table")
    parser.add_argument("--out", default=str(Path(__file__).parent / "out"))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        name, updates = given.worker
        print("\n" + json.dumps(worker(name, int(updates))))
        return
    from vaco.demonstrations.measure import machine
    from vaco.paths import path_flag

    out, before = path_flag(given.out), machine()
    samples: dict[str, list[dict[str, Any]]] = {}
    pythons = contestants(given.rllib, given.sample_factory)
    for number in range(given.rounds):
        for name, python in pythons.items():
            found = measure(python, __file__, name, str(given.updates))
            samples.setdefault(name, []).append(found)
            say = f"round {number + 1}  {name:14} {found['by_the_wall']:9,.0f} steps/s"
            print(say, file=sys.stderr, flush=True)
    record = {
        "machine": before,
        "load_after": os.getloadavg()[0],
        "rounds": given.rounds,
        "updates": given.updates,
        "note": given.note,
        **summarise(samples),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "async_peers.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "async_peers.md").write_text(render(record), encoding="utf-8")
    print(render(record))


if __name__ == "__main__":
    if "--worker" in sys.argv:
        main()
    else:
        from vaco.command import run_command

        run_command(main)
