from __future__ import annotations

from typing import Any

from vaco.lm.config import LMConfig, build_lm
from vaco.lm.model import LoadedModel, load_model

SIZE = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64}


def tiny(seed: int = 0) -> LoadedModel:
    return load_model("tiny", seed=seed, size=SIZE)


def small_config(**changes: Any) -> LMConfig:
    settings: dict[str, Any] = {
        "task_options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        "model_options": SIZE,
        "warm_target": 0,
        "new_tokens": 8,
        "updates": 8,
        "prompts": 4,
        "samples": 4,
        "learning_rate": 1e-3,
        "eval_points": 2,
        "eval_problems": 16,
    }
    return build_lm(settings | changes)
