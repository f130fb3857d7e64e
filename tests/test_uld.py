"""A teacher with another tokenizer: where the two tokenisations meet, and the distance of the sorted probabilities."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import chat_templates as families
import pipeline_recipes as micro
from objective_cases import CHUNK, TOKENS, VOCABULARY, random_inputs
from pipeline_recipes import HEAD
from recipe_samples import refusal
from smallwit.models.build import new_model, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.conversation import Conversation, encode_prompt
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.objectives.batch import Example
from smallwit.objectives.divergence import DivergenceStatistic
from smallwit.objectives.head import token_statistics
from smallwit.objectives.kinds.divergences import TotalVariation
from smallwit.objectives.kinds.uld import ULD, ULDLoss
from smallwit.objectives.teacher import RankedTeacher, TeacherHead
from smallwit.training.cross_tokenizer import CrossTokenizerSource, CrossTokenizerTeacher
from smallwit.training.loop import Trainer, TrainingBudget
from smallwit.training.settings import Optimizer
from smallwit.training.sources import StepBatch
from tiny import relative_error, tiny_model, without

TEXT = "Tom has 3 eggs and Ana has 4 cafés. How many are in the café? As she says: naïve, 3 + 4 = 7 - 0 * 9 / 1#"


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The student's: knows all words of the text whole."""
    return train_tokenizer([TEXT], 400)


@cache
def other_tokenizer() -> PreTrainedTokenizerFast:
    """The teacher's: spells some of them."""
    return train_tokenizer([TEXT], 270)


@cache
def other_teacher() -> CrossTokenizerTeacher:
    model = new_model(
        hidden=24,
        layers=1,
        heads=2,
        kv_heads=1,
        intermediate=48,
        max_length=128,
        vocabulary_rows=len(other_tokenizer()) + 5,
        tokenizer=other_tokenizer(),
        seed=3,
    ).eval()
    return CrossTokenizerTeacher("teacher", model, ChatTokenizer(other_tokenizer()), ChatTokenizer(tokenizer()))


def example(prompt: str, answer: str) -> Example:
    ids = ChatTokenizer(tokenizer()).encode_prompts([prompt])[0]
    return Example(ids + ChatTokenizer(tokenizer()).encode_completions([answer])[0], len(ids), prompt=prompt)


def spelled(prompt: str, answer: str) -> Example:
    """As a rollout may do it: letter by letter, an é in two tokens."""
    whole = example(prompt, answer)
    pieces = "".join(tokenizer().convert_ids_to_tokens(whole.tokens[whole.prompt_length : -1]))
    ids = tokenizer().convert_tokens_to_ids(list(pieces))
    return replace(whole, tokens=[*whole.tokens[: whole.prompt_length], *ids, tokenizer().eos_token_id])


EXAMPLES = [
    example("Tom has 3 eggs?", "3 + 4 = 7"),
    example("How many cafés?", "Tom has 3 cafés. As Ana says: naïve, 3 + 4"),
    example("Ana?", "7"),
    spelled("Ana?", "As she has 4 cafés"),
]


