"""Losses inside the training loops of libraries for control, each caught where its loop hands it to the optimizer.

As in `libraries`, the library's own code runs, with stand-ins for the model, the buffer and the optimizer.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vaco.conformance.batches import Batch
from vaco.conformance.comparison import Loss
from vaco.conformance.libraries import capture, entry


def _tianshou(dual_clip: float | None) -> Loss:
    ppo = import_module("tianshou.algorithm.modelfree.ppo").PPO

    def loss(logp: Tensor, x: Batch) -> Tensor:
        flat, zeros = logp.flatten(), torch.zeros(logp.numel())
        minibatch = SimpleNamespace(
            adv=x.advantages.flatten(), act=zeros, logp_old=x.behaviour_logp.flatten(), obs=zeros, returns=zeros
        )
        batch = SimpleNamespace(split=lambda *_, **__: [minibatch])
        distribution = SimpleNamespace(log_prob=lambda act: flat, entropy=lambda: zeros)
        agent = object.__new__(ppo)
        agent.__dict__.update(
            policy=lambda minibatch: SimpleNamespace(dist=distribution),
            critic=lambda obs: zeros,
            optim=SimpleNamespace(step=lambda total: total.backward()),
            recompute_adv=False,
            advantage_normalization=False,
            dual_clip=dual_clip,
            value_clip=False,
            eps_clip=0.2,
            vf_coef=0.0,
            ent_coef=0.0,
        )
        return capture(lambda: agent._update_with_batch(batch, None, 1))

    return loss


@entry("tianshou", "PPO(eps_clip=0.2, advantage_normalization=False)", padded=False)
def _tianshou_ppo() -> Loss:
    return _tianshou(None)


@entry(
    "tianshou",
    "PPO(eps_clip=0.2, dual_clip=5.0, advantage_normalization=False)",
    settings={"filter.cap": 5.0},
    padded=False,
)
def _tianshou_dual() -> Loss:
    return _tianshou(5.0)


@entry("skrl", "PPO_CFG(ratio_clip=0.2)", padded=False)
def _skrl() -> Loss:
    ppo = import_module("skrl.agents.torch.ppo").PPO

    def loss(logp: Tensor, x: Batch) -> Tensor:
        flat = logp.reshape(-1, 1)
        zeros = torch.zeros_like(flat.detach())
        sampled = (zeros, zeros, zeros, x.behaviour_logp.reshape(-1, 1), zeros, zeros, x.advantages.reshape(-1, 1))

        class Memory:
            """A memory of one minibatch."""

            def __len__(self) -> int:
                return len(flat)

            def get_tensor_by_name(self, name: str) -> Tensor:
                return zeros

            def set_tensor_by_name(self, name: str, tensor: Tensor) -> None:
                return None

            def sample(self, **_: Any) -> list[tuple[Tensor, ...]]:
                return [sampled]

        numbers: dict[str, Any] = {"ratio_clip": 0.2, "learning_epochs": 1, "mini_batches": 1, "kl_threshold": 0}
        numbers |= {"entropy_loss_scale": 0.0, "value_clip": 0.0, "value_loss_scale": 0.0, "mixed_precision": False}
        numbers |= {"time_limit_bootstrap": False, "discount_factor": 0.99, "gae_lambda": 0.95, "grad_norm_clip": 0}
        agent = object.__new__(ppo)
        unit = SimpleNamespace(
            act=lambda inputs, role: (zeros, {"log_prob": flat}), enable_training_mode=lambda *_, **__: None
        )
        agent.__dict__.update(
            cfg=SimpleNamespace(**numbers),
            memory=Memory(),
            policy=unit,
            value=SimpleNamespace(act=lambda inputs, role: (zeros[:1], {}), enable_training_mode=lambda *_: None),
            scaler=SimpleNamespace(scale=lambda total: total),
            optimizer=SimpleNamespace(zero_grad=lambda: None),
            _device_type="cpu",
            _tensors_names=[],
            _observation_preprocessor=lambda given, **_: given,
            _state_preprocessor=lambda given, **_: given,
            _value_preprocessor=lambda given, **_: given,
            _current_next_observations=zeros,
            _current_next_states=zeros,
        )
        return capture(lambda: agent.update(timestep=0, timesteps=1))

    return loss


@entry("rsl-rl-lib", "PPO(clip_param=0.2)", padded=False)
def _rsl_rl() -> Loss:
    ppo = import_module("rsl_rl.algorithms").PPO

    def loss(logp: Tensor, x: Batch) -> Tensor:
        flat = logp.flatten()
        zeros = torch.zeros_like(flat.detach())
        batch = SimpleNamespace(
            observations=SimpleNamespace(batch_size=[len(flat)]),
            actions=zeros,
            masks=None,
            hidden_states=(None, None),
            old_actions_log_prob=x.behaviour_logp.reshape(-1, 1),
            advantages=x.advantages.reshape(-1, 1),
            values=zeros,
            returns=zeros,
        )

        class Actor:
            is_recurrent = False
            output_distribution_params = (zeros,)
            output_entropy = zeros

            def __call__(self, *_: Any, **__: Any) -> None:
                return None

            def get_output_log_prob(self, actions: Tensor) -> Tensor:
                return flat

        agent = object.__new__(ppo)
        critic = _Critic(zeros)
        agent.__dict__.update(
            actor=Actor(),
            critic=critic,
            storage=SimpleNamespace(mini_batch_generator=lambda *_: [batch], clear=lambda: None),
            optimizer=SimpleNamespace(zero_grad=lambda: None, param_groups=[]),
            num_mini_batches=1,
            num_learning_epochs=1,
            clip_param=0.2,
            value_loss_coef=0.0,
            entropy_coef=0.0,
            use_clipped_value_loss=False,
            normalize_advantage_per_mini_batch=False,
            desired_kl=None,
            schedule="fixed",
            symmetry=None,
            rnd=None,
            is_multi_gpu=False,
            use_mixed_precision=False,
            device="cpu",
        )
        return capture(agent.update)

    return loss


class _Critic:
    """A critic whose value is always the same."""

    is_recurrent = False

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        return self._values


@entry("ray", "rllib PPOConfig(clip_param=0.2, use_kl_loss=False)")
def _rllib() -> Loss:
    learner_class = import_module("ray.rllib.algorithms.ppo.torch.ppo_torch_learner").PPOTorchLearner
    columns = import_module("ray.rllib.core.columns").Columns
    names = import_module("ray.rllib.evaluation.postprocessing").Postprocessing

    def loss(logp: Tensor, x: Batch) -> Tensor:
        flat = logp.flatten()
        zeros = torch.zeros_like(flat.detach())
        distribution = SimpleNamespace(logp=lambda actions: flat, entropy=lambda: zeros, kl=lambda other: zeros)
        kind = SimpleNamespace(from_logits=lambda logits: distribution)
        module = SimpleNamespace(get_train_action_dist_cls=lambda: kind, get_exploration_action_dist_cls=lambda: kind)
        batch = {
            columns.LOSS_MASK: x.mask.flatten(),
            columns.ACTION_DIST_INPUTS: zeros,
            columns.ACTIONS: zeros,
            columns.ACTION_LOGP: x.behaviour_logp.flatten(),
            names.ADVANTAGES: x.advantages.flatten(),
            names.VALUE_TARGETS: zeros,
        }
        scheduler = SimpleNamespace(get_current_value=lambda: 0.0)
        learner = object.__new__(learner_class)
        learner.__dict__.update(
            _module={"m": SimpleNamespace(unwrapped=lambda: module)},
            entropy_coeff_schedulers_per_module={"m": scheduler},
            metrics=SimpleNamespace(log_dict=lambda *_, **__: None),
        )
        numbers = {"use_kl_loss": False, "use_critic": False, "clip_param": 0.2, "vf_loss_coeff": 0.0}
        found: Tensor = learner.compute_loss_for_module(
            module_id="m",
            config=SimpleNamespace(**numbers),
            batch=batch,
            fwd_out={columns.ACTION_DIST_INPUTS: zeros},
        )
        return found

    return loss


@entry("ray", "rllib APPOConfig(clip_param=0.2, use_kl_loss=False)", settings={"ratio_cap": 1.0}, learner=True)
def _rllib_appo() -> Loss:
    """π_T is APPO's target network; the advantage r + γv' − V is A where γ = 0 and V = 0, whatever V-trace weighs."""
    learner_class = import_module("ray.rllib.algorithms.appo.torch.appo_torch_learner").APPOTorchLearner
    apis = import_module("ray.rllib.core.rl_module.apis")
    columns = import_module("ray.rllib.core.columns").Columns
    target = apis.TARGET_NETWORK_ACTION_DIST_INPUTS

    class Module(apis.TargetNetworkAPI, apis.ValueFunctionAPI):  # type: ignore[misc, name-defined]
        """Two policies whose outputs are their log-probabilities, and a critic that knows nothing."""

        def unwrapped(self) -> Any:
            return self

        def make_target_networks(self) -> None:
            return None

        def get_target_network_pairs(self) -> list[Any]:
            return []

        def forward_target(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {target: batch[target]}

        def compute_values(self, batch: dict[str, Tensor], embeddings: Any = None) -> Tensor:
            return torch.zeros_like(batch[target])

        def get_train_action_dist_cls(self) -> Any:
            return SimpleNamespace(
                from_logits=lambda logits: SimpleNamespace(logp=lambda _: logits, entropy=lambda: torch.zeros(()))
            )

    def loss(logp: Tensor, x: Batch) -> Tensor:
        zeros = torch.zeros(logp.numel())
        batch = {
            columns.LOSS_MASK: x.mask.flatten(),
            columns.ACTIONS: zeros,
            columns.ACTION_LOGP: x.behaviour_logp.flatten(),
            columns.REWARDS: x.advantages.flatten(),
            columns.TERMINATEDS: zeros,
            target: x.learner_logp.flatten(),
        }
        numbers = {"use_kl_loss": False, "clip_param": 0.2, "vf_loss_coeff": 0.0, "gamma": 0.0}
        numbers |= {"vtrace_clip_rho_threshold": 1.0, "vtrace_clip_pg_rho_threshold": 1.0}
        learner = object.__new__(learner_class)
        learner.__dict__.update(
            _module={"m": Module()},
            entropy_coeff_schedulers_per_module={"m": SimpleNamespace(get_current_value=lambda: 0.0)},
            curr_kl_coeffs_per_module={"m": 0.0},
            metrics=SimpleNamespace(log_dict=lambda *_, **__: None),
        )
        found: Tensor = learner.compute_loss_for_module(
            module_id="m",
            config=SimpleNamespace(get_rollout_fragment_length=lambda: logp.shape[1], **numbers),
            batch=batch,
            fwd_out={columns.ACTION_DIST_INPUTS: logp.flatten()},
        )
        return found

    return loss
