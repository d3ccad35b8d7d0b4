"""The command line, `vaco COMMAND`.

A run: `train`, `replay`, `status`, `plot`, `play`, `export`, `evaluate`, `lm`, `algorithms`. Losses: `conformance`.
Many runs: `compare`, `plan`, `status`, `estimate`, `cost`, `archive`, `restore`, `verify`, `stale`, `deposit`, `fetch`.
Besides: `schedule`, `doctor`, `theory`.

Every mistake of the user ends with one sentence on standard error and exit code 2. Commands import what they need when
they run, so that `vaco algorithms` does not load a physics engine.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaco import __version__, cli_many, cli_run
from vaco.command import INTERRUPTED, MISTAKE, Parser, whole
from vaco.conformance import command as conformance_command
from vaco.control.asynchronous import replay_command
from vaco.errors import UserError, nearest
from vaco.extras import missing
from vaco.lag import forms
from vaco.lm import command as lm_command
from vaco.lm.command import DISCARD_OTHER, RUN_ID
from vaco.paths import path_flag
from vaco.runs import schedule_command
from vaco.runs.preemption import TEMPORARY_FAILURE, Preempted, requeue

COMMANDS = (
    *("train", "replay", "schedule", *cli_run.COMMANDS, "lm", "algorithms", "conformance", "compare"),
    "estimate",
    *cli_many.COMMANDS,
    *("archive", "restore", "verify", "stale", "doctor", "theory"),
)
RESULTS: dict[str, Any] = {"type": path_flag, "default": Path("results"), "metavar": "DIR"}
TRAIN_FLAGS: tuple[tuple[str, Any, str], ...] = (
    ("env", str, "Gymnasium task, such as HalfCheetah-v5; module:Task-v0; or module:callable that makes one"),
    ("algorithm", str, "alias or ALIGN+FILTER, see 'vaco algorithms'"),
    ("lag", str, f"capacity K of the policy buffer, 1 is synchronous; or one of {forms()}"),
    (
        "actors",
        int,
        "processes that collect beside the learner (default 0: it collects itself, with simulated lag)",
    ),
    ("engine", str, "what runs the actors: processes (default) or ray"),
    ("pull", str, "when an actor looks for newer weights: before each segment (default) or step"),
    ("seed", whole, "seed of the run"),
    ("steps", whole, "environment steps"),
    ("backend", str, "auto (default), batched or gymnasium"),
    ("eval-points", whole, "evaluations after step 0"),
    ("eval-episodes", whole, "episodes per evaluation, stochastic and deterministic each"),
)
TIER = "smoke, desk, paper, lm_desk or a file"


class _Import(argparse.Action):
    """Import a module of rules at once, so that every later flag can name them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        from vaco.objectives.plugins import import_rules

        import_rules(values)
        namespace.imported = [*getattr(namespace, "imported", []), values]


