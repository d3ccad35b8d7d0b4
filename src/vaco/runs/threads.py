"""One thread: more would only wait for each other at these sizes, and another number changes the bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold NumPy's linear algebra and PyTorch to one thread each.

    A product summed by two threads is rounded in another order, so a run promises the same bits only for a fixed
    number. The command line sets it from the start; this covers a run started from a notebook or a test.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
