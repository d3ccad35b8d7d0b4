"""Write vtrace_golden.json: what rlax computes on small random trajectories, for test_align_reference.py to compare.

Not part of the package's environment; run it in one of its own, only to renew the file:

    python -m venv rlax-env && rlax-env/bin/pip install rlax==0.1.9 jax==0.10.2
    rlax-env/bin/python tests/data/make_vtrace_golden.py

rlax knows no time limits, so a trajectory is cut at its episode ends and rlax sees one piece at a time; a terminal
state is a discount of zero. Its functions meet ours as follows, everything in float64:

* ``vtrace`` has c̄ = 1. Its λ may vary with t, and λ·min(c̄, ρ_t)/min(1, ρ_t) gives it any c̄.
* ``vtrace_td_error_and_advantage`` has c̄ = 1; its ``q_estimate`` − V is our advantage with κ = λ, and IMPALA's own at
  λ = 1; its ``pg_advantage`` carries the leading min(ρ̄_pg, ρ_t) that here belongs to the filter `truncated`.
* ``importance_corrected_td_errors`` on ratios already truncated at ρ̄ is the recursion of GePPO: c̄ = ρ̄.
* ``truncated_generalized_advantage_estimation`` is GAE.
"""

from __future__ import annotations

import itertools
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rlax
from rlax._src.multistep import importance_corrected_td_errors  # not among its public names

LENGTHS = (1, 5, 8, 13)
TRACE_DECAYS = (1.0, 0.95, 0.6, 0.0)
RHO_BARS = (1.0, 1.7, 3.0)


def draw(generator: np.random.Generator, length: int) -> dict[str, Any]:
    """One random trajectory of `length` steps; longer ones hold a termination and a truncation."""
    terminated, truncated = np.zeros(length, dtype=bool), np.zeros(length, dtype=bool)
    if length >= 5:
        first, second = sorted(generator.choice(length - 1, size=2, replace=False))
        terminated[first] = True
        truncated[second] = True
    values = generator.normal(size=length)
    next_values = np.append(values[1:], generator.normal())
    ends = terminated | truncated
    next_values[ends] = generator.normal(size=ends.sum())
    return {
        "rewards": generator.normal(size=length),
        "values": values,
        "next_values": next_values,
        "terminated": terminated,
        "truncated": truncated,
        "ratio": np.exp(generator.normal(size=length)),
    }


def evaluate(case: dict[str, Any], settings: dict[str, float]) -> dict[str, np.ndarray]:
    """rlax's answers for one trajectory, one piece between episode ends at a time."""
    length = len(case["rewards"])
    cuts = np.flatnonzero(case["terminated"] | case["truncated"]) + 1
    bounds = sorted({0, length, *map(int, cuts)})
    answers: dict[str, list[np.ndarray]] = {}
    for start, stop in itertools.pairwise(bounds):
        part = {key: jnp.asarray(value[start:stop]) for key, value in case.items()}
        for key, value in evaluate_piece(part, settings).items():
            answers.setdefault(key, []).append(np.asarray(value))
    return {key: np.concatenate(pieces) for key, pieces in answers.items()}


def evaluate_piece(part: dict[str, Any], settings: dict[str, float]) -> dict[str, Any]:
    """rlax's answers for a piece that ends where the recursion does."""
    decay, rho_bar, c_bar = settings["trace_decay"], settings["rho_bar"], settings["c_bar"]
    ratio, reward, value, next_value = part["ratio"], part["rewards"], part["values"], part["next_values"]
    discount = settings["discount"] * (1.0 - part["terminated"].astype(jnp.float64))
    chain = jnp.append(value, next_value[-1])
    decays = decay * jnp.minimum(c_bar, ratio) / jnp.minimum(1.0, ratio)
    impala = rlax.vtrace_td_error_and_advantage(
        value, next_value, reward, discount, ratio, decay, rho_bar, settings["pg_rho_bar"]
    )
    return {
        "errors": rlax.vtrace(value, next_value, reward, discount, ratio, decays, rho_bar),
        "impala_errors": impala.errors,
        "impala_pg_advantage": impala.pg_advantage,
        "impala_q_estimate": impala.q_estimate,
        "geppo_errors": importance_corrected_td_errors(reward, discount, jnp.minimum(rho_bar, ratio), decay, chain),
        "gae": rlax.truncated_generalized_advantage_estimation(reward, discount, decay, chain),
    }


def main() -> None:
    """Draw the cases, ask rlax and write the file next to this script."""
    jax.config.update("jax_enable_x64", True)
    generator = np.random.default_rng(20260302)
    cases = []
    for index, (decay, rho_bar) in enumerate(itertools.product(TRACE_DECAYS, RHO_BARS)):
        case = draw(generator, LENGTHS[(index + index // len(LENGTHS)) % len(LENGTHS)])
        settings = {
            "discount": 0.97,
            "trace_decay": decay,
            "rho_bar": rho_bar,
            "c_bar": (0.5, 1.0, rho_bar)[(index + index // 3) % 3],
            "pg_rho_bar": (1.0, 2.0)[index % 2],
        }
        answers = evaluate(case, settings)
        if any(answer.dtype != np.float64 for answer in answers.values()):
            raise RuntimeError("rlax answered in less than double precision: enable jax_enable_x64")
        arrays = {key: value.tolist() for key, value in {**case, **answers}.items()}
        cases.append({"settings": settings, **arrays})
    made_by = {package: version(package) for package in ("rlax", "jax", "numpy")}
    lines = ",\n".join(json.dumps(case) for case in cases)
    path = Path(__file__).with_name("vtrace_golden.json")
    path.write_text(f'{{"made_by": {json.dumps(made_by)}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
