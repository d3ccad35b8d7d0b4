"""What `vaco verify` must know of runs of language models, and which kind of run a folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vaco.errors import UserError
from vaco.lm.config import build_lm
from vaco.lm.tiers import LMTier, load_lm_tier
from vaco.runs import tables
from vaco.runs.folder import EVALS, MANIFEST, PHASES
from vaco.runs.kinds import CONTROL, Kind, Manifest, Rows
from vaco.runs.provenance import language_hash
from vaco.runs.tiers import Tier, load_tier
from vaco.runs.verify import run_folders


def _incomplete(folder: Path, manifest: Manifest, phases: Rows, evals: Rows) -> Iterator[tuple[Path, str]]:
    config = build_lm(manifest["config"])
    if phases["update"].tolist() != list(range(1, config.updates + 1)):
        rows = len(phases["update"])
        yield folder / PHASES, f"has {rows} rows that are not the {config.updates} updates of the run in order"
    if manifest["completed_steps"] != config.updates:
        yield folder / MANIFEST, f"says {manifest['completed_steps']} updates, but {config.updates} were asked for"
    points = {round(point * config.updates / config.eval_points) for point in range(config.eval_points + 1)}
    if evals["update"].tolist() != sorted(points):
        yield folder / EVALS, "does not hold the evaluation points of the run from first to last"
    # Written so that NaN fails too.
    if not ((evals["accuracy"] >= 0) & (evals["accuracy"] <= 1)).all():
        yield folder / EVALS, "holds an accuracy that is not between 0 and 1"


LANGUAGE = Kind(
    name="language models",
    subject="task",
    must_be_one=("torch", "transformers"),
    # One source determines all of them, whatever their algorithm.
    group=lambda manifest: "language models",
    source=lambda manifest: language_hash(),
    place=(("task", ""), ("algorithm", ""), ("lag", "lag"), ("minibatches", "n"), ("seed", "seed")),
    title=lambda value: str(value).replace(":", "-").replace("/", "-"),
    incomplete=_incomplete,
    asked=lambda tier: {run.folder: run.config for run in tier.runs},
)


def load_any_tier(path_or_name: str | Path) -> Tier | LMTier:
    """Read a tier of either kind; those of language models have names that begin with `lm_`.

    Raises:
        UserError: as `load_tier` and `load_lm_tier`.
    """
    return load_lm_tier(path_or_name) if Path(path_or_name).name.startswith("lm_") else load_tier(path_or_name)


def kind_of(root: Path, tier: Tier | LMTier | None) -> Kind:
    """The kind of run that a folder is to hold: its tier's, else that of the first run whose manifest can be read."""
    if tier is not None:
        return LANGUAGE if isinstance(tier, LMTier) else CONTROL
    for folder in run_folders(root):
        try:
            identity = tables.read_json(folder / MANIFEST)["identity"]
        except (UserError, KeyError, TypeError):
            continue
        return LANGUAGE if LANGUAGE.subject in identity else CONTROL
    return CONTROL
