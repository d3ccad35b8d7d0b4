"""The book and the report show what is released, the tracked figures, tables and numbers; what a tier costs here."""


use rule command as book with:
    input:
        lambda wildcards: dag.released(),
    output:
        "paper/book/_build/html/index.html",
    log:
        "logs/book.log",
    conda:
        "../envs/book.yaml"
    params:
        # Notebooks show their figures inline only where no other backend is asked for.
        command="env -u MPLBACKEND jupyter-book build -W --keep-going paper/book".split(),


use rule command as paper with:
    input:
        lambda wildcards: dag.released(),
    output:
        "paper/build/report.pdf",
    log:
        "logs/paper.log",
    params:
        command=words("python -m vaco.report.prose.paper", tier=PROSE_TIERS[0], out="paper/build/report.pdf"),


rule cost_of_tier:
    output:
        f"{BUILD}/paper/tables/cost/{{tier}}.txt",
    log:
        "logs/cost/{tier}.log",
    conda:
        "../envs/vaco.yaml"
    shell:
        "vaco estimate --tier {wildcards.tier:q} > {output:q} 2> {log:q}"
