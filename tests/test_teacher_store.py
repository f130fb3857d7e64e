"""A stored teacher: what is written is read back, only for the same tokens, and a student learns from it as from a live
teacher."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.models.build import backbone
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.models.head import output_head
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.distillation import DistillationLoss
from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.objectives.kinds.divergences import ForwardKL
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.teacher import TeacherHead, TopK
from smallwit.tasks.wordmath import WordMath
from smallwit.training.demonstrations import demonstration_examples
from smallwit.training.loop import Teacher, Trainer, TrainingBudget, TrainingStopped
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.settings import Optimizer
from smallwit.training.sources import DemonstrationSource
from smallwit.training.step_batch import StepBatch
from smallwit.training.teacher_store import (
    NoNumbers,
    StoreBinding,
    StoredTeacher,
    example_key,
    pack,
    unpack,
    write_binding,
    write_shard,
)
from tiny import random_tokens, tiny_model, tokenizer

CPU = torch.device("cpu")


def random_top_k(tokens: int, vocabulary: int, k: int, temperature: float = 1.0) -> TopK:
    generator = torch.Generator().manual_seed(vocabulary)
    hidden, weight = torch.randn(tokens, 8, generator=generator), torch.randn(vocabulary, 8, generator=generator)
    return TeacherHead(hidden, 2 * weight, vocabulary).top_k(k, temperature, chunk_elements=1 << 20)


class TestRecords:
    @pytest.mark.parametrize(("vocabulary", "k"), [(97, 5), (65_536, 64), (65_537, 7), (151_936, 64)])
    def test_what_is_packed_is_unpacked_up_to_the_rounding(self, vocabulary: int, k: int) -> None:
        top = random_top_k(20, vocabulary, k, 1.5)
        back = unpack(pack(top), vocabulary, 1.5, CPU)
        assert torch.equal(back.ids, top.ids)
        assert (back.temperature, back.vocabulary) == (1.5, vocabulary)
        torch.testing.assert_close(back.log_probs, top.log_probs, rtol=0, atol=1 / 2048)
        torch.testing.assert_close(back.log_tail, top.log_tail, rtol=0, atol=1 / 2048)

    def test_probabilities_add_up_to_one_after_rounding(self) -> None:
        back = unpack(pack(random_top_k(50, 300, 16)), 300, 1.0, CPU)
        total = back.log_probs.exp().sum(1) + back.log_tail.exp()
        torch.testing.assert_close(total, torch.ones(50))

    def test_an_outcome_next_to_impossible_stays_so(self) -> None:
        logits = torch.zeros(1, 50)
        logits[0, 0] = 200.0
        back = unpack(pack(TeacherHead(logits, torch.eye(50), 50).top_k(3, 1.0, chunk_elements=50)), 50, 1.0, CPU)
        assert float(back.log_probs[0, 0]) == pytest.approx(0.0, abs=1e-6)
        assert float(back.log_tail) == pytest.approx(-32, abs=0.01)

    @pytest.mark.parametrize(("vocabulary", "bytes_a_token"), [(50_000, 258), (151_936, 290), (1 << 20, 290)])
    def test_sixty_four_tokens_take_less_than_three_hundred_bytes(self, vocabulary: int, bytes_a_token: int) -> None:
        assert pack(replace(random_top_k(3, 100, 64), vocabulary=vocabulary)).itemsize == bytes_a_token


def test_an_example_is_known_by_its_tokens_and_the_end_of_its_prompt() -> None:
    example = Example([5, 6, 7, 8], 2)
    keys = {
        example_key(each)
        for each in (example, Example([5, 6, 7, 8], 3), Example([5, 6, 7], 2), Example([2, 5, 6, 7, 8], 2))
    }
    assert len(keys) == 4
    assert example_key(Example([5, 6, 7, 8], 2, [0.0, 0.0], 1.0)) == example_key(example)
    assert all(len(key) == 16 for key in keys)


@torch.no_grad()
def live_top_k(model: PreTrainedModel, examples: Sequence[Example], vocabulary: int, k: int) -> TopK:
    batch = TokenBatch.of(examples, 0, CPU)
    hidden = backbone(model)(input_ids=batch.tokens, use_cache=False).last_hidden_state.flatten(0, 1)[batch.positions]
    return TeacherHead(hidden, output_head(model).weight, vocabulary).top_k(k, 1.0, chunk_elements=1 << 20)


def write_store(
    folder: Path, model: PreTrainedModel, shards: Sequence[Sequence[Example]], vocabulary: int, k: int
) -> StoredTeacher:
    write_binding(folder, StoreBinding("teacher", "hash", vocabulary, k, 1.0))
    for number, examples in enumerate(shards):
        write_shard(folder, number, examples, pack(live_top_k(model, examples, vocabulary, k)))
    return StoredTeacher(folder, "taught")


def random_examples(count: int, seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [Example(random_tokens(generator, length + 2), 2) for length in lengths]


class TestStore:
    def test_examples_of_several_shards_are_found_in_any_order(self, tmp_path: Path) -> None:
        teacher, examples = tiny_model(scale=4.0), random_examples(9)
        store = write_store(tmp_path, teacher, [examples[:4], examples[4:]], 64, 10)
        wanted = [examples[i] for i in (8, 0, 5, 3)]
        (found, _, _), live = store.distribution(wanted, CPU), live_top_k(teacher, wanted, 64, 10)
        assert torch.equal(found.ids, live.ids)
        torch.testing.assert_close(found.log_probs, live.log_probs, rtol=0, atol=1e-3)

    @pytest.mark.parametrize("change", ["text", "prompt", "shorter"])
    def test_what_was_not_taught_is_refused_in_one_line(self, tmp_path: Path, change: str) -> None:
        examples = random_examples(3)
        store = write_store(tmp_path, tiny_model(), [examples], 64, 4)
        tokens = examples[0].tokens
        other = {
            "text": Example([*tokens[:-1], (tokens[-1] + 1) % 64], 2),
            "prompt": Example(tokens, 1),
            "shorter": Example([*tokens, 1][:-2], 1),
        }[change]
        with pytest.raises(
            UserError, match="store of teacher_logprobs stage 'taught' does not have an example"
        ) as refused:
            store.distribution([examples[1], other], CPU)
        assert "\n" not in str(refused.value)

    def test_a_step_from_the_store_equals_one_from_the_live_teacher_s_top_k(self, tmp_path: Path) -> None:
        teacher, examples = tiny_model(seed=1, scale=4.0), random_examples(8)
        store = write_store(tmp_path, teacher, [examples], 64, 12)
        student = tiny_model(scale=4.0)
        live = one_step(deepcopy(student), examples, Teacher(teacher, Cost.of(teacher)), 12)
        stored = one_step(deepcopy(student), examples, store, None)
        assert stored["loss"] == pytest.approx(live["loss"], rel=1e-3)
        assert stored["grad_norm"] == pytest.approx(live["grad_norm"], rel=1e-3)

    def test_a_stored_teacher_costs_the_student_s_step_nothing(self, tmp_path: Path) -> None:
        teacher, examples = tiny_model(seed=1), random_examples(4)
        store, student = write_store(tmp_path, teacher, [examples], 64, 12), tiny_model()
        metrics = one_step(student, examples, store, None)
        lengths, targets = [len(e.tokens) for e in examples], sum(e.targets for e in examples)
        assert metrics["flops"] == pytest.approx(Cost.of(student).train(lengths, targets))


class TestATeacherOfNaN:
    """Weights that are finite, and a head that multiplies beyond what float32 holds."""

    @pytest.fixture
    def teacher(self) -> PreTrainedModel:
        model = tiny_model(seed=1, scale=4.0)
        with torch.no_grad():
            output_head(model).weight[3] = 3e38
        return model

    @pytest.mark.parametrize("top_k", [None, 12])
    def test_a_live_one_is_named_before_a_step_is_taken(self, teacher: PreTrainedModel, top_k: int | None) -> None:
        with pytest.raises(TrainingStopped, match="step 0: teacher teacher gives log-probs that are no numbers"):
            one_step(tiny_model(scale=4.0), random_examples(4), Teacher(teacher, Cost.of(teacher)), top_k)

    def test_nothing_is_stored_of_it(self, teacher: PreTrainedModel) -> None:
        with pytest.raises(NoNumbers):
            pack(live_top_k(teacher, random_examples(4), 64, 12))


class Prepared:
    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def batch(self, step: int) -> StepBatch:
        return StepBatch(list(self.examples))


def one_step(
    model: PreTrainedModel, examples: list[Example], teacher: Teacher | StoredTeacher, top_k: int | None
) -> dict[str, float]:
    objective = DistillationLoss("forward_kl", "s", 1.0, "teacher", divergence=ForwardKL.make(), top_k=top_k)
    return trainer(model, Prepared(examples), objective, teacher, 64, steps=1, lr=1e-3).step()


def trainer(
    model: PreTrainedModel,
    source: Prepared | DemonstrationSource,
    objective: LossTerm,
    teacher: Teacher | StoredTeacher | None,
    vocabulary: int,
    *,
    steps: int,
    lr: float,
) -> Trainer:
    return Trainer(
        model,
        {"s": source},
        [objective],
        teachers={} if teacher is None else {"teacher": teacher},
        optimizer=Optimizer(lr=lr),
        budget=TrainingBudget(steps=steps),
        vocabulary=vocabulary,
        pad=0,
        micro_tokens=10**6,
        seed=0,
    )


@torch.no_grad()
def validation(model: PreTrainedModel, teacher: PreTrainedModel, examples: Sequence[Example]) -> tuple[float, float]:
    """Mean cross-entropy, and mean KL(teacher || student) on the whole vocabulary, of the completion tokens."""
    batch = TokenBatch.of(examples, 0, CPU)
    log_p, log_q = (
        torch.log_softmax(each(input_ids=batch.tokens).logits.flatten(0, 1)[batch.positions].double(), 1)
        for each in (model, teacher)
    )
    cross_entropy = -log_p.gather(1, batch.labels[:, None]).mean()
    return float(cross_entropy), float((log_q.exp() * (log_q - log_p)).sum(1).mean())


def train(model: PreTrainedModel, *, kind: str, teacher: Teacher | StoredTeacher | None, steps: int) -> None:
    problems = TaskProblems.of(WordMath(train=400), "train", limit=400)
    source = DemonstrationSource(ProblemStream([problems], 0, "s"), ChatTokenizer(tokenizer()), 16, 256)
    objective: LossTerm = (
        CrossEntropyLoss(kind, "s", 1.0)
        if teacher is None
        else DistillationLoss(kind, "s", 1.0, "teacher", divergence=ForwardKL.make())
    )
    run = trainer(model, source, objective, teacher, len(tokenizer()), steps=steps, lr=4e-3)
    for _ in range(steps):
        run.step()


@pytest.mark.slow
def test_a_student_of_the_store_is_as_good_as_one_of_the_live_teacher(tmp_path: Path) -> None:
    vocabulary = len(tokenizer())
    teacher, untrained = tiny_model(rows=vocabulary, hidden=64, seed=1), tiny_model(rows=vocabulary, hidden=32)
    train(teacher, kind="cross_entropy", teacher=None, steps=40)
    task = WordMath(train=400)
    examples = demonstration_examples([(task, p) for p in task.problems("train")], ChatTokenizer(tokenizer()), 256)
    held_out = demonstration_examples(
        [(task, p) for p in task.problems("validation")[:100]], ChatTokenizer(tokenizer()), 256
    )

    live = deepcopy(untrained)
    train(live, kind="forward_kl", teacher=Teacher(teacher, Cost.of(teacher)), steps=50)
    from_live = validation(live, teacher, held_out)
    assert from_live[1] < 0.2 * validation(untrained, teacher, held_out)[1]
    for k, bytes_a_token in ((64, 300), (16, 75)):
        (folder := tmp_path / str(k)).mkdir()
        store = write_store(folder, teacher, [examples[i : i + 100] for i in range(0, 400, 100)], vocabulary, k)
        size = sum(path.stat().st_size for path in folder.iterdir()) / sum(e.targets for e in examples)
        assert size < bytes_a_token
    stored = deepcopy(untrained)
    train(stored, kind="forward_kl", teacher=store, steps=50)  # of the 16 likeliest
    from_store = validation(stored, teacher, held_out)
    assert from_store[0] <= 1.01 * from_live[0]
    assert from_store[1] <= 1.01 * from_live[1]
