"""One task measured by one protocol: its prompts, and its samples on disk, resumed after an interruption."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smallwit.errors import UserError
from smallwit.evaluation.folder import count_resumed_batch
from smallwit.evaluation.protocol import (
    EvaluationProtocol,
    GeneratorInfo,
    data_checksum,
    encoded_checksum,
    library_versions,
    prompt_checksum,
)
from smallwit.evaluation.protocols.base import NamedProtocol
from smallwit.evaluation.runner import (
    Row,
    Sample,
    collect,
    graded,
    require_score,
    require_verdicts,
    samples_of,
    unverified,
)
from smallwit.evaluation.sample_file import SampleFile
from smallwit.inference.client import PARTIAL_BATCH
from smallwit.inference.generator import Decoding, Generator
from smallwit.inference.progress import GenerationProgress
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import Order, order_of, part_of
from smallwit.tasks.prompt import Prompt

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The options of an evaluation: `limit` problems of a split by `order`, the samples of each, and their seed.

    `temperature` and `max_new_tokens` replace the protocol's values.
    """

    split: str = "test"
    limit: int | None = None
    samples: int = 1
    seed: int = 0
    temperature: float | None = None
    max_new_tokens: int | None = None
    order: Order = "drawn"

    def decoding(self, named: NamedProtocol) -> Decoding:
        """Return the protocol's decoding with the options of this run."""
        chosen = {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens}
        return replace(named.decoding, **{key: value for key, value in chosen.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Suite:
    """A task that is going to be measured."""

    task: Task
    samples: Sequence[Sample]
    named: NamedProtocol
    protocol: EvaluationProtocol

    @property
    def strata(self) -> dict[str, Sequence[Sequence[str]]]:
        """Return the strata of each problem that has some, by its id."""
        return {sample.problem.id: sample.problem.strata for sample in self.samples if sample.problem.strata}


def problems_of(task: Task, split: str, limit: int | None, order: Order = "drawn") -> list[Problem]:
    """Return `limit` problems of a split, a part by `order` (`tasks.draw`), or all.

    Raises `UserError` where there are none, or two have one id.
    """
    problems = list(part_of(task, split, limit, order=order))
    if not problems:
        raise UserError(f"task {task.name} has no {split} problems")
    name, count = Counter(problem.id for problem in problems).most_common(1)[0]
    if count > 1:
        raise UserError(f"task {task.name}: {count} {split} problems have the id {name}; give each its own")
    return problems


def make_suite(
    task: Task,
    problems: Sequence[Problem],
    named: NamedProtocol,
    choice: Choice,
    generator: GeneratorInfo,
    *,
    own: bytes = b"",
    stored: Sequence[int] | None = None,
    encode: Callable[[Sequence[Prompt]], list[list[int]]] | None = None,
) -> Suite:
    """Return the suite of a task: all that is fixed before the first reply.

    `own` are the bytes of a user's task file, which its verdicts depend on. `encode` makes the token ids of prompts,
    where this process does that. `stored` has the number of stored responses to each problem, where nothing is going to
    be generated: how they were asked for is not known, and no demonstrations are read.
    """
    if stored is None:
        prompts = named.prompts(task, problems)
    else:
        named.require(task)
        prompts = [problem.as_prompt() for problem in problems]
    decoding = choice.decoding(named)
    if stored is None and choice.samples > 1 and decoding.temperature == 0:
        raise UserError(f"{choice.samples} samples at temperature 0 would be equal; give a temperature, as 0.7")
    samples = samples_of(problems, prompts, choice.samples, choice.seed)
    if stored is not None:
        counts = dict(zip([problem.id for problem in problems], stored, strict=True))
        samples = [s for s in samples_of(problems, prompts, max(stored), 0) if s.number < counts[s.problem.id]]
    grader = f"{named.grader}:{hashlib.sha256(own).hexdigest()[:12]}" if own else named.grader
    protocol = EvaluationProtocol(
        name=named.name,
        task=task.name,
        split=choice.split,
        problems=len(problems),
        data=data_checksum(problems),
        prompts=prompt_checksum(prompts),
        encoded=None if encode is None else encoded_checksum(encode(prompts)),
        system=named.system if stored is None else None,
        shots=named.shots if stored is None else None,
        samples=choice.samples if stored is None else max(stored),
        decoding=decoding if stored is None else None,
        seed=choice.seed if stored is None and decoding.temperature > 0 else None,
        overflow=named.overflow,
        extractor=named.extractor,
        grader=grader,
        generator=generator,
        libraries=library_versions(),
        # Fewer stored responses than the limit are no part by an order.
        order=order_of(task, choice.split, choice.limit, choice.order) if len(problems) == choice.limit else None,
    )
    return Suite(task, samples, named, protocol)


def measure_suite(
    suite: Suite,
    path: Path,
    generator: Callable[[], Generator],
    batch_dependent: bool,
    subject: str,
    report: Callable[[float, str], None] = lambda share, text: None,
    check: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Return the rows of all samples, in order. Rows that the file at `path` holds are not generated again.

    `generator` is called when something is missing; `report` and `check` are those of `GenerationProgress`. Where a
    part of a model's replies is missing, `resumed_batches` of `protocol.json` beside the file counts it. Raises
    `GraderFailed`, which names the `subject`, as soon as more than 1 % of the samples cannot have a verdict.
    """
    with SampleFile(path) as file:
        _grade_again(suite, file)

        def keep(rows: list[Row]) -> None:
            for row in rows:
                file.add(row)
            if any(map(unverified, rows)):
                require_verdicts(list(file.rows.values()), f"{subject} on {suite.task.name}", len(suite.samples))

        def resumed() -> None:
            _log.warning("%s: %s", path, PARTIAL_BATCH)
            count_resumed_batch(path.parent, suite.task.name)

        if any(sample.key not in file.rows for sample in suite.samples):
            assert suite.protocol.decoding is not None
            have = set(file.rows)
            collect(
                suite.task,
                suite.samples,
                generator(),
                suite.protocol.decoding,
                suite.named.grade,
                batch_dependent=batch_dependent,
                have=have,
                keep=keep,
                progress=GenerationProgress(report, total=len(suite.samples), check=check),
                on_resume=resumed,
            )
        rows = file.settle([sample.key for sample in suite.samples])
        require_score(rows, f"{subject} on {suite.task.name}")
        return rows


def _grade_again(suite: Suite, file: SampleFile) -> None:
    """Grade the stored samples without a verdict once more."""
    failed = [sample for sample in suite.samples if sample.key in file.rows and unverified(file.rows[sample.key])]
    pairs = [(sample.problem, str(file.rows[sample.key]["response"])) for sample in failed]
    for sample, verdict in zip(failed, graded(suite.task, suite.named.grade, pairs), strict=True):
        reading = {name: getattr(verdict, name) for name in ("score", "strict", "answer", "reason")}
        file.add(file.rows[sample.key] | reading)
