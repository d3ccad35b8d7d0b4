"""Settings become finished runs, one job a run."""


# Only what a finished run leaves is declared: Snakemake deletes declared outputs of a job that was killed, and its
# checkpoint lies beside them. Whoever edits the shell command or a parameter trains anew every run that is not archived.
rule train:
    output:
        multiext(f"{RUNS}/{{run}}/", *dag.RUN_FILES),
    log:
        "logs/train/{run}.log",
    wildcard_constraints:
        run=dag.PLACE,
    # With `snakemake --cache` and SNAKEMAKE_OUTPUT_CACHE, clones on one machine share what the command makes.
    cache: "omit-software"
    # All methods at the first seed, then all at the second: whenever the work stops, what is there can be compared.
    priority: WORK.priority
    conda:
        "../envs/vaco.yaml"
    threads: WORK.cores
    resources:
        mem_mb=WORK.memory,
        runtime=WORK.minutes,
        gpu=WORK.gpus,
        # Cores that feed a GPU; without one it is not looked at. And runs that share a job, see profiles/slurm-short.
        cpus_per_gpu=2,
        slot=1,
    params:
        command=say(WORK.command),
        folder=lambda wildcards: f"{RUNS}/{wildcards.run}",
        id=lambda wildcards: wildcards.run.rpartition("/")[2],
    shell:
        "{params.command:q} --out {params.folder:q} --run-id {params.id:q} --quiet > {log:q} 2>&1"


use rule train as lm_train with:
    input:
        # What the weights are made of is in the run's settings; a newer file of them trains nothing.
        lambda wildcards: [ancient(path) for path in say(WORK.warm_start)(wildcards) + WORK.fetched(wildcards)],
    wildcard_constraints:
        run=dag.LM_PLACE,


# What a tier of language models downloads, once and where Snakemake is called: other nodes may have no network.
rule fetch_model:
    output:
        f"{dag.MODELS}/{{tier}}/{{model}}.json",
    log:
        "logs/fetch_model/{tier}-{model}.log",
    priority: 1000001
    localrule: True
    conda:
        "../envs/vaco.yaml"
    shell:
        "vaco lm fetch --tier {wildcards.tier:q} --out {output:q} > {log:q} 2>&1"


# The supervised start that all runs of a comparison of language models share.
rule warm_start:
    input:
        lambda wildcards: [ancient(path) for path in WORK.fetched(wildcards)],
    output:
        f"{dag.WARM_STARTS}/{{warm}}.safetensors",
    log:
        "logs/warm_start/{warm}.log",
    priority: 1000000
    conda:
        "../envs/vaco.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        tier=say(WORK.warm_tier),
    shell:
        "vaco lm warm --tier {params.tier:q} --out {output:q} > {log:q} 2>&1"


rule runs:
    input:
        WORK.manifests(),


rule lm_runs:
    input:
        WORK.manifests(WORK.language.name) if WORK.language else [],
