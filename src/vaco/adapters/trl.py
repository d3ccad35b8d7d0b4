"""TRL: `VacoGRPOTrainer`, its `GRPOTrainer` with any rule of the table; forward pass, KL and metrics stay TRL's.

    from vaco.adapters.trl import VacoGRPOTrainer
    VacoGRPOTrainer(model, reward_funcs=reward, args=config, train_dataset=data, rule="vaco").train()

TRL's CISPO loss without a cap is −w A log π with the constant w = π/π_old. An advantage c/w for each token makes it
−c log π: the loss of any coefficient c. So the trainer is told ``loss_type="cispo"``, and only advantages change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from vaco.errors import UserError
from vaco.loss import policy_loss
from vaco.objectives.rules import as_settings, find_rule


class VacoGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO's trainer whose policy loss is a rule of `vaco.rules`.

    β is the policy that generated: the inference engine's own log-probabilities where vLLM gives them, else those that
    TRL kept when it generated. π_T is the model as it was then. Set ``num_iterations`` or ``steps_per_generation``
    above 1, or use vLLM; else every ratio is 1.
    """

    def __init__(
        self, *args: Any, rule: str = "vaco", settings: Mapping[str, float] | None = None, **options: Any
    ) -> None:
        """As `GRPOTrainer`, and more.

        Args:
            args: of `GRPOTrainer`.
            rule: a name of `vaco.rules`.
            settings: the rule's numbers.
            options: of `GRPOTrainer`.

        Raises:
            UserError: an unknown rule or setting, or one that TRL gives too little for.
        """
        entry = find_rule(rule)
        if entry.needs_staleness:
            raise UserError(f"the rule '{rule}' depends on the policy's age, which TRL does not keep: take another")
        as_settings(settings, entry)
        self.vaco_rule, self.vaco_settings = entry.name, None if settings is None else dict(settings)
        self._vaco_inputs: dict[str, Any] | None = None
        super().__init__(*args, **options)
        if self.importance_sampling_level != "token" or getattr(self.args, "use_liger_kernel", False):
            raise UserError("VacoGRPOTrainer needs importance_sampling_level='token' and use_liger_kernel=False")
        self.loss_type, self.epsilon_high = "cispo", math.inf

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._vaco_inputs = dict(inputs)
        try:
            found: Tensor = super()._compute_loss(model, self._vaco_inputs)
        finally:
            self._vaco_inputs = None
        return found

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **options)
        if self._vaco_inputs is not None:  # within the loss, whose advantages are read after this
            self._vaco_inputs["advantages"] = self._vaco_advantages(self._vaco_inputs, found[0].detach())
        return found

    @torch.no_grad()
    def _vaco_advantages(self, inputs: dict[str, Any], logp: Tensor) -> Tensor:
        """C/w of every token, [B, T], with w the weight that TRL multiplies with."""
        learner = inputs.get("old_per_token_logps")
        learner = logp if learner is None else learner
        behaviour = inputs.get("sampling_per_token_logps")
        behaviour = learner if behaviour is None else behaviour
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        advantages = inputs["advantages"]
        advantages = advantages[:, None].expand_as(logp) if advantages.dim() == 1 else advantages
        with torch.enable_grad():
            leaf = logp.clone().requires_grad_()
            loss, diagnostics = policy_loss(
                leaf,
                behaviour_logp=behaviour,
                learner_logp=learner,
                advantages=advantages.to(logp.dtype),
                mask=mask,
                rule=self.vaco_rule,
                settings=self.vaco_settings,
                denominator=1.0,
            )
            (gradient,) = torch.autograd.grad(loss, leaf)
        mode = "train" if self.model.training else "eval"
        for name, value in diagnostics.figures().items():
            self._metrics[mode][f"vaco/{name}"].append(value)
        weight = (logp - learner).exp()
        if self.use_vllm and self.vllm_importance_sampling_correction:
            weight = weight * inputs["importance_sampling_ratio"]
        return torch.where(gradient != 0, -gradient / weight, 0.0)
