"""The theory: every bound verified anew, its numbers, and figures drawn from them. Trains nothing."""

from theory.sources import theory_hash

THEORY = ["checks", "controls", "exact", "certificate", "tightness"]
THEORY += ["filter", "gaussian", "bias", "symbolic"]
THEORY_FIGURES = ["slack", "slack_distance", "promises", "lag_shares", "tightness"]
THEORY_FIGURES += ["realignment", "estimators", "filter_step", "filter_phase"]


rule theory:
    input:
        expand(
            f"{BUILD}/paper/figures/theory/{{name}}.{{suffix}}",
            name=THEORY_FIGURES,
            suffix=["pdf", "png"],
        ),


rule theory_numbers:
    output:
        expand(f"{BUILD}/results/theory/{{name}}.json", name=THEORY),
    log:
        "logs/theory/numbers.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        out=lambda wildcards, output: os.path.dirname(output[0]),
        source=theory_hash(drawing=False),
    shell:
        "OMP_NUM_THREADS=1 python -m theory.run --parts all --seed 0 --quiet --out {params.out:q} > {log:q} 2>&1"


rule theory_figures:
    input:
        rules.theory_numbers.output,
        # Lags met in training, always those of the tier that stands in prose: these figures belong to no tier.
        training=WORK.tables(dag.PROSE_TIERS[0]),
    output:
        rules.theory.input,
    log:
        "logs/theory/figures.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        results=lambda wildcards, input: os.path.dirname(input[0]),
        training=lambda wildcards, input: os.path.dirname(input.training[0]),
        out=lambda wildcards, output: os.path.dirname(output[0]),
        source=theory_hash(drawing=True),
    shell:
        "python -m theory.figures --results {params.results:q} --out {params.out:q}"
        " --training {params.training:q} > {log:q} 2>&1"
