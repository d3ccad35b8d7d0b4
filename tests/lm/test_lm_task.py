"""Problems, their split and their verifiers."""

from __future__ import annotations

import ast
import inspect
import json
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaco.lm.task import Problem, make_task
from vaco.lm.tasks import procedural
from vaco.lm.tasks.answers import final_number, plain_number, stated_number
from vaco.lm.tasks.base import held_out
from vaco.lm.tokenizer import CharTokenizer

DATA = Path(__file__).parents[1] / "data"
FILES = {"train": str(DATA / "gsm8k_train.jsonl"), "eval": str(DATA / "gsm8k_eval.jsonl")}


@pytest.mark.parametrize(
    ("phrase", "value"),
    [
        ("18", 18),
        ("18.", 18),
        ("18!", 18),
        (" 18 apples", 18),
        ("$18", 18),
        ("$ 18", 18),
        ("18 $", 18),
        ("US$18", 18),
        ("18€ per week.", 18),
        ("**18**", 18),
        ("\\boxed{18}", 18),
        ("18%", 18),
        ("018", 18),
        ("18.00", 18),
        ("+18", 18),
        ("(18)", 18),
        ("x = 18", 18),
        ("3 + 15 = 18", 18),
        ("18 (18.0)", 18),
        ("18 m2", 18),
        ("1,234", 1234),
        ("$1,234,567.50", Fraction("1234567.5")),
        ("-3", -3),
        ("−3", -3),
        ("- 3", -3),
        ("-$3", -3),
        ("$-3", -3),
        ("3.75", Fraction("3.75")),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-1/2", Fraction(-1, 2)),
        ("3 1/2", Fraction(7, 2)),
        ("-3 1/2", Fraction(-7, 2)),
        ("2e3", 2000),
        ("2.5E-1", Fraction(1, 4)),
    ],
)
def test_a_phrase_states_one_number(phrase: str, value: Fraction | int) -> None:
    assert stated_number(phrase) == value


@pytest.mark.parametrize(
    "phrase",
    [
        "",
        "apples",
        "$",
        "-",
        ".",
        "3 or 4",  # hedging
        "5-3",
        "5 - 3",
        "1, 2",
        "12,34",  # malformed grouping
        "1,2,3",
        "1.234.567",
        "1..5",
        "...5",
        "1/0",
        "3:30",
        "½",
        "3½",
        "5²",
        "٣",
        "m2",
        "nan",
        "inf",
        "1e999999999",
        "1e100",
        "1e-5555",
        "1/2/3",
        "9" * 5000,
        "1/" + "9" * 5000,
    ],
)
def test_a_phrase_states_none(phrase: str) -> None:
    assert stated_number(phrase) is None


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("6*3=18\n#### 18", 18),
        ("####18", 18),
        ("#### 17\nNo:\n#### 18", 18),
        ("#### 18\nThat is 3 more than 15.", 18),
        ("18", None),
        ("### 18", None),
        ("####", None),
        ("####\n18", 18),
        ("18 ####", None),
        ("#### eighteen", None),
        ("#### 17 or 18", None),
    ],
)
def test_the_final_number_follows_the_last_marker(response: str, value: int | None) -> None:
    assert final_number(response) == value


@given(st.text(max_size=80) | st.text("0123456789.,-/#e $=", max_size=80))
def test_reading_never_raises(text: str) -> None:
    for value in (stated_number(text), plain_number(text), final_number("####" + text)):
        assert value is None or isinstance(value, Fraction)


@given(st.integers(-(10**15), 10**15))
def test_every_way_of_writing_an_integer_is_read(value: int) -> None:
    for text in (f"{value}", f"{value:,}", f"{value}.0", f"{value:,}."):
        assert stated_number(text) == value, text
    assert plain_number(f" {value:,} ") == value


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("46,41#41", 1.0),
        ("#41", 1.0),
        ("40#40#41", 1.0),
        ("46,41# 41.0", 1.0),
        ("#+41", 1.0),
        ("#041", 1.0),
        ("41", 0.0),
        ("46,41", 0.0),
        ("#41#", 0.0),
        ("#41#40", 0.0),
        ("#-41", 0.0),
        ("#41,42", 0.0),
        ("#4 1", 0.0),
        ("#41a", 0.0),
        ("#40+1", 0.0),
        ("#", 0.0),
        ("", 0.0),
    ],
)
def test_chain_sum_judges_the_text_after_the_last_sign(response: str, reward: float) -> None:
    assert make_task("chain_sum", {}).verify(response, Problem("12+34-5=", "41", None)) == reward


