"""Table 1: the hyper-parameters that the runs of a tier were really trained with, from their manifests.

One row a setting: the value that most methods of the tier's own grid share, and every method that differs from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vaco.command import run_command
from vaco.report.tables import caption
from vaco.report.tables.methods import look
from vaco.report.tables.sidecar import parse, write_sidecar
from vaco.report.tables.typeset import write_all

HEADER = ("setting", "meaning", "value", "exceptions")


def rows(
    configs: Mapping[str, Mapping[str, Any]], methods: Mapping[str, Any], meanings: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """Setting, meaning, the most frequent value, and who differs.

    Args:
        configs: by path name, the hyper-parameters of its runs. A setting that did not exist yet when a method's runs
            were made is no exception: it had then the effect of its default.
        methods: by path name, the algorithm and settings it stands for. A variant is named after the settings it
            changes, so these are not repeated as exceptions.
        meanings: by setting, what it means.
    """
    made = []
    known = {key for config in configs.values() for key in config}
    # In the order in which the configuration explains them; what it does not explain comes last.
    settings = [key for key in meanings if key in known] + sorted(known - set(meanings))
    for setting in settings:
        values = {name: written(config[setting]) for name, config in configs.items() if setting in config}
        common, _ = Counter(values.values()).most_common(1)[0]
        others = [
            f"{look(name, methods).label}: {value}"
            for name, value in values.items()
            if value != common and not (_is_variant(name, methods) and setting in methods[name]["settings"])
        ]
        made.append((setting, meanings.get(setting, ""), common, "; ".join(others)))
    return made


def in_force(config: Mapping[str, Any], pair: str) -> dict[str, Any]:
    """The hyper-parameters that a method was really trained with, where the pair of ideas overrides a setting.

    Continuous alignment estimates advantages anew in every minibatch, of whole trajectories, and standardises them in
    it.

    Args:
        config: settings from a manifest.
        pair: `ALIGN+FILTER` of the method.
    """
    found = dict(config)
    continuous = pair.startswith("continuous+")
    if found.get("minibatches") == "auto":
        found["minibatches"] = "trajectories" if continuous else "transitions"
    if continuous and found.get("advantage_normalisation") == "phase":
        found["advantage_normalisation"] = "minibatch"
    return found


def _is_variant(name: str, methods: Mapping[str, Any]) -> bool:
    return bool(methods[name]["algorithm"] != name)


def written(value: Any) -> str:
    """A value as a reader expects it: 0.0003, yes, 64 x 64."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " x ".join(written(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this table."""
    tables, stem = parse(arguments, __doc__)
    configs = {name: in_force(config, tables.methods[name]["pair"]) for name, config in tables.json("configs").items()}
    meanings = tables.summary["meanings"]
    write_all(stem, HEADER, rows(configs, tables.methods, meanings))
    text = caption.joined(
        "Hyper-parameters of all runs, read from their manifests: the value that most methods share, and the "
        "exceptions; variants of the studies differ in the settings that the tier's file gives them, and in nothing "
        "else. Continuous alignment, IMPALA's among them, needs whole trajectories as minibatches and standardises "
        "advantages in each, whatever the settings say; the table has what was in force. Any other setting that a "
        "method does not use is listed with the value it was given.",
        caption.scale(tables.summary),
        caption.caveats(tables.summary),
    )
    write_sidecar(tables, stem, text)
    return 0


if __name__ == "__main__":
    run_command(main)
