"""Problems of the right difficulty: the student's own pass rate decides."""

import json
import tempfile
from collections.abc import Iterator

from smallwit.data.agreement import agree_on_gold
from smallwit.data.generate import prompt_of, sample_seed
from smallwit.data.step import Context, problem_of
from smallwit.data.verify import golden, problem_groups
from smallwit.inference.client import Call, asker_of, chunks
from smallwit.recipe.generation import Difficulty, Template
from smallwit.rows import Row
from smallwit.storage.jsonl import json_line

_ASKED = Template(user="{problem}")


class DifficultyStep:
    """The step `difficulty`. Rows get a column `pass_rate`.

    Drops by the rules `too-hard`, `too-easy`, `too-long` (tokens of the completion), `budget` and `no-reply`.
    """

    def __init__(self, spec: Difficulty) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """The rows in the band, as they came or from easy to hard."""
        banded = self._in_band(self._short(rows, context), context)
        return banded if self.spec.order == "given" else easy_to_hard(banded, context)

    def _short(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        limit = self.spec.max_tokens
        for row in rows:
            if limit is not None and (length := tokens_of(_answer(row), context)) > limit:
                context.drop(row, "too-long", f"{length} tokens, at most {limit}")
            else:
                yield row

    def _in_band(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        spec = self.spec
        samples, name = spec.draw.samples, spec.student.model
        rates: dict[str, int] = {}
        with asker_of(context, spec) as asker:
            for groups in chunks(problem_groups(rows), max(1, spec.batch // samples)):
                calls = [
                    Call(name, prompt_of(group[0], _ASKED), spec.draw.decoding, _seed(context, group[0], sample))
                    for group in groups
                    for sample in range(samples)
                ]
                replies = asker.replies(calls)
                for number, group in enumerate(groups):
                    own = replies[number * samples : (number + 1) * samples]
                    known = [reply.text for reply in own if reply is not None]
                    if len(own) < samples or not known:
                        for row in group:
                            context.drop(row, *asker.why_not())
                        continue
                    rate = agree_on_gold(context.resources.task_of(group[0]), golden(group[0]), known).share
                    rates[f"{rate:.2f}"] = rates.get(f"{rate:.2f}", 0) + 1
                    yield from self._judged(group, rate, context)
        context.note("problems by pass rate", dict(sorted(rates.items())))

    def _judged(self, group: list[Row], rate: float, context: Context) -> Iterator[Row]:
        hard = rate == 0 if self.spec.band is None else rate < self.spec.band[0]
        for row in group:
            if self.spec.keeps(rate, answered=bool(_answer(row))):
                yield row | {"pass_rate": rate}
            else:
                context.drop(row, "too-hard" if hard else "too-easy", f"the student's pass rate is {rate:.2f}")


def _answer(row: Row) -> str:
    """What a row would teach; nothing, of a problem for reinforcement."""
    return problem_of(row).solution or ""


def _seed(context: Context, row: Row, sample: int) -> int:
    return sample_seed(context.resources.seed, row, sample, "difficulty")


def tokens_of(text: str, context: Context) -> int:
    """The length of a text in tokens of the stage's tokenizer."""
    return len(context.resources.tokenizer.encode(text, add_special_tokens=False))


def easy_to_hard(rows: Iterator[Row], context: Context) -> Iterator[Row]:
    """Rows by falling `pass_rate`, then by length, then as they came. The rows wait in a file, their keys in memory."""
    keys: list[tuple[float, int, int]] = []
    with tempfile.TemporaryFile("w+b", dir=context.build) as file:
        for row in rows:
            keys.append((-row["pass_rate"], len(_answer(row)), file.tell()))
            file.write(json_line(row).encode() + b"\n")
        for _, _, place in sorted(keys):
            file.seek(place)
            yield json.loads(file.readline())
