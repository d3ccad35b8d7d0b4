"""The theory: every bound verified, numbers under results/theory and figures under paper/figures/theory. Trains nothing."""

from theory.sources import theory_hash
from vaco.report.paper import tables_hash

THEORY = ["checks", "controls", "exact", "certificate", "tightness"]
THEORY += ["filter", "gaussian", "bias", "symbolic"]
THEORY_FIGURES = ["slack", "slack_distance", "promises", "lag_shares", "tightness"]
THEORY_FIGURES += ["realignment", "estimators", "filter_step", "filter_phase"]
THEORY_FILES = expand(
    "paper/figures/theory/{name}.{suffix}", name=THEORY_FIGURES, suffix=["pdf", "png"]
)


rule theory:
    input:
        THEORY_FILES,


rule theory_numbers:
    output:
        expand("results/theory/{name}.json", name=THEORY),
    log:
        "logs/theory/numbers.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        out=folder,
        source=theory_hash(drawing=False),
    shell:
        "OMP_NUM_THREADS=1 python -m theory.run --parts all --seed 0 --quiet --out {params.out:q} > {log:q} 2>&1"


rule theory_figures:
    input:
        expand(
            "results/theory/{name}.json",
            name=["checks", "tightness", "filter", "gaussian", "bias"],
        ),
    output:
        THEORY_FILES,
    log:
        "logs/theory/figures.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        results=lambda wildcards, input: os.path.dirname(input[0]),
        out=folder,
        # Lags met in training, always those of the tier whose tables are tracked: these figures belong to no tier, and
        # another's would change them. They are no input, so the theory never trains.
        training=f"results/{NUMBERS_TIER}/tables",
        lags=tables_hash([f"results/{NUMBERS_TIER}/tables"]),
        source=theory_hash(drawing=True),
    shell:
        "python -m theory.figures --results {params.results:q} --out {params.out:q}"
        " --training {params.training:q} > {log:q} 2>&1"
