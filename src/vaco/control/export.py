"""A trained policy for other libraries: Stable-Baselines3, TorchScript, ONNX. Each takes raw, flat observations.

What is exported is the deterministic policy: mean actions, or the numbers of the likeliest categories; the
observation's standardisation is inside (for Stable-Baselines3 in the first layer, hence without its limit). Actions are
not clipped, but for Stable-Baselines3, which does so itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaco.control.distributions import Categorical
from vaco.control.networks import ActorCritic
from vaco.control.saved import SavedPolicy, named
from vaco.control.torch_networks import TorchActorCritic
from vaco.errors import UserError, nearest
from vaco.runs import atomic
from vaco.runs.checkpoint import subset

SUFFIXES = {"torchscript": ".pt", "onnx": ".onnx", "sb3": ".zip"}


class Exported(nn.Module):
    """The deterministic policy as a torch module: [N, O] raw observations to [N, A] actions."""

    shift: Tensor
    scale: Tensor

    def __init__(self, policy: SavedPolicy) -> None:
        super().__init__()
        self.actor = (
            sequential(policy, "actor") if isinstance(policy.networks, ActorCritic) else _Actor(policy.networks)
        )
        self.register_buffer("shift", torch.from_numpy(policy.snapshot.shift.copy()))
        self.register_buffer("scale", torch.from_numpy(policy.snapshot.scale.copy()))
        self.clip = float(policy.snapshot.clip)
        distribution = policy.networks.distribution
        self.categories = list(distribution.categories) if isinstance(distribution, Categorical) else [0]

    def forward(self, observations: Tensor) -> Tensor:
        """Actions of observations."""
        inputs = ((observations - self.shift) * self.scale).clamp(-self.clip, self.clip)
        outputs: Tensor = self.actor(inputs)
        if self.categories[0] == 0:
            return outputs
        parts = torch.split(outputs, self.categories, dim=-1)
        return torch.stack([part.argmax(dim=-1) for part in parts], dim=-1)


class _Actor(nn.Module):
    """The outputs alone of a module that gives values, too."""

    def __init__(self, networks: TorchActorCritic) -> None:
        super().__init__()
        self.both = networks.module

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.both(inputs)[0]
        return outputs


def sequential(policy: SavedPolicy, network: str) -> nn.Sequential:
    """The actor or the critic of a policy, with its weights."""
    tensors = named(policy.networks, policy.networks.flat)
    own = subset(tensors, f"{network}.")
    layers: list[nn.Module] = []
    for index in range(0, len(own), 2):
        layers += [nn.Tanh()] if layers else []
        layers.append(nn.Linear(*reversed(own[f"{index}.weight"].shape)))
    made = nn.Sequential(*layers)
    made.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in own.items()})
    return made


def export(policy: SavedPolicy, to: str, out: Path) -> None:
    """Write a policy in the format of another library.

    Args:
        policy: from `saved.load`.
        to: a name of `SUFFIXES`.
        out: the file.

    Raises:
        UserError: there is no such format, or the policy has none in it.
    """
    if to not in SUFFIXES:
        raise UserError(f"there is no format '{to}': {nearest(to, SUFFIXES)}")
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.tmp{SUFFIXES[to]}")
    try:
        {"torchscript": _torchscript, "onnx": _onnx, "sb3": _sb3}[to](policy, temporary)
        temporary.replace(out)
    except OSError as error:
        raise atomic.write_error(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _torchscript(policy: SavedPolicy, path: Path) -> None:
    example = torch.zeros(2, policy.networks.observation_size)
    torch.jit.trace(Exported(policy).eval(), (example,)).save(str(path))  # type: ignore[no-untyped-call]


def _onnx(policy: SavedPolicy, path: Path) -> None:
    import onnx  # noqa: F401 (a missing one is told in our words)
    import onnxscript  # noqa: F401

    example = torch.zeros(2, policy.networks.observation_size)
    program = torch.onnx.export(
        Exported(policy).eval(),
        (example,),
        input_names=["observations"],
        output_names=["actions"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path))


def _sb3(policy: SavedPolicy, path: Path) -> None:
    """A `PPO` whose policy takes raw observations, since the standardisation goes into the first layer.

    Raises:
        UserError: other networks than the default's, or nested or discrete spaces.
    """
    if not isinstance(policy.networks, ActorCritic):
        raise UserError("other networks than the default's have no form in Stable-Baselines3: export to torchscript")
    from gymnasium import spaces
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    env: Any = DummyVecEnv([policy.spec.make])
    kinds = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    if not isinstance(env.observation_space, spaces.Box) or not isinstance(env.action_space, kinds):
        raise UserError(
            f"the spaces of {policy.spec.name} are nested or discrete, which a policy of Stable-Baselines3 would "
            "flatten in another way: export it to torchscript"
        )
    hidden = list(policy.networks.hidden)
    model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": {"pi": hidden, "vf": hidden}}, device="cpu")
    state = model.policy.state_dict()
    for network, places in (("actor", ("policy_net", "action_net")), ("critic", ("value_net", "value_net"))):
        own = sequential(policy, network).state_dict()
        shift, scale = torch.from_numpy(policy.snapshot.shift), torch.from_numpy(policy.snapshot.scale)
        own["0.weight"] = own["0.weight"] * scale
        own["0.bias"] = own["0.bias"] - own["0.weight"] @ shift
        last = 2 * len(hidden)
        for name, value in own.items():
            layer, _, kind = name.partition(".")
            place = f"mlp_extractor.{places[0]}.{layer}" if int(layer) < last else places[1]
            state[f"{place}.{kind}"] = value
    if policy.networks.distribution.spread:
        state["log_std"] = torch.from_numpy(policy.networks.parameters["log_std"].copy())
    model.policy.load_state_dict(state)
    model.save(str(path))
