"""PyTorch is loaded by the first tensor, not by the name of a rule."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vaco.objectives.pytorch import load_later, no_grad


def alone(code: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_load_no_pytorch_and_the_first_tensor_does() -> None:
    said = alone(
        "import sys\n"
        "from vaco.objectives import filters, table, tokens\n"
        "from vaco.objectives.pytorch import torch\n"
        "table.parse('vaco'), table.describe(), tokens.describe_tokens()\n"
        "[tokens.parse_token_algorithm(name).reads for name in tokens.TOKEN_ALIASES]\n"
        "print('torch._C' in sys.modules)\n"
        "one = torch.ones(3)\n"
        "samples = filters.Samples(ratio=2 * one, learner_ratio=one, advantages=one)\n"
        "print(filters.FILTERS['clip'].function(samples).kept.sum().item())\n"
        "import torch as itself\n"
        "print(itself is torch, filters.torch is torch, type(torch).__name__)\n"
    )
    assert said == "False\n0\nTrue True module\n"


def test_a_module_that_is_loaded_is_given_as_it_is() -> None:
    assert load_later("torch") is torch is sys.modules["torch"]


def test_a_module_may_change_itself_while_it_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch deletes an attribute of itself, for which `LazyLoader` recurses in Python 3.13."""
    source = "import sys, time\ntime.sleep(0.2)\nself, made = sys.modules[__name__], 0\nmade += 1\ngone = 1\n"
    (tmp_path / "changing.py").write_text(source + "delattr(self, 'gone')\nself.late = self.made + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "changing", raising=False)
    module, found = load_later("changing"), list[int]()
    threads = [threading.Thread(target=lambda: found.append(module.late)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 4 and module.made == 1 and not hasattr(module, "gone"), "executed once, and whole for all"
    assert type(module) is ModuleType and sys.modules.pop("changing") is module


def test_a_module_that_fails_fails_for_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = load_later("failing")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            _ = module.anything
    del sys.modules["failing"]


def test_a_module_that_is_not_installed_is_missed_as_by_an_import() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        load_later("no_such_module")
    assert caught.value.name == "no_such_module" and "no_such_module" not in sys.modules


def test_a_function_without_gradient_is_otherwise_the_same() -> None:
    @no_grad
    def double(x: torch.Tensor, *, factor: float = 2.0) -> torch.Tensor:
        """Twice."""
        return factor * x

    x = torch.ones(2, requires_grad=True)
    assert not double(x).requires_grad and double(x, factor=3.0).tolist() == [3.0, 3.0]
    assert torch.is_grad_enabled() and (double.__name__, double.__doc__) == ("double", "Twice.")
