"""The tier of language models, its files, and what its rules ask of it; the rules are in language.smk."""

from vaco.lm.tiers import load_lm_tier
from vaco.runs.provenance import language_hash

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
    runs = [
        run
        for run in LM.runs
        if not config["allow_missing"]
        or Path("results", run.folder, "manifest.json").is_file()
    ]
    return [
        f"results/{run.folder}/{name}"
        for run in runs
        for name in ("manifest.json", "phases.parquet", "evals.parquet")
    ]
