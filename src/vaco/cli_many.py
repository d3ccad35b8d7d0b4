"""Commands for many runs that need no workflow: `plan`, `status`, `stale`, `cost`, `deposit`, `fetch`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vaco.errors import UserError
from vaco.paths import path_flag

COMMANDS = ("plan", "status", "stale", "cost", "deposit", "fetch")
RESULTS: dict[str, Any] = {"type": path_flag, "default": Path("results"), "metavar": "DIR"}


def add(commands: Any) -> None:
    """Enter the commands in the parser of `vaco`."""
    plan = commands.add_parser("plan", help="print, or train, the runs of a tier that are to be trained, or a share")
    plan.set_defaults(function=_plan)
    plan.add_argument("--tier", required=True, help="name of a tier in config/, or a file")
    plan.add_argument("--shard", default="1/1", metavar="I/N", help="the I-th of N shares (default 1/1, all)")
    plan.add_argument("--run", action="store_true", help="train them, each in a process of its own; resumes")
    plan.add_argument("--jobs", type=int, default=1, metavar="J", help="with --run: so many at a time (default 1)")
    plan.add_argument("--results", **RESULTS, help="where archives are, and run folders will be")

    status = commands.add_parser("status", help="how far runs, or a whole tier, are: finished, running, failed and why")
    status.set_defaults(function=_status)
    status.add_argument("runs", type=path_flag, nargs="*", metavar="DIR", help="the --out of a run; without, many runs")
    status.add_argument("--tier", help="name of a tier in config/, or a file; without, all runs that have folders")
    status.add_argument("--results", **RESULTS, help="where archives and run folders are")
    status.add_argument("--json", action="store_true", help="everything, for programs")
    status.add_argument("--all", action="store_true", help="list every run that is at work or failed")

    stale = commands.add_parser("stale", help="runs of a tier that exist of another training version only")
    stale.set_defaults(function=_stale)
    stale.add_argument("--tier", required=True, help="name of a tier in config/, or a file")
    stale.add_argument("--results", **RESULTS, help="where archives and run folders are")

    deposit = commands.add_parser("deposit", help="write what results rest on as a few files for a public archive")
    deposit.set_defaults(function=_deposit)
    deposit.add_argument("--out", type=path_flag, required=True, metavar="DIR", help="a new or empty folder")
    deposit.add_argument(
        "--policies", nargs="*", default=[], metavar="TIER", help="tiers whose run folders, with policies, go in, too"
    )

    fetch = commands.add_parser("fetch", help="get an archive or policies by name and checksum")
    fetch.set_defaults(function=_fetch)
    fetch.add_argument("name", help="a tier, policies-TIER, or another file of a deposit")
    fetch.add_argument("--location", default="", metavar="URL", help="where from (default: config/deposit.yaml)")
    fetch.add_argument("--results", **RESULTS, help="the folder of results")
    fetch.add_argument("--out", type=path_flag, metavar="DIR", help="where to, instead of where it belongs")

    cost = commands.add_parser("cost", help="core-hours and energy behind each claim, from what archived runs took")
    cost.set_defaults(function=_cost)
    cost.add_argument("--tier", nargs="+", default=["desk", "lm_desk"], help="whose claims (default: desk lm_desk)")
    cost.add_argument("--results", **RESULTS, help="where archives are")


def _plan(options: argparse.Namespace) -> None:
    from vaco.campaign import shards
    from vaco.lm.kind import load_any_tier

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    index, count = shards.parse_shard(options.shard)
    tier = load_any_tier(options.tier)
    imported = getattr(options, "imported", ())
    work = shards.shard(tier, options.results, index, count, asked=str(options.tier), imported=imported)
    say(
        f"tier {tier.name}, shard {index} of {count}: {work.planned} runs, {len(work.jobs)} of them to be trained into "
        f"{options.results / 'runs'}"
    )
    if options.run:
        shards.train(work, slots=options.jobs, say=say)
        return
    for job in (*([work.warm] if work.warm else []), *work.jobs):
        print(job.line)


def _status(options: argparse.Namespace) -> None:
    from vaco.campaign import archives, status
    from vaco.lm.kind import load_any_tier
    from vaco.runs.status import status_of

    if options.runs:
        if options.tier or options.json or options.all:
            raise UserError("single runs are one line each: give folders of runs, or --tier and what belongs to it")
        for line in [status_of(path).line() for path in options.runs]:
            print(line)
        return
    if options.tier:
        found = status.campaign(load_any_tier(options.tier), options.results)
    else:
        found = status.folders(options.results)
    if options.json:
        print(status.as_json(found))
    else:
        print(status.render(found, options.results / archives.FOLDERS, everything=options.all))


def _deposit(options: argparse.Namespace) -> None:
    from vaco.campaign.deposit import deposit
    from vaco.lm.kind import load_any_tier

    parts = deposit(Path(), options.out, tiers=[load_any_tier(name) for name in options.policies])
    for part in parts:
        print(f"{part.path.stat().st_size / 1e6:>10.1f} MB  {part.path.name}: {part.words}")


def _fetch(options: argparse.Namespace) -> None:
    from vaco.campaign.fetch import fetch

    place = fetch(
        options.name,
        location=options.location,
        results=options.results,
        out=options.out,
        say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    print(place)


def _cost(options: argparse.Namespace) -> None:
    from vaco.campaign import cost
    from vaco.lm.kind import load_any_tier

    tiers = [load_any_tier(name) for name in options.tier]
    print(cost.render(tiers, options.results, cost.measure()))


def _stale(options: argparse.Namespace) -> None:
    from vaco.campaign import archives
    from vaco.lm.kind import load_any_tier

    if not options.results.is_dir():
        raise UserError(f"there is no folder {options.results}: give the one that holds archives as --results")
    tier = load_any_tier(options.tier)
    found = list(archives.stale(tier, archives.everything(options.results)))
    for wanted, there in found:
        print(f"{there}  wanted: {wanted}")
    print(f"{len(found)} of the {len(tier.planned())} runs of the tier '{tier.name}' are stale", file=sys.stderr)
