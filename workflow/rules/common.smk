"""What all rules share: the checked configuration, the tier, its paths and the hashes that decide what reruns."""

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from vaco.errors import UserError
from vaco.report.sources import report_hash
from vaco.runs.cluster import ask_minutes
from vaco.runs.explain import check
from vaco.runs.provenance import training_hash
from vaco.runs.tier_file import WorkflowConfig
from vaco.runs.tiers import load_tier


def readable(function, *arguments):
    """Call a function and turn a mistake in the configuration into one sentence instead of a traceback."""
    try:
        return function(*arguments)
    except UserError as mistake:
        raise WorkflowError(str(mistake)) from None


def as_yaml(value):
    """Words of the command line, as in --config allow_missing=true, read as the file would have them."""
    if isinstance(value, dict):
        return {key: as_yaml(part) for key, part in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


config.update(as_yaml(config))
config.update(
    readable(check, config, WorkflowConfig, "config/config.yaml").model_dump()
)

# Without the rules that train, a finished run is a plain file: whatever was edited, nothing can delete it.
TRAINING = not config["redraw_only"] and not config["allow_missing"]
TIER = readable(load_tier, config["tier"])
RESULTS = f"results/{TIER.name}"
FIGURES = f"paper/figures/{TIER.name}"
PAPER_TABLES = f"paper/tables/{TIER.name}"

# With a Snakemake that was called by its path, as .venv/bin/snakemake, the environment it lives in may not be on the
# search path of the shell. An activated conda environment of a rule still comes first.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)

# What `vaco train` and `vaco lm train` do where a folder is not as they left it. By the environment, since a changed
# command would train every finished run again. A job that runs has been decided on, so what other settings or other
# code began is given up; and processes of a Snakemake that was killed run on, so their successors wait for them.
os.environ.update(VACO_DISCARD_OTHER="1", VACO_WAIT=str(60 * ask_minutes(TIER)))

# SLURM sends SIGTERM to every process of a job. The shell must outlive the command that it waits for, which saves a
# checkpoint: were the shell to die at once, SLURM would take the job for finished and kill what is left of it.
shell.prefix("trap : TERM; ")

TABLES = f"{RESULTS}/tables"
TIDY = [
    f"{TABLES}/{name}.parquet"
    for name in ("scores", "curves", "diagnostics", "runs", "lags")
]
TIDY += [f"{TABLES}/{name}.json" for name in ("configs", "summary")]
ESTIMATED = (
    "aggregates",
    "iqm_curves",
    "profiles",
    "improvement",
    "separation",
    "task_scores",
    "task_curves",
)
ESTIMATES = [f"{TABLES}/{name}.parquet" for name in ESTIMATED]
ORIGIN = f"{TABLES}/origin.txt"


wildcard_constraints:
    env="[^/]+",
    name="[^/]+",
    lag=r"\d+",
    seed=r"\d+",


def spec(wildcards):
    """The run that a path stands for."""
    return readable(
        TIER.find, wildcards.env, wildcards.name, wildcards.lag, wildcards.seed
    )


@cache
def source_of(algorithm):
    """Hash of the training source that determines the runs of an algorithm."""
    return readable(training_hash, algorithm)


def finished(run):
    return Path("results", run.folder, "manifest.json").is_file()


def wanted(runs):
    """The runs to aggregate: all of a tier's, or, with allow_missing, those that are finished."""
    return [run for run in runs if not config["allow_missing"] or finished(run)]


def run_files(wildcards):
    return [
        f"results/{run.folder}/{name}"
        for run in wanted(TIER.runs())
        for name in ("manifest.json", "phases.parquet", "evals.parquet")
    ]


def reference_files(wildcards):
    return [f"{RESULTS}/references/{env}.json" for env in TIER.environments]


def ground():
    """What everything stands on, as targets of their own.

    Snakemake does not make a missing file again as long as what was made of it is there. Where tables and figures are
    tracked, a fresh clone has them all, and only targets of their own make the missing runs start.
    """
    if config["redraw_only"]:
        return []
    return [*run_files(None), *reference_files(None), *TIDY, *ESTIMATES, ORIGIN]


def origin_of(*parts):
    """A hash of all that tables are made of but the contents of runs: it is kept beside them."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def renew(record, origin, runs):
    """Have tables made again that are there with another origin.

    Of tracked tables Snakemake has no record by which it would notice a changed setting, source or set of runs; it goes
    by the times of files alone. So a run that they are made of gets a newer one.
    """
    known = Path(record).is_file() and Path(record).read_text(encoding="utf-8").strip()
    source = next(filter(finished, runs), None)
    if known and known != origin and source and workflow.is_main_process:
        Path("results", source.folder, "manifest.json").touch()


def drawable(figures, tables):
    """Figures, unless only redrawing is asked for and there are no tables to draw them from."""
    there = all(Path(table).is_file() for table in tables)
    return figures if there or not config["redraw_only"] else []


def reads(name, tables):
    """The files that a figure or typeset table is made from."""
    return [f"{TABLES}/{table}" for table in ("summary.json", *tables)] + [
        *FURTHER.get(name, {}).values()
    ]


def options(name):
    """The options that name the files beside tables."""
    return [word for pair in FURTHER.get(name, {}).items() for word in pair]


def settled(path):
    """A table that is there is taken as it is when only redrawing, whatever its time."""
    return ancient(path) if config["redraw_only"] else path


def folder(wildcards, output):
    """The folder that a rule writes to."""
    return os.path.dirname(output[0])


def stem(wildcards, output):
    """The path of a product without its suffix."""
    return os.path.splitext(output[0])[0]


def tables_read(wildcards, input):
    """The folder of the tables that a rule reads."""
    return os.path.dirname(input[0])
