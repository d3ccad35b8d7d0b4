"""The commands that look at single runs: `evaluate`, `plot`, `play`, `export`; `status` is in `cli_many`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from vaco.command import whole
from vaco.errors import UserError
from vaco.paths import path_flag, told_apart

COMMANDS = ("evaluate", "plot", "play", "export")
BLOCKS = "▁▂▃▄▅▆▇█"
LINE = 60
"""Characters of a curve in the terminal."""


def add(commands: Any) -> None:
    """Enter them into the command line."""
    evaluate = commands.add_parser("evaluate", help="returns of a finished run's policy, or of random actions")
    evaluate.set_defaults(function=_evaluate)
    evaluate.add_argument("--run", type=path_flag, metavar="DIR", help="folder of a finished run")
    evaluate.add_argument("--random", action="store_true", help="uniformly random actions instead of a policy")
    evaluate.add_argument("--env", help="environment (with --random), as in 'vaco train'")
    add_environment(evaluate)
    evaluate.add_argument("--episodes", type=whole, default=10, help="episodes (default 10)")
    evaluate.add_argument("--seed", type=whole, default=0, help="seed (default 0)")
    evaluate.add_argument("--out", type=path_flag, metavar="FILE", help="write the result as JSON")

    plot = commands.add_parser("plot", help="learning curves and lags of runs, also of runs under way")
    plot.set_defaults(function=_plot)
    plot.add_argument("runs", type=path_flag, nargs="+", metavar="DIR", help="the --out of a run")
    plot.add_argument(
        "--out", type=path_flag, metavar="FILE.png", help="draw a picture; without, lines in the terminal"
    )

    play = commands.add_parser("play", help="watch a finished run's policy, in a window or as a video")
    play.set_defaults(function=_play)
    play.add_argument("--run", type=path_flag, required=True, metavar="DIR", help="folder of a finished run")
    play.add_argument(
        "--video", type=path_flag, metavar="FILE", help=".mp4, .gif, or .png for a strip of pictures; else a window"
    )
    play.add_argument("--episodes", type=whole, default=1, help="episodes (default 1)")
    play.add_argument("--seed", type=whole, default=0, help="seed (default 0)")
    play.add_argument("--sample", action="store_true", help="sample actions instead of taking the likeliest")

    export = commands.add_parser("export", help="a finished run's policy for another library")
    export.set_defaults(function=_export)
    export.add_argument("--run", type=path_flag, required=True, metavar="DIR", help="folder of a finished run")
    export.add_argument("--to", required=True, metavar="FORMAT", help="torchscript, onnx or sb3")
    export.add_argument("--out", type=path_flag, required=True, metavar="FILE", help="the file to write")


def add_environment(command: argparse.ArgumentParser) -> None:
    """The flags that say more of an environment than its name."""
    command.add_argument(
        "--env-arg", action="append", default=[], metavar="NAME=VALUE", help="argument of the environment, repeatable"
    )
    command.add_argument(
        "--wrapper",
        action="append",
        default=[],
        metavar="'CLASS NAME=VALUE'",
        help="wrapper around it, repeatable, the innermost first: module:Class or a name of gymnasium.wrappers",
    )


def _evaluate(options: argparse.Namespace) -> None:
    from vaco import stopwatch
    from vaco.campaign.verify import kind_of_folder
    from vaco.control import replay
    from vaco.lm.kind import KINDS, LANGUAGE
    from vaco.runs import provenance
    from vaco.runs.config import parse_arguments
    from vaco.runs.tables import write_json

    if options.episodes < 1:
        raise UserError(f"episodes is {options.episodes}, but at least 1 is needed")
    if options.seed < 0:
        raise UserError(f"seed is {options.seed}, but it must be at least 0")
    if options.random == (options.run is not None):
        raise UserError("give either --run DIR, to evaluate a finished run, or --random with --env")
    if options.run is not None and (options.env is not None or options.env_arg or options.wrapper):
        raise UserError("--env belongs to --random; a finished run knows its own task")
    if options.random and options.env is None:
        raise UserError("--random needs a task: give --env, such as --env HalfCheetah-v5")
    if options.out:
        try:  # before the episodes are run, not after
            options.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{options.out} cannot be written ({error.strerror}): give another --out") from error
    stopwatch.stop()
    if options.random:
        from vaco.control.envs import EnvSpec

        spec = EnvSpec(options.env, parse_arguments(options.env_arg, "--env-arg"), tuple(options.wrapper))
        result = replay.random_returns(spec, options.episodes, options.seed)
        result["versions"] = provenance.machine()["versions"]
    else:
        if kind_of_folder(options.run, KINDS) is LANGUAGE:
            raise UserError(f"{options.run} is a run of a language model: give it to 'vaco lm evaluate --run'")
        result = replay.policy_returns(options.run, options.episodes, options.seed)
    if options.out:
        write_json(options.out, result)
    print(f"{result['env']}, {result['policy']}: {result['mean']:.2f} ± {result['std']:.2f} over {result['episodes']}")


def _plot(options: argparse.Namespace) -> None:
    from vaco.runs.status import curves, status_of

    found, labels, notes = {}, {}, list[str]()
    for path in options.runs:
        status = status_of(path)
        phases, evals = curves(path)
        if "update" in phases or "update" in evals:
            raise UserError(
                f"{path} is a run of a language model, without the returns and steps of an environment that are drawn "
                "here: 'vaco compare' draws it"
            )
        labels[path] = f"{status.env} {status.algorithm} {status.asynchrony} seed{status.seed}"
        found[path] = {"phases": phases, "evals": evals}
        if status.state == "complete" and status.note:  # its episodes were restarted
            print(f"vaco: {path}: {status.note}", file=sys.stderr)
            notes.append(f"{labels[path]}: {status.note}")
    if len({label.split(" ")[0] for label in labels.values()}) == 1:
        labels = {path: label.partition(" ")[2] for path, label in labels.items()}
    if len(set(labels.values())) < len(labels):  # runs that differ in some other setting
        ends = dict(zip(labels, told_apart(list(labels)), strict=True))
        labels = {path: f"{ends[path]} {label}" for path, label in labels.items()}
    runs = {labels[path]: tables for path, tables in found.items()}
    if options.out is None:
        print("\n".join(in_terminal(runs)))
        return
    if options.out.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"{options.out} is no picture: give --out a name that ends in .png, .pdf or .svg")
    from vaco.report.figures.own_runs import draw

    figure = draw(runs, "; ".join(notes))
    try:
        figure.savefig(options.out)
    except OSError as error:
        raise UserError(f"{options.out} cannot be written ({error.strerror}): give another --out") from error
    print(f"{options.out}: {len(runs)} runs")


def in_terminal(runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Curves as lines of blocks: returns of evaluations and the lags, each scaled to its own range over all runs."""
    lines = []
    for table, name, title in (
        ("evals", "mean", "return of evaluations"),
        ("phases", "backward_lag", "backward lag"),
        ("phases", "forward_lag", "forward lag"),
    ):
        values = {label: [float(v) for v in tables[table].get(name, ())] for label, tables in runs.items()}
        known = [v for series in values.values() for v in series if v == v]
        if not known:
            continue
        low, high = min(known), max(known)
        lines.append(f"{title}, {low:.4g} to {high:.4g}")
        width = max(map(len, values))
        for label, series in values.items():
            last = f"  {series[-1]:.4g}" if series else "  no data yet"
            lines.append(f"  {label:{width}}  {sparkline(series, low, high)}{last}")
    return lines or ["no data yet"]


