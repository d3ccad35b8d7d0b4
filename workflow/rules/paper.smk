"""The report as PDF, and the data of the book's results explorer: made of what is there, they never train anything.

snakemake paper       paper/build/report.pdf, about the tier desk (or paper, with --config tier=paper)
snakemake explorer    paper/book/explorer/data.html
"""

from vaco.report.paper import inputs_hash, tables_hash

# Both leave out the smoke tier, which is no evidence about any method.
SHOWN_TIERS = ["desk", "paper"]
REPORT_TIER = TIER.name if TIER.name in SHOWN_TIERS else SHOWN_TIERS[0]
SHOWN_TABLES = [str(Path("results", tier, "tables")) for tier in SHOWN_TIERS]
EXPLORER = "paper/book/explorer/data.html"
EXPLORER_FILES = [EXPLORER] if TIER.name in SHOWN_TIERS else []


# What exists is no input, only a hash among the parameters: an input would make Snakemake ask whether it is up to date,
# and train runs to make it so.
rule paper:
    input:
        SCHEMATIC_FILES,
    output:
        "paper/build/report.pdf",
    log:
        "logs/paper/report.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        tier=REPORT_TIER,
        inputs=inputs_hash(Path(), REPORT_TIER),
        source=report_hash("paper"),
    shell:
        "python -m vaco.report.paper --tier {params.tier:q} --out {output:q} > {log:q} 2>&1"


rule explorer:
    input:
        # Of the tier at hand, so that its page is made after its tables; other tiers are taken as they are.
        [settled(path) for path in [*TIDY, *ESTIMATES] if EXPLORER_FILES],
    output:
        EXPLORER,
    log:
        "logs/paper/explorer.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        tables=SHOWN_TABLES,
        content=tables_hash(SHOWN_TABLES),
        source=report_hash("explorer"),
    shell:
        "python -m vaco.report.explorer --tables {params.tables:q} --out {output:q} > {log:q} 2>&1"
