"""From tidy tables to estimates with intervals, to figures and typeset tables. Nothing here can train."""

# Every figure is a command python -m vaco.report.NAME; these are the tables that it reads, beside summary.json.
FIGURE_TABLES = {
    "figure3": ["aggregates.parquet"],
    "figure4": ["iqm_curves.parquet", "aggregates.parquet"],
    "curves": ["task_curves.parquet"],
    "scores": ["task_scores.parquet"],
    "diagnostics": ["diagnostics.parquet"],
    "profiles": ["profiles.parquet"],
    "improvement": ["improvement.parquet"],
}
TYPESET_TABLES = {
    "hyperparameters": ["configs.json"],
    "score_table": ["task_scores.parquet"],
}
FIGURE_FILES = expand(
    f"{FIGURES}/{{name}}.{{suffix}}", name=FIGURE_TABLES, suffix=["pdf", "png", "json"]
)
TABLE_FILES = expand(
    f"{PAPER_TABLES}/{{name}}.{{suffix}}",
    name=TYPESET_TABLES,
    suffix=["csv", "md", "tex", "json"],
)


rule estimates:
    input:
        scores=f"{TABLES}/scores.parquet",
        curves=f"{TABLES}/curves.parquet",
        summary=f"{TABLES}/summary.json",
    output:
        ESTIMATES,
    log:
        f"logs/{TIER.name}/estimates.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=60,
    params:
        tables=folder,
        repetitions=config["bootstrap"]["repetitions"],
        seed=config["bootstrap"]["seed"],
        source=report_hash("estimates"),
    shell:
        "python -m vaco.report.estimates --tables {params.tables:q} --repetitions {params.repetitions}"
        " --seed {params.seed} > {log:q} 2>&1"


# One rule a figure, named after it, so that `snakemake figure3` makes it and each has a hash of its own source.
for figure, read in FIGURE_TABLES.items():

    rule:
        name:
            figure
        input:
            [f"{TABLES}/{table}" for table in ("summary.json", *read)],
        output:
            pdf=f"{FIGURES}/{figure}.pdf",
            png=report(
                f"{FIGURES}/{figure}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure, "tier": TIER.name},
            ),
            sidecar=f"{FIGURES}/{figure}.json",
        log:
            f"logs/{TIER.name}/figures/{figure}.log",
        conda:
            "../envs/vaco.yaml"
        threads: 1
        resources:
            mem_mb=1200,
            runtime=10,
        params:
            module=figure,
            tables=tables_read,
            stem=stem,
            source=report_hash(figure),
        shell:
            "python -m vaco.report.{params.module} --tables {params.tables:q} --out {params.stem:q} > {log:q} 2>&1"


for table, read in TYPESET_TABLES.items():

    rule:
        name:
            table
        input:
            [f"{TABLES}/{part}" for part in ("summary.json", *read)],
        output:
            csv=report(
                f"{PAPER_TABLES}/{table}.csv",
                caption=f"../report/{table}.rst",
                category="Tables",
                labels={"table": table, "tier": TIER.name},
            ),
            markdown=f"{PAPER_TABLES}/{table}.md",
            latex=f"{PAPER_TABLES}/{table}.tex",
            sidecar=f"{PAPER_TABLES}/{table}.json",
        log:
            f"logs/{TIER.name}/tables/{table}.log",
        conda:
            "../envs/vaco.yaml"
        threads: 1
        resources:
            mem_mb=1200,
            runtime=10,
        params:
            module=table,
            tables=tables_read,
            stem=stem,
            source=report_hash(table),
        shell:
            "python -m vaco.report.{params.module} --tables {params.tables:q} --out {params.stem:q} > {log:q} 2>&1"
