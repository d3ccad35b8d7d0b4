"""The book and the report show what is released, the tracked figures, tables and numbers; what a tier costs here."""

RELEASED = [
    str(path)
    for folder in (
        "paper",
        "config",
        "results",
        "benchmarks/results",
        "src/vaco",
        "theory",
    )
    for path in sorted(Path(folder).rglob("*"))
    if path.is_file() and not {"_build", "build", "__pycache__"} & set(path.parts)
    if not path.is_relative_to(dag.RUNS)
]


rule book:
    input:
        RELEASED,
    output:
        "paper/book/_build/html/index.html",
    log:
        "logs/book.log",
    conda:
        "../envs/book.yaml"
    threads: 1
    shell:
        "OMP_NUM_THREADS=1 jupyter-book build -W --keep-going paper/book > {log:q} 2>&1"


rule paper:
    input:
        RELEASED,
    output:
        "paper/build/report.pdf",
    log:
        "logs/paper.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    params:
        tier=dag.PROSE_TIERS[0],
    shell:
        "python -m vaco.report.paper --tier {params.tier:q} --out {output:q} > {log:q} 2>&1"


rule cost_of_tier:
    output:
        f"{BUILD}/paper/tables/cost/{{tier}}.txt",
    log:
        "logs/cost/{tier}.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    shell:
        "vaco estimate --tier {wildcards.tier:q} > {output:q} 2> {log:q}"
