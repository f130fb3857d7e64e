"""Read YAML with the line of each key, and with the numbers and booleans of YAML 1.2.

PyYAML reads YAML 1.1: `1e-3` is text, `no` is false, `010` is eight and `1:30` is ninety. Authors of recipes do not
expect this, so numbers and booleans follow the newer standard.
"""

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import yaml

from smallwit.console.sanitize import escape_control
from smallwit.errors import UserError

MAX_CHARACTERS, MAX_NODES, MAX_DEPTH = 1_000_000, 20_000, 50
"""Limits of a text. Values and keys count as often as *aliases repeat them."""

Place = tuple[str | int, ...]
"""The path of a value: keys of mappings and positions in lists, from the top."""

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_MERGE = "tag:yaml.org,2002:merge"
_RULES = [
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    (_MERGE, r"<<", ["<"]),
]


@dataclass
class Lines:
    """The origins of a recipe's values, for messages: a file and its lines, or a `--set` that replaced them."""

    file: str
    numbers: dict[Place, int] = field(default_factory=dict)
    overrides: dict[Place, str] = field(default_factory=dict)

    def where(self, line: int) -> str:
        """Return `file:line`; a `--set` has no line number."""
        return self.file if self.file.startswith("--set ") else f"{self.file}:{line}"

    def at(self, *path: str | int) -> str:
        """Return `file:line`, or the override, of the closest part of `path` that the recipe gives."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.overrides:
                return f"--set {self.overrides[path[:end]]}"
            if path[:end] in self.numbers:
                return self.where(self.numbers[path[:end]])
        return self.file

    def changes(self, *path: str | int) -> str:
        """Return a remark about an override inside `path`, or nothing."""
        inside = [text for place, text in self.overrides.items() if place[: len(path)] == path and place != path]
        return f" (with --set {inside[-1]})" if inside else ""

    def order(self, path: Place) -> int:
        """Return the line of `path`, to sort messages by."""
        return next((self.numbers[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.numbers), 0)


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str, lines: Lines) -> None:
        super().__init__(text)
        self.lines = lines
        self.open = 0
        self.sizes: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Return the next node, with its aliases resolved. Raises `UserError` for too many or too deep nodes.

        The size is checked here, before anything walks the nodes: aliases of aliases double with each line.
        """
        self.open += 1
        if self.open > MAX_DEPTH:
            raise UserError(f"{self.lines.where(self.line + 1)}: is nested too deeply for a recipe")
        node = super().compose_node(parent, index)
        assert node is not None
        self.open -= 1
        if id(node) not in self.sizes:
            self.sizes[id(node)] = self.measured(node)
        return node

    def measured(self, node: yaml.Node) -> tuple[int, int]:
        """Return the number of nodes in a composed node, itself included, and their depth."""
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inside = chain.from_iterable(parts) if isinstance(node, yaml.MappingNode) else parts
        # A node inside itself has no size yet; `check` refuses it.
        sizes = [self.sizes.get(id(part), (1, 1)) for part in inside]
        size, depth = 1 + sum(one for one, _ in sizes), 1 + max((deep for _, deep in sizes), default=0)
        if depth > MAX_DEPTH:
            raise self.refuse(node, "is nested too deeply for a recipe")
        if size > MAX_NODES or len(self.sizes) > MAX_NODES:
            raise self.refuse(node, f"holds more than {MAX_NODES:,} values, *aliases counted; a recipe needs fewer")
        return size, depth

    def refuse(self, node: yaml.Node, what: str) -> UserError:
        return UserError(f"{self.lines.where(node.start_mark.line + 1)}: {what}")

    def number(self, node: yaml.ScalarNode) -> int | float:
        text = node.value.replace("_", "")
        try:
            if re.fullmatch(r"[-+]?[0-9]+", text):
                return int(text)
            value = float(text)
        except ValueError as error:
            raise self.refuse(node, f"'{node.value[:40]}' is not a number") from error
        if abs(value) == float("inf"):
            raise self.refuse(node, f"'{node.value}' is too large for a number")
        # 1e3 becomes a whole number; 1000.0 stays a fraction.
        whole = "e" in text.lower() and value.is_integer() and abs(value) < 2**53
        return int(value) if whole else value

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """Return a mapping whose keys are text as written (a task may be called 7, or no)."""
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def plain_tag(self, node: yaml.Node) -> str:
        """Return the implicit tag of a node."""
        if isinstance(node, yaml.ScalarNode):
            # `resolve` takes two flags: plain text, and text in quotes.
            return self.resolve(yaml.ScalarNode, node.value, (node.style is None, node.style is not None))
        return self.DEFAULT_SEQUENCE_TAG if isinstance(node, yaml.SequenceNode) else self.DEFAULT_MAPPING_TAG

    def check(self, node: yaml.Node, above: tuple[yaml.Node, ...] = ()) -> None:
        """Raise `UserError` for tags, keys that are not words, keys given twice, and a value inside itself."""
        if node.tag != self.plain_tag(node):
            raise self.refuse(node, f"the tag {node.tag} has no meaning in a recipe; give the value without it")
        if any(node is parent for parent in above):
            raise self.refuse(node, "this value contains itself; give it without the *alias")
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.check(item, (*above, node))
        if isinstance(node, yaml.MappingNode):
            seen: dict[Hashable, yaml.Node] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise self.refuse(key, "a key must be a word")
                if key.value in seen:
                    first = seen[key.value].start_mark.line + 1
                    raise self.refuse(key, f"key '{key.value}' was given before, in line {first}; keep one of them")
                seen[key.value] = key
                self.check(value, (*above, node))


