"""A teacher with another tokenizer reads the student's text in its own tokens; they meet where both are between tokens.

Prompts go through each model's own chat template. Of the completion's text, both tokenisations have read the same part
at some of their tokens: the next-token distributions of these are compared, the others are left out. The first token of
a completion is always among them, and so is its end, unless the teacher's tokenizer cannot spell the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from smallwit.models.build import backbone, head_weight
from smallwit.models.conversation import encode_prompt
from smallwit.models.flops import Cost
from smallwit.models.tokenizer import encode_completions, encode_prompts
from smallwit.objectives.teacher import RankedTeacher, TeacherDistribution, TeacherHead
from smallwit.training.batch import Example, Reading
from smallwit.training.sources import Remembering, Source
from smallwit.training.step_batch import StepBatch
from smallwit.training.world import ALONE, World


class ReadingTeacher:
    """A frozen model and its tokenizer. `vocabulary` is the number of the student's real tokens."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        student: PreTrainedTokenizerBase,
        pad: int,
    ) -> None:
        self.name, self.model, self.tokenizer, self.student, self.pad = name, model, tokenizer, student, pad
        self.cost = Cost.of(model)

    def read(self, example: Example) -> Reading:
        """Its own tokens of the example's text, and where in them each trained token of the student is met."""
        assert example.prompt is not None  # of the sources that a recipe allows uld on, each gives it
        ids = example.tokens[example.prompt_length :]
        before = _texts_before(self.student, ids)
        ended = ids[-1] == self.student.eos_token_id
        text = before[-1] if ended else _texts_before(self.student, [*ids, ids[-1]])[-1]
        asked = example.prompt
        prompt = (
            encode_prompts(self.tokenizer, [asked])[0]
            if isinstance(asked, str)
            else encode_prompt(self.tokenizer, asked)
        )
        completion = encode_completions(self.tokenizer, [text])[0]
        tokens = (prompt + (completion if ended else completion[:-1]))[: self.model.config.max_position_embeddings]
        met = _first_at(_texts_before(self.tokenizer, completion), text)
        ours = _first_at(before, text)
        positions = [-1] * len(ids)
        for length, place in ours.items():
            position = len(prompt) + met.get(length, -len(prompt)) - 1
            if position < len(tokens):
                positions[place] = position
        return Reading(tokens, positions)

    def distribution(self, examples: Sequence[Example], device: torch.device) -> tuple[TeacherDistribution, float, int]:
        """Its distributions for the trained tokens of these examples, one example after the other, with the FLOPs and
        the tokens that reading took."""
        readings = [example.readings[self.name] for example in examples]
        lengths = [len(reading.tokens) for reading in readings]
        width = max(lengths)
        tokens = torch.tensor([r.tokens + [self.pad] * (width - len(r.tokens)) for r in readings], device=device)
        hidden = backbone(self.model)(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)
        # Where the two do not meet any row will do: the objective gives it no weight.
        rows = [row * width + max(position, 0) for row, r in enumerate(readings) for position in r.positions]
        head = TeacherHead(
            hidden[torch.tensor(rows, device=device)], head_weight(self.model).to(hidden.dtype), len(self.tokenizer)
        )
        return RankedTeacher(head, len(self.student)), self.cost.forward(lengths, len(rows)), sum(lengths)


def _texts_before(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that has been read before each token."""
    prefixes = [list(ids[:count]) for count in range(len(ids))]
    return tokenizer.batch_decode(prefixes, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _first_at(texts: Sequence[str], whole: str) -> dict[int, int]:
    """By the length of the text read, the first place where it begins the whole: never within a character."""
    places: dict[int, int] = {}
    for place, text in enumerate(texts):
        if whole.startswith(text):
            places.setdefault(len(text), place)
    return places


@dataclass(frozen=True)
class ReadSource:
    """A source whose examples the `teachers` have read, by name; the processes of `world` share the reading."""

    source: Source
    teachers: Mapping[str, ReadingTeacher]
    world: World = ALONE

    def batch(self, step: int) -> StepBatch:
        made = self.source.batch(step)
        return replace(made, examples=self.world.spread(self._read, made.examples))

    def _read(self, examples: Sequence[Example]) -> list[Example]:
        return [
            replace(example, readings={name: teacher.read(example) for name, teacher in self.teachers.items()})
            for example in examples
        ]

    def state(self) -> dict[str, Any]:
        """What the source itself must remember."""
        return self.source.state() if isinstance(self.source, Remembering) else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave."""
        if isinstance(self.source, Remembering):
            self.source.restore(state)
