"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: training moves them, and the model's own weights stay.

They are put into the linear layers of the decoder, so that the model stays one of transformers. What is trained is then
small, and with it the optimizer's state, checkpoints, snapshots and the policy that a run leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaco.errors import UserError

ADAPTER = "default"
SEED = 0
"""Of the adapters' first factor; the second begins at zero, so that training begins at the model."""


def add_adapters(model: Any, rank: int, alpha: float) -> None:
    """Put adapters into a model, and let these alone be trained.

    Args:
        model: a model of transformers, changed in place.
        rank: r, of each adapter.
        alpha: the adapter's product is scaled by alpha / r.

    Raises:
        ModuleNotFoundError: the extra `lora` is not installed.
        UserError: the model has no linear layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    decoder = model.get_decoder()
    names = sorted({name.rpartition(".")[2] for name, m in decoder.named_modules() if isinstance(m, torch.nn.Linear)})
    if not names:
        raise UserError("this model has no linear layers to adapt: set lora_rank to 0")
    with torch.random.fork_rng(devices=[]):  # construction draws from the global generator; what it drew is replaced
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0), decoder)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.requires_grad_(".lora_" in name)
            if ".lora_A." in name:
                bound = 1.0 / math.sqrt(value.shape[1])
                drawn = torch.rand(value.shape, generator=generator) * (2 * bound) - bound
                value.copy_(drawn)


def adapted(model: Any) -> bool:
    """Whether a model has adapters."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def merged(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight under the name that the model has without adapters, adapters added in.

    Args:
        model: with or without adapters.
    """
    for name, value in model.named_parameters():
        if ".lora_" in name:
            continue
        owner, base, leaf = name.rpartition(".base_layer.")
        if base and leaf == "weight":
            layer = model.get_submodule(owner)
            yield f"{owner}.{leaf}", value.detach() + layer.get_delta_weight(ADAPTER).detach()
        else:
            yield name.replace(".base_layer.", "."), value.detach()
