"""Steps that ask a model, as a recipe writes them: what cannot work is refused when it is read."""

from typing import Any

import pytest
from pydantic import ValidationError

from smallwit.data.generation import PromptTemplate
from smallwit.data.steps.augment import Augment
from smallwit.data.steps.difficulty import Difficulty
from smallwit.data.steps.generate import Generate
from smallwit.data.steps.verify import Verify

GENERATE = {"kind": "generate", "teachers": ["t"]}
AUGMENT = {"kind": "augment", "teacher": "t"}


def test_names_and_plain_texts_are_short_for_sections() -> None:
    step = Generate.model_validate(GENERATE | {"prompt": "Solve: {problem}"})
    assert step.teachers[0].model == "t"
    prompt = step.prompt.fill({"problem": "1 + 1?", "answer": "", "solution": ""})
    assert prompt.messages == ({"role": "user", "content": "Solve: 1 + 1?"},)


def test_a_template_fills_system_and_prefix_and_keeps_braces() -> None:
    template = PromptTemplate(system="Answer {{plainly}}.", user="{problem} \\boxed{{}}", prefix="{answer}")
    prompt = template.fill({"problem": "P", "answer": "A {x}"})
    assert [message["content"] for message in prompt.messages] == ["Answer {plainly}.", "P \\boxed{}"]
    assert prompt.prefix == "A {x}"


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        (Generate, {"prompt": "Solve it."}, "no place {problem}, so all problems would get the same prompt"),
        (Generate, {"prompt": "{problem} {porblem}"}, "unknown place {porblem}; it can have problem, answer, solution"),
        (Generate, {"prompt": "{problem} \\boxed{}"}, "a brace itself is written {{ or }}"),
        (Generate, {"prompt": "{problem} }"}, "'}'"),
        (Generate, {"teachers": ["t", "t"]}, "teacher t is named twice"),
        (Generate, {"draw": {"samples": 2, "temperature": 0}}, "2 samples at temperature 0 are all the same"),
        (Generate, {"budget": {}}, "a budget needs tokens or dollars"),
        (Generate, {"budget": {"dollars": 1}}, "in dollars, and t has no price"),
        (Verify, {"kind": "verify", "keep": {"rule": "all", "count": 2}}, "keep: all has no count"),
        (Verify, {"kind": "verify", "keep": {"rule": "diverse", "count": 1}}, "give a count above 1"),
        (Difficulty, {"kind": "difficulty", "student": "s", "band": [0.3, 0.3]}, "no pass rate of 8 samples"),
        (Augment, {"ways": [{"kind": "shorten"}]}, "shorten needs max_tokens"),
        (Augment, {"ways": [{"kind": "steps", "prompt": "{problem}"}]}, "no place {solution}"),
        (Augment, {"ways": [{"kind": "rephrase", "prompt": "again"}]}, "no place {problem}"),
        (Augment, {"ways": [{"kind": "backward"}], "check": {"draw": {"samples": 1}}}, "at least 2 samples"),
    ],
)
def test_what_cannot_work_is_refused_by_name(step: Any, changes: dict[str, Any], message: str) -> None:
    base = {Generate: GENERATE, Augment: AUGMENT}.get(step, {})
    with pytest.raises(ValidationError) as error:
        step.model_validate(base | changes)
    assert message in str(error.value)


@pytest.mark.parametrize("answered", [False, True])
def test_without_a_band_what_is_never_solved_stays_if_there_is_an_answer_to_learn_from(answered: bool) -> None:
    step = Difficulty.model_validate({"kind": "difficulty", "student": "s"})
    assert [step.keeps(rate, answered=answered) for rate in (0.0, 0.125, 0.875, 1.0)] == [answered, True, True, False]


def test_a_band_holds_both_of_its_ends() -> None:
    step = Difficulty.model_validate({"kind": "difficulty", "student": "s", "band": [0.0, 0.5]})
    assert [step.keeps(rate, answered=False) for rate in (0.0, 0.5, 0.625)] == [True, True, False]
