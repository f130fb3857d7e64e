"""`smallwit eval`: a model on suites by one protocol, resumed where it was interrupted, with scores at the end."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from smallwit.console.interrupts import terminable
from smallwit.console.progress import RunProgress
from smallwit.console.terminal import Terminal
from smallwit.errors import RunFailed, UserError
from smallwit.evaluation.folder import admit, write_scores
from smallwit.evaluation.model_reference import ResolvedModel, Settings, resolve_model
from smallwit.evaluation.protocol import GeneratorInfo
from smallwit.evaluation.protocols import named_protocol
from smallwit.evaluation.responses import grade_responses, read_responses
from smallwit.evaluation.runner import GraderFailed, Row
from smallwit.evaluation.scores import Scores, by_stratum, problem_means, scores
from smallwit.evaluation.scores_table import print_ratios, print_scores
from smallwit.evaluation.statistics import Interval, finite, ratio_interval
from smallwit.evaluation.suite import Choice, Suite, make_suite, measure_suite, problems_of
from smallwit.inference.endpoint_client import EndpointError
from smallwit.storage.artifacts import content_key, disk_trouble, file_hash
from smallwit.storage.locks import occupied
from smallwit.tasks import Task, load_task, task_bytes
from smallwit.tasks.draw import part
from smallwit.tasks.trial import Trial, try_out
from smallwit.tasks.user_task import UserTask
from smallwit.verify import code

EVALUATIONS = Path("evaluations")


class EvaluationFailed(RunFailed):
    """An evaluation could not be finished. The message says why; what it has stays on disk."""


@dataclass(frozen=True)
class EvaluationRequest:
    """An evaluation to run: suites (names of tasks, or `file.py:Class`), protocol, and the folder of the samples."""

    suites: Sequence[str]
    protocol: str = "default"
    choice: Choice = field(default_factory=Choice)
    data_dir: Path | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Measured:
    """The samples and scores of one model, by task, and their folder. `strata` has the scores of groups of problems."""

    reference: str
    identity: str
    folder: Path
    rows: Mapping[str, list[Row]]
    scores: Mapping[str, Scores]
    signatures: Mapping[str, str]
    strata: Mapping[str, Any]

    def write(self, ratios: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        """Write the scores into the folder, with shares of another model's."""
        entries = {
            name: found.as_json()
            | ({"strata": self.strata[name]} if self.strata[name] else {})
            | {"signature": self.signatures[name]}
            | ({"against": ratios[name]} if ratios else {})
            for name, found in self.scores.items()
        }
        write_scores(self.folder, {"reference": self.reference, "identity": self.identity}, entries)


def evaluate(
    model: str,
    request: EvaluationRequest,
    settings: Settings,
    *,
    against: str | None = None,
    console: Console | None = None,
) -> Measured:
    """Measure `model` (and `against`, for the share of its score), write and show the scores.

    A suite that the model's run knows by name has the options that it has there.

    Raises `UserError` for what the user can mend, `EvaluationFailed` when graders fail or the disk is full, and
    `KeyboardInterrupt` when stopped; the samples that are there by then are not asked for again.
    """
    console = console or Terminal()
    opened = [resolve_model(reference, settings) for reference in (model, against) if reference is not None]
    tasks = {name: options for one in reversed(opened) for name, options in one.tasks.items()}
    for name in request.suites:
        if tasks.get(name):
            console.print(f"{name}: as in the model's run, {_told(tasks[name])}", markup=False, highlight=False)
    prepared = [_prepare(request, one, tasks) for one in opened]
    measured = []
    for number, (one, suites) in enumerate(zip(opened, prepared, strict=True)):
        folder = request.out or EVALUATIONS / f"{one.label}-{_key(one.identity, request, settings)}"
        if number and request.out is not None:
            folder = request.out / f"against-{one.label}"
        measured.append(_measure(one, suites, folder, console))
    _show(measured, console)
    if against is not None:
        mine, theirs = measured
        ratios = {task: _ratio(mine.rows[task], theirs.rows[task]) for task in mine.rows}
        about = {task: {"model": against, "signature": theirs.signatures[task]} for task in ratios}
        shares = {task: dict(zip(ratio._fields, map(finite, ratio), strict=True)) for task, ratio in ratios.items()}
        mine.write({task: about[task] | share for task, share in shares.items()})
        print_ratios(ratios, against, console)
    for done in measured:
        console.print(f"samples and scores: {done.folder}", highlight=False, markup=False, soft_wrap=True)
    return measured[0]


