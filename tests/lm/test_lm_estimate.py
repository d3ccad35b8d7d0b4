"""What a tier of language models costs: proportions by hand, counting for a GPU that is not here, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lm_helpers import small_config

from vaco.errors import UserError
from vaco.lm.config import build_lm
from vaco.lm.estimate import (
    OPERATIONS,
    PROMPT_TOKENS,
    STEP_SECONDS,
    Speed,
    by_counting,
    by_speed,
    estimate,
    parameters_of,
)
from vaco.lm.tiers import load_lm_tier

CONFIG = Path(__file__).parents[2] / "config"


def test_a_run_costs_its_minibatches_and_evaluations() -> None:
    config = small_config(algorithm="decoupled", minibatches=4, updates=8, eval_points=2, eval_problems=32)
    speed = Speed(generate=3.0, step=2.0, proximal=0.5)
    # 8 minibatches of 16 responses; 3 evaluations of 32 problems, greedy and sampled.
    assert by_speed(config, speed) == 8 * 5.5 + 3 * 2 * 32 / 16 * 3.0
    same = small_config(algorithm="decoupled", minibatches=1, updates=8, eval_points=2, eval_problems=32)
    assert by_speed(same, speed) == by_speed(config, speed) - 8 * 0.5
    ppo = small_config(algorithm="ppo", minibatches=4, updates=8, eval_points=2, eval_problems=32)
    assert by_speed(ppo, speed) == by_speed(same, speed)


def test_counting_by_hand() -> None:
    config = build_lm(
        {
            **{"model": "Somebody/Model-0.5B-Instruct", "algorithm": "vaco", "precision": "bfloat16", "warm_target": 0},
            **{"updates": 32, "minibatches": 16, "prompts": 16, "samples": 8, "new_tokens": 200, "eval_points": 1},
            **{"eval_problems": 600, "tokens_at_once": 16_384, "gradient_checkpointing": True},
        }
    )
    tokens = 128 * (PROMPT_TOKENS + 200)
    # Two rounds of 2,048 responses in batches of 512; two evaluations of 600, twice, in two batches each. The passes:
    # forward, backward, recomputed, once more in pieces, and π_T, which in bfloat16 is not the engine's.
    decoding = (2 * 4 + 2 * 2 * 2) * 200 * STEP_SECONDS
    assert tokens > 16_384
    assert by_counting(config) == pytest.approx(decoding + 32 * tokens * 6 * 2 * 0.5e9 / OPERATIONS)


@pytest.mark.parametrize(
    ("name", "size"),
    [("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9), ("smollm2", 135e6), ("a/b-7B", 7e9), ("x/SmolLM2-360M", 360e6)],
)
def test_a_models_size_is_in_its_name(name: str, size: float) -> None:
    assert parameters_of(name) == size


def test_a_name_without_a_size_is_refused() -> None:
    with pytest.raises(UserError, match="does not say how many parameters"):
        parameters_of("a/BERT2-large")


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure on the GPU")
def test_the_tiers_for_a_gpu_are_priced_first_cells_first() -> None:
    text = estimate(load_lm_tier(CONFIG / "lm_paper.yaml"))
    cells = [line.split("  ")[1] for line in text.splitlines() if "N = " in line]
    assert cells[:2] == ["vaco, N = 64, K = 1", "ppo, N = 64, K = 1"] and "Counted, not measured" in text
    text = estimate(load_lm_tier(CONFIG / "lm_gpu.yaml"))
    minutes = [float(line.split()[-1]) for line in text.splitlines() if "N = " in line]
    assert len(minutes) == 8 and max(minutes) < 10  # what the tier is for


def test_a_tier_on_a_processor_is_measured_once_a_kind() -> None:
    asked = []

    def measure(config: object) -> Speed:
        asked.append(config)
        return Speed(1.0, 1.0, 1.0)

    tier = load_lm_tier(CONFIG / "lm_smollm.yaml")
    text = estimate(tier, measure)
    assert len(tier.runs) == 24 and 2 <= len(asked) <= 3
    assert "Measured by short runs" in text and text.count("N = 16, K = 1") == 4


@pytest.mark.slow
def test_a_short_run_measures() -> None:
    tier = load_lm_tier(CONFIG / "lm_smoke.yaml")
    text = estimate(tier)
    assert all(float(line.split()[-1]) > 0 for line in text.splitlines() if "N = " in line)
