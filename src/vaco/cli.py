"""The command line, `vaco COMMAND`.

A run: `train`, `evaluate`, `lm`, `algorithms`. Many runs: `estimate`, `archive`, `restore`, `verify`, `stale`. Besides:
`doctor`, `theory`.

Every mistake of the user ends with one sentence on standard error and exit code 2. Commands import what they need when
they run, so that `vaco algorithms` does not load a physics engine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from vaco import __version__
from vaco.errors import UserError, nearest
from vaco.lm import command as lm_command
from vaco.lm.command import DISCARD_OTHER, RUN_ID
from vaco.runs.preemption import TEMPORARY_FAILURE, Preempted

COMMANDS = (
    *("train", "evaluate", "lm", "algorithms", "estimate"),
    *("archive", "restore", "verify", "stale", "doctor", "theory"),
)
RESULTS: dict[str, Any] = {"type": Path, "default": Path("results"), "metavar": "DIR"}
TIER = "smoke, desk, paper, lm_desk or a file"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence, raised rather than printed."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see '{self.prog} --help'")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    parser = _Parser(prog="vaco", description="Asynchronous on-policy reinforcement learning under policy lag.")
    parser.add_argument("--version", action="version", version=f"vaco {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    train = commands.add_parser("train", help="train one run into a folder; resumes if it was interrupted")
    train.set_defaults(function=_train)
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    for flag, kind, meaning in (
        ("env", str, "Gymnasium task, such as HalfCheetah-v5"),
        ("algorithm", str, "alias or ALIGN+FILTER, see 'vaco algorithms'"),
        ("lag", int, "capacity K of the policy buffer; 1 is synchronous"),
        ("seed", int, "seed of the run"),
        ("steps", int, "environment steps"),
        ("backend", str, "batched (default) or gymnasium"),
        ("eval-points", int, "evaluations after step 0"),
        ("eval-episodes", int, "episodes per evaluation, stochastic and deterministic each"),
    ):
        train.add_argument(f"--{flag}", type=kind, help=meaning)
    train.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings; flags and --set win over it")
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the run, repeatable"
    )
    train.add_argument(
        "--checkpoint-seconds", type=float, default=20.0, metavar="S", help="time between checkpoints (default 20)"
    )
    train.add_argument(
        "--wait",
        type=float,
        metavar="S",
        help="seconds to wait for another process to leave the folder (default 0; within a SLURM job, long enough for "
        "the lock of a dead node to be recognised)",
    )
    train.add_argument("--discard-other", **DISCARD_OTHER)
    train.add_argument("--run-id", **RUN_ID)
    train.add_argument("--quiet", action="store_true", help="show no progress")

    evaluate = commands.add_parser("evaluate", help="returns of a finished run's policy, or of random actions")
    evaluate.set_defaults(function=_evaluate)
    evaluate.add_argument("--run", type=Path, metavar="DIR", help="folder of a finished run")
    evaluate.add_argument("--random", action="store_true", help="uniformly random actions instead of a policy")
    evaluate.add_argument("--env", help="Gymnasium task (with --random)")
    evaluate.add_argument("--episodes", type=int, default=10, help="episodes (default 10)")
    evaluate.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON")

    lm_command.add(commands)

    algorithms = commands.add_parser("algorithms", help="print the table of algorithms")
    algorithms.set_defaults(function=_algorithms)

    _add_many(commands)

    doctor = commands.add_parser("doctor", help="what this machine offers, whether results repeat here, what to fix")
    doctor.set_defaults(function=_doctor)
    doctor.add_argument("--results", **RESULTS, help="where runs will be kept")
    doctor.add_argument("--profile", type=Path, metavar="DIR", help="check a Snakemake profile against this cluster")
    doctor.add_argument("--tier", help="with --profile: are its time limits long enough for this tier?")
    doctor.add_argument("--quick", action="store_true", help="do not train the same short run twice")

    commands.add_parser("theory", help="verify every bound numerically and exactly; see 'vaco theory --help'")
    return parser


def _add_many(commands: Any) -> None:
    """Enter the commands for many runs."""
    estimate = commands.add_parser("estimate", help="runs, environment steps, core-hours and disk of a tier")
    estimate.set_defaults(function=_estimate)
    estimate.add_argument("--tier", default="smoke", help="smoke, desk, paper or a file (default smoke)")
    estimate.add_argument("--results", **RESULTS, help="where runs are kept")

    archive = commands.add_parser("archive", help="put the finished runs of a tier into a few tidy tables")
    archive.set_defaults(function=_archive)
    archive.add_argument("--tier", required=True, help=TIER)
    archive.add_argument("--out", type=Path, required=True, metavar="DIR", help="the archive's folder")
    archive.add_argument("--results", **RESULTS, help="where run folders and archives are")
    archive.add_argument("--references", type=Path, nargs="*", default=[], metavar="FILE", help="random policies")
    archive.add_argument("--allow-missing", action="store_true", help="leave out runs that are not finished")
    archive.add_argument("--anew", action="store_true", help="run folders only, none that an archive holds")

    restore = commands.add_parser("restore", help="lay archived runs out as run folders, below results/runs")
    restore.set_defaults(function=_restore)
    restore.add_argument("--tier", required=True, help=TIER)
    restore.add_argument("--results", **RESULTS, help="where archives are, and run folders will be")

    verify = commands.add_parser("verify", help="check archives and runs: checksums, completeness, origin")
    verify.set_defaults(function=_verify)
    verify.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="results/<tier>, an archive, run folders, or figures"
    )
    verify.add_argument("--tier", help="what an archive should hold (default: config/<tier>.yaml of the same name)")
    verify.add_argument("--allow-missing", action="store_true", help="runs that are not there are warnings")

    stale = commands.add_parser("stale", help="runs of a tier that exist of another training version only")
    stale.set_defaults(function=_stale)
    stale.add_argument("--tier", required=True, help=TIER)
    stale.add_argument("--results", **RESULTS, help="where archives and run folders are")


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0; 1 if a bound was violated; 2 for a user's mistake; 75 for a run that was asked to stop and
        can be continued; 130 after an interrupt.
    """
    parser = build_parser()
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
            raise UserError(f"there is no command '{arguments[0]}': {nearest(arguments[0], COMMANDS)}")
        if arguments and arguments[0] == "theory":  # has flags of its own, and lives beside the package
            return _theory(arguments[1:])
        options = parser.parse_args(arguments)
        if options.command is None:
            parser.print_help()
            return 0
        options.function(options)
    except UserError as error:
        print("vaco:", *str(error).split(), file=sys.stderr)  # on one line, whatever names it quotes
        return 2
    except Preempted as notice:
        print(f"vaco: {notice}", file=sys.stderr)
        return TEMPORARY_FAILURE
    except KeyboardInterrupt:
        print("vaco: interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _given(config: Path | None, assignments: Sequence[str]) -> dict[str, Any]:
    """The settings of ``--config`` and ``--set``, of which the latter win.

    Raises:
        UserError: one of them cannot be read.
    """
    from vaco.runs.config import parse_assignment, read_settings

    settings = read_settings(config) if config else {}
    return settings | dict(parse_assignment(text) for text in assignments)


def _train(options: argparse.Namespace) -> None:
    from vaco.runs.config import build

    settings = _given(options.config, options.set)
    flags = ("env", "algorithm", "lag", "seed", "steps", "backend", "eval_points", "eval_episodes")
    settings |= {name: getattr(options, name) for name in flags if getattr(options, name) is not None}
    config = build(settings)

    from vaco import stopwatch
    from vaco.control.train import train
    from vaco.runs.folder import discard_other
    from vaco.runs.lock import waiting
    from vaco.runs.provenance import require_planned

    stopwatch.stop()
    require_planned(options.run_id, config.run_id)

    def begin() -> None:
        if options.discard_other and discard_other(options.out, config.run_id, build):
            print(f"{options.out}: an unfinished run of other settings or code was discarded", file=sys.stderr)
        train(config, options.out, checkpoint_seconds=options.checkpoint_seconds, quiet=options.quiet)

    waiting(options.wait, begin)


def _evaluate(options: argparse.Namespace) -> None:
    from vaco import stopwatch
    from vaco.control import replay
    from vaco.lm.kind import KINDS, LANGUAGE
    from vaco.runs import provenance
    from vaco.runs.tables import write_json
    from vaco.runs.verify import kind_of_folder

    if options.episodes < 1:
        raise UserError(f"episodes is {options.episodes}, but at least 1 is needed")
    if options.seed < 0:
        raise UserError(f"seed is {options.seed}, but it must be at least 0")
    if options.random == (options.run is not None):
        raise UserError("give either --run DIR, to evaluate a finished run, or --random with --env")
    if options.run is not None and options.env is not None:
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
        result = replay.random_returns(options.env, options.episodes, options.seed)
        result["versions"] = provenance.machine()["versions"]
    else:
        if kind_of_folder(options.run, KINDS) is LANGUAGE:
            raise UserError(f"{options.run} is a run of a language model: give it to 'vaco lm evaluate --run'")
        result = replay.policy_returns(options.run, options.episodes, options.seed)
    print(f"{result['env']}, {result['policy']}: {result['mean']:.2f} ± {result['std']:.2f} over {result['episodes']}")
    if options.out:
        write_json(options.out, result)


def _theory(arguments: Sequence[str]) -> int:
    from theory.run import main

    return main(list(arguments))


def _algorithms(options: argparse.Namespace) -> None:
    from vaco.objectives.table import describe

    print(describe(), end="")


def _estimate(options: argparse.Namespace) -> None:
    from vaco.runs.estimate import estimate
    from vaco.runs.tiers import load_tier

    print(estimate(load_tier(options.tier), options.results).render())


def _archive(options: argparse.Namespace) -> None:
    from vaco import archive
    from vaco.lm.kind import kind_of_tier, load_any_tier
    from vaco.runs import archives

    tier = load_any_tier(options.tier)
    kind = kind_of_tier(tier)
    found = archives.collect(tier, kind, options.results, archives=not options.anew)
    if found.missing and not options.allow_missing:
        raise UserError(
            f"{len(found.missing)} runs of the tier '{tier.name}' are not finished, the first {found.missing[0]}: "
            "train them, or add --allow-missing"
        )
    archive.write(
        options.out,
        found.entries,
        tier=tier.name,
        kind=kind.name,
        plan=archives.plan_hash(tier),
        planned=len(tier.planned()),
        references=archives.references(tier, options.references, options.results),
    )
    print(f"{options.out}: {len(found.entries)} of {len(tier.planned())} runs of the tier '{tier.name}'")


def _restore(options: argparse.Namespace) -> None:
    from vaco.lm.kind import kind_of_tier, load_any_tier
    from vaco.runs import archives

    tier = load_any_tier(options.tier)
    kind = kind_of_tier(tier)
    found = archives.collect(tier, kind, options.results)
    made = sum(archives.restore(entry, kind, options.results) is not None for entry in found.entries)
    print(f"{made} runs laid out below {options.results / archives.FOLDERS}, {len(found.entries) - made} were there")
    if found.missing:
        print(f"{len(found.missing)} runs of the tier '{tier.name}' exist nowhere", file=sys.stderr)


def _verify(options: argparse.Namespace) -> None:
    from vaco.lm.kind import KINDS, load_any_tier
    from vaco.runs import archives, verify

    findings: list[verify.Finding] = []
    runs = products = 0
    for folder in archives.subjects(options.folders):
        if verify.holds_products(folder):
            found, count = verify.sidecars(folder, Path())
            products += count
        elif archives.is_archive(folder):
            named = Path("config", f"{folder.resolve().parent.name}.yaml")
            tier = load_any_tier(options.tier or named) if options.tier or named.is_file() else None
            found, count = verify.verify_archive(folder, tier, KINDS, allow_missing=options.allow_missing)
            runs += count
        else:
            found, count = verify.verify_folders(folder, KINDS)
            runs += count
        findings += found
    for finding in findings:
        print(finding)
    errors = [finding for finding in findings if finding.level == "error"]
    print(f"{runs} runs, {products} products: {len(errors)} errors, {len(findings) - len(errors)} warnings")
    if errors:
        raise UserError(f"{len(errors)} things are wrong in what was verified, the first: {errors[0]}")


def _stale(options: argparse.Namespace) -> None:
    from vaco.lm.kind import load_any_tier
    from vaco.runs import archives

    if not options.results.is_dir():
        raise UserError(f"there is no folder {options.results}: give the one that holds archives as --results")
    tier = load_any_tier(options.tier)
    found = list(archives.stale(tier, archives.everything(options.results)))
    for wanted, there in found:
        print(f"{there}  wanted: {wanted}")
    print(f"{len(found)} of the {len(tier.planned())} runs of the tier '{tier.name}' are stale", file=sys.stderr)


def _doctor(options: argparse.Namespace) -> None:
    from vaco.runs import doctor
    from vaco.runs.tiers import load_tier

    tier = load_tier(options.tier) if options.tier else None
    checks = doctor.examine(options.results, profile=options.profile, tier=tier, train=not options.quick)
    print(doctor.render(checks))
    problems = [check for check in checks if check.status == "fix"]
    if problems:
        raise UserError(f"{len(problems)} things need fixing, the first: {problems[0].hint}")
