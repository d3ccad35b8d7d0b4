"""The command `vaco conformance`: a loss of one's own beside a row, or the installed libraries' losses beside all."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vaco.errors import UserError, said
from vaco.paths import path_flag

if TYPE_CHECKING:
    from torch import Tensor

    from vaco.conformance.batches import Batch
    from vaco.conformance.comparison import Loss


def add(commands: Any) -> None:
    """Enter the command in the parser of `vaco`."""
    parser = commands.add_parser("conformance", help="which rule a loss is, by its coefficients on hard batches")
    parser.set_defaults(function=run)
    parser.add_argument("--loss", metavar="MODULE:FUNCTION", help="a function of log-probabilities and a batch")
    parser.add_argument("--rule", help="the row that it is to be; without it, the nearest rows are listed")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="a number of the row")
    parser.add_argument(
        "--denominator", choices=("samples", "sequences", "sum"), default="samples", help="what the loss divides by"
    )
    parser.add_argument("--no-mask", action="store_true", help="the loss knows no mask")
    parser.add_argument("--no-learner", action="store_true", help="the loss knows one old policy, not two")
    parser.add_argument("--libraries", nargs="*", metavar="PACKAGE", help="the installed libraries' losses, or some's")
    parser.add_argument("--out", type=path_flag, metavar="FILE", help="with --libraries: write the matrix as JSON")
    parser.add_argument("--page", type=path_flag, metavar="FILE", help="with --libraries: put the table into a page")


def run(options: argparse.Namespace) -> None:
    """Compare, and print what was found; exit code 1 where a loss is not the row asked for."""
    if (options.loss is None) == (options.libraries is None):
        raise UserError("give either --loss MODULE:FUNCTION, for a loss of your own, or --libraries")
    if options.libraries is not None:
        _libraries(options)
        return
    from vaco.conformance.comparison import closest, compare

    loss, settings = _load(options.loss), dict(map(_number, options.set))
    known: dict[str, Any] = {"padded": not options.no_mask, "learner": not options.no_learner}
    known["denominator"] = options.denominator
    if options.rule is None:
        for report in closest(loss, settings, **known)[:5]:
            print(report)
        return
    report = compare(loss, options.rule, settings, **known)
    print(report)
    if not report.equal:
        sys.exit(1)


def _libraries(options: argparse.Namespace) -> None:
    from vaco.conformance import loops, matrix  # noqa: F401 (enters its losses)
    from vaco.conformance.libraries import ENTRIES

    chosen = [entry for entry in ENTRIES if not options.libraries or entry.package in options.libraries]
    if not chosen:
        raise UserError(
            f"there is no entry for {', '.join(options.libraries)}: known are "
            f"{', '.join(sorted({entry.package for entry in ENTRIES}))}"
        )
    rows = matrix.matrix(chosen)
    print(matrix.markdown(rows), end="")
    for row in rows:
        if "skipped" in row:
            print(f"skipped: {row['package']}, {row['flag']}: {row['skipped']}", file=sys.stderr)
    if options.out:
        matrix.write(options.out, rows)
    if options.page:
        matrix.into_page(options.page, rows)


def _load(name: str) -> Loss:
    module, _, function = name.partition(":")
    if not module or not function:
        raise UserError(f"--loss is '{name}', but it is MODULE:FUNCTION, such as my_package.losses:policy_loss")
    sys.path.insert(0, "")
    try:
        found = import_module(module)
    except Exception as error:  # whatever another module does wrong
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent is not None and f"{module}.".startswith(f"{absent}."):
            reason = f"there is no module '{module}': run this where Python finds it, or set PYTHONPATH"
        else:
            reason = f"the module '{module}' cannot be imported ({said(error)}): mend it, or install what it needs"
        raise UserError(reason) from error
    loss = getattr(found, function, None)
    if not callable(loss):
        raise UserError(f"the module '{module}' has no function '{function}': name one that it has")
    return _told(loss, name)


def _told(loss: Loss, name: str) -> Loss:
    """The loss, whose errors are sentences: exit code 1 would say that it is not the row."""
    import torch

    def told(logp: Tensor, batch: Batch) -> Tensor:
        try:
            value = loss(logp, batch)
            if isinstance(value, torch.Tensor) and not value.dim() and value.requires_grad:
                torch.autograd.grad(value, logp, retain_graph=True)  # may fail, too
            return value
        except Exception as error:
            raise UserError(
                f"the loss '{name}' fails on the batch '{batch.name}' ({said(error)}): it is called with log π [B, T] "
                "and a vaco.conformance.Batch, and returns a 0-d tensor that depends on log π"
            ) from error

    return told


def _number(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"--set is '{text}', but it is NAME=NUMBER, such as clip=0.2") from None
