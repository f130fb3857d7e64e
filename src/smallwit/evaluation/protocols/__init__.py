"""The evaluation protocols by name, one file each: the default one, and replicas of what others report.

A replica follows one harness and nothing of ours, odd corners included: a replica that is better than what it
replicates measures something else. `docs/evaluation.md` lists what differs. A class with a `name` registers itself by
being defined in a module of this package.
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from smallwit.errors import UserError
from smallwit.evaluation.protocols.base import NamedProtocol
from smallwit.suggestions import hint
from smallwit.tasks.registry import classes_in

RENAMED = {"house": "default"}
"""Names of earlier versions, and what they are called now."""


@cache
def protocols() -> Mapping[str, NamedProtocol]:
    """Return all protocols by name, in the order of their modules. Imports the modules that define them."""
    classes = classes_in(__name__, NamedProtocol)
    return MappingProxyType({each.name: each() for each in classes if "name" in vars(each)})


def named_protocol(name: str) -> NamedProtocol:
    """Return the protocol of this name. Raises `UserError`, with the closest name, where there is none."""
    known = protocols()
    if name in RENAMED:
        raise UserError(f"unknown protocol '{name}'; it is called '{RENAMED[name]}' now")
    if name not in known:
        raise UserError(f"unknown protocol '{name}'; {hint(name, known, 'protocols')}")
    return known[name]
