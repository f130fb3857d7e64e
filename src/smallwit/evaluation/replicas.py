"""Replicas of the protocols that others report, to set a score beside theirs."""

from smallwit.evaluation.named import NamedProtocol

REPLICAS: tuple[NamedProtocol, ...] = ()
