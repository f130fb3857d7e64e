"""The teachers of a teacher_logprobs stage: models that are here, and models behind endpoints."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference.endpoint_scores import EndpointScorer
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.models.flops import Cost
from smallwit.models.head import output_head
from smallwit.network.hosts import REQUESTS_FILE, HostLog
from smallwit.objectives.batch import Example, TokenBatch, micro_batches
from smallwit.objectives.head import CHUNK_ELEMENTS
from smallwit.objectives.teacher import TeacherHead, TopK
from smallwit.stages.common.inputs import autocast_of, calls_file, chat_of, endpoint_of, model_of
from smallwit.stages.job import Job
from smallwit.stages.teacher_logprobs import TeacherLogprobsStage
from smallwit.storage.journal import Journal
from smallwit.training.endpoint_teacher import EndpointTeacher
from smallwit.training.forward import forward_hidden
from smallwit.training.teacher_store import NoNumbers, pack

Note = Callable[[int, int], None]
"""Called between two passes or replies with the examples and completion tokens read so far; may end the reading."""
_ANY_LENGTH = 1 << 31


class TeacherScorer(Protocol):
    """A teacher that reads examples. Of at most `longest` tokens."""

    chat: ChatTokenizer
    longest: int

    def read(self, examples: Sequence[Example], note: Note) -> tuple[list[Example], NDArray[np.void]]:
        """The examples in some order, and the records of their trained tokens, one example after the other."""
        ...

    def flops(self, examples: Sequence[Example]) -> float:
        """What reading them costs, as far as it is known."""
        ...

    def finish(self) -> None:
        """What was read is kept elsewhere now."""
        ...


class LocalTeacherScorer:
    """A model that is here: forward passes of at most `micro_tokens` padded tokens."""

    def __init__(self, job: Job, stage: TeacherLogprobsStage) -> None:
        self.stage, self.autocast = stage, autocast_of(job)
        self.chat = chat_of(job, stage.model)
        self.model: PreTrainedModel = model_of(job, stage.model).eval()
        self.vocabulary = vocabulary_of(self.chat, self.model, stage.model)
        self.longest: int = self.model.config.max_position_embeddings
        self.cost = Cost.of(self.model)

    def read(self, examples: Sequence[Example], note: Note) -> tuple[list[Example], NDArray[np.void]]:
        order: list[Example] = []
        records: list[NDArray[np.void]] = []
        for group in micro_batches(list(examples), self.stage.micro_tokens):
            note(len(order), sum(map(len, records)))
            batch = TokenBatch.of(group, self.chat.pad, self.model.device)
            order += batch.examples
            try:
                records.append(pack(self._top_k(batch)))
            except NoNumbers as error:
                raise UserError(
                    f"stage {self.stage.name}: teacher {self.stage.model} gives {error}, so nothing is stored of it; "
                    "mend its weights, or compute in float32 (dtype: float32)"
                ) from error
        return order, np.concatenate(records)

    @torch.no_grad()
    def _top_k(self, batch: TokenBatch) -> TopK:
        with torch.autocast(self.model.device.type, self.autocast, enabled=self.autocast is not None):
            hidden = forward_hidden(self.model, batch)
        # The head is not under autocast, as with a live teacher.
        head = output_head(self.model)
        teacher = TeacherHead(hidden, head.weight.to(hidden.dtype), self.vocabulary, softcap=head.softcap)
        return teacher.top_k(self.stage.k, self.stage.temperature, chunk_elements=CHUNK_ELEMENTS)

    def flops(self, examples: Sequence[Example]) -> float:
        return sum(self.cost.forward([len(example.tokens)], example.targets) for example in examples)

    def finish(self) -> None:
        """Nothing was kept."""


class EndpointTeacherScorer:
    """A model behind an endpoint, which gives its likeliest tokens and their log-probs.

    Its replies are in a journal until `finish`, so that a stage that is killed asks for none of them again. What the
    endpoint's machine computes is not known here: no FLOPs are counted.
    """

    def __init__(self, job: Job, stage: TeacherLogprobsStage) -> None:
        self.chat, self.longest = chat_of(job, stage.model), _ANY_LENGTH
        endpoint = endpoint_of(job, stage.model)
        self.journal = Journal(calls_file(job, endpoint))
        scorer = EndpointScorer(endpoint, self.chat.tokenizer, stage.k)
        self.hosts = HostLog(job.work / REQUESTS_FILE, scorer.client.counts)
        self.teacher = EndpointTeacher(scorer, self.journal, self.hosts.write)

    def read(self, examples: Sequence[Example], note: Note) -> tuple[list[Example], NDArray[np.void]]:
        done = tokens = 0

        def on_row(index: int) -> None:
            nonlocal done, tokens
            note(done, tokens)
            done, tokens = done + 1, tokens + examples[index].targets
            self.hosts.tick()

        top, _, _ = self.teacher.distribution(examples, torch.device("cpu"), on_row)
        return list(examples), pack(top)

    def flops(self, examples: Sequence[Example]) -> float:
        return 0.0

    def finish(self) -> None:
        self.journal.close()
        self.journal.path.unlink()
