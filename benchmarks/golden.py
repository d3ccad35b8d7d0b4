"""Do today's runs have the bits of the revision that defined the training version?

    python benchmarks/golden.py                          # the golden set, against the defining revision
    python benchmarks/golden.py --base HEAD              # against any other revision
    python benchmarks/golden.py --kind control --only 'resume'

The set (`golden_cases.py`: a hundred runs of a few phases) is trained twice, with the source of the base revision and
with the working tree, by the same interpreter on the same machine; so it needs no stored digest and holds on any
processor. Compared bit for bit are every column of every table, clocks apart, and every tensor of every policy. A
column that only the working tree has is reported; one that is missing or of another type is a difference.

Exit code 0: no difference. 1: a difference; the first lines name the algorithms that it touches, and only those. 2: the
command was wrong, or ``--require`` and the base revision is not in the history, without which the set is SKIPPED.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from golden_cases import CASES, KINDS, NEW, Case, Preparation
from golden_compare import Finding, Verdict, judge, report

from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.runs.identity import VERSIONS

ROOT = Path(__file__).resolve().parents[1]
DRIVER = Path(__file__).with_name("golden_train.py")


class UnknownRevisionError(Exception):
    """A revision is not in the history; the message is its name."""


def defining_revision(kind: str) -> str:
    """The commit that defined the current training version of a kind of run."""
    return next(found[-1].revision for name, found in VERSIONS.items() if name == kind)


def git(*arguments: str) -> str | None:
    """What git says of this repository, None if it fails or there is none."""
    if not (ROOT / ".git").exists():  # an unpacked archive may lie within somebody's repository
        return None
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, encoding="utf-8", check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def resolve(revision: str) -> str:
    """The full hash of a revision.

    Raises:
        UnknownRevisionError: it is not in the history, or there is no history.
    """
    full = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if full is None:
        raise UnknownRevisionError(revision)
    return full


def base_of(case: Case, given: str | None) -> str | None:
    """The revision that a case is compared with: the one given, else the defining one or, if later, the case's own.

    Returns:
        A full hash; None for a case whose own revision does not exist yet.
    """
    if given is not None:
        return resolve(given)
    defining = resolve(defining_revision(case.kind))
    if case.since is None:
        return defining
    if case.since == NEW:
        return None
    since = resolve(case.since)
    return defining if git("merge-base", "--is-ancestor", since, defining) is not None else since


@contextmanager
def source_of(revision: str, place: Path) -> Iterator[Path]:
    """The source of a revision, as a worktree that is removed again."""
    tree = place / f"tree-{revision[:9]}"
    # Only src: the tracked runs would take longer to write than the set takes to train.
    if git("worktree", "add", "--quiet", "--detach", "--no-checkout", str(tree), revision) is None:
        raise SystemExit(f"golden: git could not make a worktree of {revision} in {place}")
    try:
        subprocess.run(["git", "-C", str(tree), "checkout", "--quiet", revision, "--", "src"], check=True)
        yield tree / "src"
    finally:
        git("worktree", "remove", "--force", str(tree))


@dataclass(frozen=True)
class Job:
    """Cases that one process trains: which source, what it is called, where the results go."""

    title: str
    source: Path
    place: Path
    cases: tuple[Case, ...]
    base: bool = False

    def words(self, of: Case | Preparation) -> list[str]:
        """The command line of a case, for this source."""
        # A revision that cases name knows the settings that tell it what the defining one did, and needs them.
        told = isinstance(of, Preparation) and all(case.since is not None for case in self.cases)
        return of.base_arguments if self.base and not told else of.arguments

    def train(self) -> None:
        """Train all cases.

        Raises:
            SystemExit: the process itself failed; single cases that fail are in its outcomes.
        """
        self.place.mkdir(parents=True, exist_ok=True)
        jobs = [{"name": c.name, "arguments": self.words(c), "stop_after": c.stop_after} for c in self.cases]
        if any(case.shared_warm_start for case in self.cases):
            jobs.insert(0, {"name": Preparation().name, "arguments": self.words(Preparation()), "stop_after": 0})
        listed = self.place / "jobs.json"
        listed.write_text(json.dumps({"source": str(self.source), "jobs": jobs}), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1"}
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[variable] = "1"
        command = [sys.executable, "-P", str(DRIVER), str(listed), str(self.place)]
        started, done, told = time.monotonic(), 0, 0
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as process:
            assert process.stdout is not None
            for done, _ in enumerate(process.stdout, start=1):
                if 4 * done // len(jobs) > told:
                    told = 4 * done // len(jobs)
                    seconds = time.monotonic() - started
                    print(f"{self.title}: {done} of {len(jobs)} in {seconds:.0f} s", flush=True)
        if process.returncode:
            raise SystemExit(f"golden: the process that trains '{self.title}' ended with {process.returncode}")


def plan(cases: Sequence[Case], given: str | None) -> dict[tuple[str, str | None], list[Case]]:
    """The cases by kind and by the revision that they are compared with."""
    groups: dict[tuple[str, str | None], list[Case]] = {}
    bases: dict[tuple[str, str | None], str | None] = {}  # a few distinct ones, each a call of git
    for case in cases:
        key = (case.kind, case.since)
        if key not in bases:
            bases[key] = base_of(case, given)
        groups.setdefault((case.kind, bases[key]), []).append(case)
    return groups


def compare(cases: Sequence[Case], given: str | None, tree: Path, place: Path) -> Verdict:
    """Train the cases with both sources, two processes at a time, and compare.

    Args:
        cases: the cases.
        given: the revision to compare all of them with, None for each case's own.
        tree: the working tree.
        place: an empty folder for the results.

    Raises:
        UnknownRevisionError: a revision is not in the history.
    """
    groups = plan(cases, given)
    with ExitStack() as stack:
        revisions = dict.fromkeys(base for _, base in groups if base is not None)
        sources = {revision: stack.enter_context(source_of(revision, place)) for revision in revisions}
        jobs = []
        for kind in dict.fromkeys(case.kind for case in cases):
            own = tuple(case for case in cases if case.kind == kind)
            jobs.append(Job(f"{kind}, working tree", tree / "src", place / "tree", own))
            for (of_kind, base), group in groups.items():
                if of_kind == kind and base is not None:
                    jobs.append(Job(f"{kind}, {base[:9]}", sources[base], place / base[:9], tuple(group), base=True))
        jobs = [replace(job, place=job.place / job.cases[0].kind) for job in jobs]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Job.train, jobs))
    verdict = Verdict([], [], [], [])
    for (kind, base), group in groups.items():
        if base is None:
            verdict.waiting.extend(case.name for case in group)
        else:
            judge(group, place / base[:9] / kind, place / "tree" / kind, verdict, strict=given is None)
    return verdict


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = Parser(description="Compare the bits of short runs with those of another revision.")
    arguments.add_argument("--base", metavar="REVISION", help="default: the one that defined the training version")
    arguments.add_argument("--kind", choices=(*KINDS, "all"), default="all")
    arguments.add_argument("--only", metavar="PATTERN", default="", help="cases whose name contains this")
    arguments.add_argument("--keep", type=path_flag, metavar="DIR", help="an empty folder that keeps the runs")
    arguments.add_argument(
        "--tree", type=path_flag, default=ROOT, metavar="DIR", help="a working tree other than this one"
    )
    arguments.add_argument("--require", action="store_true", help="fail where the base is not in the history")
    return arguments


def chosen(kind: str, only: str) -> list[Case]:
    """The cases of a kind whose name contains a pattern."""
    return [case for case in CASES if kind in (case.kind, "all") and only in case.name]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    options = parser().parse_args(arguments)
    cases = chosen(options.kind, options.only)
    if not cases:
        print(f"golden: no case of kind '{options.kind}' has '{options.only}' in its name", file=sys.stderr)
        return 2
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        print(f"golden: {options.keep} is not empty: give an empty folder as --keep", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vaco-golden-") as temporary:
        place = (options.keep or Path(temporary)).resolve()
        try:
            verdict = compare(cases, options.base, options.tree.resolve(), place)
        except UnknownRevisionError as unknown:
            said = f"the revision {unknown} is not in this copy's history, so that no runs can be compared with its."
            if options.base is not None:
                print(f"golden: {said}", file=sys.stderr)
                return 2
            print(f"SKIPPED: {said}")
            return 2 if options.require else 0
    compared = f"{len(cases) - len(verdict.waiting) - len(verdict.incomparable)} cases"
    return report(verdict, compared, time.monotonic() - started)


__all__ = ["Finding", "compare", "main"]

if __name__ == "__main__":
    run_command(main)
