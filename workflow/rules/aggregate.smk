"""From run folders to tidy tables and estimates with intervals, verified before anything is drawn."""

TABLES_OF = origin_of(
    TIER.plan(),
    [run.folder for run in wanted(TIER.runs())],
    config["bootstrap"],
    report_hash("aggregate"),
    report_hash("estimates"),
)
renew(ORIGIN, TABLES_OF, TIER.runs())


# One rule for both. A fresh clone has file times in the order of names, in which runs come before tables, but tables in
# any order: were estimates a rule of their own, every clone would make them again.
rule aggregate:
    input:
        runs=run_files,
        references=reference_files,
    output:
        TIDY + ESTIMATES,
        origin=ORIGIN,
    log:
        f"logs/{TIER.name}/aggregate.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        tier=config["tier"],
        missing="--allow-missing" if config["allow_missing"] else "",
        results=lambda wildcards, output: os.path.dirname(os.path.dirname(output[0])),
        tables=folder,
        repetitions=config["bootstrap"]["repetitions"],
        seed=config["bootstrap"]["seed"],
        origin=TABLES_OF,
    shell:
        "(python -m vaco.runs.tiers {params.tier:q} | python -m vaco.report.aggregate --plan - {params.missing}"
        " --results {params.results:q} --out {params.tables:q} &&"
        " python -m vaco.report.estimates --tables {params.tables:q} --repetitions {params.repetitions}"
        " --seed {params.seed} &&"
        " vaco verify {params.results:q} --tier {params.tier:q} {params.missing}) > {log:q} 2>&1 &&"
        " echo {params.origin:q} > {output.origin:q}"
