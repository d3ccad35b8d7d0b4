"""Which rule each library's loss is, from the packages as they are on the index today; asked for by name alone."""


# Its environment, of some GB, is made at the first call and kept: remove .venv-conformance for libraries of today.
use rule command as conformance with:
    output:
        multiext(f"{BUILD}/results/conformance/matrix", ".json", ".md"),
    log:
        "logs/conformance.log",
    params:
        command=lambda wildcards, output: [
            *words("scripts/conformance-matrix.sh .venv-conformance"),
            os.path.dirname(output[0]),
        ],
        source=dag.conformance_source(),
