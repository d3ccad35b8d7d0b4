"""Figures 1 and 2: small experiments of seconds, written as tables under results/schematic and drawn from them."""

from vaco.schematic.files import source_hash

SCHEMATIC = "results/schematic"
SCHEMATIC_READS = {"figure1": ["asynchrony", "measured"], "figure2": ["method"]}
SCHEMATIC_FILES = expand(
    "paper/figures/schematic/{name}.{suffix}",
    name=SCHEMATIC_READS,
    suffix=["pdf", "svg", "png", "json"],
)


rule schematic:
    input:
        SCHEMATIC_FILES,


# Real asynchrony does not repeat, so the measurement is tracked and made anew only where it is missing: no input and no
# hash of the source makes it stale. It takes half a minute, most of it asleep.
rule measured_asynchrony:
    output:
        f"{SCHEMATIC}/measured.json",
    log:
        "logs/schematic/measured.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    shell:
        "OMP_NUM_THREADS=1 python -m vaco.schematic.measure --out {output:q} > {log:q} 2>&1"


rule simulated_asynchrony:
    input:
        # In a fresh clone, where times are in the order of names, it is newer than what is made of it.
        ancient(f"{SCHEMATIC}/measured.json"),
    output:
        f"{SCHEMATIC}/asynchrony.json",
    log:
        "logs/schematic/asynchrony.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        source=source_hash(),
    shell:
        "python -m vaco.schematic.asynchrony --measured {input:q} --out {output:q} > {log:q} 2>&1"


rule method_data:
    output:
        f"{SCHEMATIC}/method.json",
    log:
        "logs/schematic/method.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        source=source_hash(),
    shell:
        "OMP_NUM_THREADS=1 python -m vaco.schematic.method --out {output:q} > {log:q} 2>&1"


for schematic_figure, tables in SCHEMATIC_READS.items():

    rule:
        name:
            schematic_figure
        input:
            expand(f"{SCHEMATIC}/{{table}}.json", table=tables),
        output:
            pdf=f"paper/figures/schematic/{schematic_figure}.pdf",
            svg=f"paper/figures/schematic/{schematic_figure}.svg",
            png=report(
                f"paper/figures/schematic/{schematic_figure}.png",
                caption=f"../report/{schematic_figure}.rst",
                category="Figures",
                labels={"figure": schematic_figure, "tier": "none"},
            ),
            sidecar=f"paper/figures/schematic/{schematic_figure}.json",
        log:
            f"logs/schematic/{schematic_figure}.log",
        conda:
            "../envs/vaco.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            module=schematic_figure,
            data=lambda wildcards, input: os.path.dirname(input[0]),
            stem=stem,
            source=report_hash(schematic_figure),
        shell:
            "python -m vaco.report.{params.module} --data {params.data:q} --out {params.stem:q} > {log:q} 2>&1"
