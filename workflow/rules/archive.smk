"""Finished runs, those of published archives among them, become the archive of a tier: a few tables."""


use rule command as archive with:
    input:
        runs=WORK.archived,
        references=say(WORK.references),
        published=WORK.published,
    output:
        f"{BUILD}/results/{{tier}}/archive/SHA256SUMS",
    log:
        "logs/{tier}/archive.log",
    params:
        command=lambda wildcards, input, output: words(
            "vaco archive",
            tier=wildcards.tier,
            anew=WORK.mode == "all",
            references=list(input.references),
            out=os.path.dirname(output[0]),
        ),
        plan=lambda wildcards: dag.plan_digest(wildcards.tier),


# The random policy that scores are normalised by.
use rule command as reference with:
    output:
        f"{BUILD}/results/references/{{env}}-{{episodes}}-{{seed}}.json",
    log:
        "logs/reference/{env}-{episodes}-{seed}.log",
    priority: 1000000
    params:
        command=lambda wildcards, output: words("vaco evaluate --random", **wildcards, out=output[0]),
        version=EVALUATION_VERSION,
