"""With the slurm profile: has the cluster the partition, and is there time enough? Asked before any job is submitted."""

from vaco.runs import cluster


def refuse_what_slurm_would():
    """Stop with one sentence if the cluster cannot run the jobs; with another executor there is nothing to ask."""
    settings = workflow.resource_settings
    asked = {
        "executor": workflow.executor_plugin.name,
        "default-resources": cluster.plain(settings.default_resources),
        "set-resources": {
            name: cluster.plain(given)
            for name, given in (settings.overwrite_resources or {}).items()
        },
    }
    problems = cluster.check(asked, TIER if TRAINING else None)
    if problems:
        raise WorkflowError(problems[0])


onstart:
    refuse_what_slurm_would()