class TestAlignment:
    def test_the_teacher_reads_the_same_text_in_its_own_tokens(self) -> None:
        for each in EXAMPLES:
            aligned = other_teacher().align(each)
            assert isinstance(each.prompt, str)
            prompt = ChatTokenizer(other_tokenizer()).encode_prompts([each.prompt])[0]
            assert aligned.tokens[: len(prompt)] == prompt
            assert aligned.tokens[-1] == other_tokenizer().eos_token_id
            text = tokenizer().decode(each.tokens[each.prompt_length :], skip_special_tokens=True)
            assert other_tokenizer().decode(aligned.tokens[len(prompt) :], skip_special_tokens=True) == text

    def test_the_two_meet_only_where_both_have_read_the_same(self) -> None:
        met = missed = 0
        for each in EXAMPLES:
            aligned = other_teacher().align(each)
            prompt = len(ChatTokenizer(other_tokenizer()).encode_prompts([str(each.prompt)])[0])
            assert len(aligned.positions) == each.targets
            for place, position in enumerate(aligned.positions):
                if position < 0:
                    missed += 1
                    continue
                met += 1
                ours = tokenizer().decode(each.tokens[each.prompt_length : each.prompt_length + place])
                theirs = other_tokenizer().decode(aligned.tokens[prompt : position + 1])
                assert ours == theirs
        assert met > missed > 0

    def test_the_turns_of_a_conversation_go_through_the_teachers_template(self) -> None:
        turns = [
            {"role": "user", "content": "Tom has 3 eggs?"},
            {"role": "assistant", "content": "7"},
            {"role": "user", "content": "Ana?"},
        ]
        asked: Conversation = {"messages": turns, "tools": ()}
        ids = encode_prompt(ChatTokenizer(tokenizer()), asked)
        answer = ChatTokenizer(tokenizer()).encode_completions(["3 + 4 = 7"])[0]
        aligned = other_teacher().align(Example(ids + answer, len(ids), prompt=asked))
        prompt = encode_prompt(ChatTokenizer(other_tokenizer()), asked)
        assert aligned.tokens[: len(prompt)] == prompt
        assert aligned.positions[0] == len(prompt) - 1
        assert aligned.count > 1

    def test_the_first_token_and_the_end_are_always_met(self) -> None:
        for each in EXAMPLES:
            aligned = other_teacher().align(each)
            prompt = len(ChatTokenizer(other_tokenizer()).encode_prompts([str(each.prompt)])[0])
            assert (aligned.positions[0], aligned.positions[-1]) == (prompt - 1, len(aligned.tokens) - 2)

    def test_a_student_s_turn_ends_by_its_template_and_the_teacher_s_by_its_own(self) -> None:
        student = ChatTokenizer(families.byte_level(("<eos>", "<|im_start|>", "<|im_end|>"), "<eos>", families.CHATML))
        teacher = CrossTokenizerTeacher("teacher", other_teacher().model, ChatTokenizer(other_tokenizer()), student)
        (ids,), (answer,) = student.encode_prompts(["Ana?"]), student.encode_completions(["7"])
        aligned = teacher.align(Example(ids + answer, len(ids), prompt="Ana?"))
        assert aligned.tokens[-1] == other_tokenizer().eos_token_id
        assert aligned.positions[-1] == len(aligned.tokens) - 2

    def test_the_empty_thought_of_the_teacher_s_template_is_read_past(self) -> None:
        thinking = ChatTokenizer(families.qwen3())
        teacher = CrossTokenizerTeacher("teacher", other_teacher().model, thinking, ChatTokenizer(tokenizer()))
        each = example("Ana?", "7")
        aligned = teacher.align(each)
        assert str(thinking.tokenizer.decode(aligned.tokens)).endswith("</think>\n\n7<|im_end|>")
        assert aligned.positions == [len(aligned.tokens) - 3, len(aligned.tokens) - 2]

    def test_an_answer_that_was_cut_off_has_no_end_for_the_teacher_either(self) -> None:
        cut = replace(EXAMPLES[0], tokens=EXAMPLES[0].tokens[:-2])
        aligned = other_teacher().align(cut)
        prompt = len(ChatTokenizer(other_tokenizer()).encode_prompts([str(cut.prompt)])[0])
        assert other_tokenizer().eos_token_id not in aligned.tokens[prompt:]
        assert len(aligned.positions) == cut.targets
        assert aligned.count > 0

    def test_behind_a_character_that_the_teacher_cannot_spell_nothing_is_met(self) -> None:
        without_3 = without(other_tokenizer(), lambda text: "3" in text)
        teacher = CrossTokenizerTeacher(
            "teacher", other_teacher().model, ChatTokenizer(without_3), ChatTokenizer(tokenizer())
        )
        read = example("Ana?", "Tom has 3 eggs")
        positions = teacher.align(read).positions
        pieces = tokenizer().convert_ids_to_tokens(read.tokens[read.prompt_length :])
        digit = next(place for place, piece in enumerate(pieces) if "3" in piece)
        assert positions[digit] >= 0
        assert set(positions[digit + 1 :]) == {-1}

    def test_what_is_longer_than_the_teacher_s_context_is_not_met(self) -> None:
        long = example("Ana?", " ".join(["3 + 4 = 7"] * 30))
        aligned = other_teacher().align(long)
        assert len(aligned.tokens) == 128
        assert max(aligned.positions) < 128
        assert aligned.positions[-1] == -1


