"""New problems and new solutions, each proved before it is let in."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from smallwit.data.difficulty import tokens_of
from smallwit.data.generate import sample_seed
from smallwit.data.proposals import Draft, draft_of, draft_seed, way_name, writing_prompt
from smallwit.data.reading_replies import Unusable
from smallwit.data.response_selection import kept
from smallwit.data.step import Context, problem_of
from smallwit.inference.client import Asker, Call, asker_of, chunks
from smallwit.inference.generator import Decoding
from smallwit.recipe.augment import Augment, Rewrite, WaySpec
from smallwit.rows import Row
from smallwit.tasks.base import Problem


class _Attempt(NamedTuple):
    row: Row
    problem: Problem
    way: WaySpec


class _Drafted(NamedTuple):
    attempt: _Attempt
    draft: Draft


class AugmentStep:
    """The step `augment`: a teacher writes, its text is read strictly, and independent samples prove the result.

    What is not proved is dropped by the rule that is the way's name. The share that is accepted is noted by way.
    """

    def __init__(self, spec: Augment) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Each row (with `originals`), and behind it what was made of it, with `way`, `source` and `agreement`."""
        spec = self.spec
        tried: Counter[str] = Counter()
        accepted: Counter[str] = Counter()
        with asker_of(context, spec) as asker:
            for chunk in chunks(rows, max(1, spec.batch // (len(spec.ways) * spec.check.draw.samples))):
                attempts = [_Attempt(row, problem_of(row), way) for row in chunk for way in spec.ways]
                tried.update(way_name(attempt.way) for attempt in attempts)
                proved = self._proved(self._drafted(attempts, asker, context), asker, context)
                for row in chunk:
                    if spec.originals:
                        yield row
                    for new in proved.get(id(row), []):
                        accepted[new["way"]] += 1
                        yield new
        context.note(
            "accepted",
            {way: f"{accepted[way]} of {count} ({accepted[way] / count:.1%})" for way, count in tried.items()},
        )

    def _drafted(self, attempts: list[_Attempt], asker: Asker, context: Context) -> list[_Drafted]:
        """What the teacher writes for each attempt, read."""
        spec, seed = self.spec, context.resources.seed
        decoding = Decoding(spec.temperature, spec.max_new_tokens)
        seeds = [draft_seed(seed, attempt.way, str(attempt.row["id"])) for attempt in attempts]
        waiting: list[int] = []
        calls: list[Call] = []
        reasons: dict[int, str] = {}
        for place, (_, problem, way) in enumerate(attempts):
            try:
                if problem.messages:
                    raise Unusable("a conversation; only a single question can be rewritten")
                prompt = writing_prompt(way, spec, problem, seeds[place])
            except Unusable as error:
                reasons[place] = str(error)
                continue
            if prompt is not None:
                waiting.append(place)
                calls.append(Call(spec.teacher.model, prompt, decoding, seeds[place]))
        asked = set(waiting)
        replies = dict(zip(waiting, asker.replies(calls), strict=False))
        drafted = []
        for place, attempt in enumerate(attempts):
            if place in asked and replies.get(place) is None:
                reasons[place] = asker.why_not()[1]
            if place in reasons:
                self._drop(attempt, reasons[place], context)
                continue
            task = context.resources.task_of(attempt.row)
            try:
                draft = draft_of(attempt.way, spec, task, attempt.problem, replies.get(place), seeds[place])
                self._fits(attempt, draft, context)
            except Unusable as error:
                self._drop(attempt, str(error), context)
                continue
            drafted.append(_Drafted(attempt, draft))
        return drafted

    def _fits(self, attempt: _Attempt, draft: Draft, context: Context) -> None:
        """Raises `Unusable` for a new solution that is longer than it may be, or than the one to be shortened."""
        way, new = attempt.way, draft.solution
        if not isinstance(way, Rewrite) or new is None:
            return
        if way.max_tokens is not None and (length := tokens_of(new, context)) > way.max_tokens:
            raise Unusable(f"{length} tokens, at most {way.max_tokens}")
        if way.kind == "shorten" and len(new) >= len(attempt.problem.solution or ""):
            raise Unusable("not shorter than the solution that was to be shortened")

    def _proved(self, drafted: list[_Drafted], asker: Asker, context: Context) -> dict[int, list[Row]]:
        """The new rows of each row, by its identity."""
        spec, resources = self.spec, context.resources
        samples = spec.check.draw.samples
        sampled = [one for one in drafted if one.draft.solution is None]
        calls = [
            Call(
                spec.teacher.model,
                draft.template.fill({"problem": draft.problem.prompt}),
                spec.check.draw.decoding,
                sample_seed(resources.seed, attempt.row, sample, "check", way_name(attempt.way)),
            )
            for attempt, draft in sampled
            for sample in range(samples)
        ]
        replies = asker.replies(calls)
        responses: dict[int, list[str]] = {}
        for number, one in enumerate(sampled):
            own_replies = replies[number * samples : (number + 1) * samples]
            whole = len(own_replies) == samples
            responses[id(one)] = [reply.text for reply in own_replies if reply is not None] if whole else []
        proved: dict[int, list[Row]] = {}
        for one in drafted:
            attempt, draft = one
            own = [draft.solution] if draft.solution is not None else responses[id(one)]
            if not own:
                self._drop(attempt, asker.why_not()[1], context)
                continue
            proved.setdefault(id(attempt.row), []).extend(self._rows_of(attempt, draft, own, context))
        return proved

    def _rows_of(self, attempt: _Attempt, draft: Draft, responses: list[str], context: Context) -> list[Row]:
        """The new rows of a draft: the agreeing responses that `keep` chooses, if enough agree."""
        try:
            agreed = draft.prove(context.resources.task_of(attempt.row), responses, self.spec.check.share)
        except Unusable as error:
            self._drop(attempt, str(error), context, draft)
            return []
        good = [responses[place] for place in agreed.places]
        about = {name: value for name, value in attempt.row.items() if name != "messages"}
        name = way_name(attempt.way)
        return [
            about
            | {
                "id": f"{attempt.row['id']}/{name}",
                "prompt": draft.problem.prompt,
                "completion": good[place],
                "answer": agreed.gold,
                "way": name,
                "source": attempt.row["id"],
                "teacher": self.spec.teacher.model,
                "agreement": round(agreed.share, 4),
            }
            for place in kept(good, self.spec.keep)
        ]

    def _drop(self, attempt: _Attempt, reason: str, context: Context, draft: Draft | None = None) -> None:
        name = way_name(attempt.way)
        made = {"id": f"{attempt.row['id']}/{name}", "prompt": (draft.problem if draft else attempt.problem).prompt}
        context.drop(attempt.row | made, name, reason)
