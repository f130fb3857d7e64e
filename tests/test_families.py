"""The three procedural families: apart, repeatable, solved by their own solutions, small in language, rich in form."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from typing import Any

import pytest

from smallwit.errors import UserError
from smallwit.tasks.algebra import Algebra
from smallwit.tasks.base import SPLITS, Problem
from smallwit.tasks.functions import Functions
from smallwit.tasks.procedural import Dice, ProceduralTask, split_of
from smallwit.tasks.wordmath import WordMath

FAMILIES = (WordMath, Algebra, Functions)
# What one token is: a word with its leading space, a digit, a sign, a line's end with the indent after it.
TOKEN = re.compile(r"\d|\n *| ?[A-Za-z_]+| ?[^\sA-Za-z_\d]|\s")
VOCABULARY = 260
PROMPT_TOKENS = 55
SOLUTION_TOKENS = 60
DICE_STREAM = [61, 14, 0, 4, 63]
# blake2b of the first 50 test problems at the default options
DIGESTS = {"wordmath": "1745ccdd303e2cc2", "algebra": "d71d3ac866a4d03f", "functions": "f3edb9dbfea88372"}


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> type[ProceduralTask]:
    return request.param


def sample(task: ProceduralTask, count: int = 1500) -> list[Problem]:
    return list(task.problems("train")[:count])


def template(problem: Problem) -> str:
    """The prompt with its numbers, people, things and variable names taken out."""
    text = re.sub(r"\b(Tom|Ben|Sam|Leo|Ana|Mia|Zoe|Eva|He|She|he|she|him|her)\b", "P", problem.prompt)
    text = re.sub(r"\b(apples|eggs|cards|coins|books|pens|cakes|shells)\b", "T", text)
    text = re.sub(r"\b(f|g|solve|xs|nums|text|[a-z])\b", "v", text)
    return re.sub(r"\d+", "0", text)


@pytest.mark.slow
def test_splits_share_no_prompt(family: type[ProceduralTask]) -> None:
    task = family(test=1000, validation=1000)
    prompts = {split: {p.prompt for p in task.problems(split)[:5000]} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]


def test_splits_stay_apart_across_difficulties(family: type[ProceduralTask]) -> None:
    easy, hard = family(steps=2), family(steps=family.hardest, test=200)
    assert {split_of(p.prompt) for p in sample(easy)} == {"train"}
    assert {split_of(p.prompt) for p in hard.problems("test")} == {"test"}


@pytest.mark.slow
def test_held_out_prompts_are_all_different(family: type[ProceduralTask]) -> None:
    for split, size in (("validation", 2000), ("test", 1000)):
        problems = family().problems(split)
        assert len(problems) == size
        assert len({p.prompt for p in problems}) == size
        assert len({p.id for p in problems}) == size


def test_problem_depends_on_its_index_alone(family: type[ProceduralTask]) -> None:
    first, second = family(test=50), family(test=20, train=100)
    assert [first.problems("train")[i] for i in (90, 3)] == [second.problems("train")[i] for i in (90, 3)]
    assert first.problems("test")[:20] == second.problems("test")[:]


def digest(task: ProceduralTask) -> str:
    text = "".join(f"{p.prompt}{p.gold}{p.solution}" for p in task.problems("test")[:50])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def test_problems_do_not_change_between_versions(family: type[ProceduralTask]) -> None:
    """Scores are comparable only if the test set is: a change here needs a line in the changelog."""
    assert digest(family()) == DIGESTS[family.name]


def test_training_is_a_sequence(family: type[ProceduralTask]) -> None:
    train = family().problems("train")
    assert isinstance(train, Sequence)
    assert len(train) == 1_000_000
    assert train[999_999] == train[-1]
    assert train[5:7] == [train[5], train[6]]
    with pytest.raises(IndexError, match="no train problem 1000000"):
        train[1_000_000]


@pytest.mark.slow
def test_every_solution_verifies(family: type[ProceduralTask]) -> None:
    task = family(test=400)
    problems = [*task.problems("test"), *sample(task, 400)]
    for problem, verdict in zip(problems, task.verify_batch([(p, str(p.solution)) for p in problems]), strict=True):
        assert (verdict.score, verdict.strict) == (1.0, 1.0), (problem, verdict)


@pytest.mark.slow
def test_other_solutions_do_not_verify(family: type[ProceduralTask]) -> None:
    task = family(test=300)
    problems = task.problems("test")
    pairs = [
        (problem, str(other.solution))
        for problem, other in zip(problems, [*problems[1:], problems[0]], strict=True)
        if problem.gold != other.gold
    ]
    assert all(verdict.score == 0.0 for verdict in task.verify_batch(pairs))


@pytest.mark.slow
def test_language_is_small() -> None:
    tokens: set[str] = set()
    for task in (WordMath(), Algebra(), Functions()):
        texts = [p.prompt for p in sample(task)] + [str(p.solution) for p in sample(task)]
        texts += itertools.islice(task.documents(), 500)
        for text in texts:
            found = TOKEN.findall(text)
            assert "".join(found) == text
            tokens.update(found)
    assert len(tokens) <= VOCABULARY


def test_texts_are_short(family: type[ProceduralTask]) -> None:
    for problem in sample(family()):
        assert len(TOKEN.findall(problem.prompt)) <= PROMPT_TOKENS, problem.prompt
        assert len(TOKEN.findall(str(problem.solution))) <= SOLUTION_TOKENS, problem.solution


@pytest.mark.slow
def test_forms_are_many(family: type[ProceduralTask]) -> None:
    problems = sample(family(), 4000)
    assert len({template(p) for p in problems}) >= {"wordmath": 2000, "algebra": 100, "functions": 1500}[family.name]
    assert len({p.prompt for p in problems}) >= 0.9 * len(problems)


def test_answers_are_not_guessable() -> None:
    for task in (WordMath(), Algebra()):
        golds = [p.gold for p in sample(task)]
        assert max(golds.count(gold) for gold in set(golds)) < 0.12 * len(golds)


def test_steps_raise_the_difficulty(family: type[ProceduralTask]) -> None:
    lengths = []
    for steps in range(1, family.hardest + 1):
        lines = [str(p.solution).count("\n") for p in sample(family(steps=steps), 400)]
        # a sum of fractions writes each of the two on the common denominator, on a line of its own
        assert max(lines) <= steps + (family is Algebra and steps >= 3)
        lengths.append(sum(lines) / len(lines))
    assert lengths == sorted(set(lengths))


def test_largest_bounds_the_numbers() -> None:
    for problem in sample(WordMath(largest=10)):
        assert max(int(n) for n in re.findall(r"\d+", problem.prompt + str(problem.solution))) <= 30


def test_wordmath_steps_are_true_and_end_in_the_answer() -> None:
    for problem in sample(WordMath()):
        *lines, last = str(problem.solution).split("\n")
        for line in lines:
            left, right = line.split(" = ")
            assert eval(left) == int(right), line
        assert last == f"#### {problem.gold}" == f"#### {lines[-1].split(' = ')[1]}"


def test_algebra_equations_hold_at_the_answer() -> None:
    checked = 0
    for problem in sample(Algebra()):
        match = re.fullmatch(r"Solve (.+) = (.+) for ([a-z])\.", problem.prompt)
        if match and "and" not in problem.prompt and "^" not in problem.prompt:
            left, right, letter = match.groups()
            value = eval(problem.gold)
            sides = [eval(_python(side, letter), {letter: value}) for side in (left, right)]
            assert sides[0] == pytest.approx(sides[1]), problem.prompt
            checked += 1
    assert checked > 50


def _python(side: str, letter: str) -> str:
    return side.replace(" (", " * (").replace(f" {letter}", f" * {letter}").replace("+ *", "+").replace("- *", "-")


def outcomes(problem: Problem, source: str) -> list[Any]:
    """What the function in `source` returns for each hidden test, the exception's type where it raises."""
    space: dict[str, Any] = {}
    exec(source, space)
    results = []
    for args, _ in problem.gold["cases"]:
        try:
            results.append(space[problem.gold["entry_point"]](*args))
        except (IndexError, TypeError, ValueError) as error:
            results.append(type(error))
    return results


