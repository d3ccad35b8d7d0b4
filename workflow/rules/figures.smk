"""From tables to figures, typeset tables and prose; workflow/figures.yaml says what reads what. Nothing here can train."""


use rule command as figure with:
    input:
        say(WORK.reads),
    output:
        multiext(f"{BUILD}/paper/figures/{{tier}}/{{name}}", ".json", ".pdf"),
        jobs.shown(f"{BUILD}/paper/figures/{{tier}}/{{name}}.png", "figure", WORK.claim),
    log:
        "logs/{tier}/figures/{name}.log",
    wildcard_constraints:
        tier="(?!theory)[^/]+",
    params:
        command=lambda wildcards, input, output: WORK.show("figures", wildcards, input, output),
        source=lambda wildcards: dag.source(f"figures.{wildcards.name}"),
        claim=lambda wildcards: WORK.claim(wildcards.name),


use rule figure as typeset with:
    output:
        multiext(f"{BUILD}/paper/tables/{{tier}}/{{name}}", ".json", ".md", ".tex"),
        jobs.shown(f"{BUILD}/paper/tables/{{tier}}/{{name}}.csv", "table", WORK.claim),
    log:
        "logs/{tier}/typeset/{name}.log",
    params:
        command=lambda wildcards, input, output: WORK.show("tables", wildcards, input, output),
        source=lambda wildcards: dag.source(f"tables.{wildcards.name}"),
        claim=lambda wildcards: WORK.claim(wildcards.name),


use rule command as tier_readme with:
    input:
        dag.tables("{tier}"),
    output:
        f"{BUILD}/results/{{tier}}/README.md",
    log:
        "logs/{tier}/readme.log",
    params:
        command=lambda wildcards, output: words(
            "python -m vaco.report.prose.tier_readme", tables=dag.folder(wildcards.tier), out=output[0]
        ),
        source=dag.source("prose.tier_readme"),


use rule command as explorer with:
    input:
        dag.tables(PROSE_TIERS[0]),
    output:
        f"{BUILD}/paper/book/explorer/data.html",
    log:
        "logs/explorer.log",
    params:
        command=lambda wildcards, output: words(
            "python -m vaco.report.tables.explorer", tables=dag.folder(PROSE_TIERS[0]), out=output[0]
        ),
        source=dag.source("tables.explorer"),


use rule command as numbers with:
    input:
        [table for tier in PROSE_TIERS for table in dag.tables(tier)],
        lambda wildcards: dag.measured("results/theory/*.json", "benchmarks/results/*.json"),
    output:
        f"{BUILD}/paper/numbers.json",
    log:
        "logs/numbers.log",
    params:
        command=lambda wildcards, output: words(
            "python -m vaco.report.prose.numbers --theory results/theory --benchmarks benchmarks/results",
            tables=dag.folder(PROSE_TIERS[0]),
            studies=[dag.folder(tier) for tier in PROSE_TIERS[1:] if not tier.startswith("lm_")],
            language=[dag.folder(tier) for tier in PROSE_TIERS if tier.startswith("lm_")],
            out=output[0],
        ),
        source=dag.source("prose.numbers"),


rule demonstration_data:
    output:
        measured=f"{BUILD}/results/demonstrations/measured.json",
        asynchrony=f"{BUILD}/results/demonstrations/asynchrony.json",
        method=f"{BUILD}/results/demonstrations/method.json",
    log:
        "logs/demonstrations/data.log",
    conda:
        "../envs/vaco.yaml"
    shell:
        "(python -m vaco.demonstrations.measure --out {output.measured:q} &&"
        " python -m vaco.demonstrations.asynchrony --measured {output.measured:q} --out {output.asynchrony:q} &&"
        " python -m vaco.demonstrations.method --out {output.method:q}) > {log:q} 2>&1"


# Rendered, so other graphics libraries make other bytes; asked for by name.
rule filmstrip:
    input:
        sorted(map(str, Path("results/desk/policies").glob("*.safetensors"))),
    output:
        f"{BUILD}/paper/book/_static/policies.png",
    log:
        "logs/filmstrip.log",
    conda:
        "../envs/vaco.yaml"
    shell:
        "python scripts/filmstrip.py --out {output:q} > {log:q} 2>&1"


# `snakemake aggregate_scores` draws it for the tier at hand, and so does `snakemake figure3`, its number in the paper.
for rule_name, made in WORK.named():

    rule:
        name:
            rule_name
        input:
            made,
