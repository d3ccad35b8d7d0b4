"""Losses of other people's libraries, as they are installed, each as a function of log-probabilities.

Nothing is copied: each entry calls the library's own code, with a stand-in where that wants a model. Entries say how a
user asks for the loss, never which row it is: that is what `matrix` finds out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vaco.conformance.batches import Batch
from vaco.conformance.comparison import Loss


@dataclass(frozen=True)
class Entry:
    """A loss of a library.

    Attributes:
        package: the distribution, whose version is recorded.
        flag: how its user asks for it.
        build: imports the library and gives the loss.
        settings: the row's numbers that are the loss's own.
        denominator: what it divides by.
        padded: whether it knows a mask.
        learner: whether it tells β from π_T.
        one_advantage: whether it knows one advantage a response.
    """

    package: str
    flag: str
    build: Callable[[], Loss]
    settings: Mapping[str, float] = field(default_factory=dict)
    denominator: str = "samples"
    padded: bool = True
    learner: bool = False
    one_advantage: bool = False


ENTRIES: list[Entry] = []


def entry(package: str, flag: str, **options: Any) -> Callable[[Callable[[], Loss]], Callable[[], Loss]]:
    """Enter a loss in `ENTRIES`; see `Entry`."""

    def enter(build: Callable[[], Loss]) -> Callable[[], Loss]:
        ENTRIES.append(Entry(package, flag, build, **options))
        return build

    return enter


# --- Losses of samples, which know no mask ------------------------------------------------------------------------


@entry("rl-games", "ppo: True", padded=False)
def _rl_games() -> Loss:
    f = import_module("rl_games.common.common_losses").actor_loss
    return lambda logp, x: f(-x.behaviour_logp, -logp, x.advantages, True, 0.2).mean()


@entry("rl-games", "decoupled_actor_loss", padded=False, learner=True)
def _rl_games_decoupled() -> Loss:
    f = import_module("rl_games.common.common_losses").decoupled_actor_loss
    return lambda logp, x: f(-x.behaviour_logp, -logp, -x.learner_logp, x.advantages, 0.2).mean()


@entry("pfrl", "PPO(clip_eps=0.2)", padded=False)
def _pfrl() -> Loss:
    function = import_module("pfrl.agents.ppo").PPO._lossfun
    record: list[float] = []
    agent = SimpleNamespace(clip_eps=0.2, clip_eps_vf=None, value_func_coef=0.0, entropy_coef=0.0)
    agent.value_loss_record = agent.policy_loss_record = record

    def loss(logp: Tensor, x: Batch) -> Tensor:
        zeros = torch.zeros_like(logp)
        found: Tensor = function(agent, zeros, zeros, logp, zeros, x.behaviour_logp, x.advantages, zeros)
        return found

    return loss


class _CapturedError(Exception):
    """Carries a loss out of a library's training loop, at its backward."""

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss


def capture(train: Callable[[], object]) -> Tensor:
    """The tensor on which a training loop first calls ``backward``, which is not carried out."""
    original = Tensor.backward

    def stop(self: Tensor, *_: Any, **__: Any) -> None:
        raise _CapturedError(self)

    Tensor.backward = stop  # type: ignore[method-assign]
    try:
        train()
    except _CapturedError as found:
        return found.loss
    finally:
        Tensor.backward = original  # type: ignore[method-assign]
    raise RuntimeError("the training loop never called backward")


