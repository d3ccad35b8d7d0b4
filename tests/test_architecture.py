"""The layout that DESIGN.md draws, held by reading the syntax tree of every module: nothing is imported to check it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
EVERYTHING = None
MODULE_LINES = 450
FUNCTION_LINES = 80

# What every command stands on.
GROUND = {"vaco.errors", "vaco.command", "vaco.paths", "vaco.yaml_file"}
# Which rooms of the house each room may enter, itself apart. `None` is everything.
ARROWS: dict[str, set[str] | None] = {
    "vaco": {
        "vaco.errors",
        "vaco.extras",
        "vaco.objectives",
        "vaco.loss",
        "vaco.diagnostics",
        "vaco.control",
        "vaco.study",
    },
    "vaco.errors": set(),
    "vaco.command": {"vaco.errors"},
    "vaco.paths": {"vaco.errors"},
    "vaco.yaml_file": {"vaco.errors"},
    "vaco.stopwatch": set(),
    "vaco.extras": {"vaco.errors"},
    "vaco.objectives": {"vaco.errors"},
    # For other people's trainers.
    "vaco.diagnostics": {"vaco.errors", "vaco.objectives"},
    "vaco.loss": {"vaco.errors", "vaco.objectives", "vaco.diagnostics"},
    "vaco.writers": {"vaco.errors", "vaco.diagnostics"},
    # Reads finished runs, and draws without a library.
    "vaco.compare": {"vaco.errors", "vaco.paths", "vaco.runs"},
    "vaco.adapters": {"vaco.errors", "vaco.objectives", "vaco.loss", "vaco.diagnostics", "vaco.lag"},
    "vaco.conformance": {"vaco.errors", "vaco.objectives", "vaco.loss", "vaco.paths"},
    "vaco.lag": {"vaco.errors", "vaco.objectives"},
    # How finished runs are tracked, which the report reads without training code.
    "vaco.archive": {"vaco.errors"},
    # What one run is, and what many are.
    "vaco.runs": {*GROUND, "vaco.objectives", "vaco.lag"},
    "vaco.campaign": {
        *GROUND,
        "vaco.objectives",
        "vaco.lag",
        "vaco.archive",
        "vaco.runs",
    },
    # Runs and small studies from Python.
    "vaco.study": {*GROUND, "vaco.extras", "vaco.objectives", "vaco.runs", "vaco.control"},
    "vaco.control": {*GROUND, "vaco.objectives", "vaco.lag", "vaco.runs", "vaco.stopwatch"},
    "vaco.lm": {
        *GROUND,
        "vaco.objectives",
        "vaco.lag",
        "vaco.runs",
        "vaco.campaign",
    },
    # A house of its own: tables, figures and prose stand on the ground, each on what is before it.
    "vaco.report": {*GROUND},
    "vaco.report.tables": {*GROUND, "vaco.archive", "vaco.report"},
    "vaco.report.figures": {*GROUND, "vaco.report", "vaco.report.tables"},
    "vaco.report.prose": {
        *GROUND,
        "vaco.report",
        "vaco.report.tables",
        "vaco.report.figures",
    },
    # Small experiments behind Figures 1 and 2, which report may draw but not make.
    "vaco.demonstrations": {*GROUND, "vaco.objectives", "vaco.lag", "vaco.runs", "vaco.control"},
    "vaco.cli": EVERYTHING,
    "vaco.cli_many": EVERYTHING,
    "vaco.cli_run": EVERYTHING,
    "vaco.dag": EVERYTHING,
    "vaco.jobs": EVERYTHING,
    "vaco.__main__": EVERYTHING,
    "theory": {*GROUND, "vaco.objectives"},
}
SIMULATORS_AND_LEARNERS = {"torch", "gymnasium", "mujoco", "transformers", "stable_baselines3"}
# Rooms that must not reach for these outside packages.
SHUNNED = {
    "vaco.report": SIMULATORS_AND_LEARNERS | {"matplotlib"},
    "vaco.report.tables": SIMULATORS_AND_LEARNERS | {"matplotlib"},
    "vaco.report.figures": SIMULATORS_AND_LEARNERS,
    "vaco.report.prose": SIMULATORS_AND_LEARNERS,
    "vaco.archive": SIMULATORS_AND_LEARNERS | {"matplotlib"},
    "vaco.runs": {"gymnasium", "mujoco", "transformers", "matplotlib"},
    "vaco.campaign": {"gymnasium", "mujoco", "transformers", "matplotlib"},
    "vaco.lag": SIMULATORS_AND_LEARNERS | {"matplotlib"},
    "vaco.objectives": SIMULATORS_AND_LEARNERS - {"torch"} | {"matplotlib", "os", "io", "pathlib", "random", "logging"},
    "vaco.control": {"transformers", "matplotlib"},
    "vaco.lm": {"gymnasium", "mujoco", "matplotlib"},
    "vaco.demonstrations": SIMULATORS_AND_LEARNERS - {"torch"} | {"matplotlib"},
    "theory": {"mujoco", "transformers"},
}
# Reading a file must never run what is in it.
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    *("torch.load", "torch.save", "torch.serialization.load", "numpy.lib.npyio.NpzFile"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all"),
    *("pandas.read_pickle", "eval", "exec"),
}
# State that every caller shares, so that the order of calls would change results.
GLOBAL_SEEDING = {"numpy.random.seed", "numpy.random.set_state", "torch.manual_seed", "torch.random.manual_seed"} | {
    "torch.seed",
    "torch.set_rng_state",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "random.seed",
    "transformers.set_seed",
}
MAY_SEED_GLOBALLY = {"vaco.report.tables.stats"}  # rliable listens to nothing else


class Module(NamedTuple):
    name: str
    path: Path
    is_package: bool
    tree: ast.Module
    lines: int


def read(path: Path, name: str) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(name, path, path.name == "__init__.py", ast.parse(text, str(path)), len(text.splitlines()))


def modules_under(folder: Path, prefix: str) -> Iterator[Module]:
    for path in sorted(folder.rglob("*.py")):
        parts = [prefix, *path.relative_to(folder).with_suffix("").parts]
        yield read(path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def room(name: str) -> str:
    """The room of DESIGN.md that a module belongs to: ``vaco.control`` for vaco.control.envs.base."""
    parts = name.split(".")
    if ".".join(parts[:3]) in ARROWS:
        return ".".join(parts[:3])
    return ".".join(parts[: 2 if parts[0] == "vaco" else 1])


def imports(module: Module) -> Iterator[str]:
    """Every imported name, absolute: relative ones resolved, late and TYPE_CHECKING ones and import_module included."""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = ast.unparse(node.func)
            if function.endswith(("import_module", "__import__")) and isinstance(node.args[0].value, str):
                yield node.args[0].value


def called(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its dotted name, aliases such as ``np`` or ``from torch import load`` undone."""
    names: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            first, *rest = ast.unparse(node.func).split(".")
            yield ".".join([names.get(first, first), *rest]), node


