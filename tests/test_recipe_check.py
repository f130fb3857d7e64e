"""What the parts of a recipe say of each other, and of their tasks, is refused before anything runs if it cannot be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recipe_samples import RECIPE, line_of, refusal
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import load_recipe, read_recipe


class TestCheck:
    """What the parts of a recipe say of each other, refused before anything runs."""

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("from: sft", "from: sfft", "from 'sfft' is no model and no earlier stage; did you mean 'sft'?"),
            ("from: sft", "from: baseline", "from 'baseline' comes after 'rl', which needs it; put it before"),
            ("from: sft", "from: rl", "from 'rl' is this stage itself"),
            ("from: sft", "from: collect", "from 'collect' is a rejection_sampling stage, which makes no model"),
            ("model: teacher", "model: sft", "model 'sft' comes after 'collect', which needs it; put it before"),
            ("teacher: teacher", "teacher: baseline", "teacher 'baseline' comes after 'rl'"),
            ("teacher: teacher", "teacher: techer", "teacher 'techer' is no model and no earlier stage; did you mean"),
            ("from: collect", "from: colect", "demonstrations from 'colect': it is no stage; did you mean 'collect'?"),
            (
                "from: collect",
                "from: teacher",
                "demonstrations from 'teacher': it is a train stage, which makes no rows",
            ),
            ("- name: collect", "- name: sft", "stage 'sft' has the name of stages[1]; give it another"),
            ("- name: sft", "- name: small", "stage 'small' has the name of model 'small'; give it another"),
            ("prompts: 4", "prompts: 4, tasks: [algbra]", "unknown task 'algbra'; did you mean 'algebra'?"),
            ("prompts: 4", "prompts: 4, tasks: []", "tasks is empty; name a task"),
            ("problems: 50", "tasks: [wordmath, wordmath]", "task 'wordmath' is named twice; once is enough"),
            (
                "prompts: 4",
                "prompts: 4, tasks: [algebra, algebra]",
                "task 'algebra' is named twice; give it a ",
            ),
            ("prompts: 4", "prompts: 4, weights: {algebra: 2}", "weights has no number for task 'wordmath'; add one"),
            (
                "prompts: 4",
                "prompts: 4, tasks: [algebra], weights: {algbra: 2}",
                "weights: the source does not read a task 'algbra'; did you mean 'algebra'?",
            ),
            (
                "prompts: 4",
                "prompts: 4, weights: sise",
                "weights: give size, equal, or a number for each task",
            ),
            ("prompts: 4", "prompts: 4, weights: {algebra: 0}", "weights: give each task a number above 0"),
            ("problems: 50", "stages: [rl, slf]", "evaluation.stages: 'slf' is no model and no train stage; did you"),
            (
                "seed: 1",
                "seed: 1\nshared_stages: [techer]",
                "shared_stages: 'techer' is no stage; did you mean 'teacher'?",
            ),
            ("problems: 50", "stages: [rl]", "comparison with 'baseline', which is not measured"),
            (
                "a: rl, b",
                "a: rll, b",
                "comparison with 'rll', which is no model and no train stage; did you mean 'rl'?",
            ),
            ("a: rl, b", "a: baseline, b", "'baseline' is compared with itself"),
            (
                "comparisons:",
                "teacher: rll\ncomparisons:",
                "teacher 'rll', which is no model and no train stage; did you",
            ),
            ("comparisons:", "baseline: small\ncomparisons:", "baseline 'small', which is not measured; add it"),
            ("tokenizer: {vocabulary: 300}\n", "", "models.big is new, so the recipe needs a section 'tokenizer'"),
            ("hidden: 64", "hidden: 65", "models.big: hidden 65 cannot be divided among 4 heads"),
            ("hidden: 64", "hidden: 60", "models.big: a head is 15 wide, rotary positions need an even width"),
            ("kv_heads: 2", "kv_heads: 3", "models.big: 4 heads cannot be divided among 3 kv_heads"),
            (
                "  big: {",
                "  odd: {folder: none}\n  big: {",
                "models.odd: folder none is not there; name a model folder",
            ),
            (
                "  big: {",
                "  odd: {folder: ../runs/x/stages/01-sft/artifact}\n  big: {",
                "folder ../runs/x/stages/01-sft/artifact is not there; run the recipe that makes it first",
            ),
            ("  big: {", "  odd: {hub: a/b}\n  a/b: {hub: a/b}\n  big: {", "the name 'a/b' in models must be made of"),
            ("  big: {new", "  big: {revision: x, new", "models.big: revision belongs to a hub model"),
            ("  wordmath: {steps: 2, ", "  wordmaths: {steps: 2, ", "wordmaths"),
            ("  wordmath: {steps: 2, ", "  wordmath: {step: 2, ", "step"),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(
        self, refused_recipe: Callable[..., str], old: str, new: str, message: str
    ) -> None:
        said = refused_recipe(old, new)
        assert said.startswith("r.yaml:")
        assert message in said

    def test_the_line_is_that_of_the_key_that_is_wrong(self, refused_recipe: Callable[..., str]) -> None:
        assert refused_recipe("from: sft", "from: sfft").startswith(f"r.yaml:{line_of('from: sft')}: ")

    def test_an_override_is_named_instead_of_the_line_it_replaced(self, write_recipe: Callable[[str], Path]) -> None:
        recipe, lines = read_recipe(write_recipe(RECIPE), ["stages.rl.from=sfft"])
        said = refusal(lambda: check_recipe(recipe, Path(), None, lines=lines, read_data=False))
        assert said.startswith("--set stages.rl.from=sfft: from 'sfft' is no model")

    def test_an_override_of_a_task_s_option_is_named_beside_the_line(self, write_recipe: Callable[[str], Path]) -> None:
        recipe, lines = read_recipe(write_recipe(RECIPE), ["tasks.algebra.steps=99"])
        said = refusal(lambda: check_recipe(recipe, Path(), None, lines=lines, read_data=False))
        assert said.startswith(f"r.yaml:{line_of('  algebra:')}: task algebra: option steps is 99")
        assert said.endswith("(with --set tasks.algebra.steps=99)")

    def test_a_recipe_without_a_file_is_called_by_its_name(self, write_recipe: Callable[[str], Path]) -> None:
        recipe = load_recipe(write_recipe(RECIPE), ["stages.rl.from=sfft"])
        assert refusal(lambda: check_recipe(recipe, Path(), None)).startswith("recipe walk: from 'sfft'")


class TestEqualCompute:
    """A stage may match the compute of an earlier stage, or of one whose path has declared all its FLOPs."""

    @staticmethod
    def baseline_first(*edits: tuple[str, str]) -> str:
        """The recipe with the baseline moved to the front, so that its target comes later."""
        start, end = RECIPE.index("  - name: baseline"), RECIPE.index("evaluation:")
        first = RECIPE.index("  - name: teacher")
        text = RECIPE[:first] + RECIPE[start:end] + RECIPE[first:start] + RECIPE[end:]
        for old, new in edits:
            assert text.count(old) == 1
            text = text.replace(old, new)
        return text

    def check(self, path: Path) -> None:
        recipe, lines = read_recipe(path)
        check_recipe(recipe, Path(), None, lines=lines, read_data=False)

    def test_a_later_stage_whose_path_declares_flops_can_be_matched(self, write_recipe: Callable[[str], Path]) -> None:
        self.check(write_recipe(self.baseline_first((", from: collect", ""))))

    def test_a_later_stage_that_learns_from_answers_is_refused_with_the_reason(
        self, write_recipe: Callable[[str], Path]
    ) -> None:
        said = refusal(lambda: self.check(write_recipe(self.baseline_first())))
        assert "'collect', whose cost counts, has no budget in flops" in said

    def test_a_later_stage_with_steps_on_its_path_is_refused_with_the_reason(
        self, write_recipe: Callable[[str], Path]
    ) -> None:
        path = write_recipe(self.baseline_first(("flops: 1e12", "steps: 10")))
        said = refusal(lambda: self.check(path))
        assert "equal_compute 'rl' comes later" in said
        assert "'sft', whose cost counts, has no budget in flops" in said

    def test_an_earlier_stage_with_steps_can_be_matched(self, write_recipe: Callable[[str], Path]) -> None:
        self.check(write_recipe(RECIPE.replace("flops: 1e12", "steps: 10")))

    def test_a_stage_cannot_match_a_path_it_is_part_of(self, write_recipe: Callable[[str], Path]) -> None:
        path = write_recipe(RECIPE.replace("flops: 1e12", "equal_compute: rl"))
        assert "equal_compute 'rl': the cost of 'rl' depends on 'sft' itself" in refusal(lambda: self.check(path))

    def test_two_stages_cannot_match_each_other(self, write_recipe: Callable[[str], Path]) -> None:
        path = write_recipe(RECIPE.replace("flops: 2e12", "equal_compute: baseline"))
        assert "the cost of 'baseline' depends on 'rl' itself" in refusal(lambda: self.check(path))

    @pytest.mark.parametrize("target", ["collect", "small", "baselin"])
    def test_only_train_stages_can_be_matched(self, refused_recipe: Callable[..., str], target: str) -> None:
        assert f"equal_compute '{target}' is no train stage" in refused_recipe(
            "equal_compute: rl", f"equal_compute: {target}"
        )


OWN_TASK = """
from smallwit.errors import UserError
from smallwit.tasks.base import Problem, Task
from smallwit.verify import Verdict

