"""The command `vaco lm`: train, evaluate, sample, warm, fetch, export, replay, algorithms."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaco.command import whole
from vaco.errors import UserError
from vaco.paths import path_flag

_FLAGS: tuple[tuple[str, Callable[[str], Any], str], ...] = (
    ("task", str, "chain_sum, gsm_symbolic, gsm8k or rg:NAME"),
    ("model", str, "tiny, smollm2, a local path or a hub id"),
    ("algorithm", str, "see 'vaco lm algorithms'"),
    ("minibatches", whole, "N, gradient steps per generation round"),
    ("lag", whole, "capacity K of the policy buffer that generates; 1 is synchronous"),
    ("seed", whole, "seed of the run"),
    ("updates", whole, "gradient steps"),
    ("generators", whole, "processes that generate beside training; 0 (default) generates in turn"),
    ("device", str, "cpu (default) or cuda"),
    ("precision", str, "float32 (default) or bfloat16"),
)

DISCARD_OTHER: dict[str, Any] = {
    "action": "store_true",
    # The workflow says so here, not in its rules: a changed command would train every finished run again.
    "default": os.environ.get("VACO_DISCARD_OTHER") == "1",
    "help": "give up an unfinished run in DIR that other settings or other training code began",
}
RUN_ID: dict[str, Any] = {
    "metavar": "ID",
    "help": "the run that this is planned to be; with other settings or another training version it does not start",
}


def add(commands: Any) -> None:
    """Enter `lm` and its own commands in the parser of `vaco`."""
    lm = commands.add_parser(
        "lm", help="language models: train, evaluate, sample, warm, fetch, export, replay, algorithms"
    )
    kinds = lm.add_subparsers(dest="lm_command", metavar="COMMAND", required=True, parser_class=type(lm))
    train = kinds.add_parser("train", help="train one run into a folder; resumes if it was interrupted")
    _settings(train)
    train.add_argument("--out", type=path_flag, required=True, metavar="DIR", help="the run's folder")
    train.add_argument(
        "--warm-start", type=path_flag, metavar="FILE", help="weights of 'vaco lm warm'; made anew without"
    )
    train.add_argument(
        "--checkpoint-seconds", type=float, default=60.0, metavar="S", help="at least; default 60, and 5 %% of the time"
    )
    train.add_argument("--no-policy", action="store_true", help="keep no policy.safetensors of the finished run")
    train.add_argument("--wait", type=float, metavar="S", help="seconds to wait for another process to leave DIR")
    train.add_argument("--discard-other", **DISCARD_OTHER)
    train.add_argument("--run-id", **RUN_ID)
    train.add_argument("--quiet", action="store_true", help="show no progress")
    train.set_defaults(function=_train)

    warm = kinds.add_parser("warm", help="make the supervised warm start that runs of a comparison share")
    _settings(warm)
    warm.add_argument("--out", type=path_flag, required=True, metavar="FILE", help="where the weights go")
    warm.add_argument("--quiet", action="store_true", help="show no progress")
    warm.set_defaults(function=_warm)

    fetched = kinds.add_parser("fetch", help="put a tier's model and problems into this machine's cache")
    _settings(fetched)
    fetched.add_argument("--out", type=path_flag, metavar="FILE", help="where it is noted what is there")
    fetched.set_defaults(function=_fetch)

    for name, meaning in (("evaluate", "accuracy on held-out problems"), ("sample", "a few problems with answers")):
        command = kinds.add_parser(name, help=meaning)
        _settings(command)
        command.add_argument("--run", type=path_flag, metavar="DIR", help="folder of a finished run with its policy")
        command.add_argument("--warm-start", type=path_flag, metavar="FILE", help="weights of 'vaco lm warm'")
        command.add_argument("--problems", type=whole, default=256 if name == "evaluate" else 5, help="how many")
        command.set_defaults(function=_evaluate if name == "evaluate" else _sample)

    export = kinds.add_parser("export", help="write a finished policy as a folder that from_pretrained opens")
    _settings(export)
    export.add_argument(
        "--run", type=path_flag, required=True, metavar="DIR", help="folder of a finished run with its policy"
    )
    export.add_argument("--out", type=path_flag, required=True, metavar="DIR", help="a new or empty folder")
    export.set_defaults(function=_export, warm_start=None, problems=1)

    replay = kinds.add_parser("replay", help="train a finished run again, in one process, and compare every bit")
    replay.add_argument("run", type=path_flag, metavar="DIR", help="the run's folder, with generators or not")
    replay.add_argument("--out", type=path_flag, metavar="DIR", help="where (default: a temporary folder)")
    replay.add_argument("--warm-start", type=path_flag, metavar="FILE", help="the one that the run was given")
    replay.add_argument("--quiet", action="store_true", help="show no progress")
    replay.set_defaults(function=_replay)

    algorithms = kinds.add_parser("algorithms", help="print the table of algorithms")
    algorithms.set_defaults(function=_algorithms)


def _settings(parser: argparse.ArgumentParser) -> None:
    """The flags by which every setting of a run can be given."""
    for flag, kind, meaning in _FLAGS:
        parser.add_argument(f"--{flag}", type=kind, help=meaning)
    parser.add_argument("--tier", help="settings of a tier, such as lm_paper; a file and flags win over it")
    parser.add_argument(
        "--config", type=path_flag, metavar="FILE", help="YAML file of settings; flags and --set win over it"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, repeatable")


def _config(options: argparse.Namespace, base: dict[str, Any] | None = None) -> Any:
    from vaco.lm.config import build_lm, require_read
    from vaco.runs.config import parse_assignments, read_settings
    from vaco.runs.settings import holder_of

    settings: dict[str, Any] = dict(base or {})
    if options.tier:
        from vaco.lm.tiers import load_lm_tier

        settings |= load_lm_tier(options.tier).training
    given: dict[str, Any] = read_settings(options.config) if options.config else {}
    given |= parse_assignments(options.set, {name: getattr(options, name) for name, _, _ in _FLAGS})
    config = build_lm(settings | given)
    require_read(given, config)
    # What a tier's runs share but this one does not read is no part of it, as in the tier itself.
    read = {name: value for name, value in settings.items() if holder_of(name) not in config.unread}
    return build_lm(read | given)


def _train(options: argparse.Namespace) -> None:
    # A lock counts as dead after 600 s without a checkpoint.
    if not 0.0 <= options.checkpoint_seconds <= 300.0:
        raise UserError(f"checkpoint_seconds is {options.checkpoint_seconds}, but it must lie between 0 and 300")
    from vaco.lm.config import rebuild_lm
    from vaco.runs import attempts
    from vaco.runs.folder import discard_other
    from vaco.runs.lock import waiting
    from vaco.runs.provenance import require_planned

    config = _config(options)
    from vaco.lm.train import train

    require_planned(options.run_id, config.run_id)

    def begin() -> None:
        if options.discard_other and discard_other(options.out, config.run_id, rebuild_lm):
            print(f"{options.out}: an unfinished run of other settings or code was discarded", file=sys.stderr)
        train(
            config,
            options.out,
            warm=options.warm_start,
            checkpoint_seconds=options.checkpoint_seconds,
            keep_policy=not options.no_policy,
            quiet=options.quiet and not attempts.kept(),
        )

    with attempts.recorded(options.out):
        waiting(options.wait, begin)


def _warm(options: argparse.Namespace) -> None:
    config = _config(options)
    if config.warm_target <= 0:
        raise UserError("warm_target is 0, so there is nothing to make: give --set warm_target=0.3, say")
    from vaco.lm.model import load_spec
    from vaco.lm.task import make_task
    from vaco.lm.warm import load_warm_start, save_warm_start, warm_start
    from vaco.runs.threads import one_thread

    loaded = load_spec(config.spec(config.model))
    if options.out.exists():
        load_warm_start(options.out, config, loaded)
        print(f"{options.out} already holds this warm start: nothing to do", file=sys.stderr)
        return
    with one_thread():
        facts = warm_start(config, loaded, make_task(config.task, config.task_settings), quiet=options.quiet)
        save_warm_start(options.out, config, loaded, facts)
    print(f"accuracy {facts['warm_accuracy']:.3f} after {facts['warm_updates']:.0f} updates", file=sys.stderr)


def _fetch(options: argparse.Namespace) -> None:
    config = _config(options)
    from vaco.lm.hub import cached_revision
    from vaco.lm.model_files import download
    from vaco.lm.task import make_task
    from vaco.runs.tables import write_json

    download(config.model)
    make_task(config.task, config.task_settings)
    note = {"model": config.model, "task": config.task}
    if "/" in config.model and (revision := cached_revision(config.model)):
        note["revision"] = str(revision)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, note)
    print(f"{config.model} and {config.task} are on this machine", file=sys.stderr)


def _loaded(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Configuration, model and task of a finished run, a warm start, or a model as it comes."""
    if options.problems < 1:
        raise UserError(f"problems is {options.problems}, but at least 1 is needed")
    if options.run is not None and options.warm_start is not None:
        raise UserError("--run and --warm-start both name weights: give one of them")
    from vaco.lm.config import BEFORE
    from vaco.lm.inputs import STARTED_IN, anchored
    from vaco.lm.model import load_spec
    from vaco.lm.task import make_task
    from vaco.lm.warm import load_warm_start
    from vaco.lm.weights import set_parameters
    from vaco.runs import checkpoint

    arrays, meta = checkpoint.read(options.run / "policy.safetensors") if options.run else ({}, {})
    recorded = meta.get("config") if isinstance(meta, dict) else None
    config = _config(options, {**BEFORE, **recorded} if recorded else None)
    base = options.run / meta[STARTED_IN] if recorded and STARTED_IN in meta else Path()
    model, settings = anchored(config, base)
    if recorded and config.task_options != recorded["task_options"]:
        settings = anchored(config, Path())[1]
    if recorded and config.model != recorded["model"]:
        model = anchored(config, Path())[0]
    try:
        loaded = load_spec(config.spec(model))
        task = make_task(config.task, settings)
    except UserError as error:
        raise (
            UserError(f"the run {options.run} cannot be opened here, since {error}") if recorded else error
        ) from None
    if options.run:
        set_parameters(loaded.model, arrays)
    elif options.warm_start:
        load_warm_start(options.warm_start, config, loaded)
    return config, loaded, task


