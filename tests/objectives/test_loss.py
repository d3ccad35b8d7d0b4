from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import vaco
from vaco.diagnostics import AGES, Diagnostics, Statistic
from vaco.errors import UserError
from vaco.loss import LOG_RATIO_LIMIT
from vaco.objectives.filters import FILTERS, FilterSettings, Samples
from vaco.objectives.rules import as_settings, find_rule, rules
from vaco.objectives.tokens import TOKEN_FILTERS, Tokens, TokenSettings

OWN = sorted({rule.name for rule in rules().values()})
SETTINGS = {"delta": 0.1, "clip": 0.15, "divergence_limit": 0.05, "mean_age": 1.0}


def drawn(shape: tuple[int, ...] = (5, 7), seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Arguments of a loss in which every rule drops something, with a mask."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    behaviour = -2.5 * torch.rand(shape, generator=generator, dtype=torch.float64)
    found = {
        "logp": behaviour + 0.4 * normal(),
        "behaviour_logp": behaviour,
        "learner_logp": behaviour + 0.2 * normal(),
        "advantages": normal(),
    }
    found = {name: tensor.to(dtype) for name, tensor in found.items()}
    found["staleness"] = torch.randint(0, 6, shape, generator=generator)
    found["mask"] = torch.rand(shape, generator=generator) < 0.8
    return found


def call(given: dict[str, Any], **others: Any) -> tuple[Tensor, Tensor, Diagnostics]:
    """Loss, its gradient with respect to log π, and diagnostics."""
    arguments = {**given, **others}
    logp = arguments.pop("logp").clone().requires_grad_()
    loss, diagnostics = vaco.policy_loss(logp, **arguments)
    (gradient,) = torch.autograd.grad(loss, logp)
    return loss.detach(), gradient, diagnostics


def of_table(name: str, given: dict[str, Tensor], settings: TokenSettings) -> Tensor:
    """The coefficient as the filters give it to the trainers, zero where masked."""
    ratio = (given["logp"] - given["behaviour_logp"]).exp()
    learner = (given["learner_logp"] - given["behaviour_logp"]).exp()
    samples = Samples(ratio, learner, given["advantages"], given["mask"].to(ratio))
    if name in TOKEN_FILTERS:
        tokens = Tokens(samples, given["staleness"], given["behaviour_logp"])
        found = TOKEN_FILTERS[name].function(tokens, settings).coefficient
    else:
        found = FILTERS[name].function(samples, settings.filter).coefficient
    return found * given["mask"]


# --- What the gradient is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("seed", range(3))
def test_gradient_and_value_are_those_of_the_table(name: str, seed: int) -> None:
    given = drawn(seed=seed)
    loss, gradient, diagnostics = call(given, rule=name, settings=SETTINGS)
    coefficient = of_table(name, given, as_settings(SETTINGS))
    samples = int(given["mask"].sum())
    torch.testing.assert_close(gradient, -coefficient / samples)
    torch.testing.assert_close(loss, -coefficient.sum() / samples)
    assert diagnostics.figures()["samples"] == samples


@pytest.mark.parametrize("alias", list(rules()))
def test_every_name_is_its_row(alias: str) -> None:
    given = drawn()
    assert torch.equal(call(given, rule=alias)[1], call(given, rule=rules()[alias].name)[1])


def test_vaco_by_a_loop() -> None:
    """The default rule, one sample at a time, from the paper's equation."""
    given, delta = drawn((40,)), 0.2
    _, gradient, diagnostics = call(given)
    rows = zip(
        *(given[n].tolist() for n in ("logp", "behaviour_logp", "learner_logp", "advantages", "mask")), strict=True
    )
    live = [(math.exp(p - b), math.exp(q - b), a) for p, b, q, a, m in rows if m]
    mean = sum(abs(r - t) for r, t, _ in live) / len(live)
    assert mean > delta
    wanted = [0.0 if a * (r - t) > 0 else -r * a / len(live) for r, t, a in live]
    torch.testing.assert_close(gradient[given["mask"]], torch.tensor(wanted, dtype=torch.float64))
    assert not gradient[~given["mask"]].any()
    figures = diagnostics.figures()
    assert figures["trigger_statistic"] == pytest.approx(mean)
    assert figures["kept_fraction"] == pytest.approx(sum(w != 0 for w in wanted) / len(live))
    assert figures["trigger_fraction"] == 1.0
    assert figures["dropped_positive"] == pytest.approx(sum(a > 0 and r > t for r, t, a in live) / len(live))
    assert figures["dropped_negative"] == pytest.approx(sum(a < 0 and r < t for r, t, a in live) / len(live))


@pytest.mark.parametrize("shape", [(35,), (5, 7), (7, 5)])
def test_every_layout_gives_the_same(shape: tuple[int, ...]) -> None:
    given = drawn((35,))
    expected = call(given)[1]
    shaped = {name: tensor.reshape(shape) for name, tensor in given.items()}
    torch.testing.assert_close(call(shaped)[1].flatten(), expected)


def test_denominators() -> None:
    given = drawn()
    coefficient = of_table("tv", given, TokenSettings())
    torch.testing.assert_close(call(given, denominator=200)[1], -coefficient / 200)
    wanted = torch.zeros_like(coefficient)
    for i in range(5):
        length = int(given["mask"][i].sum())
        for j in range(7):
            wanted[i, j] = -coefficient[i, j] / length / 5
    torch.testing.assert_close(call(given, denominator="sequences")[1], wanted)


# --- Numbers that break losses ------------------------------------------------------------------------------------


def test_a_long_batch_in_half_precision_still_triggers() -> None:
    """Above 65,504 tokens a sum in float16 is infinite, the statistic 0 or NaN, and the trigger silent."""
    size = 70_000
    behaviour = torch.full((size,), -1.0, dtype=torch.float16)
    given = {"logp": behaviour + 0.5, "behaviour_logp": behaviour, "advantages": torch.ones_like(behaviour)}
    _, gradient, diagnostics = call(given, rule="tv_total")
    assert diagnostics.figures()["trigger_statistic"] == pytest.approx(math.exp(0.5) - 1, rel=1e-3)
    assert diagnostics.figures()["trigger_fraction"] == 1.0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OWN)
