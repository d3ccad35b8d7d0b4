"""A real SLURM of one node, and copies of the repository to run the workflow in. Run by `make test-slurm`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import Workplace, cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Daemons and packages are installed only for those who ask: without `-m slurm` these tests are left out."""
    if "slurm" in (config.option.markexpr or "").replace("not slurm", ""):
        return
    here = Path(__file__).parent
    out = [item for item in items if here in item.path.parents]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """The cluster, started unless it is up, and stopped again if it was started here."""
    was_up = cluster("status").returncode == 0
    done = cluster("up")
    assert done.returncode == 0, done.stdout + done.stderr
    yield
    if not was_up:
        done = cluster("down")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Workplace]:
    base = tmp_path_factory.mktemp("slurm")
    base.chmod(0o755)
    return lambda name, tier: Workplace(base / name, tier)
