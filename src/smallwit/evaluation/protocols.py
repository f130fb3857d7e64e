"""The protocols by name: the house's, and replicas of what others report."""

from collections.abc import Mapping

from smallwit.errors import UserError
from smallwit.evaluation.named import HOUSE, NamedProtocol
from smallwit.evaluation.replicas import REPLICAS
from smallwit.suggestions import hint


def protocols() -> Mapping[str, NamedProtocol]:
    """All protocols by name."""
    return {protocol.name: protocol for protocol in (HOUSE, *REPLICAS)}


def named_protocol(name: str) -> NamedProtocol:
    """The protocol of this name. Raises `UserError`, with the nearest, where there is none."""
    known = protocols()
    if name not in known:
        raise UserError(f"unknown protocol '{name}'; {hint(name, known, 'protocols')}")
    return known[name]