def ranked(vocabulary: int) -> tuple[RankedTeacher, Tensor]:
    """A teacher of so many tokens for the students of `random_inputs`, and its logits."""
    generator = torch.Generator().manual_seed(vocabulary)
    hidden, weight = torch.randn(TOKENS, 24, generator=generator), torch.randn(vocabulary, 24, generator=generator)
    head = TeacherHead(hidden, weight / 3, vocabulary)
    return RankedTeacher(head, VOCABULARY), hidden.double() @ head.weight.double().T


@pytest.mark.parametrize("vocabulary", [40, VOCABULARY, 150])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
class TestDistance:
    def test_value_and_gradient_equal_float64_on_sorted_lists(self, vocabulary: int, temperature: float) -> None:
        x, (teacher, logits) = random_inputs(0), ranked(vocabulary)
        view = DivergenceStatistic(TotalVariation.make(), teacher, temperature)
        leaves = [x.hidden.requires_grad_(), x.weight.requires_grad_()]
        (values,) = token_statistics(x.hidden, x.weight, [view], chunk_elements=CHUNK)
        ours = torch.autograd.grad((2 * values * x.weights).sum(), leaves)

        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        p = torch.softmax((exact[0] @ exact[1].T)[:, :VOCABULARY] / temperature, 1).sort(1, descending=True).values
        q = torch.softmax(logits / temperature, 1).sort(1, descending=True).values
        width = max(VOCABULARY, vocabulary)
        p, q = (torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in (p, q))
        reference = (p - q).abs().sum(1)
        torch.testing.assert_close(2 * values.double(), reference, rtol=1e-5, atol=1e-6)
        for mine, expected in zip(ours, torch.autograd.grad((reference * x.weights).sum(), exact), strict=True):
            assert relative_error(mine, expected) < 1e-4

    def test_which_token_is_which_does_not_matter(self, vocabulary: int, temperature: float) -> None:
        x, (teacher, _) = random_inputs(0), ranked(vocabulary)
        shuffled = replace(teacher.head, weight=teacher.head.weight.flip(0))
        views = [
            DivergenceStatistic(TotalVariation.make(), each, temperature)
            for each in (teacher, replace(teacher, head=shuffled))
        ]
        torch.testing.assert_close(*token_statistics(x.hidden, x.weight, views))


class Prepared:
    def batch(self, step: int) -> StepBatch:
        return StepBatch(list(EXAMPLES))


def uld_trainer(micro_tokens: int) -> Trainer:
    teacher = other_teacher()
    return Trainer(
        tiny_model(rows=len(tokenizer()), scale=2.0),
        {"s": CrossTokenizerSource(Prepared(), {"teacher": teacher})},
        [ULDLoss("uld", "s", 1.0, "teacher", divergence=ULD.make())],
        teachers={"teacher": teacher},
        optimizer=Optimizer(lr=3e-3, clip=1e9),
        budget=TrainingBudget(steps=100),
        vocabulary=len(tokenizer()),
        pad=0,
        micro_tokens=micro_tokens,
        seed=0,
    )


@torch.no_grad()
def plain_uld(trainer: Trainer, examples: Sequence[Example]) -> float:
    """The mean over the tokens that are met, example by example on full logits."""
    teacher, total, met = other_teacher(), 0.0, 0
    for each in examples:
        aligned = teacher.align(each)
        ours = trainer.model(input_ids=torch.tensor([each.tokens])).logits[0].double()
        theirs = teacher.model(input_ids=torch.tensor([aligned.tokens])).logits[0, :, : len(other_tokenizer())].double()
        for place, position in enumerate(aligned.positions):
            if position >= 0:
                p = torch.softmax(ours[each.prompt_length - 1 + place], 0).sort(descending=True).values
                q = torch.softmax(theirs[position], 0).sort(descending=True).values
                total += float((p - torch.nn.functional.pad(q, (0, len(p) - len(q)))).abs().sum())
                met += 1
    return total / met


