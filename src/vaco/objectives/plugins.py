"""Filters and alignments of other packages: by entry point, or by the name of a module.

A package offers a rule to every command, tier and adapter with an entry point in the group ``vaco.filters`` or
``vaco.alignments``, which is named like the rule and leads to what `register` returned::

    [project.entry-points."vaco.filters"]
    soft_tv = "mypkg.rules:soft_tv"

Nothing of another package is run before a name that this one does not know is asked for, or all are to be listed.
Without an entry point, ``vaco --import mypkg.rules`` or an ``import`` of one's own registers what the module holds.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module, metadata
from typing import Any

from vaco.errors import UserError
from vaco.objectives import align, filters, own, table, tokens
from vaco.objectives.pytorch import torch

FILTER_GROUP, ALIGNMENT_GROUP = "vaco.filters", "vaco.alignments"


@cache
def entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of a group by name, as they were when first asked for; none is loaded.

    Raises:
        UserError: two packages offer rules of one name.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise UserError(
                f"the packages {_package(other)} and {_package(point)} both offer '{point.name}' in {group}: remove one"
            )
    return found


def seek(name: str) -> None:
    """Load the entry points of a name that is not known yet; nothing happens where there are none.

    Raises:
        UserError: one cannot be imported, or leads to something else than a rule of that name.
    """
    for group in (FILTER_GROUP, ALIGNMENT_GROUP):
        if name in entry_points(group) and not _is_registered(group, name):
            _load(group, entry_points(group)[name])


def load_all() -> None:
    """Load every entry point.

    Raises:
        UserError: as `seek`; or one has the name of a rule of this package.
    """
    for group in (FILTER_GROUP, ALIGNMENT_GROUP):
        for point in entry_points(group).values():
            _load(group, point)


def import_rules(module: str) -> None:
    """Import a module that registers rules, and try each rule once.

    Args:
        module: its dotted name; the working directory is on the path.

    Raises:
        UserError: there is no such module, it fails, it registers nothing, or a rule of it is malformed.
    """
    before = _registered()
    if "" not in sys.path:
        sys.path.insert(0, "")
    if module not in sys.modules:
        _import(module, f"--import {module}")
    of_module = [key for key in _registered() if _home(*key) == module or key not in before]
    if not of_module:
        raise UserError(
            f"the module {module} registers no filter and no alignment: decorate a function with "
            "vaco.objectives.filters.register or vaco.objectives.align.register"
        )
    for group, name in of_module:
        _try(group, name)


@cache
def _load(group: str, point: metadata.EntryPoint) -> None:
    """Import an entry point's module, and see to it that it has registered what it leads to."""
    who = f"the entry point '{point.name}' of the package {_package(point)}"
    kind = "filter" if group == FILTER_GROUP else "alignment"
    if _is_ours(group, point.name):
        raise UserError(f"{who} has the name of a {kind} that vaco has itself: that package must give it another name")
    home = _import(point.module, who)
    found: Any = home
    for part in filter(None, point.attr.split(".")):
        found = getattr(found, part, None)
    if not _is_registered(group, point.name) or found not in _objects(group, point.name):
        how = f"vaco.objectives.{'filters' if kind == 'filter' else 'align'}.register('{point.name}', ...)"
        raise UserError(f"{who} leads to {point.value}, which is no {kind} of that name: decorate it with {how}")
    _try(group, point.name)


