"""How the workflow's jobs are called, what all of them are told, and what a user is told in place of a traceback."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vaco.campaign import cluster, lost
from vaco.campaign.tiers import Tier
from vaco.command import MISTAKE
from vaco.errors import UserError
from vaco.runs import attempts, preemption, provenance

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def say(function: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """The same function for a rule: a mistake of the user ends Snakemake with its sentence alone, and exit code 2.

    Snakemake would print an exception with the lines of the Snakefile that it came through, which are not where the
    mistake is. Nothing is locked or begun while the workflow is read and the DAG is built.
    """

    @functools.wraps(function)
    def answer(*arguments: Asked.args, **options: Asked.kwargs) -> Answer:
        try:
            return function(*arguments, **options)
        except UserError as mistake:
            print("vaco:", *str(mistake).split(), file=sys.stderr)
            raise SystemExit(MISTAKE) from None

    return answer


def words(command: str, **options: str | int | list[str]) -> list[str]:
    """The words of a command and its options; a list is several words, true has no value, false and [] leave it out.

    >>> words("vaco evaluate --random", seed="0", references=[], quiet=True)
    ['vaco', 'evaluate', '--random', '--seed', '0', '--quiet']
    """
    found = command.split()
    for name, value in options.items():
        if value is not False and value != []:
            found += [f"--{name}", *(value if isinstance(value, list) else [] if value is True else [str(value)])]
    return found


def prepare(tier: Tier, call: Sequence[str] = sys.argv) -> None:
    """Tell all jobs, by their environment, what no command of a single one says.

    Args:
        tier: whose runs may take longest.
        call: the words of the user's call, or of that of the Snakemake within a job, which reads all this, too.
    """
    # With a Snakemake that was called by its path, as .venv/bin/snakemake, the environment it lives in may not be on
    # the search path of the shell. An activated conda environment of a rule still comes first.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    # What `vaco train` does where a folder is not as it left it: processes of a Snakemake that was killed run on, so
    # their successors wait for them, and what other settings or another training version began is given up.
    os.environ["VACO_DISCARD_OTHER"] = "1"
    os.environ["VACO_WAIT"] = str(60 * cluster.ask_minutes(tier))
    # Every job asks for one core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Attempts of one call belong together. In a job that trains several runs none may queue the whole job again.
    os.environ.setdefault(attempts.CALL, f"snakemake-{int(time.time())}-{os.getpid()}")
    if sum(1 for _ in itertools.takewhile(lambda word: not word.startswith("-"), _after("--target-jobs", call))) > 1:
        os.environ[preemption.REQUEUE] = "0"
    # Where the environments of rules get the lock and the package from, also in a folder that holds neither.
    os.environ.setdefault("VACO_SOURCE", str(Path(__file__).resolve().parents[2]))
    # Jobs start later than this, and import the code that is there then: they stop where it is other than this.
    os.environ.setdefault(provenance.PLANNED, provenance.source_digest())


def _after(option: str, call: Sequence[str]) -> Sequence[str]:
    return call[call.index(option) + 1 :] if option in call else ()


def check_cluster(workflow: Any, tier: Tier | None) -> None:
    """With the slurm profile: has the cluster the partition, and is there time enough? Asked before any submission.

    If all is well, jobs that run out of time may queue themselves again, and those that SLURM forgets are noticed.

    Args:
        workflow: Snakemake's own.
        tier: whose runs must fit into the time limits; None where nothing trains.

    Raises:
        UserError: it has not.
    """
    settings = workflow.resource_settings
    asked = {
        "executor": workflow.executor_plugin.name,
        "default-resources": cluster.plain(settings.default_resources),
        "set-resources": {name: cluster.plain(given) for name, given in (settings.overwrite_resources or {}).items()},
    }
    problems = cluster.check(asked, tier)
    if problems:
        raise UserError(problems[0])
    if asked["executor"] == "slurm":
        os.environ[preemption.REQUEUE] = "1"
        lost.install(Path(".snakemake/queue"))


def image(given: str, workflow: Any) -> str | None:
    """The container that jobs run in, if any.

    Args:
        given: as it is configured; none for none.
        workflow: Snakemake's own.

    Raises:
        UserError: Snakemake is to use containers, and none is configured: it would silently use none.
    """
    asked = {str(method.name).lower() for method in workflow.deployment_settings.deployment_method}
    if "apptainer" in asked and given == "none":
        raise UserError(
            "--sdm apptainer asks for a container, and none is named: build one, as containers/README.md says, and add "
            "--config container=FILE"
        )
    return None if given == "none" else given


def shown(path: str, kind: str, claim: Callable[[str], tuple[str, str]]) -> Any:
    """A product, entered in the pages that `snakemake --report` writes.

    Args:
        path: with the wildcards `tier` and `name`.
        kind: of product, in a word.
        claim: the claim that a product is about, and its page in the book.
    """
    from snakemake.io import report

    labels = {"name": "{name}", "kind": kind}
    category = functools.partial(_category, claim=claim)
    return report(path, "../report/figure.rst", category=category, subcategory="{tier}", labels=labels)


def _category(wildcards: Any, *, claim: Callable[[str], tuple[str, str]]) -> str:
    return claim(wildcards.name)[0]