def sparkline(values: Sequence[float], low: float, high: float, width: int = LINE) -> str:
    """Values as blocks between two bounds, means of neighbours where there are more than `width`; NaN is a blank."""
    if len(values) > width:
        edges = [round(index * len(values) / width) for index in range(width + 1)]
        cut = [[v for v in values[a:b] if v == v] for a, b in pairwise(edges)]
        values = [sum(part) / len(part) if part else float("nan") for part in cut]
    span = (high - low) or 1.0
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round(top * (v - low) / span)] if v == v else " " for v in values)


def _play(options: argparse.Namespace) -> None:
    if options.episodes < 1:
        raise UserError(f"episodes is {options.episodes}, but at least 1 is needed")
    if options.seed < 0:
        raise UserError(f"seed is {options.seed}, but it must be at least 0")
    _require_folder(options.video, "--video")
    from vaco.control.play import play
    from vaco.control.saved import load

    policy = load(options.run)
    returns = play(
        policy,
        video=options.video,
        episodes=options.episodes,
        seed=options.seed,
        deterministic=not options.sample,
    )
    shown = ", ".join(f"{value:.2f}" for value in returns)
    print(f"{policy.spec.name}, policy of {options.run}: return {shown}{f', in {options.video}' * bool(options.video)}")


def _export(options: argparse.Namespace) -> None:
    _require_folder(options.out, "--out")
    from vaco.control.export import export
    from vaco.control.saved import load

    export(load(options.run), options.to, options.out)
    print(f"{options.out}: the policy of {options.run}, for {options.to}")


def _require_folder(path: Path | None, flag: str) -> None:
    """Refuse a file in a folder that is not there, before the work is done."""
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f"{path.parent} is no folder: make it, or give another {flag}")
