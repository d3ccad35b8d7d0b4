"""PyTorch is loaded by the first tensor, not by the name of a rule."""

from __future__ import annotations

import subprocess
import sys

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
