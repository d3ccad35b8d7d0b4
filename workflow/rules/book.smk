"""The book. It shows what the other rules have made and says what they have not; building it trains nothing."""


include: "book_sources.smk"


rule book:
    output:
        "paper/book/_build/html/index.html",
    log:
        "logs/book.log",
    conda:
        "../envs/book.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        book=lambda wildcards, output: Path(output[0]).parents[2],
        source=book_hash,
    shell:
        "OMP_NUM_THREADS=1 jupyter-book build -W --keep-going {params.book:q} > {log:q} 2>&1"


# What a tier costs on this machine, as `vaco estimate` says it; measured when asked for, and tracked.
rule cost_of_tier:
    output:
        "paper/tables/cost/{tier}.txt",
    log:
        "logs/cost/{tier}.log",
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=20,
    shell:
        "vaco estimate --tier {wildcards.tier:q} > {output:q} 2> {log:q}"
