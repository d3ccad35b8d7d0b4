"""From tables to figures and typeset tables. Nothing here can train."""

# Every figure is a command python -m vaco.report.NAME; these are the tables that it reads, beside summary.json.
FIGURE_TABLES = {
    "figure3": ["aggregates.parquet"],
    "figure4": ["iqm_curves.parquet", "aggregates.parquet"],
    "curves": ["task_curves.parquet"],
    "scores": ["task_scores.parquet"],
    "diagnostics": ["diagnostics.parquet"],
    "profiles": ["profiles.parquet"],
    "improvement": ["improvement.parquet"],
    "rank_stability": ["improvement.parquet", "separation.parquet"],
    "constraint": ["runs.parquet", "lags.parquet"],
}
# A figure of a study is drawn for the tiers that have the study.
STUDY_FIGURES = {
    "factorial": {
        "factorial": ["task_scores.parquet", "aggregates.parquet"],
        "cost": ["runs.parquet", "aggregates.parquet"],
    },
    "contributions": {"contributions": ["task_scores.parquet", "aggregates.parquet"]},
    "sensitivity": {"sensitivity": ["task_scores.parquet", "runs.parquet"]},
    "forward_lag": {"forward_lag": ["task_scores.parquet", "runs.parquet"]},
}
for study, figures in STUDY_FIGURES.items():
    if study in TIER.grids:
        FIGURE_TABLES |= figures

TYPESET_TABLES = {
    "hyperparameters": ["configs.json"],
    "score_table": ["task_scores.parquet"],
}
# Published results are shown beside those of a tier that trains for as long.
PUBLISHED = "config/published.yaml"
if yaml.safe_load(Path(PUBLISHED).read_text(encoding="utf-8"))["steps"] == TIER.steps:
    TYPESET_TABLES["published"] = ["task_scores.parquet"]

# What a command reads beside tables, as option and file. Benchmarks are measured by hand, so they may be missing.
BENCHMARKS = "benchmarks/results"
FURTHER = {"published": {"--published": PUBLISHED}}
if Path(f"{BENCHMARKS}/throughput.json").is_file():
    FURTHER["cost"] = {"--benchmark": f"{BENCHMARKS}/throughput.json"}

FIGURE_FILES = expand(
    f"{FIGURES}/{{name}}.{{suffix}}", name=FIGURE_TABLES, suffix=["pdf", "png", "json"]
)
TABLE_FILES = expand(
    f"{PAPER_TABLES}/{{name}}.{{suffix}}",
    name=TYPESET_TABLES,
    suffix=["csv", "md", "tex", "json"],
)
# The README of the results, and the numbers that stand in prose: those of one tier only, so that making another does
# not change them.
NUMBERS, NUMBERS_TIER = "paper/numbers.json", "desk"
PROSE_FILES = [f"{RESULTS}/README.md"]
if TIER.name == NUMBERS_TIER:
    PROSE_FILES.append(NUMBERS)


# One rule a figure, named after it, so that `snakemake figure3` makes it and each has a hash of its own source.
for figure, read in FIGURE_TABLES.items():

    rule:
        name:
            figure
        input:
            reads(figure, read),
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
            options=options(figure),
            stem=stem,
            source=report_hash(figure),
        shell:
            "python -m vaco.report.{params.module} --tables {params.tables:q} --out {params.stem:q}"
            " {params.options:q} > {log:q} 2>&1"


for table, read in TYPESET_TABLES.items():

    rule:
        name:
            table
        input:
            reads(table, read),
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
            options=options(table),
            stem=stem,
            source=report_hash(table),
        shell:
            "python -m vaco.report.{params.module} --tables {params.tables:q} --out {params.stem:q}"
            " {params.options:q} > {log:q} 2>&1"


rule tier_readme:
    input:
        summary=f"{TABLES}/summary.json",
        runs=f"{TABLES}/runs.parquet",
        aggregates=f"{TABLES}/aggregates.parquet",
        separation=f"{TABLES}/separation.parquet",
    output:
        f"{RESULTS}/README.md",
    log:
        f"logs/{TIER.name}/readme.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        tables=tables_read,
        source=report_hash("tier_readme"),
    shell:
        "python -m vaco.report.tier_readme --tables {params.tables:q} --out {output:q} > {log:q} 2>&1"


if TIER.name == NUMBERS_TIER:
    # Only files that are there are read: a number without its file is said not to be measured yet.
    FURTHER_NUMBERS = [
        str(path)
        for folder in ("results/theory", BENCHMARKS)
        for path in sorted(Path(folder).glob("*.json"))
    ]

    rule numbers:
        input:
            TIDY + ESTIMATES,
            further=FURTHER_NUMBERS,
            language=[settled(table) for table in LM_TIDY] if LM else [],
        output:
            NUMBERS,
        log:
            "logs/numbers.log",
        conda:
            "../envs/vaco.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            tables=tables_read,
            language=["--language", LM_TABLES] if LM else [],
            benchmarks=BENCHMARKS,
            source=report_hash("numbers"),
        shell:
            "python -m vaco.report.numbers --tables {params.tables:q} {params.language:q} --theory results/theory"
            " --benchmarks {params.benchmarks:q} --out {output:q} > {log:q} 2>&1"
