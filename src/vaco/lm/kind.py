"""Runs of language models as a kind beside others, and tiers and folders of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vaco.campaign.kinds import CONTROL, Kind, Manifest, Rows
from vaco.campaign.tiers import Tier, load_tier
from vaco.lm.config import rebuild_lm
from vaco.lm.tiers import LMTier, load_lm_tier


def _incomplete(manifest: Manifest, phases: Rows, evals: Rows) -> Iterator[tuple[str, str]]:
    config = rebuild_lm(manifest["config"])
    if phases["update"].tolist() != list(range(1, config.updates + 1)):
        rows = len(phases["update"])
        yield "phases", f"has {rows} rows that are not the {config.updates} updates of the run in order"
    if manifest["completed_steps"] != config.updates:
        yield "manifest", f"says {manifest['completed_steps']} updates, but {config.updates} were asked for"
    points = {round(point * config.updates / config.eval_points) for point in range(config.eval_points + 1)}
    if evals["update"].tolist() != sorted(points):
        yield "evals", "does not hold the evaluation points of the run from first to last"
    # Written so that NaN fails too.
    if not ((evals["accuracy"] >= 0) & (evals["accuracy"] <= 1)).all():
        yield "evals", "holds an accuracy that is not between 0 and 1"


LANGUAGE = Kind(
    name="language",
    words="language models",
    subject="task",
    must_be_one=("torch", "transformers"),
    rebuild=rebuild_lm,
    incomplete=_incomplete,
)
KINDS = (CONTROL, LANGUAGE)


def load_any_tier(path_or_name: str | Path) -> Tier | LMTier:
    """Read a tier of either kind; those of language models have names that begin with `lm_`.

    Raises:
        UserError: as `load_tier` and `load_lm_tier`.
    """
    return load_lm_tier(path_or_name) if Path(path_or_name).name.startswith("lm_") else load_tier(path_or_name)


def kind_of_tier(tier: Tier | LMTier) -> Kind:
    """What its runs are."""
    return LANGUAGE if isinstance(tier, LMTier) else CONTROL
