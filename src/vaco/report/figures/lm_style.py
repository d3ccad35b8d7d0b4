"""How the algorithms of the language-model track are drawn; those shared with MuJoCo look as they do there."""

from __future__ import annotations

import re
from dataclasses import replace

from vaco.report.tables import methods
from vaco.report.tables.methods import Look

LOOKS = {
    "a3po": Look("A-3PO", "#009E73", "^", (0, (6, 1.5, 1.2, 1.5)), 1.4, 4.5),
    "a3po_rounds": Look("A-3PO, d in rounds", "#1B7837", ">", (0, (6, 1.5)), 1.2, 4.0),
    "a3po_train_steps": Look("A-3PO, d in train steps", "#5AAE61", "<", (0, (6, 1, 1, 1)), 1.2, 4.0),
    "a3po_unweighted": Look("A-3PO, no weight", "#66C2A5", "v", (0, (2, 1)), 1.2, 4.0),
    "cispo": Look("CISPO", "#CC79A7", "P", (0, (8, 1.5, 1.2, 1.5, 1.2, 1.5)), 1.3, 4.0),
    "dppo": Look("DPPO", "#56B4E9", "D", (0, (3, 1.2)), 1.3, 4.0),
    "tis": Look("TIS", "#999999", "h", (0, (5, 2)), 1.2, 4.0),
    "tba": Look("TBA", "#000000", "p", (0, (1.2, 1.2)), 1.2, 4.0),
    "oapl": Look("OAPL", "#8C510A", "*", (0, (4, 1, 1, 1)), 1.2, 4.0),
    "vaco_sequence": Look("VACO, per response", "#F0A070", "o", (0, (2, 1)), 1.2, 4.0),
    "none": Look("No filter", "#444444", "X", (0, (1, 2)), 1.2, 3.0),
}


_SYMBOLS = {"delta": "δ", "clip": "ε"}
_VARIANT = re.compile(rf"(?P<base>\w+)-(?P<setting>{'|'.join(_SYMBOLS)})(?P<value>[\d.]+)")


def look(name: str) -> Look:
    """The look of an algorithm, or of a variant named as `vaco-delta0.1` is, which has its algorithm's colour."""
    variant = _VARIANT.fullmatch(name)
    if variant:
        base = look(variant["base"])
        return replace(base, label=f"{base.label}, {_SYMBOLS[variant['setting']]} = {variant['value']}")
    return LOOKS[name] if name in LOOKS else methods.look(name)
