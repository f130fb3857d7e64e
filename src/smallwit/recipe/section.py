"""The base class of a recipe's sections, and fields whose value is one of several registered kinds."""

import importlib
import pkgutil
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from smallwit.tasks.draw import Order

Kind = TypeVar("Kind", bound="Section")
PartOrder = Annotated[
    Order,
    Field(description="a part of a split: drawn by a hash of the ids, the same in every run; given: the first rows"),
]


class Section(BaseModel):
    """A part of the recipe; unknown keys are refused.

    A base class of kinds names the packages in `kinds_in` whose modules define its subclasses. A subclass with a field
    `kind: Literal[...]` is a kind that recipes can name: defining it registers it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    kinds_in: ClassVar[tuple[str, ...]] = ()


class ByKind:
    """Mark a field of a base class of kinds: `kind` chooses among the registered subclasses.

    step: Annotated[DataStep, ByKind()]
    """

    def __get_pydantic_core_schema__(self, base: type[Section], handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(union_of(base))


def union_of(base: type[Section]) -> Any:
    """Return the tagged union of all registered kinds of `base`, as a type annotation."""
    kinds = kinds_of(base)
    return Annotated[Union[tuple(kinds)], Field(discriminator="kind")] if len(kinds) > 1 else kinds[0]  # noqa: UP007


def kinds_of(base: type[Kind]) -> list[type[Kind]]:
    """Return the registered kinds of `base`, in the order of their modules. Imports the modules that define them.

    Raises `TypeError` when two classes have the same `kind`.
    """
    for package in base.kinds_in:
        root = importlib.import_module(package)
        for module in pkgutil.iter_modules(root.__path__, f"{package}."):
            importlib.import_module(module.name)
    kinds = sorted((each for each in subclasses_of(base) if tags_of(each)), key=lambda each: each.__module__)
    seen: dict[str, type[Kind]] = {}
    for each in kinds:
        for tag in tags_of(each):
            if seen.setdefault(tag, each) is not each:
                raise TypeError(f"kind '{tag}' is defined by {seen[tag].__name__} and by {each.__name__}")
    return kinds


def tags_of(section: type[Section]) -> tuple[str, ...]:
    """Return the values of `kind` that name this section; none for a class that is not a kind."""
    field = section.model_fields.get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        return ()
    return get_args(field.annotation)


def subclasses_of(base: type[Kind]) -> list[type[Kind]]:
    """Return the subclasses of `base` that are defined so far, at all levels."""
    found: dict[type[Kind], None] = {}
    for each in base.__subclasses__():
        found[each] = None
        found.update(dict.fromkeys(subclasses_of(each)))
    return list(found)
