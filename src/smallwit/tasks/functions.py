"""Small Python functions from a signature and a docstring, in the form of HumanEval, judged by hidden tests.

A function is a chain of one to three operations from `functions_library`. The hidden tests are computed here from the
operations' own closures; a chain is used only if leaving out any one operation changes a test's outcome.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from smallwit.tasks.base import Problem
from smallwit.tasks.functions_library import BY_TYPE, LETTERS, NOT_LAST, Operation
from smallwit.tasks.procedural import Dice, DraftProblem, ProceduralTask, split_of
from smallwit.verify import Verdict
from smallwit.verify.code import CodeJob, judge_code
from smallwit.verify.consent import LEAST_ISOLATION, known_level

NAMES = ("f", "g", "solve")
PARAMETERS = {
    "list": (("xs",), ("nums",)),
    "int": (("n",), ("m",)),
    "str": (("s",), ("text",)),
    "pair": (("n", "m"), ("a", "b")),
}
SOURCES = ("list", "list", "list", "str", "int", "pair")
# The number of hidden tests, and of inputs from which they are chosen.
CASES = 6
CANDIDATES = 16


class AppliedOperation(NamedTuple):
    """An operation with its constant: a number, a letter, or "k" if the function takes it as a parameter."""

    operation: Operation
    constant: Any


class HiddenTest(NamedTuple):
    """The arguments of one hidden test. `extra` is the value of the parameter k, `None` if there is none."""

    args: list[Any]
    extra: int | None

    def arguments(self) -> list[Any]:
        return self.args if self.extra is None else [*self.args, self.extra]


def _inputs(source: str) -> tuple[list[Any], ...]:
    """Return a fixed store of arguments for functions of this source type."""
    dice = Dice(f"inputs/{source}")
    if source == "int":
        # every stretch of 16 holds every number once
        return tuple([number * 5 % 16] for number in range(512))

    def one() -> list[Any]:
        if source == "list":
            return [[dice.between(0, 12) for _ in range(dice.between(4, 9))]]
        if source == "str":
            return ["".join(dice.pick("aaabbbcccxyz") for _ in range(dice.between(5, 8)))]
        return [dice.between(0, 12), dice.between(0, 12)]

    return tuple(one() for _ in range(512))


STORE = {source: _inputs(source) for source in BY_TYPE}


def _chain(dice: Dice, source: str, length: int, largest: int) -> list[AppliedOperation]:
    """Return `length` operations that fit each other, starting from type `source`, with constants up to `largest`.

    No operation comes twice in a row: "add 3 and then add 4" is one step said as two."""
    steps: list[AppliedOperation] = []
    current, previous = source, None
    for rest in range(length, 0, -1):
        choices = (BY_TYPE if rest == 1 else NOT_LAST)[current]
        operation = dice.pick(choices)
        while operation is previous:
            operation = dice.pick(choices)
        previous = operation
        constant: Any = None
        if operation.constants:
            constant = dice.between(operation.constants[0], min(operation.constants[1], largest))
        elif operation.letters:
            constant = dice.pick(LETTERS)
        steps.append(AppliedOperation(operation, constant))
        current = operation.gives
    return steps


def _result(steps: Sequence[AppliedOperation], source: str, call: HiddenTest) -> Any:
    """Return the value of the function, or `None` where it would raise (no operation returns `None`)."""
    args, extra = call
    value: Any = args if source == "pair" else args[0]
    try:
        for operation, constant in steps:
            value = operation.apply(value, extra if constant == "k" else constant)
    except (IndexError, ValueError, TypeError, AttributeError):
        return None
    return value


def _cases(
    dice: Dice, steps: Sequence[AppliedOperation], source: str, extras: Sequence[int] | None
) -> list[tuple[HiddenTest, Any]] | None:
    """Return hidden tests for the chain; `None` if their results do not depend on the input and on every operation."""
    start = dice.between(0, len(STORE[source]) - CANDIDATES)
    store = STORE[source][start : start + CANDIDATES]
    calls: Iterable[HiddenTest] = (HiddenTest(args, extras[i % 2] if extras else None) for i, args in enumerate(store))
    if steps[-1].operation.gives == "bool":
        calls = _at_the_border(steps, source, calls)
    cases = []
    for call in calls:
        value = _result(steps, source, call)
        if value is not None:
            cases.append((call, value))
            if len(cases) == CASES:
                break
    if len(cases) < CASES or all(value == cases[0][1] for _, value in cases):
        return None
    for index, (operation, _) in enumerate(steps):
        if operation.takes == operation.gives or (index == len(steps) - 1 and operation.takes != "pair"):
            fewer = [*steps[:index], *steps[index + 1 :]]
            if all(_result(fewer, source, call) == value for call, value in cases):
                return None
    return cases


def _at_the_border(steps: Sequence[AppliedOperation], source: str, calls: Iterable[HiddenTest]) -> list[HiddenTest]:
    """Return `calls` with those first between which a yes-or-no answer turns, which tell `> 5` from `> 6`."""
    before = [(value, call) for call in calls if (value := _result(steps[:-1], source, call)) is not None]
    before.sort(key=_value)
    operation, constant = steps[-1]
    answers = [operation.apply(value, call.extra if constant == "k" else constant) for value, call in before]
    turns = [i for i in range(1, len(before)) if answers[i] != answers[i - 1]][:2]
    first = sorted({i + shift for i in turns for shift in (-1, 0)})
    return [before[i][1] for i in first] + [call for i, (_, call) in enumerate(before) if i not in first]


def _value(pair: tuple[Any, HiddenTest]) -> Any:
    return pair[0]


class Functions(ProceduralTask):
    """Small functions of `fewest` to `steps` operations. `gold` is `{"entry_point": name, "cases": [[arguments,
    expected], ...]}`, the response the whole function as bare code."""

    name = "functions"
    answer_kind: ClassVar = "code"
    hardest = 3
    largest_numbers = 9

    def __init__(
        self,
        *,
        steps: int = 3,
        fewest: int | None = None,
        largest: int = 9,
        train: int = 1_000_000,
        validation: int = 2_000,
        test: int = 1_000,
        isolation: str = LEAST_ISOLATION,
    ) -> None:
        self.isolation = known_level(isolation)
        super().__init__(steps=steps, largest=largest, train=train, validation=validation, test=test)
        self.fewest = min(2, steps) if fewest is None else fewest
        self._check("fewest", self.fewest, 1, steps)

    def draft(self, dice: Dice, split: str) -> DraftProblem | None:
        """Return a problem from a chain of operations, worded in one of several ways; `None` for a bad chain."""
        source = dice.pick(SOURCES)
        steps = _chain(dice, source, dice.between(self.fewest, self.steps), self.largest)
        parameters = dice.pick(PARAMETERS[source])
        extras = None
        numbers = [i for i, step in enumerate(steps) if step.operation.constants]
        if len(numbers) == 1 and source != "pair" and dice.chance(0.3):
            operation, constant = steps[numbers[0]]
            low, high = operation.constants or (0, 0)
            extras = (constant, dice.between(low, min(high, self.largest)))
            steps[numbers[0]] = AppliedOperation(operation, "k")
            parameters = (*parameters, "k")
        name = dice.pick(NAMES)
        signature = f"def {name}({', '.join(parameters)}):"
        prompt = f'{signature}\n    """{_said(dice, steps, parameters)}"""'
        if split_of(prompt) != split:
            return None
        cases = _cases(dice, steps, source, extras)
        if cases is None:
            return None
        gold = {"entry_point": name, "cases": [[call.arguments(), value] for call, value in cases]}
        return DraftProblem(prompt, gold, f"{signature}\n{_body(steps, parameters)}")

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Return the verdict of the hidden tests on the response's code."""
        return self.verify_batch([(problem, response)])[0]

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Return the verdicts on many responses, in order, judged by the process-wide pool."""
        return judge_code([_job(problem, response) for problem, response in pairs], isolation=self.isolation)

    def gold_trouble(self, gold: Any) -> str | None:
        """Return why a gold answer cannot be used, or `None`: it needs a function's name and cases."""
        named = isinstance(gold, dict) and isinstance(gold.get("entry_point"), str)
        cases = gold.get("cases") if named else None
        if isinstance(cases, list) and cases and all(map(_is_case, cases)):
            return None
        return 'it must be an object {"entry_point": name, "cases": [[arguments, expected], ...]}'

    def documents(self) -> Iterator[str]:
        """Yield endless text for pretraining: problems without solutions, and functions that answer no problem."""
        dice = Dice(f"{self.name}/{self.largest}/code")
        for statement in self.statements():
            yield statement
            yield _code_alone(dice, self.steps, self.largest)