def _stable_baselines3(normalised: bool) -> Loss:
    module = import_module("stable_baselines3")
    spaces = import_module("gymnasium").spaces

    def loss(logp: Tensor, x: Batch) -> Tensor:
        flat = x.advantages.flatten()
        zeros = torch.zeros_like(flat)
        data = SimpleNamespace(
            observations=zeros, actions=zeros, old_log_prob=x.behaviour_logp.flatten(), advantages=flat, returns=zeros
        )
        agent = object.__new__(module.PPO)
        agent.policy = SimpleNamespace(
            set_training_mode=lambda flag: None,
            optimizer=SimpleNamespace(param_groups=[], zero_grad=lambda: None),
            evaluate_actions=lambda *_: (zeros, logp.flatten(), zeros),
        )
        agent.rollout_buffer = SimpleNamespace(get=lambda size: [data])
        agent.lr_schedule = agent.clip_range = lambda progress: 0.2
        agent.clip_range_vf = agent.target_kl = None
        agent.action_space = spaces.Box(-1.0, 1.0, (1,))
        agent._current_progress_remaining, agent.n_epochs, agent.batch_size = 1.0, 1, len(flat)
        agent.ent_coef = agent.vf_coef = 0.0
        agent.normalize_advantage, agent.verbose = normalised, 0
        agent._logger = SimpleNamespace(record=lambda *_, **__: None)
        return capture(agent.train)

    return loss


@entry("stable-baselines3", "PPO(normalize_advantage=False)", padded=False)
def _sb3() -> Loss:
    return _stable_baselines3(False)


@entry("stable-baselines3", "PPO()", padded=False)
def _sb3_default() -> Loss:
    return _stable_baselines3(True)


def _torchrl(name: str, **options: Any) -> Loss:
    objectives, tensordict = import_module("torchrl.objectives"), import_module("tensordict")
    nn = import_module("tensordict.nn")
    modules = import_module("torchrl.modules")

    class Given(torch.distributions.Distribution):
        """A distribution whose log-probability is whatever it was given."""

        arg_constraints: dict[str, Any] = {}  # noqa: RUF012

        def __init__(self, logp: Tensor) -> None:
            super().__init__(logp.shape, validate_args=False)
            self.given = logp

        def log_prob(self, value: Tensor) -> Tensor:
            return self.given

        @property
        def mode(self) -> Tensor:
            return self.given

    actor = modules.ProbabilisticActor(
        nn.TensorDictModule(torch.nn.Identity(), in_keys=["given"], out_keys=["logp"]),
        in_keys=["logp"],
        out_keys=["action"],
        distribution_class=Given,
    )
    critic = nn.TensorDictModule(torch.nn.Linear(1, 1), in_keys=["observation"], out_keys=["state_value"])
    module = getattr(objectives, name)(actor, critic, entropy_bonus=False, normalize_advantage=False, **options)

    def loss(logp: Tensor, x: Batch) -> Tensor:
        flat = logp.flatten()
        old = x.behaviour_logp.flatten()
        data = tensordict.TensorDict(
            {
                "given": flat,
                "action": torch.zeros_like(flat),
                "action_log_prob": old,
                "advantage": x.advantages.flatten()[:, None],
                "observation": torch.zeros(len(flat), 1),
                "value_target": torch.zeros(len(flat), 1),
                "state_value": torch.zeros(len(flat), 1),
            },
            batch_size=[len(flat)],
        )
        found: Tensor = module(data)["loss_objective"]
        return found

    return loss


@entry("torchrl", "ClipPPOLoss(clip_epsilon=0.2, normalize_advantage=False)", padded=False)
def _torchrl_clip() -> Loss:
    return _torchrl("ClipPPOLoss", clip_epsilon=0.2)


@entry("torchrl", "PPOLoss(normalize_advantage=False)", padded=False)
def _torchrl_plain() -> Loss:
    return _torchrl("PPOLoss")


class _Jax(torch.autograd.Function):
    """A scalar function of JAX, with its gradient."""

    @staticmethod
    def forward(ctx: Any, logp: Tensor, function: Callable[[Any], Any]) -> Tensor:
        jax = import_module("jax")
        value, gradient = jax.value_and_grad(function)(jax.numpy.asarray(logp.detach().numpy()))
        ctx.gradient = torch.tensor(gradient.tolist()).reshape(logp.shape)
        return torch.tensor(float(value))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream * ctx.gradient, None