class _Dumper(yaml.SafeDumper):
    """Quote text that `_Loader` would read as another type, and escape control characters."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def analyze_scalar(self, scalar: str) -> Any:
        analysis = super().analyze_scalar(scalar)
        if escape_control(scalar) != scalar:
            # Only double quotes have escapes.
            analysis.allow_flow_plain = analysis.allow_block_plain = False
            analysis.allow_single_quoted = analysis.allow_block = False
        return analysis

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        given, self.allow_unicode = self.allow_unicode, self.allow_unicode and escape_control(text) == text
        super().write_double_quoted(text, split)
        self.allow_unicode = given


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _RULES:
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor(_INT, _Loader.number)
_Loader.add_constructor(_FLOAT, _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)


def read_yaml(text: str, name: str) -> tuple[Any, Lines]:
    """Return the data of a YAML text, and the line of each of its keys and list items.

    `name` is the text's name in messages: a file, or `--set KEY=VALUE`. Raises `UserError` for a syntax error, a key
    given twice, a key that is not a word, a value that contains itself, and a text that is too long or too deep.
    """
    lines = Lines(name)
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{name}: has {len(text):,} characters, and a recipe may have {MAX_CHARACTERS:,}")
    try:
        loader = _Loader(text, lines)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        loader.check(node)
        data = loader.construct_document(node)
        lines.numbers.update(_places(node))
        return data, lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"{lines.where(line)}: character U+{int(error.character):04X} is not allowed in YAML"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = lines.where(mark.line + 1) if mark else name
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{where}: not valid YAML: {reason}") from error
    except RecursionError:
        raise UserError(f"{name}: is nested too deeply for a recipe") from None


def write_yaml(data: Any) -> str:
    """Return `data` as YAML that `read_yaml` reads back as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _places(node: yaml.Node, path: Place = (), line: int | None = None) -> Iterator[tuple[Place, int]]:
    """Yield the path and the line of each value: that of its key, or its own if it has none. Lines count from 1."""
    yield path, node.start_mark.line + 1 if line is None else line
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _places(item, (*path, index))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _places(value, (*path, key.value), key.start_mark.line + 1)
