"""What a difference of two models is made of: answers that were cut, that had no or another form, that were wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smallwit.evaluation.scores import Row
from smallwit.tasks.draw import sample

RIGHT, OTHER_FORM = "right", "right in another form"
READ = 50
"""Answers of each model that are written out for reading."""


def reason_of(row: Row) -> str | None:
    """Return what became of a sample, `None` without a verdict.

    What scores 1 is `right`, or `right in another form` than the declared one. What scores less is `cut` if a limit on
    its length ended it, else it has the verdict's reason (`no-answer`, `wrong`, `limit`, ...).
    """
    if row["score"] is None or row["strict"] is None:
        return None
    if row["score"] == 1:
        return RIGHT if row["strict"] == 1 else OTHER_FORM
    return "cut" if row.get("truncated") else str(row.get("reason") or "wrong")


@dataclass(frozen=True)
class Transitions:
    """Counts of the samples that both models have, by what became of them with `b` and with `a`."""

    counts: Counter[tuple[str, str]]

    @staticmethod
    def of(a: Sequence[Row], b: Sequence[Row]) -> "Transitions":
        """Return the transitions of one task; samples are paired by problem and number."""
        before = {(row["id"], row.get("sample")): reason_of(row) for row in b}
        pairs = ((before.get((row["id"], row.get("sample"))), reason_of(row)) for row in a)
        return Transitions(Counter((old, new) for old, new in pairs if old is not None and new is not None))

    def of_a(self) -> Counter[str]:
        """Return how many samples of `a` have each reason, the most frequent first."""
        return self._side(1)

    def of_b(self) -> Counter[str]:
        """Return how many samples of `b` have each reason, the most frequent first."""
        return self._side(0)

    def gains(self) -> dict[str, float]:
        """Return by how much each reason for a lower score became rarer from `b` to `a`, as a share of the samples.

        Where scores are 0 or 1 and each problem has one sample, the sum is the difference of the scores.
        """
        a, b, total = self.of_a(), self.of_b(), self.counts.total()
        return {reason: (b[reason] - a[reason]) / total for reason in (a | b) if reason not in (RIGHT, OTHER_FORM)}

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        changed = [{"b": old, "a": new, "samples": count} for (old, new), count in self.counts.most_common()]
        return {"a": dict(self.of_a()), "b": dict(self.of_b()), "gains": self.gains(), "transitions": changed}

    def _side(self, side: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for pair, count in self.counts.most_common():
            found[pair[side]] += count
        return Counter(dict(found.most_common()))


def for_reading(task: str, model: str, rows: Sequence[Row]) -> str:
    """Return up to `READ` answers of a model that score less than 1 as text, drawn by the ids of their problems."""
    missed = [row for row in rows if reason_of(row) not in (None, RIGHT, OTHER_FORM)]
    chosen = sample(missed, READ, lambda row: str(row["id"]))
    parts = [f"# {task}, {model}: {len(chosen)} of {len(missed)} answers that score less than 1\n"]
    for number, row in enumerate(chosen, 1):
        about = f"{number}. {row['id']}: {reason_of(row)}; gold {row['gold']}; read {row['answer']}"
        parts.append(f"## {about}\n\n{row['prompt']}\n\n---\n\n{row.get('response', '')}\n")
    return "\n".join(parts)