def forbidden_imports(module: Module) -> list[str]:
    here = room(module.name)
    allowed = ARROWS[here]
    wrong = []
    for name in imports(module):
        there = room(name)
        top = name.split(".")[0]
        if top in ("vaco", "theory") and there != here and allowed is not EVERYTHING:
            # `from vaco import errors` reads vaco.errors; `import vaco` and its `__version__` are free to all.
            if there not in allowed | {"vaco", "vaco.__version__"}:
                wrong.append(name)
        elif top in SHUNNED.get(here, set()):
            wrong.append(name)
    return wrong


def unsafe(module: Module) -> list[str]:
    wrong = [name for name in imports(module) if name.split(".")[0] in PICKLES]
    for name, call in called(module):
        pickles_allowed = any(
            keyword.arg == "allow_pickle" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
            for keyword in call.keywords
        )
        if name in UNSAFE_CALLS or pickles_allowed:
            wrong.append(f"{name} (line {call.lineno})")
    return wrong


def global_seeding(module: Module) -> list[str]:
    if module.name in MAY_SEED_GLOBALLY:
        return []
    return [f"{name} (line {call.lineno})" for name, call in called(module) if name in GLOBAL_SEEDING]


def long_functions(module: Module) -> list[str]:
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{node.name} is {length} lines")
    return found