class Own(Task):
    name = "own"

    def problems(self, split):
        if split == "validation":
            raise UserError("task own: there is no validation split; use train or test")
        for number in range(5):
            yield Problem(f"own-{number}", f"What is {number} + 1?", str(number + 1))

    def verify(self, problem, response):
        right = float(problem.gold in response)
        return Verdict(right, right, None, "correct" if right else "wrong")
"""


OWN_RECIPE = """\
name: own
tasks: {{own: {{class: own.py:Own}}}}
tokenizer: {{vocabulary: 300}}
models:
  small: {{new: {{hidden: 32, layers: 1, heads: 2, kv_heads: 1, intermediate: 64}}}}
stages:
  - name: first
    kind: train
    from: small
    sources:
      own: {source}
    objectives:
      - {{kind: {objective}, source: own}}
    steps: 5
    {more}
"""


class TestData:
    """Before anything runs, each task must have the problems that the stages will ask of it."""

    @staticmethod
    def check(write_recipe: Callable[[str], Path], source: str, objective: str, more: str = "") -> None:
        Path("own.py").write_text(OWN_TASK)
        recipe, lines = read_recipe(write_recipe(OWN_RECIPE.format(source=source, objective=objective, more=more)))
        check_recipe(recipe, Path(), None, lines=lines)

    def test_rollouts_need_problems_alone(self, write_recipe: Callable[[str], Path]) -> None:
        self.check(write_recipe, "{kind: rollouts, prompts: 2, group: 2, skip: 4}", "grpo")

    @pytest.mark.parametrize(
        ("source", "objective", "more", "message"),
        [
            (
                "{kind: demonstrations, batch: 2}",
                "cross_entropy",
                "",
                "r.yaml:11: task own has no worked solutions to learn from; collect some by a rejection_sampling stage",
            ),
            ("{kind: text, batch: 2}", "cross_entropy", "", "r.yaml:11: task own has no documents"),
            (
                "{kind: rollouts, prompts: 2, group: 2, skip: 5}",
                "grpo",
                "",
                "r.yaml:11: task own has no train problems behind the first 5",
            ),
            (
                "{kind: rollouts, prompts: 2, group: 2}",
                "grpo",
                "validation: {every: 5}",
                "r.yaml:15: task own: there is no validation split; use train or test",
            ),
        ],
    )
    def test_a_task_without_what_a_stage_needs_is_refused(
        self, write_recipe: Callable[[str], Path], source: str, objective: str, more: str, message: str
    ) -> None:
        assert refusal(lambda: self.check(write_recipe, source, objective, more)).startswith(message)

    def test_benchmark_files_that_are_not_in_the_data_folder_are_refused(
        self, write_recipe: Callable[[str], Path], tmp_path: Path
    ) -> None:
        text = OWN_RECIPE.format(source="{kind: demonstrations, batch: 2}", objective="cross_entropy", more="")
        recipe, lines = read_recipe(write_recipe(text.replace("own: {class: own.py:Own}", "gsm8k: {}")))
        said = refusal(lambda: check_recipe(recipe, Path(), tmp_path, lines=lines))
        assert said.startswith("r.yaml:11: ")
        assert str(tmp_path) in said
