"""The configuration of the workflow, config/config.yaml and ``--config``: checked, typed, defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from vaco.runs.tier_schema import check

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tier": {"type": "string"},
        "lm_tier": {"type": "string"},
        "runs": {"enum": ["published", "missing", "all"]},
        "bootstrap": {
            "type": "object",
            "properties": {
                "repetitions": {"type": "integer", "minimum": 100},
                "seed": {"type": "integer", "minimum": 0},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
DEFAULTS: dict[str, Any] = {"tier": "desk", "lm_tier": "auto", "runs": "published"}
BOOTSTRAP = {"repetitions": 2000, "seed": 0}


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check what Snakemake read from the file and the command line.

    Raises:
        UserError: a key or a value is wrong, with one sentence that says what was expected.
    """
    given = _typed(dict(config))
    check(given, SCHEMA, "config/config.yaml")
    return {**DEFAULTS, **given} | {"bootstrap": BOOTSTRAP | given.get("bootstrap", {})}


def _typed(value: Any) -> Any:
    """Words of the command line, read as the file would have them."""
    if isinstance(value, dict):
        return {key: _typed(part) for key, part in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value
