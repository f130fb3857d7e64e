"""Load the teachers of a stage's objectives: models, endpoints, or stores of teacher_logprobs stages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from smallwit.errors import UserError
from smallwit.inference.endpoint_client import Client
from smallwit.inference.endpoint_scores import EndpointScorer
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.models.flops import Cost
from smallwit.network.hosts import REQUESTS_FILE, HostLog, added
from smallwit.objectives.distillation import DistillationLoss
from smallwit.objectives.loss import LossTerm
from smallwit.stages.common.inputs import chat_of, endpoint_of, model_of
from smallwit.stages.job import Job, Reporter
from smallwit.storage.artifacts import content_key
from smallwit.training.cross_tokenizer import CrossTokenizerSource, CrossTokenizerTeacher
from smallwit.training.distributed import World
from smallwit.training.endpoint_teacher import EndpointTeacher
from smallwit.training.loop import PerExampleTeacher, Teacher
from smallwit.training.rollout_postprocessors import ForwardPass
from smallwit.training.sources import TokenSource
from smallwit.training.teacher_store import StoredTeacher


def teachers_of(
    job: Job, objectives: Sequence[LossTerm], student: ChatTokenizer, reporter: Reporter
) -> dict[str, Teacher | PerExampleTeacher]:
    """Return the teachers by name. Raises `UserError` if a tokenizer or end token does not fit the objectives."""
    stores = {stage.name for stage in job.recipe.stages if stage.makes == "logprobs"}
    teachers: dict[str, Teacher | PerExampleTeacher] = {}
    clients: dict[str, Client] = {}
    hosts = HostLog(job.work / REQUESTS_FILE, lambda: added(client.counts() for client in clients.values()))
    for objective in (objective for objective in objectives if objective.teacher is not None):
        name = str(objective.teacher)
        if name in stores:
            teachers[name] = _stored(job, name, student)
        elif job.recipe.is_remote(name):
            _check_tokenizer(job, name, student, universal=False)
            assert isinstance(objective, DistillationLoss)  # nothing else has a teacher
            assert objective.top_k is not None  # a recipe asks for it, the same for all objectives with this teacher
            scorer = EndpointScorer(endpoint_of(job, name), student.tokenizer, objective.top_k)
            clients[name] = scorer.client
            teachers[name] = EndpointTeacher(scorer, note=hosts.write)
        else:
            _check_tokenizer(job, name, student, objective.cross_tokenizer)
            teachers[name] = teachers.get(name) or _live(job, name, student, reporter)
    return teachers


def references_of(
    job: Job,
    objectives: Sequence[LossTerm],
    at_hand: Mapping[str, ForwardPass],
    teachers: Mapping[str, Teacher | PerExampleTeacher],
    student: ForwardPass,
    chat: ChatTokenizer,
) -> dict[str, ForwardPass]:
    """Return the forward pass of each reference model of a KL penalty; a teacher is not loaded twice.

    Raises `UserError` for a model with another tokenizer or another end token.
    """
    names = {model for objective in objectives for model in objective.log_prob_columns.values() if model is not None}
    passes = dict(at_hand)
    for name in names - set(at_hand):
        teacher = teachers.get(name)
        if not isinstance(teacher, Teacher):
            other = chat_of(job, name)
            if other.tokenizer.get_vocab() != chat.tokenizer.get_vocab():
                raise UserError(
                    f"stage {job.name}: reference {name} has another tokenizer than the student; "
                    "name the model that the stage starts from"
                )
            _check_ends(job, f"reference {name}", other, chat)
            model = model_of(job, name).eval().requires_grad_(False)
            teacher = Teacher(model, Cost.of(model))
        passes[name] = replace(student, model=teacher.model)
    return passes


def read_by_teachers(
    name: str,
    source: TokenSource,
    objectives: Sequence[LossTerm],
    teachers: Mapping[str, Teacher | PerExampleTeacher],
    world: World,
) -> TokenSource:
    """Return the source, wrapped to be scored by its teachers with another tokenizer, if there are any."""
    named = {o.teacher: teachers[o.teacher] for o in objectives if o.source == name and o.teacher is not None}
    readers = {name: teacher for name, teacher in named.items() if isinstance(teacher, CrossTokenizerTeacher)}
    return CrossTokenizerSource(source, readers, world) if readers else source


def _stored(job: Job, name: str, student: ChatTokenizer) -> StoredTeacher:
    store = StoredTeacher(Path(job.inputs[name]), name)
    if store.binding.tokenizer != content_key(student.tokenizer.get_vocab()):
        raise _other_tokenizer(job, f"{store.binding.teacher}, which teacher_logprobs stage '{name}' stored,")
    return store


def _live(job: Job, name: str, student: ChatTokenizer, reporter: Reporter) -> Teacher | CrossTokenizerTeacher:
    chat, model = chat_of(job, name), model_of(job, name).eval().requires_grad_(False)
    vocabulary = vocabulary_of(chat, model, name)
    if chat.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        return CrossTokenizerTeacher(name, model, chat, student)
    rows = {"teacher": model.get_output_embeddings().weight.shape[0], "tokenizer": vocabulary}
    if rows["teacher"] != rows["tokenizer"]:
        reporter.say(
            f"{name} has {rows['teacher']:,} vocabulary rows; compared on the {rows['tokenizer']:,} tokens of the "
            "tokenizer"
        )
    return Teacher(model, Cost.of(model))


def _check_tokenizer(job: Job, name: str, student: ChatTokenizer, universal: bool) -> None:
    teacher = chat_of(job, name)
    same = teacher.tokenizer.get_vocab() == student.tokenizer.get_vocab()
    if universal and same:
        raise UserError(
            f"stage {job.name}: teacher {name} has the student's tokenizer, and uld would ignore the identity of "
            "tokens; use another divergence, for example forward_kl"
        )
    if not universal and not same:
        raise _other_tokenizer(job, name)
    if same:
        _check_ends(job, f"teacher {name}", teacher, student)


def _check_ends(job: Job, what: str, other: ChatTokenizer, student: ChatTokenizer) -> None:
    """Raise `UserError` for a model whose end token does not end the student's answers.

    The two are compared token by token, so the student would learn to write that token and then continue.
    """
    end, own = (chat.tokenizer.convert_ids_to_tokens(chat.ends.trained) for chat in (other, student))
    if other.ends.trained not in student.ends.all:
        raise UserError(
            f"stage {job.name}: {what} ends an answer with {end}, which does not end the student's ({own}); give the "
            "student the same chat template, list the token in its generation_config.json (eos_token_id), or learn "
            "from the teacher's answers (a rejection_sampling stage and cross_entropy)"
        )


def _other_tokenizer(job: Job, teacher: str) -> UserError:
    return UserError(
        f"stage {job.name}: teacher {teacher} has another tokenizer than the student; use the objective uld with the "
        "model as teacher, or learn from its answers (a rejection_sampling stage and cross_entropy)"
    )