def _is_case(case: Any) -> bool:
    return isinstance(case, list) and len(case) == 2 and isinstance(case[0], list)


def _job(problem: Problem, response: str) -> CodeJob:
    gold = problem.gold
    cases = [(tuple(args), expected) for args, expected in gold["cases"]]
    return CodeJob(prompt=problem.prompt, entry_point=gold["entry_point"], response=response, cases=cases)


def _body(steps: Sequence[AppliedOperation], parameters: Sequence[str]) -> str:
    """Return the function's body: one line for each operation, the last one returned."""
    variable, lines = parameters[0], []
    for operation, constant in steps[:-1]:
        expression = operation.code.format(v=variable, w=parameters[-1], k=constant)
        if operation.gives != operation.takes:
            variable = "n"
        lines.append(f"    {variable} = {expression}")
    operation, constant = steps[-1]
    lines.append(f"    return {operation.code.format(v=variable, w=parameters[-1], k=constant)}")
    return "\n".join(lines)


def _said(dice: Dice, steps: Sequence[AppliedOperation], parameters: Sequence[str]) -> str:
    """Return the docstring's sentence: nested noun phrases, instructions in order, or the result first."""
    form = dice.between(0, 3)
    if len(steps) == 1 or (form == 0 and all(step.operation.of for step in steps)):
        return _nested(dice, steps, parameters)
    done, noun, last = steps, "the result", steps[-1]
    if last.operation.of and dice.chance(0.6):
        done = steps[:-1]
        noun = dice.pick(last.operation.of).format(v="the result", k=last.constant)
    orders = [dice.pick(o.do).format(v=parameters[0], w=parameters[-1], k=k) for o, k in done]
    given = " and ".join(parameters)
    if form == 1:
        return f"Return {noun} after you {' and then '.join(orders)}."
    if form == 2:
        return f"Take {given}. First {', then '.join(orders)}. Return {noun}."
    return f"Given {given}, {', '.join(orders)} and return {noun}."


def _nested(dice: Dice, steps: Sequence[AppliedOperation], parameters: Sequence[str]) -> str:
    phrase = parameters[0]
    for operation, constant in steps:
        forms = operation.of or tuple(f"{{v}}, then {order}" for order in operation.do)
        phrase = dice.pick(forms).format(v=phrase, w=parameters[-1], k=constant)
    return f"Return {phrase}."


def _code_alone(dice: Dice, longest: int, largest: int) -> str:
    """Return a function without a docstring: code to learn the language from, the answer to no problem."""
    source = dice.pick(SOURCES)
    steps = _chain(dice, source, dice.between(1, longest), largest)
    parameters = dice.pick(PARAMETERS[source])
    return f"def {dice.pick(NAMES)}({', '.join(parameters)}):\n{_body(steps, parameters)}"