def evaluate_responses(path: Path, request: EvaluationRequest, console: Console | None = None) -> Measured:
    """Grade stored generations to one suite, write and show the scores. Raises as `evaluate` does."""
    console = console or Terminal()
    if len(request.suites) != 1:
        raise UserError(f"--responses {path}: holds answers to one suite; got --suite {','.join(request.suites)}")
    name, named = request.suites[0], named_protocol(request.protocol)
    task = checked_task(name, {}, request.data_dir, request.choice.split)
    problems = problems_of(task, request.choice.split, None)
    stored = read_responses(path, problems)
    answered = [problem for problem in problems if problem.id in stored]
    answered = list(part(answered, request.choice.limit, order="given" if task.exchangeable else request.choice.order))
    counts = [len(stored[problem.id]) for problem in answered]
    suite = make_suite(
        task, answered, named, request.choice, GeneratorInfo("responses"), own=task_bytes(name), stored=counts
    )
    identity = f"responses:{file_hash(path)}"
    folder = request.out or EVALUATIONS / f"{path.stem}-{_key(identity, request, None)}"
    with _at_work(folder):
        admit(folder, {"reference": str(path), "identity": identity}, {task.name: suite.protocol})
        rows = {task.name: grade_responses(suite, folder / f"{task.name}.jsonl", stored)}
    if len(answered) < len(problems):
        console.print(f"{path}: answers {len(answered):,} of {len(problems):,} problems", markup=False, highlight=False)
    measured = _scored(str(path), identity, folder, rows, [suite])
    _show([measured], console)
    console.print(f"samples and scores: {folder}", highlight=False, markup=False, soft_wrap=True)
    return measured


def _told(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())


def checked_task(name: str, options: Mapping[str, Any], data_dir: Path | None, split: str) -> Task:
    """Return a task, if this machine may run its programs. A task of the user is tried first.

    Raises `UserError` otherwise.
    """
    task = load_task(name, options, data_dir)
    if refused := code.objection(f"task {task.name}", task.isolation):
        raise UserError(refused)
    if isinstance(task, UserTask):
        try_out(Trial(name, dict(options), data_dir, None, split))
    return task


def _prepare(request: EvaluationRequest, model: ResolvedModel, tasks: Mapping[str, Mapping[str, Any]]) -> list[Suite]:
    """Return every suite, read and composed before anything is generated; `tasks` are options by name."""
    named, suites = named_protocol(request.protocol), []
    for name in request.suites:
        task = checked_task(name, tasks.get(name, {}), request.data_dir, request.choice.split)
        problems = problems_of(task, request.choice.split, request.choice.limit, request.choice.order)
        own = task_bytes(name, tasks.get(name))
        suites.append(make_suite(task, problems, named, request.choice, model.generator, own=own, encode=model.encode))
    return suites


def _measure(model: ResolvedModel, suites: Sequence[Suite], folder: Path, console: Console) -> Measured:
    rows: dict[str, list[Row]] = {}
    load = cache(model.load)  # once, and only when a sample is missing
    with _at_work(folder), RunProgress(console) as progress, _beating(progress):
        about = {"reference": model.reference, "identity": model.identity}
        admit(folder, about, {suite.task.name: suite.protocol for suite in suites})
        for suite in suites:
            name, total = suite.task.name, len(suite.samples)
            progress.start(name)
            path, report = folder / f"{name}.jsonl", partial(progress.update, name)
            make = partial(load, suite.named.overflow)
            rows[name] = measure_suite(suite, path, make, model.batch_dependent, model.reference, report)
            progress.end(name, f"{total:,} samples of {model.reference}")
    return _scored(model.reference, model.identity, folder, rows, suites)


def _scored(
    reference: str, identity: str, folder: Path, rows: Mapping[str, list[Row]], suites: Sequence[Suite]
) -> Measured:
    found = {name: scores(of) for name, of in rows.items()}
    signatures = {suite.task.name: suite.protocol.signature for suite in suites}
    strata = {suite.task.name: by_stratum(rows[suite.task.name], suite.strata) for suite in suites}
    measured = Measured(reference, identity, folder, rows, found, signatures, strata)
    measured.write()
    return measured


def _show(measured: Sequence[Measured], console: Console) -> None:
    scored = {one.reference: one.scores for one in measured}
    print_scores(scored, {one.reference: one.signatures for one in measured}, console)


def _ratio(first: Sequence[Row], second: Sequence[Row]) -> Interval:
    """Return per cent of the second's score that the first reaches, on the problems that both have a verdict for."""
    one, other = problem_means(first), problem_means(second)
    common = [name for name in one if name in other]
    return ratio_interval([one[name] for name in common], [other[name] for name in common])


def _key(identity: str, request: EvaluationRequest, settings: Settings | None) -> str:
    """Return the part of the default folder's name that depends on the model and the protocol."""
    chosen = [identity, request.protocol, asdict(request.choice)]
    if settings:
        chosen += [settings.device, settings.dtype, dict(settings.chat_template_kwargs)]
    return content_key(chosen)[:8]


@contextmanager
def _beating(progress: RunProgress) -> Iterator[None]:
    """Refresh the progress display every second: a batch on a slow machine may take minutes without a reply."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(1.0):
            progress.tick()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _at_work(folder: Path) -> Iterator[None]:
    """Lock the folder of an evaluation, and turn failures into `EvaluationFailed`."""
    try:
        with terminable(), occupied(folder, f"--out {folder}"):
            yield
    except EndpointError as error:
        raise EvaluationFailed(f"{error}; run the same command again to go on from here") from error
    except GraderFailed as error:
        raise EvaluationFailed(f"{error}; run the same command again: what failed is graded again") from error
    except OSError as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        raise EvaluationFailed(f"{folder}: {trouble}; free some space and run the same command again") from error
