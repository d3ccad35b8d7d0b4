"""From settings to finished runs, one job a run, and from runs to the archive of a tier."""


# Only what a finished run leaves is declared. Snakemake deletes declared outputs of a job that failed or was killed;
# the checkpoint lies beside them undeclared, so that the same job, started again, resumes.
rule train:
    output:
        multiext(
            f"{dag.RUNS}/{{run}}/", "manifest.json", "phases.parquet", "evals.parquet"
        ),
    log:
        "logs/train/{run}.log",
    wildcard_constraints:
        run=r"[^/]+/[^/]+/lag\d+/seed\d+/[^/]+",
    # With `snakemake --cache` and SNAKEMAKE_OUTPUT_CACHE, clones on one machine share what the command makes.
    cache: "omit-software"
    # All methods at the first seed, then all at the second: whenever the work stops, what is there can be compared.
    priority: lambda wildcards: WORK.priority(wildcards.run)
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        # A run takes 400 MB; on a cluster, Snakemake itself takes as much again within the job.
        mem_mb=lambda wildcards, attempt: WORK.memory(wildcards.run) * attempt,
        runtime=lambda wildcards: WORK.minutes(wildcards.run),
    params:
        command=lambda wildcards: say(WORK.run, wildcards.run).command,
        folder=lambda wildcards: f"{dag.RUNS}/{wildcards.run}",
        id=lambda wildcards: wildcards.run.rpartition("/")[2],
    shell:
        "{params.command:q} --out {params.folder:q} --run-id {params.id:q} --quiet > {log:q} 2>&1"


use rule train as lm_train with:
    input:
        # What the weights are made of is in the run's settings; a newer file of them trains nothing.
        lambda wildcards: [
            ancient(path) for path in [say(WORK.warm_start, wildcards.run)] if path
        ],
    wildcard_constraints:
        run=r"[^/]+/[^/]+/lag\d+/n\d+/seed\d+/[^/]+",
    resources:
        mem_mb=lambda wildcards, attempt: WORK.memory(wildcards.run) * attempt,
        runtime=lambda wildcards: WORK.minutes(wildcards.run),
        gpu=lambda wildcards: WORK.gpus(wildcards.run),
    params:
        command=lambda wildcards: [
            *say(WORK.run, wildcards.run).command,
            *WORK.warm_words(wildcards.run),
        ],
        folder=lambda wildcards: f"{dag.RUNS}/{wildcards.run}",
        id=lambda wildcards: wildcards.run.rpartition("/")[2],


# The supervised start that all runs of a comparison of language models share.
rule warm_start:
    output:
        f"{dag.WARM_STARTS}/{{warm}}.safetensors",
    log:
        "logs/warm_start/{warm}.log",
    priority: 1000000
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        tier=lambda wildcards: say(WORK.warm_tier, wildcards.warm),
    shell:
        "vaco lm warm --tier {params.tier:q} --out {output:q} > {log:q} 2>&1"


# The random policy that scores are normalised by.
rule reference:
    output:
        f"{BUILD}/results/references/{{env}}-{{episodes}}-{{seed}}.json",
    log:
        "logs/reference/{env}-{episodes}-{seed}.log",
    priority: 1000000
    conda:
        "../envs/vaco.yaml"
    threads: 1
    shell:
        "vaco evaluate --env {wildcards.env:q} --random --episodes {wildcards.episodes:q} --seed {wildcards.seed:q}"
        " --out {output:q} > {log:q} 2>&1"


rule archive:
    input:
        runs=lambda wildcards: [
            f"{dag.RUNS}/{place}/{name}"
            for place in WORK.folders(wildcards.tier)
            for name in ("manifest.json", "phases.parquet", "evals.parquet")
        ],
        references=lambda wildcards: WORK.references(wildcards.tier),
        published=WORK.published(),
    output:
        f"{BUILD}/results/{{tier}}/archive/SHA256SUMS",
    log:
        "logs/{tier}/archive.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        folder=lambda wildcards, output: os.path.dirname(output[0]),
        anew="--anew" if WORK.mode == "all" else "",
        references=lambda wildcards, input: (
            ["--references", *input.references] if input.references else []
        ),
        plan=lambda wildcards: say(dag.plan_digest, wildcards.tier),
    shell:
        "vaco archive --tier {wildcards.tier:q} {params.anew} {params.references:q} --out {params.folder:q} > {log:q} 2>&1"