SOURCE = [*modules_under(ROOT / "src" / "vaco", "vaco"), *modules_under(ROOT / "theory", "theory")]
SCRIPTS = list(modules_under(ROOT / "workflow", "workflow"))
by_module = pytest.mark.parametrize("module", SOURCE, ids=lambda module: module.name)
by_file = pytest.mark.parametrize("module", SOURCE + SCRIPTS, ids=lambda module: module.name)


@by_module
def test_imports_follow_the_arrows(module: Module) -> None:
    assert room(module.name) in ARROWS, f"{module.name} stands in no room of DESIGN.md; draw its arrows in ARROWS"
    assert not forbidden_imports(module)


@by_file
def test_modules_and_functions_stay_short(module: Module) -> None:
    assert module.lines <= MODULE_LINES, f"{module.lines} lines: split {module.path.name} by what it is about"
    assert not long_functions(module)


@by_file
def test_nothing_unpickles(module: Module) -> None:
    assert not unsafe(module)


@by_module
def test_yaml_is_read_in_one_place(module: Module) -> None:
    """Where a key given twice is refused; everything else takes the last one without a word."""
    assert module.name == "vaco.yaml_file" or not [name for name, _ in called(module) if name.startswith("yaml.")]


@by_file
def test_nothing_seeds_globally(module: Module) -> None:
    assert not global_seeding(module)


def test_workflow_files_neither_unpickle_nor_seed_globally() -> None:
    """Snakefiles are no Python to `ast`, so their text is searched."""
    pattern = re.compile(r"\bpickle\b|torch\.load|yaml\.load\b|allow_pickle\s*=\s*True|random\.seed\(|manual_seed\(")
    files = [*(ROOT / "workflow").rglob("*.smk"), *(ROOT / "workflow").glob("Snakefile")]
    assert not [f"{path}: {found.group()}" for path in files if (found := pattern.search(path.read_text("utf-8")))]


def test_the_rooms_are_found() -> None:
    """An empty search would pass everything."""
    assert {"vaco.objectives.filters", "vaco.errors", "vaco.lag"} <= {module.name for module in SOURCE}
    assert len(SOURCE) > 10


def test_reading_tables_loads_no_training_code() -> None:
    """The arrows make it so statically; here is that report's closure over our own modules holds no torch."""
    tree = {module.name: module for module in SOURCE}
    waiting, seen = [name for name in tree if name.startswith("vaco.report")], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for imported in imports(tree[name]):
            assert imported.split(".")[0] not in SIMULATORS_AND_LEARNERS, f"{name} imports {imported}"
            parts = imported.split(".")
            # Not the package itself, which loads its public names when they are first asked for.
            waiting += [
                known for end in range(1, len(parts) + 1) if (known := ".".join(parts[:end])) in {*tree} - {"vaco"}
            ]


