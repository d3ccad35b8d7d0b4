# The root file, so that `snakemake` works from the root and ./profiles/default loads by itself.
# The workflow is in workflow/Snakefile, where the Snakemake workflow catalogue looks for it.
include: "workflow/Snakefile"


rule everything:
    default_target: True
    input:
        rules.all_figures.input,