class _Command(Parser):
    """A command, which takes rules from elsewhere."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        meaning = "import a module that registers filters or alignments of your own; repeatable"
        self.add_argument("--import", action=_Import, metavar="MODULE", default=argparse.SUPPRESS, help=meaning)


def _all_settings() -> str:
    """What `vaco train --help` ends with; the settings are loaded when help is asked for, and not before."""
    from vaco.runs.config import SETTINGS
    from vaco.runs.explain import listing

    width = shutil.get_terminal_size().columns - 2
    return f"\nsettings, each for --set NAME=VALUE or a file:\n{listing(SETTINGS, width)}\n"


def build_parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    parser = _Command(prog="vaco", description="Asynchronous on-policy reinforcement learning under policy lag.")
    parser.add_argument("--version", action="version", version=f"vaco {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Command)

    _add_train(commands)

    schedule_command.add(commands)
    replay_command.add(commands)
    cli_run.add(commands)

    lm_command.add(commands)

    conformance_command.add(commands)

    algorithms = commands.add_parser("algorithms", help="print the table of algorithms")
    algorithms.set_defaults(function=_algorithms)

    cli_many.add(commands)
    _add_many(commands)

    doctor = commands.add_parser("doctor", help="what this machine offers, whether results repeat here, what to fix")
    doctor.set_defaults(function=_doctor)
    doctor.add_argument("--results", **RESULTS, help="where runs will be kept")
    doctor.add_argument(
        "--profile", type=path_flag, metavar="DIR", help="check a Snakemake profile against this cluster"
    )
    doctor.add_argument("--tier", help="with --profile: are its time limits long enough for this tier?")
    doctor.add_argument("--quick", action="store_true", help="do not train the same short run twice")

    commands.add_parser("theory", help="verify every bound numerically and exactly; see 'vaco theory --help'")
    return parser


def _add_train(commands: Any) -> None:
    """Enter `vaco train`."""
    train = commands.add_parser("train", help="train one run into a folder; resumes if it was interrupted")
    train.set_defaults(function=_train)
    train.more_help = _all_settings
    train.add_argument("--out", type=path_flag, required=True, metavar="DIR", help="the run's folder")
    for flag, kind, meaning in TRAIN_FLAGS:
        train.add_argument(f"--{flag}", type=kind, help=meaning)
    cli_run.add_environment(train)
    train.add_argument(
        "--config", type=path_flag, metavar="FILE", help="YAML file of settings; flags and --set win over it"
    )
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the run, repeatable"
    )
    train.add_argument(
        "--checkpoint-seconds", type=float, default=20.0, metavar="S", help="time between checkpoints (default 20)"
    )
    train.add_argument(
        "--env-processes",
        type=whole,
        default=1,
        metavar="N",
        help="processes that step the environments (default 1), for those whose steps are slow; the same bits",
    )
    train.add_argument(
        "--wait",
        type=float,
        metavar="S",
        help="seconds to wait for another process to leave the folder (default 0; within a SLURM job, long enough for "
        "the lock of a dead node to be recognised)",
    )
    train.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="LOGGER",
        help="also tell every row to tensorboard, wandb or csv, below DIR/log; repeatable",
    )
    train.add_argument("--discard-other", **DISCARD_OTHER)
    train.add_argument("--run-id", **RUN_ID)
    train.add_argument("--quiet", action="store_true", help="show no progress")


def _environment(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that these flags give, None where they were not given."""
    return {"env_args": options.env_arg or None, "wrappers": options.wrapper or None}


def _add_many(commands: Any) -> None:
    """Enter the commands for many runs."""
    compare = commands.add_parser("compare", help="draw runs beside each other on one page of HTML")
    compare.set_defaults(function=_compare)
    compare.add_argument(
        "runs", type=path_flag, nargs="+", metavar="RUN", help="folder of a finished run, or a file of JSON lines"
    )
    compare.add_argument("--out", type=path_flag, required=True, metavar="FILE", help="the page")

    estimate = commands.add_parser("estimate", help="runs, environment steps, core-hours and disk of a tier")
    estimate.set_defaults(function=_estimate)
    estimate.add_argument("--tier", default="smoke", help=f"{TIER} (default smoke)")
    estimate.add_argument("--results", **RESULTS, help="where runs are kept")

    archive = commands.add_parser("archive", help="put the finished runs of a tier into a few tidy tables")
    archive.set_defaults(function=_archive)
    archive.add_argument("--tier", required=True, help=TIER)
    archive.add_argument("--out", type=path_flag, required=True, metavar="DIR", help="the archive's folder")
    archive.add_argument("--results", **RESULTS, help="where run folders and archives are")
    archive.add_argument("--references", type=path_flag, nargs="*", default=[], metavar="FILE", help="random policies")
    archive.add_argument("--allow-missing", action="store_true", help="leave out runs that are not finished")
    archive.add_argument("--anew", action="store_true", help="run folders only, none that an archive holds")

    restore = commands.add_parser("restore", help="lay archived runs out as run folders, below results/runs")
    restore.set_defaults(function=_restore)
    restore.add_argument("--tier", required=True, help=TIER)
    restore.add_argument("--results", **RESULTS, help="where archives are, and run folders will be")

    verify = commands.add_parser("verify", help="check archives and runs: checksums, completeness, origin")
    verify.set_defaults(function=_verify)
    verify.add_argument(
        "folders", type=path_flag, nargs="+", metavar="DIR", help="results/<tier>, an archive, run folders, or figures"
    )
    verify.add_argument("--tier", help="what an archive should hold (default: config/<tier>.yaml of the same name)")
    verify.add_argument("--allow-missing", action="store_true", help="runs that are not there are warnings")


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
        options, unknown = parser.parse_known_args(arguments)
        if unknown:
            plainly = f"unrecognized arguments: {' '.join(unknown)}; see 'vaco --help'"
            raise UserError(_unknown(options.command, unknown) or plainly)
        if options.command is None:
            parser.print_help()
            return 0
        options.function(options)
    except UserError as error:
        print("vaco:", *str(error).split(), file=sys.stderr)  # on one line, whatever names it quotes
        return MISTAKE
    except ModuleNotFoundError as error:
        sentence = missing(error, language=arguments[:1] == ["lm"])
        if sentence is None:
            raise
        print("vaco:", sentence, file=sys.stderr)
        return MISTAKE
    except Preempted as notice:
        print(f"vaco: {notice}", file=sys.stderr, flush=True)
        if problem := requeue():
            print(f"vaco: {problem}", file=sys.stderr)
        return TEMPORARY_FAILURE
    except KeyboardInterrupt as stop:
        print("; ".join(["vaco: interrupted", *map(str, stop.args)]), file=sys.stderr)
        return INTERRUPTED
    return 0


