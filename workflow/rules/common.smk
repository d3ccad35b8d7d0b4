"""What all rules share: the checked configuration and the tiers; everything else is in src/vaco/dag.py."""

import os
import sys
from functools import partial
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from vaco import dag
from vaco.runs import cluster, provenance

say = partial(dag.sentence, error=WorkflowError)
config.update(say(dag.checked, config))
FIGURES = yaml.safe_load(
    Path(workflow.source_path("../figures.yaml")).read_text(encoding="utf-8")
)
WORK = say(dag.Dag, config, FIGURES)
BUILD = dag.BUILD

# With a Snakemake that was called by its path, as .venv/bin/snakemake, the environment it lives in may not be on the
# search path of the shell. An activated conda environment of a rule still comes first.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)
# What `vaco train` does where a folder is not as it left it: processes of a Snakemake that was killed run on, so their
# successors wait for them, and what other settings or another training version began is given up.
os.environ.update(
    VACO_DISCARD_OTHER="1", VACO_WAIT=str(60 * cluster.ask_minutes(WORK.tier))
)
# Jobs start later than this, and import the code that is there then: they stop where it is other than this.
os.environ.setdefault(provenance.PLANNED, provenance.source_digest())

# SLURM sends SIGTERM to every process of a job. The shell must outlive the command that it waits for, which saves a
# checkpoint: were the shell to die at once, SLURM would take the job for finished and kill what is left of it.
shell.prefix("trap : TERM; ")


wildcard_constraints:
    tier="[^/]+",
    name="[^/]+",
    run=".+",


def targets(what):
    """The archives or the tables of the tiers at hand."""
    if what == "archive":
        return [say(WORK.archive, tier.name) for tier in WORK.tiers if WORK.trains]
    return [table for tier in WORK.tiers for table in WORK.tables(tier.name)]


def refuse_what_slurm_would():
    """With the slurm profile: has the cluster the partition, and is there time enough? Asked before any submission."""
    settings = workflow.resource_settings
    asked = {
        "executor": workflow.executor_plugin.name,
        "default-resources": cluster.plain(settings.default_resources),
        "set-resources": {
            name: cluster.plain(given)
            for name, given in (settings.overwrite_resources or {}).items()
        },
    }
    problems = cluster.check(asked, WORK.tier if WORK.trains else None)
    if problems:
        raise WorkflowError(problems[0])


onstart:
    refuse_what_slurm_would()
