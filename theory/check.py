"""What a check is: a statement, the function that verifies it, and the controls that must fail.

A control is the same function with one assumption dropped. It must be violated somewhere, by more than rounding, on
the very instances on which the statement holds; a check that nothing can make fail is a defect, so a control that does
not fail counts as an error of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from theory.bounds import Bound
from theory.instances import Instance

CheckFunction = Callable[[Instance], Bound]


@dataclass(frozen=True)
class Check:
    """One statement.

    Attributes:
        name: key in every table.
        section: letter in ALGORITHMS.md, section B, or the module's own.
        statement: what is claimed, in one line.
        function: returns the claim's two sides.
        controls: what is dropped, and the function without it.
        identity: whether it claims equality.
    """

    name: str
    section: str
    statement: str
    function: CheckFunction
    controls: dict[str, CheckFunction] = field(default_factory=dict)
    identity: bool = False
