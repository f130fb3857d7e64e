"""Verifiers: the same functions filter data, reward reinforcement learning and score benchmarks."""

from smallwit.verify.verdict import Verdict

__all__ = ["Verdict"]
