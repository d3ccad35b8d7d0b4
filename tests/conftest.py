"""One thread a process, settled before NumPy is imported: with more, parallel tests only wait for each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def missing() -> Callable[[str, str], None]:
    """Skip for want of something, or fail where CI has promised that everything is there."""

    def end(what: str, mend: str) -> None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is missing: {mend}")

    return end


# Of one module: while it is open its event loop counts as running, so that neither a second one nor asyncio starts.
@pytest.fixture(scope="module")
def browser(missing: Callable[[str, str], None]) -> Iterator[Any]:
    """Headless Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright", "pip install -e '.[book]'")
    if CHROMIUM is None:
        missing("a browser", "apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
