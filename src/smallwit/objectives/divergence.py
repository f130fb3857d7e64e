"""Divergences between the student's and a teacher's next-token distributions, on the full vocabulary.

p is the student, q the teacher, both softmax(z / temperature) over the tokens that the two tokenizers share. The
teacher's logits are made chunk by chunk from its hidden states, so they never exist for all tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TeacherHead:
    """A teacher's hidden states `[N, Ht]` and head `[Vt, Ht]`; `vocabulary` real tokens, shared with the student."""

    hidden: Tensor
    weight: Tensor
    vocabulary: int

    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """log q `[n, vocabulary]` in float32."""
        logits = self.hidden[tokens] @ self.weight[: self.vocabulary].T
        return torch.log_softmax(logits / temperature, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _shared(log_probs: Tensor, vocabulary: int) -> Tensor:
    """log p over the first `vocabulary` tokens: padded rows are left out and the rest is normalised again."""
    if log_probs.shape[1] == vocabulary:
        return log_probs
    return torch.log_softmax(log_probs[:, :vocabulary], dim=1)


def _padded(gradient: Tensor, width: int) -> Tensor:
    """Zeros for the rows that were left out."""
    return torch.nn.functional.pad(gradient, (0, width - gradient.shape[1]))


@dataclass(frozen=True)
class ForwardKL:
    """KL(q || p) = sum q (log q - log p), in nats: d/dz = p - q (Hinton et al. 2015, arXiv 1503.02531)."""

    teacher: TeacherHead
    temperature: float = 1.0

    def value(self, log_probs: Tensor, tokens: slice) -> Tensor:
        log_q = self.teacher.log_probs(tokens, self.temperature)
        log_p = _shared(log_probs, self.teacher.vocabulary)
        return (log_q.exp() * (log_q - log_p)).sum(1)

    def gradient(self, log_probs: Tensor, tokens: slice, upstream: Tensor) -> Tensor:
        q = self.teacher.log_probs(tokens, self.temperature).exp_()
        p = _shared(log_probs, self.teacher.vocabulary).exp()
        return _padded((p - q) * upstream[:, None], log_probs.shape[1])


@dataclass(frozen=True)
class ReverseKL:
    """KL(p || q) = sum p (log p - log q) = K, in nats: d/dz = p (log p - log q - K) (MiniLLM, arXiv 2306.08543)."""

    teacher: TeacherHead
    temperature: float = 1.0

    def value(self, log_probs: Tensor, tokens: slice) -> Tensor:
        log_q = self.teacher.log_probs(tokens, self.temperature)
        log_p = _shared(log_probs, self.teacher.vocabulary)
        return (log_p.exp() * (log_p - log_q)).sum(1)

    def gradient(self, log_probs: Tensor, tokens: slice, upstream: Tensor) -> Tensor:
        log_q = self.teacher.log_probs(tokens, self.temperature)
        log_p = _shared(log_probs, self.teacher.vocabulary)
        p, ratio = log_p.exp(), log_p - log_q
        divergence = (p * ratio).sum(1, keepdim=True)
        return _padded(p * (ratio - divergence) * upstream[:, None], log_probs.shape[1])
