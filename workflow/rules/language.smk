"""Language models: one warm start a tier, one job a run, tables, and Figure 5 with its companions."""

if LM and TRAINING:

    rule lm_warm_start:
        output:
            WARM_START,
        log:
            f"logs/{LM_NAME}/warm_start.log",
        priority: 1000
        conda:
            "../envs/vaco.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=120,
        params:
            tier=LM_NAME,
            skip="true" if LM.warm.warm_target == 0 else "false",
            # Not in the command, which reads the tier: what the weights are made of.
            warm=LM.warm.warm_hash,
            source=readable(language_hash),
        shell:
            "if {params.skip}; then : > {output:q};"
            " else vaco lm warm --tier {params.tier:q} --out {output:q} > {log:q} 2>&1; fi"

    rule lm_train:
        input:
            # What the weights are made of is in the run's configuration; a newer file of them trains nothing.
            lm_warm,
        output:
            manifest=f"{LM_RESULTS}/runs/{{task}}/{{algorithm}}/lag{{lag}}/n{{n}}/seed{{seed}}/manifest.json",
            phases=f"{LM_RESULTS}/runs/{{task}}/{{algorithm}}/lag{{lag}}/n{{n}}/seed{{seed}}/phases.parquet",
            evals=f"{LM_RESULTS}/runs/{{task}}/{{algorithm}}/lag{{lag}}/n{{n}}/seed{{seed}}/evals.parquet",
        log:
            f"logs/{LM_NAME}/train/{{task}}/{{algorithm}}/lag{{lag}}/n{{n}}/seed{{seed}}.log",
        wildcard_constraints:
            task="[^/]+",
            algorithm="[^/]+",
            n=r"\d+",
        priority: lambda wildcards: LM.priority(lm_run(wildcards))
        conda:
            "../envs/vaco.yaml"
        threads: 1
        resources:
            mem_mb=lambda wildcards, attempt: (
                24000 if LM.warm.device == "cuda" else 2500
            )
            * attempt,
            # The same for every attempt, as each continues the run: more might exceed the partition's limit.
            runtime=1440 if LM.warm.device == "cuda" else 60,
            gpu=1 if LM and LM.warm.device == "cuda" else 0,
        params:
            tier=LM_NAME,
            flags=lambda wildcards: lm_run(wildcards).flags,
            # The flags are only what tells a run from the tier's others; the rest the command reads from the tier.
            config=lambda wildcards: lm_run(wildcards).config.hash,
            out=lambda wildcards, output: os.path.dirname(output.manifest),
            warm=[] if LM.warm.warm_target == 0 else ["--warm-start", WARM_START],
            source=readable(language_hash),
        shell:
            "vaco lm train --tier {params.tier:q} {params.flags:q} {params.warm:q} --out {params.out:q} --quiet"
            " > {log:q} 2>&1"


if LM and not config["redraw_only"]:

    LM_TABLES_OF = origin_of(
        LM.plan(),
        [run.folder for run in wanted(LM.runs)],
        report_hash("lm_aggregate"),
    )
    renew(LM_ORIGIN, LM_TABLES_OF, LM.runs)

    rule lm_aggregate:
        input:
            lm_files,
        output:
            LM_TIDY,
            origin=LM_ORIGIN,
        log:
            f"logs/{LM_NAME}/aggregate.log",
        conda:
            "../envs/vaco.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=20,
        params:
            tier=LM_NAME,
            missing="--allow-missing" if config["allow_missing"] else "",
            results=lambda wildcards, output: os.path.dirname(
                os.path.dirname(output[0])
            ),
            tables=folder,
            origin=LM_TABLES_OF,
        shell:
            "(python -m vaco.lm.tiers {params.tier:q} | python -m vaco.report.lm_aggregate --plan - {params.missing}"
            " --results {params.results:q} --out {params.tables:q} &&"
            " vaco verify {params.results:q} --tier {params.tier:q} {params.missing}) > {log:q} 2>&1 &&"
            " echo {params.origin:q} > {output.origin:q}"

    rule lm_runs:
        input:
            lm_files,


for figure, read in LM_FIGURES.items() if LM else ():

    rule:
        name:
            figure
        input:
            [f"{LM_TABLES}/{table}" for table in ("summary.json", *read)],
        output:
            pdf=f"paper/figures/{LM_NAME}/{figure}.pdf",
            png=report(
                f"paper/figures/{LM_NAME}/{figure}.png",
                caption=f"../report/{figure}.rst",
                category="Language models",
                labels={"figure": figure, "tier": LM_NAME},
            ),
            sidecar=f"paper/figures/{LM_NAME}/{figure}.json",
        log:
            f"logs/{LM_NAME}/figures/{figure}.log",
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