def test_functions_solutions_agree_with_the_hidden_tests() -> None:
    for problem in sample(Functions()):
        expected = [value for _, value in problem.gold["cases"]]
        found = outcomes(problem, str(problem.solution))
        assert found == expected, problem
        assert [type(value) for value in found] == [type(value) for value in expected]
        assert 4 <= len(expected) <= 6


def test_functions_hidden_tests_catch_small_errors() -> None:
    """Nearly every solution with one constant or one operation changed fails a hidden test."""
    swaps = {">": "<", "<": ">", "sum": "max", "max": "min", "min": "max", "+": "-", "*": "+", "==": "!="}
    caught = tried = 0
    for problem in sample(Functions(), 800):
        expected = [value for _, value in problem.gold["cases"]]
        body = str(problem.solution)
        start = body.index("\n")
        wrong = [(m.start(), m.end(), str(int(m[0]) + 1)) for m in re.finditer(r"\b\d\b", body)]
        wrong += [(m.start(), m.end(), swaps[m[0]]) for m in re.finditer(r"[<>+*]|sum|max|min|==", body)]
        for low, high, new in wrong:
            if low > start:
                tried += 1
                caught += outcomes(problem, body[:low] + new + body[high:]) != expected
    assert tried > 1000
    # the rest are no errors: `n * n > 3` and `n + n > 3` agree on whole numbers
    assert caught / tried > 0.96