def fake(name: str, text: str, *, package: bool = False) -> Module:
    return Module(name, Path(name), package, ast.parse(text), len(text.splitlines()))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vaco.objectives.filters", "from vaco.control.policy import Snapshot"),
        ("vaco.objectives.filters", "from vaco.lag import PolicyBuffer"),
        ("vaco.objectives.filters", "import pathlib"),
        ("vaco.objectives.filters", "from ..runs import config"),
        ("vaco.lag", "def late():\n    from vaco.runs import folder"),
        ("vaco.errors", "from vaco.objectives import table"),
        ("vaco.runs.config", "from vaco.control import envs"),
        ("vaco.runs.config", "import gymnasium"),
        ("vaco.control.train", "from vaco.lm.task import Problem"),
        ("vaco.control.train", "from vaco import report"),
        ("vaco.control.train", "import vaco.cli"),
        ("vaco.control.train", "from vaco.mystery import thing"),
        ("vaco.control.train", "import theory.bounds"),
        ("vaco.lm.learner", "from vaco.control.learner import step"),
        ("vaco.lm.learner", "import importlib\nimportlib.import_module('vaco.control')"),
        ("vaco.report.tables.stats", "from vaco.runs.folder import RunFolder"),
        ("vaco.report.tables.runs", "from vaco.campaign import archives"),
        ("vaco.report.tables.caption", "from vaco.report.figures.style import WIDTH"),
        ("vaco.report.tables.caption", "from vaco.report.figures import style"),
        ("vaco.report.figures.panels", "from vaco.report.prose import numbers"),
        ("vaco.report.sources", "from vaco.report.tables import stats"),
        ("vaco.runs.folder", "from vaco.campaign.tiers import load_tier"),
        ("vaco.archive", "from vaco.runs.tables import write_parquet"),
        ("vaco.archive.columns", "import torch"),
        ("vaco.campaign.archives", "from vaco import dag"),
        ("vaco.report.tables.stats", "from torch import Tensor"),
        ("vaco.report.tables.stats", "if TYPE_CHECKING:\n    from vaco.objectives.filters import Samples"),
        ("theory.bounds", "from vaco.runs import config"),
        ("theory.bounds", "import vaco.control.train"),
    ],
)
def test_a_forbidden_import_is_found(name: str, text: str) -> None:
    assert forbidden_imports(fake(name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vaco.objectives.table", "from vaco.objectives.filters import FILTERS\nfrom vaco.errors import UserError"),
        ("vaco.runs.config", "from . import atomic\nfrom ..objectives.table import parse"),
        ("vaco.runs.config", "from vaco import __version__"),
        ("vaco.archive", "from vaco.archive import columns\nfrom vaco.errors import UserError\nimport pandas"),
        ("vaco.campaign.archives", "from vaco import archive\nfrom vaco.archive import Archive"),
        ("vaco.report.tables.runs", "from vaco.archive import Archive"),
        ("vaco.dag", "from vaco.lm.kind import load_any_tier\nfrom vaco.report import sources"),
        ("vaco.control.train", "from vaco.runs.folder import RunFolder\nimport gymnasium, torch"),
        ("vaco.control.train", "from vaco import lag, runs\nimport vaco"),
        ("vaco.report.prose.numbers", "from vaco.report.figures.lm_cost import proximal_shares"),
        (
            "vaco.report.figures.panels",
            "from vaco.report.tables import stats\nfrom vaco.command import run_command",
        ),
        ("vaco.cli", "from vaco.control import train\nfrom vaco.report import sources\nimport theory.bounds"),
        ("theory.bounds", "from theory.mdp import Mdp\nfrom vaco.objectives.align import vtrace\nimport sympy"),
    ],
)
def test_an_allowed_import_passes(name: str, text: str) -> None:
    assert not forbidden_imports(fake(name, text))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as c",
        "import torch\ntorch.load('x')",
        "from torch import load as fetch\nfetch('x')",
        "import yaml\nyaml.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=flag)",
        "import pandas as pd\npd.read_pickle('x')",
        "eval('1')",
    ],
)
def test_an_unsafe_reader_is_found(text: str) -> None:
    assert unsafe(fake("vaco.runs.checkpoint", text))


def test_safe_readers_pass() -> None:
    text = "import numpy as np, yaml\nnp.load('x', allow_pickle=False)\nyaml.safe_load('x')\nmodel.eval()"
    assert not unsafe(fake("vaco.runs.checkpoint", text))


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.random.seed(0)",
        "from numpy import random\nrandom.seed(0)",
        "import torch\ndef f():\n    torch.manual_seed(0)",
        "from torch import manual_seed\nmanual_seed(0)",
        "import random\nrandom.seed(0)",
    ],
)
def test_global_seeding_is_found(text: str) -> None:
    assert global_seeding(fake("vaco.control.train", text))
    assert not global_seeding(fake("vaco.report.tables.stats", text))


def test_own_generators_pass() -> None:
    text = "import torch, numpy as np\ntorch.Generator().manual_seed(0)\nnp.random.default_rng(0)\nenv.reset(seed=0)"
    assert not global_seeding(fake("vaco.control.train", text))


def test_a_long_function_is_found() -> None:
    body = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    assert long_functions(fake("vaco.lag", body))
    assert not long_functions(fake("vaco.lag", body.removesuffix("    x = 1\n")))
