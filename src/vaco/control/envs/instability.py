"""MuJoCo heals itself: a simulation with a value that is not finite, or huge, it puts back to its first pose.

It tells of it in two ways only: a warning, by default printed and appended to MUJOCO_LOG.TXT in the current folder, and
counters in the simulator's data, which a reset clears. The warning is listened to, so that healthy steps cost nothing;
the counters say which simulator it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

_WARNINGS = {
    mujoco.mjtWarning.mjWARN_BADQPOS: "position",
    mujoco.mjtWarning.mjWARN_BADQVEL: "velocity",
    mujoco.mjtWarning.mjWARN_BADQACC: "acceleration",
    mujoco.mjtWarning.mjWARN_BADCTRL: "control",
}
_COUNTERS = [int(warning) for warning in _WARNINGS]
_heard = 0


def _hear(message: str) -> None:
    """Count a warning; pass on what is neither Gymnasium's own HalfCheetah model's nor told by `Watch`."""
    global _heard
    _heard += 1
    if "settotalmass" not in message and "simulation is unstable" not in message:
        print(f"WARNING: {message}", file=sys.stderr)


def listen() -> None:
    """Hear MuJoCo's warnings in this process, unless somebody else does; none goes to a file any more."""
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_hear)


class Watch:
    """Notices which of some simulators MuJoCo has put back."""

    def __init__(self, simulators: Sequence[Any]) -> None:
        """Watch MjData; none for tasks of other kinds."""
        self._simulators, self._seen = simulators, _heard

    def unstable(self) -> NDArray[np.bool_] | None:
        """Whether each simulator was put back since its episode began, [E]; None if none was."""
        if not self._simulators or (mujoco.get_mju_user_warning() is _hear and self._seen == _heard):
            return None
        self._seen = _heard
        flags = np.array([data.warning.number[_COUNTERS].any() for data in self._simulators])
        return flags if flags.any() else None

    def what(self, index: int) -> str:
        """What was not finite, or huge, in a simulator."""
        counts = self._simulators[index].warning.number
        return next(name for warning, name in _WARNINGS.items() if counts[int(warning)])
