"""The theory: every bound verified anew, its numbers, and figures drawn from them. Trains nothing."""


rule theory:
    input:
        expand(
            f"{BUILD}/paper/figures/theory/{{name}}.{{kind}}",
            name=WORK.figures["theory"]["figures"],
            kind=["pdf", "png"],
        ),


use rule command as theory_numbers with:
    output:
        expand(f"{BUILD}/results/theory/{{name}}.json", name=WORK.figures["theory"]["numbers"]),
    log:
        "logs/theory/numbers.log",
    params:
        command=words("python -m theory.run --parts all --seed 0 --quiet", out=f"{BUILD}/results/theory"),
        source=dag.theory_source(drawing=False),


use rule command as theory_figures with:
    input:
        rules.theory_numbers.output,
        # Lags met in training, always those of the tier that stands in prose: these figures belong to no tier.
        dag.tables(PROSE_TIERS[0]),
    output:
        rules.theory.input,
    log:
        "logs/theory/figures.log",
    params:
        command=words(
            "python -m theory.figures",
            results=f"{BUILD}/results/theory",
            training=dag.folder(PROSE_TIERS[0]),
            out=f"{BUILD}/paper/figures/theory",
        ),
        source=dag.theory_source(drawing=True),