def _import(module: str, who: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{who}: importing {module} needs {error.name}, which is not installed") from error
        raise UserError(f"{who}: there is no module {module}: install it, or run this where Python finds it") from error
    except UserError as error:
        raise UserError(f"{who}: {error}") from error
    except Exception as error:  # whatever another package does wrong
        raise UserError(f"{who}: importing {module} fails with {type(error).__name__}: {error}") from error


def _package(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "of unknown name"


def _registered() -> list[tuple[str, str]]:
    """Every rule of another package, as (group, name)."""
    known = [(FILTER_GROUP, name) for name in (*filters.FILTERS, *tokens.TOKEN_FILTERS)]
    known += [(ALIGNMENT_GROUP, name) for name in align.ALIGNMENTS]
    return [key for key in known if not _is_ours(*key)]


def _objects(group: str, name: str) -> list[Any]:
    """What `register` returned under a name."""
    if group == ALIGNMENT_GROUP:
        return [align.ALIGNMENTS[name].function] if name in align.ALIGNMENTS else []
    return [found[name].function for found in (filters.FILTERS, tokens.TOKEN_FILTERS) if name in found]


def _home(group: str, name: str) -> str:
    return next((getattr(found, "__module__", "vaco") for found in _objects(group, name) if found is not None), "vaco")


def _is_registered(group: str, name: str) -> bool:
    if group == ALIGNMENT_GROUP:
        return name in align.ALIGNMENTS
    return name in filters.FILTERS or name in tokens.TOKEN_FILTERS or name in reserved()


def _is_ours(group: str, name: str) -> bool:
    return _is_registered(group, name) and _home(group, name).split(".")[0] == "vaco"


def reserved() -> set[str]:
    """Names by which algorithms of this package are asked for, beside those of filters and alignments."""
    return {*table.ALIASES, *tokens.TOKEN_ALIASES, *tokens.REGRESSIONS}


def _try(group: str, name: str) -> None:
    """Apply a rule to a batch of four samples, so that what is malformed is told before a run begins.

    Raises:
        UserError: it fails, or returns something else than it should.
    """
    kind = "filter" if group == FILTER_GROUP else "alignment"
    what = f"the {kind} '{name}' of {_home(group, name)}"
    if name in reserved():
        raise UserError(f"{what} has the name of an algorithm that vaco has itself: give it another name")
    try:
        problem = _try_alignment(name) if kind == "alignment" else _try_filter(name)
    except Exception as error:  # whatever another package does wrong
        problem = f"fails on a batch of four samples with {type(error).__name__}: {error}"
    if problem:
        for found in (align.ALIGNMENTS,) if kind == "alignment" else (filters.FILTERS, tokens.TOKEN_FILTERS):
            found.pop(name, None)
        raise UserError(f"{what} {problem}")


def _try_filter(name: str) -> str | None:
    one = torch.ones(2, 2)
    x = filters.Samples(ratio=1.5 * one, learner_ratio=one, advantages=one, weights=one)
    if name in filters.FILTERS:
        verdict: Any = filters.FILTERS[name].function(x, filters.DEFAULTS)
    else:
        seen = tokens.Tokens(x, torch.ones(2, 2, dtype=torch.int64), -one)
        verdict = tokens.TOKEN_FILTERS[name].function(seen, tokens.DEFAULTS)
    if not isinstance(verdict, filters.Filtered):
        return f"returns {type(verdict).__name__}, but it must return vaco.objectives.filters.Filtered"
    for field in ("coefficient", "kept"):
        tensor = getattr(verdict, field)
        if not isinstance(tensor, torch.Tensor) or tensor.shape != one.shape:
            return f"returns as '{field}' no tensor of the shape of the ratios"
    if verdict.kept.dtype != torch.bool:
        return "returns as 'kept' a tensor that is not boolean"
    return None


def _try_alignment(name: str) -> str | None:
    row, one, no = align.ALIGNMENTS[name], torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)
    found: Any = row.estimate(
        own.own_settings(row.settings, {}, name),
        rewards=one,
        values=one,
        next_values=one,
        terminated=no,
        truncated=no,
        dead=no,
        ratio=None if row.target is None else one,
        discount=0.9,
        trace_decay=0.9,
        rho_bar=1.0,
        c_bar=1.0,
    )
    if not isinstance(found, align.Aligned) or any(x.shape != one.shape for x in found):
        return "does not return vaco.objectives.align.Aligned of two tensors of the shape of the rewards"
    return None