@pytest.mark.parametrize(
    "settings", [{}, {"compact": False}, {"allow_negation": True, "max_terms": 6}, {"min_terms": 1}]
)
def test_chain_sum_solutions_are_right(settings: dict[str, object]) -> None:
    task, tokenizer = make_task("chain_sum", settings), CharTokenizer()
    for problem in task.problems("train", range(300)):
        assert problem.solution is not None
        assert task.verify(problem.solution, problem) == 1.0
        if settings.get("compact", True):
            assert tokenizer.decode(tokenizer.encode(problem.prompt)) == problem.prompt
            assert _sum(problem.prompt.removesuffix("=")) == int(problem.answer)
            steps = problem.solution.partition("#")[0].split(",")
            assert steps[-1] in (problem.answer, "")


def _sum(expression: str) -> int:
    """The value of a chain of sums, by Python's own parser and the two operations alone."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Sub(), right):
                return value(left) - value(right)
            case ast.UnaryOp(ast.USub(), operand):
                return -value(operand)
            case ast.Constant(int(number)):
                return number
        raise AssertionError(ast.dump(node))

    return value(ast.parse(expression, mode="eval").body)


def test_worked_steps_are_the_partial_sums() -> None:
    for problem in make_task("chain_sum", {"min_terms": 3, "max_terms": 3}).problems("train", range(50)):
        expression = problem.prompt.removesuffix("=")
        last = max(expression.rfind("+"), expression.rfind("-"))
        assert problem.solution == f"{_sum(expression[:last])},{problem.answer}#{problem.answer}"


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("chain_sum", {}, 3000),
        ("chain_sum", {"max_terms": 2, "max_digits": 1}, 3000),  # 200 expressions in all
        ("chain_sum", {"compact": False}, 300),
        ("gsm_symbolic", {}, 500),
        ("rg:basic_arithmetic", {"pool": 500}, 500),
    ],
)
def test_no_problem_of_the_evaluation_is_trained_on(name: str, settings: dict[str, object], count: int) -> None:
    task = make_task(name, settings)
    train = {problem.prompt for problem in task.problems("train", range(count))}
    held = {problem.prompt for problem in task.problems("eval", range(count))}
    assert train and held
    assert not train & held


def test_the_small_space_is_used_up() -> None:
    """Both splits together hold every expression, or the split would lose problems rather than share them out."""
    task = make_task("chain_sum", {"max_terms": 2, "max_digits": 1})
    both = {problem.prompt for split in ("train", "eval") for problem in task.problems(split, range(3000))}
    assert both == {f"{a}{sign}{b}=" for a in range(10) for b in range(10) for sign in "+-"}


@pytest.mark.parametrize("name", ["chain_sum", "gsm_symbolic", "rg:leg_counting"])
def test_problems_are_the_same_every_time_and_in_any_order(name: str) -> None:
    one, two = make_task(name, {}), make_task(name, {})
    for split in ("train", "eval"):
        forwards = one.problems(split, range(20))
        assert forwards == two.problems(split, range(19, -1, -1))[::-1]
        assert two.problems(split, [7, 7]) == [forwards[7]] * 2
    assert one.problems("train", range(20)) != make_task(name, {"seed": 1}).problems("train", range(20))


def test_making_problems_leaves_shared_generators_alone() -> None:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    for name in ("chain_sum", "gsm_symbolic", "rg:leg_counting"):
        make_task(name, {}).problems("train", range(5))
    assert random.getstate() == python
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(after[1], numpy[1]) and after[2] == numpy[2]


def test_each_split_keeps_the_generators_distribution() -> None:
    """Against reasoning-gym's own data set, unsplit: terms and digits in the same shares, to four standard errors."""
    import reasoning_gym

    settings = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 3}
    count = 4000
    own = reasoning_gym.create_dataset("chain_sum", seed=5, size=count, **settings)
    expected = Counter(_shape(own[index]["metadata"]["expression"].replace(" ", "")) for index in range(count))
    task = make_task("chain_sum", settings)
    for split in ("train", "eval"):
        found = Counter(_shape(problem.prompt.removesuffix("=")) for problem in task.problems(split, range(count)))
        assert found.keys() == expected.keys()
        for shape, number in expected.items():
            share = number / count
            assert abs(found[shape] - number) < 4 * (2 * count * share * (1 - share)) ** 0.5, (split, shape)


def _shape(expression: str) -> tuple[int, int]:
    terms = expression.replace("-", "+").split("+")
    return len(terms), max(len(term) for term in terms)