def test_half_precision_computes_in_float32(name: str, dtype: torch.dtype) -> None:
    given = drawn(dtype=dtype)
    rounded = {n: t.double() if t.dtype.is_floating_point else t for n, t in given.items()}
    loss, gradient, _ = call(given, rule=name, settings=SETTINGS)
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    wanted, slope, _ = call(rounded, rule=name, settings=SETTINGS)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("which", ["logp", "behaviour_logp", "learner_logp", "advantages"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["tv", "tv_total", "tv_sequence", "clip", "spo", "divergence_mask"])
def test_what_is_not_finite_is_as_if_it_were_not_there(which: str, value: float, name: str) -> None:
    given = drawn()
    given["mask"][1, 2] = True
    without = given | {"mask": given["mask"].clone()}
    without["mask"][1, 2] = False
    broken = given | {which: given[which].clone()}
    broken[which][1, 2] = value
    loss, gradient, diagnostics = call(broken, rule=name, settings=SETTINGS)
    wanted, slope, figures = call(without, rule=name, settings=SETTINGS)
    assert torch.equal(loss, wanted) and torch.equal(gradient, slope)
    assert diagnostics.figures()["nonfinite"] == 1 and figures.figures()["nonfinite"] == 0
    rest = [{k: v for k, v in d.figures().items() if k != "nonfinite"} for d in (diagnostics, figures)]
    assert rest[0] == rest[1]


def test_padding_that_is_not_finite_is_not_counted() -> None:
    given = drawn()
    given["mask"][0] = False
    given["behaviour_logp"][0] = math.nan
    loss, _, diagnostics = call(given)
    assert math.isfinite(loss) and diagnostics.figures()["nonfinite"] == 0


def test_extreme_ratios_are_held() -> None:
    logp = torch.tensor([0.0, -500.0])
    _, gradient, _ = call({"logp": logp, "behaviour_logp": -500 - logp, "advantages": torch.ones(2)}, rule="none")
    torch.testing.assert_close(gradient, -torch.tensor([LOG_RATIO_LIMIT, -LOG_RATIO_LIMIT]).exp() / 2)


# --- One batch in parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tv", "tv_total", "tv_proximal"])
@pytest.mark.parametrize("delta", [0.05, 0.3, 0.34, 0.38, 5.0])
def test_accumulated_micro_batches_are_the_batch(name: str, delta: float) -> None:
    """Unequal parts, some of which alone would decide otherwise than the batch."""
    given, options = drawn((8, 7)), {"rule": name, "settings": {"delta": delta}}
    loss, gradient, whole = call(given, **options)
    parts = [{n: t[rows] for n, t in given.items()} for rows in (slice(0, 1), slice(1, 5), slice(5, 8))]
    each = [vaco.trigger_statistic(**part, rule=name) for part in parts]
    total = sum(each, Statistic.zero())
    found = [call(part, **options, statistic=total, denominator=int(given["mask"].sum())) for part in parts]
    torch.testing.assert_close(sum(f[0] for f in found), loss)
    torch.testing.assert_close(torch.cat([f[1] for f in found]), gradient)
    merged = found[0][2] + found[1][2] + found[2][2]
    figures, expected = merged.figures(), whole.figures()
    assert figures.pop("trigger_fraction") == expected.pop("trigger_fraction")
    assert figures == pytest.approx(expected)


PROCESS = """
import sys, torch, vaco
import torch.distributed as dist
rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
sys.path.insert(0, sys.argv[3])
from test_loss import drawn, call
given = drawn((8, 7))
rows = slice(0, 2) if rank == 0 else slice(2, 8)
part = {name: tensor[rows] for name, tensor in given.items()}
statistic = vaco.trigger_statistic(**part).all_reduce()
settings = {"delta": float(sys.argv[4])}
loss, gradient, diagnostics = call(part, settings=settings, statistic=statistic, denominator=statistic.samples)
dist.all_reduce(loss)
gathered = torch.zeros(8, 7, dtype=torch.float64)
gathered[rows] = gradient
dist.all_reduce(gathered)
figures = diagnostics.all_reduce().figures()
expected, slope, whole = call(given, settings=settings)
torch.testing.assert_close(loss, expected)
torch.testing.assert_close(gathered, slope)
wanted = whole.figures()
assert figures.keys() == wanted.keys()
assert all(abs(figures[k] - wanted[k]) < 1e-9 for k in wanted), (figures, wanted)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("delta", [0.34, 0.2])
def test_two_processes_give_what_one_gives(delta: float, tmp_path: Any) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    here = str(__import__("pathlib").Path(__file__).parent)
    running = [
        subprocess.Popen([*command, str(rank), str(port), here, str(delta)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors


# --- How it is run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["tv", "tv_sequence", "clip", "centred_clip", "divergence_mask", "staleness_clip", "mdpo"]
)
def test_compiles_into_one_graph(name: str) -> None:
    if name == "mdpo" and torch.__version__.startswith("2.4."):
        pytest.skip("the compiler of PyTorch 2.4 follows no rule with settings of its own")
    given = drawn(dtype=torch.float32)
    loss = torch.compile(vaco.policy_loss, fullgraph=True, backend="aot_eager")
    logp = given.pop("logp").requires_grad_()
    value, diagnostics = loss(logp, **given, rule=name, settings=SETTINGS)
    (gradient,) = torch.autograd.grad(value, logp)
    expected, slope, plain = call(given | {"logp": logp.detach()}, rule=name, settings=SETTINGS)
    torch.testing.assert_close(value.detach(), expected)
    torch.testing.assert_close(gradient, slope)
    torch.testing.assert_close(diagnostics.sums, plain.sums, equal_nan=True)


@pytest.mark.parametrize("name", OWN)
def test_vmap_over_batches_is_a_loop_over_batches(name: str) -> None:
    given = drawn((3, 5, 7))

    def one(x: dict[str, Tensor]) -> tuple[Tensor, Diagnostics]:
        x = dict(x)
        return vaco.policy_loss(x.pop("logp"), **x, rule=name, settings=SETTINGS)

    losses, diagnostics = torch.vmap(one)(given)
    for i in range(3):
        expected, plain = one({n: t[i] for n, t in given.items()})
        torch.testing.assert_close(losses[i], expected)
        torch.testing.assert_close(diagnostics.sums[i], plain.sums, equal_nan=True)


def test_importing_vaco_loads_nothing_and_every_public_name_is_there() -> None:
    code = "import sys, vaco; print([m for m in ('torch', 'numpy', 'scipy', 'pandas') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    code = """
import sys, vaco
runs = {'Study', 'load', 'sweep', 'train'}  # which train or read runs
[getattr(vaco, name) for name in vaco.__all__ if name not in runs]
loaded = {m.split('.')[0] for m in sys.modules}
print(sorted(loaded & {'scipy', 'pandas', 'gymnasium', 'mujoco', 'yaml', 'pydantic', 'pyarrow', 'transformers'}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- Figures ------------------------------------------------------------------------------------------------------


def test_figures_by_a_loop() -> None:
    given = drawn()
    figures = call(given, rule="tv")[2].figures()
    names = ("logp", "behaviour_logp", "learner_logp", "advantages", "staleness", "mask")
    rows = [r for r in zip(*(given[n].flatten().tolist() for n in names), strict=True) if r[-1]]
    n = len(rows)
    ratios = [math.exp(p - b) for p, b, *_ in rows]
    learners = [math.exp(q - b) for _, b, q, *_ in rows]
    wanted = {
        "mean_ratio": sum(ratios) / n,
        "ess": sum(ratios) ** 2 / n / sum(r * r for r in ratios),
        "total_lag": sum(abs(r - 1) for r in ratios) / n / 2,
        "bounded_total_variation": sum(max(0.0, 1 - r) for r in ratios) / n,
        "forward_lag": sum(abs(r - t) for r, t in zip(ratios, learners, strict=True)) / n / 2,
        "backward_lag": sum(abs(t - 1) for t in learners) / n / 2,
        "chi_squared": sum((r - 1) ** 2 for r in ratios) / n,
        "kl_k1": sum(-math.log(r) for r in ratios) / n,
        "kl_k2": sum(math.log(r) ** 2 / 2 for r in ratios) / n,
        "kl_k3": sum(r - 1 - math.log(r) for r in ratios) / n,
        "staleness": sum(row[4] for row in rows) / n,
        "age_to_0": sum(row[4] == 0 for row in rows) / n,
        "age_to_1": sum(row[4] == 1 for row in rows) / n,
        "age_to_4": sum(2 < row[4] <= 4 for row in rows) / n,
        "age_to_8": sum(4 < row[4] <= 8 for row in rows) / n,
    }
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    assert sum(figures[name] for name in AGES) == pytest.approx(1.0)


def test_what_was_not_measured_is_left_out() -> None:
    given = drawn()
    del given["learner_logp"], given["staleness"]
    figures = call(given, rule="clip")[2].figures()
    missing = {"forward_lag", "backward_lag", "trigger_statistic", "staleness", *AGES, "engine_mismatch"}
    assert not missing & set(figures)
    assert figures["trigger_fraction"] == 0.0


# --- Bad input ----------------------------------------------------------------------------------------------------

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("shapes that broadcast", {"advantages": torch.ones(5, 1)}, r"advantages has shape \[5, 1\] and logp has \[5, 7\]"),
    ("a mask of another shape", {"mask": torch.ones(7)}, "mask has shape"),
    ("no learner", {"learner_logp": None}, "compares with the learner π_T: give learner_logp"),
    ("no staleness", {"rule": "a3po", "staleness": None}, "give staleness"),
    ("an unknown rule", {"rule": "vacoo"}, "did you mean 'vaco'"),
    ("a penalty", {"rule": "kl"}, "take rule 'none' and add b times"),
    ("its alias", {"rule": "ppo_kl"}, "take rule 'none' and add b times"),
    ("a regression", {"rule": "tba"}, "tba_coefficient"),
    ("delta of 0", {"settings": {"delta": 0.0}}, "the setting delta is 0.0, but it must be above 0"),
    ("a negative delta", {"settings": FilterSettings(delta=-1.0)}, "delta is -1.0"),
    ("a delta that is no number", {"settings": {"delta": math.nan}}, "delta is nan, but it must be a finite number"),
    ("a wrong cap", {"settings": TokenSettings(dppo_cap=0.0)}, "dppo_cap is 0.0"),
    ("an unknown setting", {"settings": {"dleta": 0.1}}, "did you mean 'delta'"),
    ("an empty mask", {"mask": torch.zeros(5, 7, dtype=torch.bool)}, "the mask keeps no sample"),
    ("integers", {"logp": torch.ones(5, 7, dtype=torch.int64)}, "logp is of type torch.int64"),
    ("integer advantages", {"advantages": torch.ones(5, 7, dtype=torch.int64)}, "advantages is of type torch.int64"),
    ("numpy", {"advantages": torch.ones(5, 7).numpy()}, "must be a torch.Tensor"),
    ("a gradient", {"advantages": torch.ones(5, 7, requires_grad=True)}, r"give advantages.detach\(\)"),
    ("a gradient of β", {"behaviour_logp": torch.ones(5, 7, requires_grad=True)}, "behaviour_logp carries a gradient"),
    ("a gradient of the mask", {"mask": torch.ones(5, 7, requires_grad=True)}, r"mask carries a gradient.*mask.detach"),
    ("no name of a rule", {"rule": None}, "the rule is None, but it must be a name"),
    ("settings that are none", {"settings": 0.2}, "settings is 0.2, but it must be a mapping"),
    (
        "a training that is over",
        {"rule": "mdpo", "settings": {"progress": 1.0}},
        "progress is 1.0, but it must be below",
    ),
    ("a step of 0", {"rule": "mdpo", "settings": {"filter.step": 0.0}}, "step is 0.0, but it must be above 0"),
    ("a denominator of 0", {"denominator": 0}, "the denominator is 0, but it must be a finite number above 0"),
    ("an unknown denominator", {"denominator": "token"}, "'samples', 'sequences' or a number"),
    ("a statistic for nothing", {"rule": "clip", "statistic": Statistic.zero()}, "no batch trigger"),
]


@pytest.mark.parametrize(("given", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_one_sentence(given: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = drawn() | given
    logp = arguments.pop("logp")
    with pytest.raises(UserError, match=message) as caught:
        vaco.policy_loss(logp, **arguments)
    assert "\n" not in str(caught.value) and str(caught.value)[-1] != "."


def test_a_batch_without_samples_is_refused_unless_it_is_part_of_another() -> None:
    with pytest.raises(UserError, match=r"shape \[0, 7\] and no sample: leave it out"):
        call(drawn((0, 7)))
    assert float(call(drawn((0, 7)), rule="clip", denominator=4.0)[0]) == 0.0


def test_sequences_need_sequences() -> None:
    for options in ({"rule": "tv_sequence"}, {"denominator": "sequences"}):
        with pytest.raises(UserError, match=r"tokens \[B, T\], not shape \[9\]"):
            call(drawn((9,)), **options)


def test_an_empty_micro_batch_of_a_larger_batch_adds_nothing() -> None:
    given = drawn()
    given["mask"] = torch.zeros(5, 7)
    loss, gradient, _ = call(given, denominator=100)
    assert loss == 0 and not gradient.any()


def test_every_filter_is_a_rule_or_says_why_not() -> None:
    assert {n for n, e in FILTERS.items() if e.penalty is None} | set(TOKEN_FILTERS) == set(OWN)
    for name, rule in rules().items():
        assert find_rule(name) == rule or find_rule(name).name == rule.name
        assert rule.needs_learner == ("ρ_T" in rule.formula or "π_T" in rule.formula), name