@entry("rlax", "clipped_surrogate_pg_loss(epsilon=0.2)", padded=False)
def _rlax() -> Loss:
    jnp, rlax = import_module("jax.numpy"), import_module("rlax")

    def loss(logp: Tensor, x: Batch) -> Tensor:
        behaviour, advantages = (jnp.asarray(t.flatten().numpy()) for t in (x.behaviour_logp, x.advantages))

        def function(given: Any) -> Any:
            return rlax.clipped_surrogate_pg_loss(jnp.exp(given - behaviour), advantages, 0.2)

        found: Tensor = _Jax.apply(logp.flatten(), function)  # type: ignore[no-untyped-call]
        return found

    return loss


# --- Losses of tokens, which know a mask --------------------------------------------------------------------------


def _rlinf(name: str, learner: bool, **options: Any) -> Loss:
    function = getattr(import_module("rlinf.algorithms.losses"), name)

    def loss(logp: Tensor, x: Batch) -> Tensor:
        more = {"proximal_logprobs": x.learner_logp} if learner else {}
        numbers = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "loss_mask": x.mask} | options
        found: Tensor = function(logp, x.behaviour_logp, advantages=x.advantages, **numbers, **more)[0]
        return found

    return loss


@entry("rlinf", "loss_type: actor (compute_ppo_actor_loss)")
def _rlinf_ppo() -> Loss:
    return _rlinf("compute_ppo_actor_loss", False)


@entry("rlinf", "loss_type: decoupled_actor, recomputed proximal policy", learner=True)
def _rlinf_decoupled() -> Loss:
    return _rlinf("compute_decoupled_ppo_actor_loss", True)


def _verl(name: str, sequences: bool = False, **options: Any) -> Loss:
    core = import_module("verl.trainer.ppo.core_algos")
    config_class = import_module("verl.workers.config").ActorConfig
    function = core.get_policy_loss_fn(name)
    settings = {"strategy": "fsdp", "rollout_n": 1, "ppo_micro_batch_size_per_gpu": 1, "use_dynamic_bsz": True}
    config = config_class(**(settings | options))
    mode = "seq-mean-token-mean" if sequences else "token-mean"

    def loss(logp: Tensor, x: Batch) -> Tensor:
        found: Tensor = function(
            old_log_prob=x.behaviour_logp,
            log_prob=logp,
            advantages=x.advantages,
            response_mask=x.mask.float(),
            loss_agg_mode=mode,
            config=config,
        )[0]
        return found

    return loss


@entry("verl", "policy_loss.loss_mode: vanilla")
def _verl_vanilla() -> Loss:
    return _verl("vanilla")


@entry("verl", "policy_loss.loss_mode: vanilla, clip_ratio_high: 0.28, clip_ratio_c: 1e9", settings={"clip_high": 0.28})
def _verl_vanilla_higher() -> Loss:
    return _verl("vanilla", clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=1e9)


@entry(
    "verl",
    "policy_loss.loss_mode: dppo_kl, clip_ratio: 0.05, clip_ratio_c: 20",
    settings={"filter.limit": 0.05},
)
def _verl_dppo_kl() -> Loss:
    return _verl("dppo_kl", clip_ratio=0.05, clip_ratio_low=0.05, clip_ratio_high=0.05, clip_ratio_c=20.0)


@entry("verl", "policy_loss.loss_mode: gspo, loss_agg_mode: seq-mean-token-mean", denominator="sequences")
def _verl_gspo() -> Loss:
    return _verl("gspo", sequences=True)


@entry("verl", "policy_loss.loss_mode: vanilla, clip_ratio_c: 1e9")
def _verl_vanilla_single() -> Loss:
    return _verl("vanilla", clip_ratio_c=1e9)


@entry(
    "verl", "policy_loss.loss_mode: dppo_tv, clip_ratio: 0.15, clip_ratio_c: 20", settings={"divergence_limit": 0.15}
)
def _verl_dppo() -> Loss:
    return _verl("dppo_tv", clip_ratio=0.15, clip_ratio_low=0.15, clip_ratio_high=0.15, clip_ratio_c=20.0)


