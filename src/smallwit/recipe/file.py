"""Read a recipe from YAML and write it back. An error is one line with the file and the line number.

    recipe = load_recipe(Path("recipes/quickstart.yaml"), ["stages.rl.steps=10"])
    check_recipe(recipe, base=Path("recipes"), data_dir=None)

`load_recipe` checks each part by itself (keys, types, ranges); `pipeline.preflight.check_recipe` checks the parts
against each other and against this machine.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from smallwit.errors import UserError
from smallwit.recipe.schema import Recipe
from smallwit.recipe.section import Kind, Section, kinds_of, tags_of
from smallwit.recipe.yaml import Lines, Place, read_yaml, write_yaml
from smallwit.suggestions import closest_name, hint

__all__ = ["dump_recipe", "load_recipe", "read_data", "read_recipe", "validated"]

# The types that pydantic expected, in words of YAML.
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
}


RENAMED = {
    "answers": "rejection_sampling",
    "construct": "dataset",
    "rest": "cooldown",
    "teach": "teacher_logprobs",
}
"""Kinds and keys of earlier versions, and their present names."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file, with `overrides` such as `stages.rl.steps=10` applied in order.

    Raises `UserError` for a file that cannot be read, invalid YAML, unknown keys, wrong types and wrong values.
    """
    return read_recipe(path, overrides)[0]


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, Lines]:
    """Return the recipe as `load_recipe` does, and the lines of its values for the messages of `check_recipe`."""
    data, lines = read_data(path, overrides)
    if data is None:
        raise UserError(f"{path}: is empty; a recipe has at least name, tasks, models and stages")
    return validated(Recipe, data, lines), lines


def read_data(path: Path, overrides: Sequence[str] = ()) -> tuple[Any, Lines]:
    """Return the data of a YAML file with `overrides` applied, and its lines. Raises `UserError`."""
    data, lines = read_yaml(read_text(path), str(path))
    if isinstance(data, dict):
        for override in overrides:
            _apply(override, data, lines)
    return data, lines


def validated(schema: type[Kind], data: Any, lines: Lines) -> Kind:
    """Return `data` as a section. Raises `UserError` with the line of the first key that is wrong."""
    try:
        # JSON mode is strict where it should be (no true for 1, no "10" for 10) and takes a list for a tuple.
        return schema.model_validate_json(json.dumps(data), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise UserError(_first_message(schema, error.errors(include_url=False), lines)) from None


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default filled in. `load_recipe` reads an equal recipe from it."""
    return write_yaml(recipe.model_dump(mode="json", by_alias=True))


def read_text(path: Path) -> str:
    """Return the text of a recipe. Raises `UserError` for a file that cannot be read, or is not UTF-8."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        here = sorted(str(other) for other in path.parent.glob("*.y*ml"))
        advice = hint(str(path), here, "recipes there") if here else "name a recipe file"
        raise UserError(f"{path}: there is no such file; {advice}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; name a recipe file") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text; save the recipe as UTF-8") from error


# ---- overrides


def _apply(override: str, data: dict[str, Any], lines: Lines) -> None:
    """Set one value in the raw `data`. Raises `UserError` for an unknown task, model, source or stage.

    The schema refuses unknown keys later, and names this override.
    """
    dotted, equals, text = override.partition("=")
    parts = dotted.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {override}: give it as key=value, for example stages.rl.steps=10")
    value, _ = read_yaml(text, f"--set {override}")
    here: Any = data
    place: Place = ()
    while True:
        key, parts = _step(override, here, place, parts)
        place = (*place, key)
        if not parts:
            break
        inner = here.get(key) if isinstance(here, dict) else here[key]
        if inner is None:
            inner = here[key] = {}
            lines.overrides[place] = override
        here = inner
        if not isinstance(here, dict | list):
            raise UserError(f"--set {override}: {_key_path(place)} is {_described(here)} and has no key '{parts[0]}'")
    here[key] = value
    _drop_lines(lines, place)
    lines.overrides[place] = override


def _step(override: str, here: Any, place: Place, parts: list[str]) -> tuple[str | int, list[str]]:
    """Return the key or index at the start of the dotted `parts`, and the remaining parts. Names may hold dots."""
    names: dict[str, str | int] = {}
    if isinstance(here, list):
        items = [(index, item) for index, item in enumerate(here) if isinstance(item, dict)]
        names = {str(item["name"]): index for index, item in items if "name" in item}
        if parts[0].isdecimal() and int(parts[0]) < len(here):
            names.setdefault(parts[0], int(parts[0]))
    else:
        names = {key: key for key in here}
    for count in range(len(parts), 0, -1):
        key = names.get(".".join(parts[:count]))
        if key is not None:
            return key, parts[count:]
    named_by_user = place in {("tasks",), ("models",)} or place[-1:] == ("sources",)
    if isinstance(here, list) or named_by_user:
        raise UserError(f"--set {override}: no '{parts[0]}' in {_key_path(place)}; {hint(parts[0], names)}")
    return parts[0], parts[1:]


def _drop_lines(lines: Lines, place: Place) -> None:
    """Drop the lines of the value that was replaced at `place`."""
    for known in (lines.numbers, lines.overrides):
        for other in [other for other in known if other[: len(place)] == place]:
            del known[other]


# ---- messages


def _first_message(schema: type[Section], errors: list[ErrorDetails], lines: Lines) -> str:
    """Return one line for the first error: unknown keys first (they may cause others), then in the file's order."""
    located = [(error, *_locate(schema, error["loc"])) for error in errors]
    located.sort(key=lambda found: (found[0]["type"] != "extra_forbidden", lines.order(found[1])))
    error, place, section, kinds = located[0]
    return _message(error, place, section, kinds, lines)


