"""From tables to figures and typeset tables; workflow/figures.yaml says which reads what. Nothing here can train."""


rule figure:
    input:
        lambda wildcards: say(WORK.reads, wildcards.tier, wildcards.name),
    output:
        pdf=f"{BUILD}/paper/figures/{{tier}}/{{name}}.pdf",
        png=report(
            f"{BUILD}/paper/figures/{{tier}}/{{name}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}", "tier": "{tier}"},
        ),
        sidecar=f"{BUILD}/paper/figures/{{tier}}/{{name}}.json",
    log:
        "logs/{tier}/figures/{name}.log",
    wildcard_constraints:
        tier="(?!schematic|theory)[^/]+",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        tables=lambda wildcards: f"{BUILD}/results/{wildcards.tier}/tables",
        stem=lambda wildcards, output: os.path.splitext(output.pdf)[0],
        further=lambda wildcards: WORK.further(wildcards.name),
        source=lambda wildcards: dag.source(wildcards.name),
    shell:
        "python -m vaco.report.{wildcards.name:q} --tables {params.tables:q} --out {params.stem:q} {params.further:q}"
        " > {log:q} 2>&1"


rule typeset:
    input:
        lambda wildcards: say(WORK.reads, wildcards.tier, wildcards.name),
    output:
        csv=report(
            f"{BUILD}/paper/tables/{{tier}}/{{name}}.csv",
            caption="../report/figure.rst",
            category="Tables",
            labels={"table": "{name}", "tier": "{tier}"},
        ),
        markdown=f"{BUILD}/paper/tables/{{tier}}/{{name}}.md",
        latex=f"{BUILD}/paper/tables/{{tier}}/{{name}}.tex",
        sidecar=f"{BUILD}/paper/tables/{{tier}}/{{name}}.json",
    log:
        "logs/{tier}/typeset/{name}.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        tables=lambda wildcards: f"{BUILD}/results/{wildcards.tier}/tables",
        stem=lambda wildcards, output: os.path.splitext(output.csv)[0],
        further=lambda wildcards: WORK.further(wildcards.name),
        source=lambda wildcards: dag.source(wildcards.name),
    shell:
        "python -m vaco.report.{wildcards.name:q} --tables {params.tables:q} --out {params.stem:q} {params.further:q}"
        " > {log:q} 2>&1"


# Figures 1 and 2 are drawn from small experiments of seconds. Real asynchrony does not repeat, so what was measured is
# tracked, and made anew only where it is missing.
rule schematic_figure:
    input:
        lambda wildcards: [
            WORK.evidence(f"results/schematic/{name}")
            for name in FIGURES["schematic"][wildcards.name]
        ],
    output:
        pdf=f"{BUILD}/paper/figures/schematic/{{name}}.pdf",
        svg=f"{BUILD}/paper/figures/schematic/{{name}}.svg",
        png=report(
            f"{BUILD}/paper/figures/schematic/{{name}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}", "tier": "none"},
        ),
        sidecar=f"{BUILD}/paper/figures/schematic/{{name}}.json",
    log:
        "logs/schematic/{name}.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        data=lambda wildcards, input: os.path.dirname(input[0]),
        stem=lambda wildcards, output: os.path.splitext(output.pdf)[0],
        source=lambda wildcards: dag.source(wildcards.name),
    shell:
        "python -m vaco.report.{wildcards.name:q} --data {params.data:q} --out {params.stem:q} > {log:q} 2>&1"


rule schematic_data:
    output:
        measured=f"{BUILD}/results/schematic/measured.json",
        asynchrony=f"{BUILD}/results/schematic/asynchrony.json",
        method=f"{BUILD}/results/schematic/method.json",
    log:
        "logs/schematic/data.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    shell:
        "(export OMP_NUM_THREADS=1; python -m vaco.schematic.measure --out {output.measured:q} &&"
        " python -m vaco.schematic.asynchrony --measured {output.measured:q} --out {output.asynchrony:q} &&"
        " python -m vaco.schematic.method --out {output.method:q}) > {log:q} 2>&1"


# `snakemake figure3` draws it for the tier at hand.
for found, file_of in [
    (WORK.drawn(tier.name), partial(dag.product, tier.name)) for tier in WORK.tiers
] + [
    (WORK.typeset(WORK.tier.name), partial(dag.typeset, WORK.tier.name)),
    (FIGURES["schematic"], partial(dag.product, "schematic")),
]:
    for figure_name in found:

        rule:
            name:
                figure_name
            input:
                file_of(figure_name),
