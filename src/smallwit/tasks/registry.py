"""The tasks of this package by name: a class with a `name` registers itself by being defined in a module."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import TypeVar

from smallwit.tasks.base import Task

_PACKAGE = "smallwit.tasks"
Base = TypeVar("Base")


@cache
def task_classes() -> Mapping[str, type[Task]]:
    """Return the built-in task classes by name, in the order of their modules. Imports all modules of this package.

    Raises `TypeError` when two classes have the same name.
    """
    found: dict[str, type[Task]] = {}
    for each in classes_in(_PACKAGE, Task):
        if "name" in vars(each) and found.setdefault(each.name, each) is not each:
            raise TypeError(f"task '{each.name}' is defined by {found[each.name].__name__} and by {each.__name__}")
    return MappingProxyType(found)


@cache
def task_collections() -> Mapping[str, type[Task]]:
    """Return the classes that stand for a library of problem families, named as `COLLECTION:FAMILY`."""
    classes = classes_in(_PACKAGE, Task)
    return MappingProxyType({each.collection: each for each in classes if each.collection is not None})


def classes_in(package: str, base: type[Base]) -> Iterator[type[Base]]:
    """Import all modules below a package, and return the subclasses of `base` that they define, in order."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        for value in vars(importlib.import_module(found.name)).values():
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == found.name:
                yield value