@entry("verl", "policy_loss.loss_mode: cispo, clip_ratio_low: 0.2, clip_ratio_high: 0.2")
def _verl_cispo() -> Loss:
    return _verl("cispo", clip_ratio_low=0.2, clip_ratio_high=0.2)


@entry("verl", "policy_loss.loss_mode: cispo, clip_ratio_low: 10, clip_ratio_high: 0.2")
def _verl_cispo_open() -> Loss:
    return _verl("cispo", clip_ratio_low=10.0, clip_ratio_high=0.2)


@entry("verl", "policy_loss.loss_mode: gpg")
def _verl_gpg() -> Loss:
    return _verl("gpg")


def _trl(loss_type: str, *, engine: bool = False, **options: Any) -> Loss:
    trainer_class = import_module("trl.trainer.grpo_trainer").GRPOTrainer

    def loss(logp: Tensor, x: Batch) -> Tensor:
        trainer = object.__new__(trainer_class)
        rows = len(logp)
        inputs = {
            "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
            "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
            "completion_ids": torch.zeros(logp.shape, dtype=torch.long),
            "completion_mask": x.mask.long(),
            "advantages": x.advantages,
            "old_per_token_logps": x.learner_logp if engine else x.behaviour_logp,
            "num_items_in_batch": x.mask.sum().float(),
        }
        if engine:
            inputs["importance_sampling_ratio"] = (x.learner_logp - x.behaviour_logp).exp().clamp(max=2.0)
        arguments = {"delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1} | options
        given = {
            "_get_per_token_logps_and_entropies": lambda *_, **__: (logp, torch.zeros_like(logp), None),
            "args": SimpleNamespace(**arguments),
            "accelerator": SimpleNamespace(
                num_processes=1, gather=lambda t: t, reduce=lambda t, **_: t, sync_gradients=True
            ),
            "model": SimpleNamespace(training=True),
            "loss_type": loss_type,
            "importance_sampling_level": options.get("level", "token"),
            "epsilon_low": 0.2,
            "epsilon_high": options.get("epsilon_high", 0.2),
            "use_vllm": engine,
            "vllm_importance_sampling_correction": engine,
            "max_completion_length": logp.shape[1],
            "current_gradient_accumulation_steps": 1,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "beta": 0.0,
        }
        off = ("aux_loss_enabled", "_entropy_bonus_enabled", "use_adaptive_entropy")
        trainer.__dict__.update(given | dict.fromkeys(off, False))
        trainer.__dict__["_metrics"] = {"train": defaultdict(list)}
        found: Tensor = trainer._compute_loss(trainer.model, inputs)
        return found

    return loss


@entry("trl", "GRPOConfig(loss_type='grpo')", denominator="sequences")
def _trl_grpo() -> Loss:
    return _trl("grpo")


@entry("trl", "GRPOConfig(loss_type='bnpo')")
def _trl_bnpo() -> Loss:
    return _trl("bnpo")


@entry("trl", "GRPOConfig(loss_type='dapo')")
def _trl_dapo() -> Loss:
    return _trl("dapo")


@entry("trl", "GRPOConfig(loss_type='cispo', epsilon_high=1.2)")
def _trl_cispo() -> Loss:
    return _trl("cispo", epsilon_high=1.2)


@entry("trl", "GRPOConfig(loss_type='cispo', epsilon_high=0.2)")
def _trl_cispo_low() -> Loss:
    return _trl("cispo", epsilon_high=0.2)


@entry(
    "trl", "GRPOConfig(loss_type='dapo', use_vllm=True), importance weights capped at 2, token by token", learner=True
)
def _trl_tis() -> Loss:
    return _trl("dapo", engine=True)


@entry("trl", "GRPOConfig(loss_type='dapo', epsilon=0.2, epsilon_high=0.28)", settings={"clip_high": 0.28})
def _trl_higher() -> Loss:
    return _trl("dapo", epsilon_high=0.28)


@entry("trl", "GRPOConfig(loss_type='dapo', importance_sampling_level='sequence')", one_advantage=True)
def _trl_gspo() -> Loss:
    return _trl("dapo", level="sequence")
