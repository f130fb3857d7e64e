"""A teacher behind an endpoint, queried for its likeliest tokens when a batch is made."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from smallwit.inference.endpoint_scores import EndpointScorer
from smallwit.objectives.batch import Example
from smallwit.objectives.teacher import TopK
from smallwit.storage.journal import Journal


class EndpointTeacher:
    """A teacher behind an endpoint. A `journal` keeps replies. `note` is called after each batch of examples."""

    def __init__(
        self, scorer: EndpointScorer, journal: Journal | None = None, note: Callable[[], None] = lambda: None
    ) -> None:
        self.scorer, self.journal, self.note = scorer, journal, note
        self.vocabulary = len(scorer.tokenizer)

    def distribution(
        self, examples: Sequence[Example], device: torch.device, on_row: Callable[[int], None] = lambda index: None
    ) -> tuple[TopK, float, int]:
        """Return the distributions for the trained tokens, example by example; FLOPs (not known: 0); tokens read.

        `on_row` is called for each reply, with the index of the example; it may stop by raising. Raises as
        `EndpointScorer.score` does.
        """
        starts = [example.spans[0][0] for example in examples]
        rows = [(example.tokens, start) for example, start in zip(examples, starts, strict=True)]
        try:
            scored = self.scorer.score(rows, self.journal, on_row)
        finally:
            self.note()
        parts = [
            (one.ids[first - start : end - start], one.log_probs[first - start : end - start])
            for example, start, one in zip(examples, starts, scored, strict=True)
            for first, end in example.spans
        ]
        ids = np.concatenate([ids for ids, _ in parts])
        log_probs = np.concatenate([log_probs for _, log_probs in parts])
        # Servers round: together they may be a little more than one.
        log_probs = log_probs - np.log(np.maximum(np.exp(log_probs).sum(1, keepdims=True), 1.0))
        rest = np.log(np.maximum(1.0 - np.exp(log_probs).sum(1), np.finfo(np.float32).tiny))
        top = TopK(
            torch.from_numpy(ids).to(device),
            torch.from_numpy(log_probs).float().to(device),
            torch.from_numpy(rest).float().to(device),
            self.vocabulary,
            1.0,
        )
        return top, 0.0, sum(len(example.tokens) for example in examples)
