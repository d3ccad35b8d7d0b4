"""From the archive of a tier, published or made here, to tidy tables and estimates with intervals."""


rule tables_of_tier:
    input:
        lambda wildcards: say(WORK.archive, wildcards.tier),
    output:
        WORK.tables("{tier}"),
    log:
        "logs/{tier}/tables.log",
    wildcard_constraints:
        tier="(?!lm_)[^/]+",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        archive=lambda wildcards, input: os.path.dirname(input[0]),
        tables=lambda wildcards, output: os.path.dirname(output[0]),
        repetitions=config["bootstrap"]["repetitions"],
        seed=config["bootstrap"]["seed"],
        plan=lambda wildcards: say(dag.plan_digest, wildcards.tier),
        source=dag.source("aggregate", "estimates"),
    shell:
        "(python -m vaco.runs.tiers {wildcards.tier:q} |"
        " python -m vaco.report.aggregate --plan - --archive {params.archive:q} --out {params.tables:q} &&"
        " python -m vaco.report.estimates --tables {params.tables:q} --repetitions {params.repetitions}"
        " --seed {params.seed}) > {log:q} 2>&1"


rule tables_of_language_tier:
    input:
        lambda wildcards: say(WORK.archive, f"lm_{wildcards.tier}"),
    output:
        [table.replace("lm_", "lm_{tier}") for table in WORK.tables("lm_")],
    log:
        "logs/lm_{tier}/tables.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        archive=lambda wildcards, input: os.path.dirname(input[0]),
        tables=lambda wildcards, output: os.path.dirname(output[0]),
        plan=lambda wildcards: say(dag.plan_digest, f"lm_{wildcards.tier}"),
        source=dag.source("lm_aggregate"),
    shell:
        "(python -m vaco.lm.tiers lm_{wildcards.tier:q} |"
        " python -m vaco.report.lm_aggregate --plan - --archive {params.archive:q} --out {params.tables:q})"
        " > {log:q} 2>&1"


# The README of a tier's results, and the numbers that stand in prose.
rule tier_readme:
    input:
        WORK.tables("{tier}"),
    output:
        f"{BUILD}/results/{{tier}}/README.md",
    log:
        "logs/{tier}/readme.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        tables=lambda wildcards, input: os.path.dirname(input[0]),
        source=dag.source("tier_readme"),
    shell:
        "python -m vaco.report.tier_readme --tables {params.tables:q} --out {output:q} > {log:q} 2>&1"


rule numbers:
    input:
        [table for tier in dag.PROSE_TIERS for table in WORK.tables(tier)],
        # Only files that are there are read: a number without its file is said not to be measured yet.
        theory=[str(path) for path in sorted(Path("results/theory").glob("*.json"))],
        benchmarks=[
            str(path) for path in sorted(Path("benchmarks/results").glob("*.json"))
        ],
    output:
        f"{BUILD}/paper/numbers.json",
    log:
        "logs/numbers.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        tables=[f"{BUILD}/results/{tier}/tables" for tier in dag.PROSE_TIERS],
        source=dag.source("numbers"),
    shell:
        "python -m vaco.report.numbers --tables {params.tables[0]:q} --language {params.tables[1]:q}"
        " --theory results/theory --benchmarks benchmarks/results --out {output:q} > {log:q} 2>&1"


rule explorer:
    input:
        WORK.tables(dag.PROSE_TIERS[0]),
    output:
        f"{BUILD}/paper/book/explorer/data.html",
    log:
        "logs/explorer.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        tables=lambda wildcards, input: os.path.dirname(input[0]),
        source=dag.source("explorer"),
    shell:
        "python -m vaco.report.explorer --tables {params.tables:q} --out {output:q} > {log:q} 2>&1"
