"""Step 5: rows that break a rule are dropped, and the rule says why."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from smallwit.data.rules import boxed_trouble, code_trouble, fenced_trouble, language_trouble, refusal, repetition
from smallwit.data.step import Context, Resources, VerifierFailed, problem_of, texts
from smallwit.recipe.data import (
    AgreementRule,
    CodeRule,
    Filter,
    FilterRule,
    FormatRule,
    LanguageRule,
    LengthRule,
    RefusalRule,
    RepetitionRule,
)
from smallwit.rows import Row
from smallwit.verify.failures import too_many_failures

BATCH = 256
"""Rows that are judged at once: verifiers and tokenizers work on many side by side."""
Judge = Callable[[Sequence[Row]], list[str | None]]
"""For each row why it breaks the rule, or `None`."""


class FilterStep:
    """The rules in their order; a row is dropped by the first that it breaks."""

    def __init__(self, spec: Filter) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Raises `UserError` when a rule needs a task, a tokenizer or a completion that is not there."""
        judges = [(rule.kind, judge_of(rule, context.resources)) for rule in self.spec.rules]
        while batch := list(islice(rows, BATCH)):
            for kind, judge in judges:
                reasons = judge(batch)
                for row, reason in zip(batch, reasons, strict=True):
                    if reason is not None:
                        context.drop(row, kind, reason)
                batch = [row for row, reason in zip(batch, reasons, strict=True) if reason is None]
            yield from batch


def judge_of(rule: FilterRule, resources: Resources) -> Judge:
    """What judges rows by a rule."""
    match rule:
        case LanguageRule():
            return _each(lambda prompt, completion: language_trouble(f"{prompt}\n{completion or ''}"))
        case LengthRule():
            return _Lengths(rule, resources)
        case RepetitionRule():
            return _each(lambda prompt, completion: repetition(completion or prompt, rule.share, rule.compression))
        case FormatRule():
            return _answers(boxed_trouble if rule.answer == "boxed" else fenced_trouble)
        case CodeRule():
            return _answers(code_trouble)
        case RefusalRule():
            return _answers(refusal)
        case AgreementRule():
            return _Agreement(resources)


def _each(trouble: Callable[[str, str | None], str | None]) -> Judge:
    return lambda rows: [trouble(*texts(row)) for row in rows]


def _answers(trouble: Callable[[str], str | None]) -> Judge:
    """A rule on completions alone."""

    def judge(rows: Sequence[Row]) -> list[str | None]:
        completions = [texts(row)[1] for row in rows]
        return ["has no completion" if text is None else trouble(text) for text in completions]

    return judge


class _Lengths:
    def __init__(self, rule: LengthRule, resources: Resources) -> None:
        self.rule, self.resources = rule, resources

    def __call__(self, rows: Sequence[Row]) -> list[str | None]:
        parts = [texts(row) for row in rows]
        chosen = {"prompt": lambda p, c: p, "completion": lambda p, c: c or "", "both": lambda p, c: f"{p}\n{c or ''}"}
        given = [chosen[self.rule.of](*part) for part in parts]
        lengths = {"characters": [len(text) for text in given]}
        if self.rule.counts_tokens:
            ids = self.resources.tokenizer(given, add_special_tokens=False)["input_ids"]
            lengths["tokens"] = [len(each) for each in ids]
        return [self._trouble({unit: counts[i] for unit, counts in lengths.items()}) for i in range(len(rows))]

    def _trouble(self, lengths: dict[str, int]) -> str | None:
        for unit, length in lengths.items():
            low, high = getattr(self.rule, f"min_{unit}"), getattr(self.rule, f"max_{unit}")
            if low is not None and length < low:
                return f"{self.rule.of}: {length:,} {unit}, at least {low:,} are asked for"
            if high is not None and length > high:
                return f"{self.rule.of}: {length:,} {unit}, at most {high:,} are allowed"
        return None


class _Agreement:
    """The task's verifier, read strictly, as the reward and the benchmark read it."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.judged = self.unknown = 0

    def __call__(self, rows: Sequence[Row]) -> list[str | None]:
        reasons: list[str | None] = [None] * len(rows)
        by_task: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            if problem_of(row).solution is None:
                reasons[place] = "has no completion"
            else:
                by_task.setdefault(self.resources.task_of(row).name, []).append(place)
        for name, places in by_task.items():
            problems = [problem_of(rows[place]) for place in places]
            pairs = [(problem, problem.solution or "") for problem in problems]
            for place, verdict in zip(places, self.resources.tasks[name].judge(pairs), strict=True):
                self.judged += 1
                if verdict.strict is None:
                    self.unknown += 1
                    reasons[place] = f"the verifier itself failed ({verdict.reason})"
                elif verdict.strict < 1.0:
                    reasons[place] = f"scores {verdict.strict:g} ({verdict.reason}); its answer is {verdict.answer}"
        if message := too_many_failures(self.unknown, self.judged, "rows"):
            raise VerifierFailed(message)
        return reasons
