"""Teachers with another tokenizer: distributions are compared at token boundaries that both tokenizations share.

Prompts go through each model's own chat template. A token of the student is aligned if the teacher has a token before
which it has read exactly the same part of the completion's text. Other tokens are left out. The first token of a
completion is always aligned, and so is its end, unless the teacher's tokenizer cannot spell the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from smallwit.models.build import backbone
from smallwit.models.chat import ChatTokenizer
from smallwit.models.conversation import encode_prompt
from smallwit.models.flops import Cost
from smallwit.models.head import output_head
from smallwit.objectives.batch import AlignedTokens, Example
from smallwit.objectives.teacher import RankedTeacher, TeacherDistribution, TeacherHead
from smallwit.training.distributed import SINGLE_PROCESS, World
from smallwit.training.sources import Stateful, TokenSource
from smallwit.training.step_batch import StepBatch

_NO_PREFIX = "\0"
"""A text that no answer begins with."""


class CrossTokenizerTeacher:
    """A frozen teacher model with its own chat tokenizer. The ends of answers are aligned too."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        chat: ChatTokenizer,
        student: ChatTokenizer,
    ) -> None:
        self.name, self.model, self.chat, self.student = name, model, chat, student
        self.cost = Cost.of(model)

    def align(self, example: Example) -> AlignedTokens:
        """Return the example in the teacher's tokens, and the position of each trained token of the student in them."""
        assert example.prompt is not None  # of the sources that a recipe allows uld on, each gives it
        ids = example.tokens[example.prompt_length :]
        asked = example.tokens[: example.prompt_length]
        before = _texts_before(self.student, asked, ids)
        ended = ids[-1] in self.student.ends.all
        text = before[-1] if ended else _texts_before(self.student, asked, [*ids, ids[-1]])[-1]
        prompt = encode_prompt(self.chat, example.prompt)
        completion = self.chat.encode_completions([text])[0]
        tokens = (prompt + (completion if ended else completion[:-1]))[: self.model.config.max_position_embeddings]
        (whole,) = self.chat.decode_replies([prompt], [completion])
        # What the teacher's template writes before an answer (an empty thought) is not in the student's text.
        opening = whole.removesuffix(text) if whole.endswith(text) else ""
        read = _texts_before(self.chat, prompt, completion)
        met = _first_at([each[len(opening) :] if each.startswith(opening) else _NO_PREFIX for each in read], text)
        ours = _first_at(before, text)
        positions = [-1] * len(ids)
        for length, place in ours.items():
            position = len(prompt) + met.get(length, -len(prompt)) - 1
            if position < len(tokens):
                positions[place] = position
        return AlignedTokens(tokens, positions)

    def distribution(self, examples: Sequence[Example], device: torch.device) -> tuple[TeacherDistribution, float, int]:
        """Return the distributions for the trained tokens, example by example; the teacher's FLOPs; its tokens."""
        aligned = [example.aligned[self.name] for example in examples]
        lengths = [len(each.tokens) for each in aligned]
        width = max(lengths)
        tokens = torch.tensor([r.tokens + [self.chat.pad] * (width - len(r.tokens)) for r in aligned], device=device)
        hidden = backbone(self.model)(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)
        # A token that is not aligned takes any row: the loss gives it weight 0.
        rows = [row * width + max(position, 0) for row, r in enumerate(aligned) for position in r.positions]
        head = output_head(self.model)
        states, weight = head.scaled(hidden[torch.tensor(rows, device=device)]), head.weight.to(hidden.dtype)
        teacher = TeacherHead(states, weight, min(len(self.chat.tokenizer), len(weight)), softcap=head.softcap)
        return RankedTeacher(teacher, len(self.student.tokenizer)), self.cost.forward(lengths, len(rows)), sum(lengths)


def _texts_before(chat: ChatTokenizer, prompt: Sequence[int], ids: Sequence[int]) -> list[str]:
    """Return, for each token of a reply, the text of the reply before it."""
    prefixes = [list(ids[:count]) for count in range(len(ids))]
    return chat.decode_replies([prompt] * len(prefixes), prefixes)


def _first_at(texts: Sequence[str], whole: str) -> dict[int, int]:
    """Return the first position of each prefix of `whole` in `texts`, by the prefix' length."""
    places: dict[int, int] = {}
    for place, text in enumerate(texts):
        if whole.startswith(text):
            places.setdefault(len(text), place)
    return places


@dataclass(frozen=True)
class CrossTokenizerSource:
    """A source whose examples are aligned for `teachers` (by name). The processes of `world` share the work."""

    source: TokenSource
    teachers: Mapping[str, CrossTokenizerTeacher]
    world: World = SINGLE_PROCESS

    def batch(self, step: int) -> StepBatch:
        made = self.source.batch(step)
        return replace(made, examples=self.world.sharded_map(self._align, made.examples))

    def _align(self, examples: Sequence[Example]) -> list[Example]:
        return [
            replace(example, aligned={name: teacher.align(example) for name, teacher in self.teachers.items()})
            for example in examples
        ]

    def state(self) -> dict[str, Any]:
        """Return the state of the wrapped source."""
        return self.source.state() if isinstance(self.source, Stateful) else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state of the wrapped source."""
        if isinstance(self.source, Stateful):
            self.source.restore(state)