@pytest.mark.parametrize("micro_tokens", [1, 10**6])
def test_the_loss_is_the_mean_over_the_tokens_that_are_met(micro_tokens: int) -> None:
    trainer = uld_trainer(micro_tokens)
    expected = plain_uld(trainer, EXAMPLES)
    metrics = trainer.step()
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    every = [other_teacher().align(each) for each in EXAMPLES]
    assert trainer.progress.teacher_tokens == sum(len(aligned.tokens) for aligned in every)
    student = trainer.cost.train([len(e.tokens) for e in EXAMPLES], sum(e.targets for e in EXAMPLES))
    teacher = other_teacher().cost.forward([len(r.tokens) for r in every], sum(e.targets for e in EXAMPLES))
    assert metrics["flops"] == pytest.approx(student + teacher)


def test_training_lowers_the_distance() -> None:
    trainer = uld_trainer(10**6)
    losses = [trainer.step()["loss"] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


class TestPipeline:
    RECIPE = (
        HEAD.replace("  small:", "  stranger: {folder: stranger}\n  small:")
        + """\
stages:
  - name: kd
    kind: train
    from: small
    sources:
      demos: {kind: demonstrations, batch: 4}
      own: {kind: rollouts, prompts: 2, max_new_tokens: 8}
    objectives:
      - {kind: uld, source: demos, teacher: stranger}
      - {kind: uld, source: own, teacher: stranger}
    steps: 2
"""
    )

    @staticmethod
    def write(folder: Path, recipe: str) -> Path:
        (folder / "stranger").mkdir(parents=True)
        save_model(
            other_teacher().model,
            ChatTokenizer(other_tokenizer()),
            folder / "stranger",
        )
        return micro.write(folder, recipe)

    def test_a_student_learns_from_a_stranger_on_demonstrations_and_on_its_own_words(self, tmp_path: Path) -> None:
        ran = micro.run(self.write(tmp_path, self.RECIPE), tmp_path / "run")
        row = ran.metrics("kd")[-1]
        assert row["loss/uld/demos/stranger"] > 0
        assert row["loss/uld/own/stranger"] > 0
        assert ran.manifest("kd")["teacher_tokens"] > 0

    def test_another_divergence_to_a_stranger_is_refused_and_the_remedy_named(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, self.RECIPE.replace("kind: uld, source: own", "kind: reverse_kl, source: own"))
        said = refusal(lambda: micro.run(path, tmp_path / "run"))
        assert said.startswith("stage kd: teacher stranger has another tokenizer than the student; use the objective")
        assert "uld" in said
        assert "rejection_sampling stage" in said

    def test_uld_to_a_teacher_with_the_same_tokenizer_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, self.RECIPE.replace("teacher: stranger", "teacher: large"))
        said = refusal(lambda: micro.run(path, tmp_path / "run"))
        assert said.startswith("stage kd: teacher large has the student's tokenizer")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("{kind: demonstrations, batch: 4}", "{kind: text, batch: 4}", "uld needs prompts and completions; read"),
            (
                "{kind: demonstrations, batch: 4}",
                "{kind: demonstrations, batch: 4, loss_on: all}",
                "uld compares one completion an example, and source 'demos' has loss_on: all; use loss_on: last",
            ),
            ("source: demos, teacher", "source: demos, top_k: 3, teacher", "top_k: uld compares all probabilities"),
            (
                "  - name: kd",
                "  - {name: taught, kind: teacher_logprobs, model: stranger}\n  - name: kd",
                "uld needs the teacher itself, not its store; name a model",
            ),
        ],
    )
    def test_what_uld_cannot_do_is_refused_when_the_recipe_is_read(
        self, tmp_path: Path, old: str, new: str, message: str
    ) -> None:
        recipe = self.RECIPE.replace(old, new)
        if "taught" in new:
            recipe = recipe.replace("demos, teacher: stranger", "demos, teacher: taught")
        path = self.write(tmp_path, recipe)
        assert message in refusal(lambda: micro.read(path))
