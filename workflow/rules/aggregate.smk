"""From run folders to tidy tables, verified before anything is drawn."""


rule aggregate:
    input:
        runs=run_files,
        references=reference_files,
    output:
        TIDY,
    log:
        f"logs/{TIER.name}/aggregate.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=30,
    params:
        tier=config["tier"],
        # The command reads the plan anew; its text stands here so that a changed plan aggregates again.
        plan=TIER.plan(),
        missing="--allow-missing" if config["allow_missing"] else "",
        results=lambda wildcards, output: os.path.dirname(os.path.dirname(output[0])),
        tables=folder,
        source=report_hash("aggregate"),
    shell:
        "(python -m vaco.runs.tiers {params.tier:q} | python -m vaco.report.aggregate --plan - {params.missing}"
        " --results {params.results:q} --out {params.tables:q} &&"
        " vaco verify {params.results:q} --tier {params.tier:q} {params.missing}) > {log:q} 2>&1"
