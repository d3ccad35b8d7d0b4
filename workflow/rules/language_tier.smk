"""The tier of language models, its files, and what its rules ask of it; the rules are in language.smk."""

from vaco.lm.tiers import load_lm_tier
from vaco.lm.verify import LANGUAGE
from vaco.runs.provenance import language_hash
from vaco.runs.stale import stale_runs

LM_NAME = config["lm_tier"]
if LM_NAME == "auto":
    LM_NAME = (
        f"lm_{TIER.name}"
        if Path("config", f"lm_{TIER.name}.yaml").is_file()
        else "none"
    )
LM = None if LM_NAME == "none" else readable(load_lm_tier, LM_NAME)
LM_RESULTS = f"results/{LM_NAME}"
LM_TABLES = f"{LM_RESULTS}/tables"
LM_TIDY = [
    f"{LM_TABLES}/{name}"
    for name in ("evals.parquet", "updates.parquet", "summary.json")
]
LM_ORIGIN = f"{LM_TABLES}/origin.txt"
LM_FIGURES = {
    "figure5": ["evals.parquet", "updates.parquet"],
    "lm_curves": ["evals.parquet", "updates.parquet"],
    "lm_methods": ["evals.parquet"],
    "lm_cost": ["evals.parquet", "updates.parquet"],
}
LM_FIGURE_FILES = (
    expand(
        f"paper/figures/{LM_NAME}/{{name}}.{{suffix}}",
        name=LM_FIGURES,
        suffix=["pdf", "png", "json"],
    )
    if LM
    else []
)
WARM_START = f"{LM_RESULTS}/warm_start.safetensors"


def lm_run(wildcards):
    """The run that a path stands for."""
    folder = f"{LM_NAME}/runs/{wildcards.task}/{wildcards.algorithm}/lag{wildcards.lag}/n{wildcards.n}/seed{wildcards.seed}"
    return readable(LM.find, folder)


def lm_files(wildcards):
    return [
        f"results/{run.folder}/{name}"
        for run in wanted(LM.runs)
        for name in ("manifest.json", "phases.parquet", "evals.parquet")
    ]


def lm_ground():
    """What figures of language models stand on, as targets of their own, see `ground`."""
    if config["redraw_only"] or not LM:
        return []
    return [*lm_files(None), *LM_TIDY, LM_ORIGIN]


@cache
def lm_stale():
    """Folders of the finished runs of other code or settings than those here."""
    return {run.folder for run in readable(stale_runs, LM, LANGUAGE)}


def lm_warm(wildcards):
    """The warm start that a run needs, none if the run is finished and the weights are not there.

    Weights are not tracked, so a fresh clone has none. Were they an input of the finished runs all the same, making them
    for one missing run would retrain every other: `ancient` holds only for files that are there.
    """
    run = lm_run(wildcards)
    if Path(WARM_START).is_file() or not finished(run):
        return ancient(WARM_START)
    return WARM_START if Path("results", run.folder) in lm_stale() else []
