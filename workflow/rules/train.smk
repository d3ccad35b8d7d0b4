"""Training, one job a run."""


# Only what a finished run leaves is declared. Snakemake deletes declared outputs of a job that failed or was killed;
# the checkpoint lies beside them undeclared, so that the same job, started again, resumes.
rule train:
    output:
        manifest=f"{RESULTS}/runs/{{env}}/{{name}}/lag{{lag}}/seed{{seed}}/manifest.json",
        phases=f"{RESULTS}/runs/{{env}}/{{name}}/lag{{lag}}/seed{{seed}}/phases.parquet",
        evals=f"{RESULTS}/runs/{{env}}/{{name}}/lag{{lag}}/seed{{seed}}/evals.parquet",
    log:
        f"logs/{TIER.name}/train/{{env}}/{{name}}/lag{{lag}}/seed{{seed}}.log",
    # All methods at the first seed, then all at the second: whenever the work stops, what is there can be compared.
    priority: lambda wildcards: TIER.priority(spec(wildcards))
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        # A run takes 400 MB; on a cluster, Snakemake itself takes as much again within the job.
        mem_mb=lambda wildcards, attempt: 1200 * attempt,
        runtime=ask_minutes(TIER),
    params:
        flags=lambda wildcards, output: spec(wildcards).flags(
            os.path.dirname(output.manifest)
        ),
        source=lambda wildcards: source_of(spec(wildcards).algorithm),
    shell:
        "vaco train {params.flags:q} --quiet > {log:q} 2>&1"