def _locate(schema: type[Section], loc: Place) -> tuple[Place, type[Section] | None, tuple[Any, ...]]:
    """Return the place in a file of `schema` of pydantic's `loc`, its section, and the types that are allowed there.

    `loc` has the names of union members in addition: `stages[0].train.steps` is `stages[0].steps` in the file.
    """
    kinds: tuple[Any, ...] = (schema,)
    place: Place = ()
    section: type[Section] | None = None
    for part in loc:
        sections = _sections(kinds)
        if len(sections) > 1:
            kinds = tuple(member for member in sections if part in get_args(member.model_fields["kind"].annotation))
            continue
        if sections and len(kinds) > 1:  # a section or a plain value: pydantic names the one that it tried
            kinds = tuple(sections) if part == "schedule" else tuple(kind for kind in kinds if kind not in sections)
            continue
        place = (*place, part)
        section = sections[0] if sections else None
        if section is not None:
            fields = {field.alias or name: field.annotation for name, field in section.model_fields.items()}
            kinds = _options(fields.get(str(part)))
        else:
            # of dict[key, value], list[item] and tuple[item, ...] the last argument is the type of items
            kinds = _options(get_args(kinds[0])[-1]) if kinds and get_args(kinds[0]) else ()
    return place, section, kinds


def _options(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an annotation allows, without `None`."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(option for argument in get_args(annotation) for option in _options(argument))
    if isinstance(annotation, type) and issubclass(annotation, Section) and annotation.kinds_in:
        return (annotation,) if tags_of(annotation) else tuple(kinds_of(annotation))
    return () if annotation in (None, NoneType) else (annotation,)


def _sections(kinds: Sequence[Any]) -> list[type[Section]]:
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]


def _keys(section: type[Section]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _message(
    error: ErrorDetails, place: Place, section: type[Section] | None, kinds: tuple[Any, ...], lines: Lines
) -> str:
    where, came = lines.at(*place), _described(error["input"])
    name, parent = _key_path(place), _key_path(place[:-1])
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden" if section is not None:
            advice = _renamed(place[-1]) or _key_hint(str(place[-1]), section)
            return f"{where}: unknown key '{place[-1]}' in {parent}; {advice}"
        case "missing" if isinstance(place[-1], str):
            return f"{where}: {parent} needs a key '{place[-1]}'{_misspelling_hint(place[-1], error['input'])}"
        case "union_tag_not_found":
            slip = _misspelling_hint("kind", error["input"])
            return f"{where}: {name} needs a key 'kind', one of {', '.join(_tags(kinds))}{slip}"
        case "union_tag_invalid":
            advice = _renamed(context["tag"]) or hint(str(context["tag"]), _tags(kinds))
            return f"{lines.at(*place, 'kind')}: unknown kind '{context['tag']}' in {name}; {advice}"
        case "literal_error":
            choices = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
            close = closest_name(str(error["input"]), choices)
            advice = f"; did you mean '{close}'?" if close else ""
            return f"{where}: {name} must be one of {', '.join(choices)}; got {came}{advice}"
        case "value_error":
            return f"{where}: {name}: {context['error']}{lines.changes(*place)}"
        case "string_pattern_mismatch":
            rule = "letters, digits, '.', '_' and '-', a letter or digit first, 100 at most"
            return f"{where}: {name} must be made of {rule}; got {came}"
        case "too_short" | "too_long":
            bound = (
                f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"
            )
            return f"{where}: {name} must have {bound} items; got {len(error['input'])}"
        case "missing":  # an item of a list of fixed length
            return f"{where}: {parent} must have more items; got {len(error['input'])}"
        case kind if kind in _EXPECTED:
            return f"{where}: {name} must be {_EXPECTED[kind]}; got {came}"
        case _:
            return f"{where}: {name} {error['msg'].replace('Input should', 'must')}; got {came}"


def _renamed(word: object) -> str | None:
    """Return a hint with the present name of a word of an earlier version, or `None`."""
    new = RENAMED.get(str(word))
    return None if new is None else f"it is called '{new}' now"


def _key_hint(key: str, section: type[Section]) -> str:
    """Return a hint for an unknown `key` of `section`: a key of an inner section, or a similar one."""
    for name, field in section.model_fields.items():
        inner = _sections(_options(field.annotation))
        if len(inner) == 1 and key in _keys(inner[0]):
            return f"did you mean '{field.alias or name}.{key}'?"
    return hint(key, _keys(section), "valid keys")


def _misspelling_hint(key: str, given: Any) -> str:
    """Return a hint if the section has a key that is similar to the missing one, else nothing."""
    close = closest_name(key, given) if isinstance(given, dict) else None
    return f"; is '{close}' a misspelling of it?" if close else ""


def _tags(kinds: tuple[Any, ...]) -> list[str]:
    return [tag for member in _sections(kinds) for tag in tags_of(member)]


def _key_path(place: Place) -> str:
    """Return the path of a key in text: `stages[2].optimizer`, or `the recipe` for the top."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".") or "the recipe"


def _described(value: Any) -> str:
    """Return a short description of a value that the user gave."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text '{value[:60]}'"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a section with keys"
