"""The random policy that scores are normalised by."""

from vaco.runs.provenance import reference_hash


rule reference:
    output:
        f"{RESULTS}/references/{{env}}.json",
    log:
        f"logs/{TIER.name}/reference/{{env}}.log",
    priority: 1000
    conda:
        "../envs/vaco.yaml"
    threads: 1
    resources:
        mem_mb=1200,
        runtime=20,
    params:
        episodes=TIER.reference_episodes,
        seed=TIER.reference_seed,
        # Environments that were edited give other returns.
        source=readable(reference_hash),
    shell:
        "vaco evaluate --env {wildcards.env:q} --random --episodes {params.episodes} --seed {params.seed}"
        " --out {output:q} > {log:q} 2>&1"
