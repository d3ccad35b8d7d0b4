"""Before anything trains: finished runs that Snakemake would keep although their code or settings have changed."""

from vaco.lm.verify import LANGUAGE
from vaco.runs import stale
from vaco.runs.kinds import CONTROL

# Targets that use no run.
RUNLESS = {"book", "theory", "schematic"}


def refuse_to_mix():
    """Stop with one sentence if new runs would be trained beside others that today's code would not make."""
    files = stale.recorded()
    for tier, kind in [(TIER, CONTROL)] + ([(LM, LANGUAGE)] if LM else []):
        kept = stale.unrecorded(readable(stale.stale_runs, tier, kind), files)
        if kept:
            raise WorkflowError(stale.refusal(kept, tier.name))


# Once, where jobs are planned: not in each job, nor by commands such as --lint that plan none. Snakemake's records are
# looked up as files.
if (
    TRAINING
    and workflow.is_main_process
    and workflow.dag_settings
    and workflow.workflow_settings.persistence_backend.name == "FILE"
    and not ({*workflow.dag_settings.targets} or {"everything"}) <= RUNLESS
):
    refuse_to_mix()
