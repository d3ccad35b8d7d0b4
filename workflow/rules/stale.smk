"""Before anything trains: finished runs that Snakemake would keep although their code or settings have changed."""

from vaco.lm.verify import LANGUAGE
from vaco.runs import stale
from vaco.runs.kinds import CONTROL


def refuse_to_mix():
    """Stop with one sentence if new runs would be trained beside others that today's code would not make."""
    files = stale.recorded()
    for tier, kind in [(TIER, CONTROL)] + ([(LM, LANGUAGE)] if LM else []):
        kept = stale.unrecorded(readable(stale.stale_runs, tier, kind), files)
        if kept:
            raise WorkflowError(stale.refusal(kept, tier.name))


# Once, not in each job; the targets are not known yet. Snakemake's records are looked up as files.
if (
    TRAINING
    and workflow.is_main_process
    and workflow.workflow_settings.persistence_backend.name == "FILE"
):
    refuse_to_mix()