def test_functions_are_tens_of_thousands() -> None:
    """Bodies, wording aside: drawn 4,000 times, few come twice, so there are many (birthday bound)."""
    bodies = [str(p.solution).split("\n", 1)[1] for p in sample(Functions(), 4000)]
    repeats = len(bodies) - len(set(bodies))
    assert len(bodies) ** 2 / (2 * max(repeats, 1)) > 10_000


def test_documents_are_endless_repeatable_and_without_solutions(family: type[ProceduralTask]) -> None:
    task = family(test=300, validation=300)
    texts = list(itertools.islice(task.documents(), 2000))
    assert texts[:50] == list(itertools.islice(family(test=5).documents(), 50))
    held_out = {p.prompt for split in ("test", "validation") for p in task.problems(split)}
    assert not held_out & set(texts)
    assert not any("####" in text or "boxed" in text for text in texts)
    assert not any('"""' in text and "return " in text.split('"""')[2] for text in texts if text.startswith("def"))


def test_arithmetic_documents_are_true() -> None:
    for task in (WordMath(), Algebra()):
        for text in itertools.islice(task.documents(), 1, 400, 2):
            for line in text.split("\n"):
                left, right = line.replace("^", "**").split(" = ")
                assert eval(left) == pytest.approx(eval(right)), line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "option steps is 0"),
        ({"steps": 9}, "option steps is 9, give a whole number from 1 to"),
        ({"steps": True}, "option steps is True"),
        ({"largest": 1000}, "option largest is 1000"),
        ({"test": 0}, "option test is 0"),
    ],
)
def test_bad_options_are_refused(family: type[ProceduralTask], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        family(**options)


def test_unknown_split_is_refused(family: type[ProceduralTask]) -> None:
    with pytest.raises(UserError, match="no split 'dev', the splits are train, validation, test"):
        family().problems("dev")


@pytest.mark.slow
def test_too_many_problems_are_refused() -> None:
    with pytest.raises(UserError, match="different test problems were found: ask for fewer"):
        list(Algebra(steps=1, largest=8, test=100_000).problems("test"))


def test_dice_keep_their_stream() -> None:
    """The draws that all problems are made from, fixed for ever."""
    dice = Dice("smallwit")
    assert [dice.between(0, 99) for _ in range(5)] == DICE_STREAM
    assert {dice.two("ab") for _ in range(50)} == {("a", "b"), ("b", "a")}