def _unknown(command: str | None, unknown: Sequence[str]) -> str | None:
    """How to write a setting that was given as a flag that there is not."""
    if command not in ("train", "lm"):
        return None
    from vaco.lm.config import LM_SETTINGS
    from vaco.runs import words
    from vaco.runs.config import SETTINGS

    return words.as_setting(unknown, SETTINGS if command == "train" else LM_SETTINGS)


def _train(options: argparse.Namespace) -> None:
    from vaco.runs.config import build, parse_assignments, read_settings
    from vaco.runs.reads import require_read

    settings = read_settings(options.config) if options.config else {}
    flags = [flag.replace("-", "_") for flag, *_ in TRAIN_FLAGS]
    settings |= parse_assignments(options.set, {name: getattr(options, name) for name in flags} | _environment(options))
    config = build(settings)
    require_read(config)

    from vaco import stopwatch
    from vaco.control import train
    from vaco.runs import attempts
    from vaco.runs.folder import discard_other
    from vaco.runs.lock import waiting
    from vaco.runs.provenance import require_planned

    stopwatch.stop()
    require_planned(options.run_id, config.run_id)

    def begin() -> None:
        if options.discard_other and discard_other(options.out, config.run_id, build):
            print(f"{options.out}: an unfinished run of other settings or code was discarded", file=sys.stderr)
        seconds, quiet = options.checkpoint_seconds, options.quiet and not attempts.kept()
        start = functools.partial(train.begin, env_processes=options.env_processes)
        train.train(config, options.out, checkpoint_seconds=seconds, quiet=quiet, log=options.log, begin=start)

    with attempts.recorded(options.out):
        waiting(options.wait, begin)


def _theory(arguments: Sequence[str]) -> int:
    root = Path(__file__).parents[2]
    if importlib.util.find_spec("theory") is None:
        if not (root / "theory").is_dir():
            raise UserError("the theory lives in the repository, not in the package: clone it and run this there")
        sys.path.append(str(root))
    from theory.run import main

    return main(list(arguments))


def _algorithms(options: argparse.Namespace) -> None:
    from vaco.objectives.table import describe

    print(describe(), end="")


def _compare(options: argparse.Namespace) -> None:
    from vaco.compare import write

    write(options.runs, options.out)
    print(f"{options.out}: {len(options.runs)} runs")


def _estimate(options: argparse.Namespace) -> None:
    from vaco.campaign import estimate
    from vaco.lm import estimate as language
    from vaco.lm.kind import load_any_tier
    from vaco.lm.tiers import LMTier

    tier = load_any_tier(options.tier)
    if isinstance(tier, LMTier):
        print(language.estimate(tier))
    else:
        print(estimate.estimate(tier, options.results).render())


def _archive(options: argparse.Namespace) -> None:
    from vaco import archive
    from vaco.campaign import archives
    from vaco.lm.kind import kind_of_tier, load_any_tier

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
    from vaco.campaign import archives
    from vaco.lm.kind import kind_of_tier, load_any_tier

    tier = load_any_tier(options.tier)
    kind = kind_of_tier(tier)
    found = archives.collect(tier, kind, options.results)
    made = sum(archives.restore(entry, kind, options.results) is not None for entry in found.entries)
    print(f"{made} runs laid out below {options.results / archives.FOLDERS}, {len(found.entries) - made} were there")
    if found.missing:
        print(f"{len(found.missing)} runs of the tier '{tier.name}' exist nowhere", file=sys.stderr)


def _verify(options: argparse.Namespace) -> None:
    from vaco.campaign import archives, verify
    from vaco.lm.kind import KINDS, load_any_tier

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


def _doctor(options: argparse.Namespace) -> None:
    from vaco.campaign import doctor
    from vaco.campaign.tiers import load_tier

    tier = load_tier(options.tier) if options.tier else None
    checks = doctor.examine(options.results, profile=options.profile, tier=tier, train=not options.quick)
    print(doctor.render(checks))
    problems = [check for check in checks if check.status == "fix"]
    if problems:
        raise UserError(f"{len(problems)} things need fixing, the first: {problems[0].hint}")
