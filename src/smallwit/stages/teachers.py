"""The teachers that a stage's objectives name: models that are there, or the stores of teach stages."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from smallwit.artifacts import content_key
from smallwit.errors import UserError
from smallwit.models.flops import Cost
from smallwit.recipe import TeachStage
from smallwit.stages.inputs import model_of, tokenizer_of
from smallwit.stages.job import Job, Reporter
from smallwit.training.loop import Teacher
from smallwit.training.objectives import Objective
from smallwit.training.teacher_store import StoredTeacher


def teachers_of(
    job: Job, objectives: Sequence[Objective], student: PreTrainedTokenizerBase, reporter: Reporter
) -> dict[str, Teacher | StoredTeacher]:
    """Each teacher by its name. Raises `UserError` for one whose tokenizer is not the student's."""
    stores = {stage.name for stage in job.recipe.stages if isinstance(stage, TeachStage)}
    teachers: dict[str, Teacher | StoredTeacher] = {}
    for name in {objective.teacher for objective in objectives if objective.teacher is not None}:
        teachers[name] = _stored(job, name, student) if name in stores else _live(job, name, student, reporter)
    return teachers


def _stored(job: Job, name: str, student: PreTrainedTokenizerBase) -> StoredTeacher:
    store = StoredTeacher(Path(job.inputs[name]), name)
    if store.binding.tokenizer != content_key(student.get_vocab()):
        raise _other_tokenizer(job, f"{store.binding.teacher}, which teach stage '{name}' stored,")
    return store


def _live(job: Job, name: str, student: PreTrainedTokenizerBase, reporter: Reporter) -> Teacher:
    tokenizer = tokenizer_of(job, name)
    if tokenizer.get_vocab() != student.get_vocab():
        raise _other_tokenizer(job, name)
    model = model_of(job, name).eval().requires_grad_(False)
    rows = {"teacher": model.get_output_embeddings().weight.shape[0], "tokenizer": len(tokenizer)}
    if rows["teacher"] != rows["tokenizer"]:
        reporter.say(
            f"{name} has {rows['teacher']:,} vocabulary rows; compared on the {rows['tokenizer']:,} tokens of the "
            "tokenizer"
        )
    return Teacher(model, Cost.of(model))


def _other_tokenizer(job: Job, teacher: str) -> UserError:
    return UserError(
        f"stage {job.name}: teacher {teacher} has another tokenizer than the student; "
        "distil its answers instead (an answers stage and cross_entropy)"
    )
