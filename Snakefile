# From here `snakemake` works; the catalogue looks for workflow/Snakefile. Snakemake takes no default of an included file.
include: "workflow/Snakefile"


rule everything:
    default_target: True
    input:
        rules.all_figures.input,
