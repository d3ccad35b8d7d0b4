"""`vaco theory`: verify every bound and lemma, and show a table; with ``--out`` also leave the evidence as JSON.

    vaco theory                                       # writes nothing
    vaco theory --parts all --out build/results/theory

Parts: ``checks`` (float checks and their controls, always together), ``exact`` (rational and interval arithmetic),
``tightness`` (search for worst cases), ``filter`` (what the filter does not guarantee, measured), ``gaussian``
(continuous actions), ``bias`` (truncated realignment), ``symbolic`` (derivations). The exit code is 1 when any check is
violated, or any control does not fail as it must.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vaco.command import Parser, run_command
from vaco.errors import UserError, nearest
from vaco.paths import path_flag

Json = dict[str, Any]
Part = Callable[[argparse.Namespace, Callable[[str], None]], dict[str, Json]]


def parser() -> argparse.ArgumentParser:
    """The options of `vaco theory`."""
    result = Parser(prog="vaco theory", description="Verify every bound and lemma numerically and exactly.")
    result.add_argument("--instances", type=int, default=10_000, help="random instances of every float check")
    result.add_argument("--exact", type=int, default=200, help="instances of every exact check")
    result.add_argument("--seed", type=int, default=0, help="seed of every generator")
    result.add_argument(
        "--out", type=path_flag, metavar="DIR", help="write the evidence there as JSON (default: nowhere)"
    )
    result.add_argument("--parts", default="checks,exact", help=f"comma-separated: {', '.join(PARTS)}, or all")
    result.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def _checks(options: argparse.Namespace, advance: Callable[[str], None]) -> dict[str, Json]:
    from theory.suite import run_suite

    checks, controls = run_suite(options.instances, options.seed, advance)
    return {"checks": checks, "controls": controls}


def _exact(options: argparse.Namespace, advance: Callable[[str], None]) -> dict[str, Json]:
    from theory.exact import run_exact

    return run_exact(options.exact, options.seed, advance)


def _tightness(options: argparse.Namespace, advance: Callable[[str], None]) -> dict[str, Json]:
    from theory.tightness import run_tightness

    return {"tightness": run_tightness(options.seed, advance)}


def _filter(options: argparse.Namespace, advance: Callable[[str], None]) -> dict[str, Json]:
    from theory.filter_study import run_filter_study

    return {"filter": run_filter_study(options.seed, advance)}


def _gaussian(options: argparse.Namespace, advance: Callable[[str], None]) -> dict[str, Json]:
    from theory.gaussian import run_gaussian

    return {"gaussian": run_gaussian(options.seed, advance)}


def _bias(options: argparse.Namespace, advance: Callable[[str], None]) -> dict[str, Json]:
    from theory.bias_study import run_bias_study

    return {"bias": run_bias_study(options.seed, advance)}


def _symbolic(options: argparse.Namespace, advance: Callable[[str], None]) -> dict[str, Json]:
    from theory.symbolic import run_symbolic

    return {"symbolic": run_symbolic(advance)}


PARTS: dict[str, Part] = {
    "checks": _checks,
    "exact": _exact,
    "tightness": _tightness,
    "filter": _filter,
    "gaussian": _gaussian,
    "bias": _bias,
    "symbolic": _symbolic,
}


def _validated(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options and the chosen parts; every mistake is one sentence."""
    options = parser().parse_args(argv)
    for name in ("instances", "exact"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}, expected at least 1: leave it out for the default")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}, expected 0 or more: choose a non-negative integer")
    if options.out and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file, expected a folder: choose another path")
    parts = list(PARTS) if options.parts == "all" else [p.strip() for p in options.parts.split(",")]
    for part in parts:
        if part not in PARTS:
            raise UserError(f"there is no part '{part}' of the theory suite: {nearest(part, [*PARTS, 'all'])}")
    return options, parts


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(rows: list[Json]) -> str:
    """Check, instances, violations, undecided, minimum slack, tightest ratio, time: one line a row."""
    head = f"{'check':<28}{'instances':>10}{'violations':>11}{'undecided':>10}{'min slack':>12}{'tightest':>11}{'s':>8}"
    lines = [head, "-" * len(head)]
    for r in rows:
        lines.append(
            f"{r['name']:<28}{r['instances']:>10}{r['violations']:>11}{r.get('undecided', 0):>10}"
            f"{_cell(r.get('minimum_slack'), '12.2e'):>12}{_cell(r.get('tightest'), '11.6f'):>11}{r['seconds']:>8.2f}"
        )
    return "\n".join(lines)


def write(folder: Path, name: str, data: Json) -> None:
    """Write `data` to folder/name.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.json.part"
    temporary.write_text(
        json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8"
    )
    temporary.replace(folder / f"{name}.json")


def _report(results: dict[str, Json]) -> int:
    """Print the tables and the verdict; return the number of failures."""
    failures = 0
    for part in ("checks", "exact", "symbolic"):
        rows = results.get(part, {}).get("checks", [])
        if rows:
            print(f"\n{part}\n{table(rows)}")
        failures += sum(r["violations"] for r in rows)
    for part in ("controls", "exact"):
        controls = results.get(part, {}).get("controls", [])
        idle = [c for c in controls if not c["failed"]]
        for c in idle:
            print(f"control did not fail: {c['check']}, {c['dropped']}")
        if controls:
            print(f"\n{part}: {len(controls) - len(idle)} of {len(controls)} negative controls fail, as they must")
        failures += len(idle)
    return failures


def main(argv: list[str] | None = None) -> int:
    """Run the chosen parts, print the tables, write JSON files if a folder for them is given.

    Args:
        argv: arguments after ``vaco theory``.

    Returns:
        0, or 1 when a check is violated or a control does not fail.

    Raises:
        UserError: a wrong option.
    """
    options, parts = _validated(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    started = time.perf_counter()
    results: dict[str, Json] = {}
    with tqdm(disable=options.quiet or None, unit="check", desc="theory") as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        for part in parts:
            made = PARTS[part](options, advance)
            for name, data in made.items() if options.out else ():
                write(options.out, name, data)
            results |= made
    failures = _report(results)
    place = f"; written to {options.out}" if options.out else ""
    print(f"\n{time.perf_counter() - started:.1f} s, {failures} failures{place}")
    return 1 if failures else 0


if __name__ == "__main__":
    run_command(main)
