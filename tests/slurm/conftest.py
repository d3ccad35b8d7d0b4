"""A real SLURM of one node, and copies of the repository to run the workflow in. Run by `make test-slurm`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import Workplace, cluster, copy_repository


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Daemons and packages are installed only for those who ask: without `-m slurm` these tests are left out.

    Tests that bring clusters up and down themselves come first: they are skipped once the session's own is up.
    """
    if "slurm" in (config.option.markexpr or "").replace("not slurm", ""):
        items.sort(key=lambda item: item.path.name != "test_cluster.py")
        return
    here = Path(__file__).parent
    out = [item for item in items if here in item.path.parents]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """The cluster, started unless it is up, and stopped again if it was started here, also after SIGTERM."""
    assert "PYTEST_XDIST_WORKER" not in os.environ, "these tests share one cluster: run them with -n 0"
    was_up = cluster("status").returncode == 0
    # A timeout of CI sends SIGTERM, after which Python would end without any clean-up.
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        done = cluster("up")
        assert done.returncode == 0, done.stdout + done.stderr
        yield
    finally:
        if not was_up:
            done = cluster("down")
            assert done.returncode == 0, done.stdout + done.stderr
        signal.signal(signal.SIGTERM, before)


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Workplace]]:
    """Makes copies of the repository as it was when the first was asked for; what still works in them is ended."""
    base = tmp_path_factory.mktemp("slurm")
    base.chmod(0o755)
    copy_repository(base / "source")
    made: list[Workplace] = []

    def make(name: str, tier: str) -> Workplace:
        made.append(Workplace(base / name, tier, base / "source"))
        return made[-1]

    yield make
    for place in made:
        place.end()