def _evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    from vaco.lm.evaluate import accuracy, eval_problems
    from vaco.runs.threads import one_thread

    config, loaded, task = _loaded(options)
    with one_thread():
        problems = eval_problems(task, options.problems)
        result = accuracy(loaded, task, problems, config, np.random.default_rng(config.seed))
    print(
        f"{config.task}, {config.model}: accuracy {result.greedy:.3f} greedy, {result.sampled:.3f} sampled over "
        f"{len(problems)} held-out problems; {result.cut:.1%} of the greedy responses were cut after "
        f"{config.new_tokens} tokens and "
        + ("earned nothing" if config.cut_responses == "no_reward" else "were judged as they are")
    )


def _sample(options: argparse.Namespace) -> None:
    import numpy as np

    from vaco.lm.evaluate import eval_problems
    from vaco.lm.sample import generate, response_texts
    from vaco.runs.threads import one_thread

    config, loaded, task = _loaded(options)
    with one_thread():
        problems = eval_problems(task, options.problems)
        prompts = [problem.prompt for problem in problems]
        source = np.random.default_rng(config.seed)
        responses = generate(loaded, prompts, samples=1, new_tokens=config.new_tokens, generator=source)
    for problem, text in zip(problems, response_texts(loaded, responses), strict=True):
        verdict = "right" if task.verify(text, problem) else f"wrong, {problem.answer}"
        print(f"{problem.prompt}{text}\n    [{verdict}]")


def _export(options: argparse.Namespace) -> None:
    from vaco.lm.export import export

    _, loaded, _ = _loaded(options)
    export(loaded, options.out)
    print(f"{options.out} holds the policy of {options.run}", file=sys.stderr)


def _replay(options: argparse.Namespace) -> None:
    from vaco.lm.replay import train_again
    from vaco.runs.differences import require_same

    warm, quiet = options.warm_start, options.quiet
    require_same(options.run, options.out, lambda out: train_again(options.run, out, warm=warm, quiet=quiet))


def _algorithms(options: argparse.Namespace) -> None:
    from vaco.objectives.tokens import describe_tokens

    print(describe_tokens(), end="")
