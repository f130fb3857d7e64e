"""Score examples with the teacher of a teacher_logprobs stage: a local model, or one behind an endpoint."""

from collections.abc import Callable, Iterator, Sequence
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
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.head import CHUNK_ELEMENTS
from smallwit.objectives.teacher import TeacherHead, TopK
from smallwit.stages.common.inputs import autocast_of, calls_file, chat_of, endpoint_of, model_of
from smallwit.stages.job import Job
from smallwit.stages.teacher_logprobs import TeacherLogprobsStage
from smallwit.storage.journal import Journal
from smallwit.training.endpoint_teacher import EndpointTeacher
from smallwit.training.forward import forward_hidden, token_batches
from smallwit.training.teacher_store import NoNumbers, pack

Note = Callable[[int, int], None]
"""Called between two passes or replies with the examples and completion tokens scored so far; may raise."""
_ANY_LENGTH = 1 << 31


class TeacherScorer(Protocol):
    """A teacher that scores examples of at most `longest` tokens."""

    chat: ChatTokenizer
    longest: int

    def read(self, examples: Sequence[Example], note: Note) -> tuple[list[Example], NDArray[np.void]]:
        """Return the examples in some order, and the records of their trained tokens in that order."""
        ...

    def flops(self, examples: Sequence[Example]) -> float:
        """Return the FLOPs of scoring the examples; 0 if they are not known."""
        ...

    def finish(self) -> None:
        """Delete temporary files: the scores are published."""
        ...


class LocalTeacherScorer:
    """A local model: forward passes of at most `micro_tokens` padded tokens. `model` is that of the stage if absent."""

    def __init__(self, job: Job, stage: TeacherLogprobsStage, model: PreTrainedModel | None = None) -> None:
        self.stage, self.autocast = stage, autocast_of(job)
        self.chat = chat_of(job, stage.model)
        self.model: PreTrainedModel = (model or model_of(job, stage.model)).eval()
        self.vocabulary = vocabulary_of(self.chat, self.model, stage.model)
        self.longest: int = self.model.config.max_position_embeddings
        self.cost = Cost.of(self.model)

    def read(self, examples: Sequence[Example], note: Note) -> tuple[list[Example], NDArray[np.void]]:
        order: list[Example] = []
        records: list[NDArray[np.void]] = []
        for batch in self.batches(examples):
            note(len(order), sum(map(len, records)))
            order += batch.examples
            try:
                records.append(pack(self.top_k(batch)))
            except NoNumbers as error:
                raise UserError(
                    f"stage {self.stage.name}: teacher {self.stage.model} gives {error}, so nothing of it is stored; "
                    "repair its weights, or compute in float32 (dtype: float32)"
                ) from error
        return order, np.concatenate(records)

    def batches(self, examples: Sequence[Example]) -> Iterator[TokenBatch]:
        """Yield the examples of each forward pass."""
        return token_batches([self.model], examples, pad=self.chat.pad, max_tokens=self.stage.micro_tokens)

    @torch.no_grad()
    def top_k(self, batch: TokenBatch) -> TopK:
        """Return the top k at each trained token, of one forward pass."""
        with torch.autocast(self.model.device.type, self.autocast, enabled=self.autocast is not None):
            hidden = forward_hidden(self.model, batch)
        # As with a live teacher, the head runs outside of autocast.
        head = output_head(self.model)
        teacher = TeacherHead(hidden, head.weight.to(hidden.dtype), self.vocabulary, softcap=head.softcap)
        return teacher.top_k(self.stage.k, self.stage.temperature, chunk_elements=CHUNK_ELEMENTS)

    def flops(self, examples: Sequence[Example]) -> float:
        return sum(self.cost.forward([len(example.tokens)], example.targets) for example in examples)

    def finish(self) -> None:
        """Do nothing: there are no temporary files."""


class EndpointTeacherScorer:
    """A model behind an endpoint that returns its likeliest tokens and their log-probs.

    A journal keeps its replies, so that a killed or changed stage requests none of them again. The FLOPs of the
    endpoint are not known, and count as 0.
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
        """Close the journal. It stays for stages with other settings."""
        self.journal.close()
