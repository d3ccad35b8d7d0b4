"""MuJoCo's stop-watch: its Python package has the engine read the clock around each stage of each step.

Those times, `MjData.timer`, are nobody's here, and taking them costs an eighth of the physics or more
(`benchmarks/optimisations.py`). No state depends on them. This is not part of `vaco.control`, whose every file counts
in the hash of the training source: it changes no bit of a run.
"""

from __future__ import annotations

import ctypes


def stop() -> bool:
    """Have MuJoCo take no times in this process any more.

    To the engine a null `mjcb_time` means that nobody wants times, but the package's own ``set_mjcb_time(None)`` leaves
    its clock in place, so the global is set where the engine reads it.

    Returns:
        Whether the clock has stopped; False with a build of MuJoCo that hides the global, which is slower and no more.
    """
    from mujoco import _callbacks

    try:
        clock = ctypes.c_void_p.in_dll(ctypes.CDLL(_callbacks.__file__), "mjcb_time")
    except (OSError, ValueError):  # no such library, no such symbol
        return False
    clock.value = None
    return True