def test_the_uncompacted_prompt_is_reasoning_gyms_question() -> None:
    import reasoning_gym

    own = reasoning_gym.create_dataset("chain_sum", seed=0, size=1000, min_terms=2, max_terms=4, max_digits=2)
    questions = [own[index]["question"] for index in range(50)]
    problems = make_task("chain_sum", {"compact": False}).problems("train", range(50))
    kept = [index for index, question in enumerate(questions) if not held_out(question, 0.2)]
    assert 20 < len(kept) < 50
    for index in kept:
        assert problems[index].prompt.startswith(questions[index] + "\n")
        assert problems[index].answer == own[index]["answer"]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_held_out_is_the_one_asked_for(share: float) -> None:
    number = sum(held_out(f"{index}+1", share) for index in range(4000))
    assert abs(number - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5


def test_gsm_symbolic_solutions_are_right() -> None:
    task = make_task("gsm_symbolic", {})
    assert task.size("train") == task.size("eval") == procedural.ProceduralSettings.pool
    for problem in task.problems("train", range(200)):
        assert problem.solution and task.verify(problem.solution, problem) == 1.0
        assert task.verify(problem.solution.replace("####", ""), problem) == 0.0
        assert task.verify(f"#### {Fraction(problem.answer) + 1}", problem) == 0.0


def test_other_tasks_are_judged_by_their_own_scorer() -> None:
    task = make_task("rg:leg_counting", {"max_animals": 4})
    for problem in task.problems("eval", range(5)):
        assert problem.solution is None
        assert task.verify(f"So:\n#### {problem.answer}", problem) == 1.0
        for wrong in (problem.answer, "####", "#### many", f"#### {int(problem.answer) + 1}"):
            assert task.verify(wrong, problem) == 0.0
    with pytest.raises(TypeError, match="its own problems"):
        task.verify("#### 1", Problem("", "1", None))


def _datasets() -> Iterator[tuple[str, ast.Module]]:
    from reasoning_gym.factory import DATASETS

    for name, (kind, _) in DATASETS.items():
        source = inspect.getsourcefile(kind)
        assert source
        yield name, ast.parse(Path(source).read_text(encoding="utf-8"))


def test_every_scorer_that_evaluates_the_answer_is_refused() -> None:
    """Read from the sources: calls of eval, exec or SymPy's parser on something that is called an answer."""
    found = set()
    for name, tree in _datasets():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function = ast.unparse(call.func).rpartition(".")[2]
            if function in ("eval", "exec", "parse_expr", "sympify") and call.args:
                argument = ast.unparse(call.args[0])
                if argument.endswith("answer"):
                    found.add(name)
    assert found == procedural._EVALUATING


def test_gsm8k_reads_both_files() -> None:
    task = make_task("gsm8k", FILES)
    # The sixth line's question is also in the evaluation.
    assert (task.size("train"), task.size("eval")) == (5, 2)
    train, held = task.problems("train", range(5)), task.problems("eval", [1, 0])
    assert [problem.answer for problem in train] == ["31", "8100", "-9", "15/4", "80"]
    assert [problem.answer for problem in held] == ["30", "60"]
    assert not {problem.prompt for problem in train} & {problem.prompt for problem in held}
    for problem in train + held:
        assert problem.solution is not None and "<<" not in problem.solution
        assert task.verify(problem.solution, problem) == 1.0
        assert task.verify("#### 7", problem) == 0.0
        assert task.verify("no idea", problem) == 0.0


def test_gsm8k_splits_one_file_by_its_questions(tmp_path: Path) -> None:
    rows = [{"question": f"What is {number} and 1?", "answer": f"#### {number + 1}"} for number in range(200)]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + rows[:20]))
    task = make_task("gsm8k", {"path": str(path), "eval_share": 0.25})
    splits = {}
    for split in ("train", "eval"):
        size = task.size(split)
        assert size
        splits[split] = {problem.prompt for problem in task.problems(split, range(size))}
    assert not splits["train"] & splits["eval"]
    assert len(splits["train"] | splits["eval"]) == 200
    assert 25 < len(splits["eval"]) < 75


@pytest.mark.parametrize("name", ["chain_sum", "gsm_symbolic", "gsm8k"])
def test_splits_and_indices_outside_are_refused(name: str) -> None:
    task = make_task(name, FILES if name == "gsm8k" else {})
    with pytest.raises(ValueError, match="no split 'test'"):
        task.problems("test", [0])
    with pytest.raises(ValueError, match="no split 'test'"):
        task.size("test")
    for index in (-1, 2**60):
        with pytest.raises(ValueError, match="indices go from 0"):
            task.problems("train", [index])
    assert task.problems("train", []) == []
    assert task.problems("eval", np.arange(2)) == task.problems("eval", [0, 1])  # type: ignore[arg-type]
