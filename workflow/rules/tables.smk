"""From the archive of a tier, published or made here, to tidy tables and estimates with intervals."""


rule tables_of_tier:
    input:
        say(WORK.archive_of),
    output:
        dag.tables("{tier}"),
    log:
        "logs/{tier}/tables.log",
    wildcard_constraints:
        tier="(?!lm_)[^/]+",
    conda:
        "../envs/vaco.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        plan="vaco.campaign.tiers",
        aggregate="vaco.report.tables.aggregate",
        archive=lambda wildcards, input: os.path.dirname(input[0]),
        tables=lambda wildcards: dag.folder(wildcards.tier),
        estimate=lambda wildcards: words(
            "python -m vaco.report.tables.estimates", tables=dag.folder(wildcards.tier), **config["bootstrap"]
        ),
        asked=lambda wildcards: dag.plan_digest(wildcards.tier),
        source=dag.source("tables.aggregate", "tables.estimates"),
    shell:
        "(python -m {params.plan:q} {wildcards.tier:q} |"
        " python -m {params.aggregate:q} --plan - --archive {params.archive:q} --out {params.tables:q} &&"
        " {params.estimate:q}) > {log:q} 2>&1"


use rule tables_of_tier as tables_of_language_tier with:
    output:
        dag.tables("{tier}", dag.LANGUAGE_TIDY),
    wildcard_constraints:
        tier="lm_[^/]+",
    params:
        plan="vaco.lm.tiers",
        aggregate="vaco.report.tables.lm_aggregate",
        archive=lambda wildcards, input: os.path.dirname(input[0]),
        tables=lambda wildcards: dag.folder(wildcards.tier),
        estimate="true",  # its figures take their intervals from few enough runs
        asked=lambda wildcards: dag.plan_digest(wildcards.tier),
        source=dag.source("tables.lm_aggregate"),


rule tables:
    input:
        WORK.all_tables(),
