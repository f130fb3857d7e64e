"""The protocol of a score: all settings that could change it, in one frozen object with a short signature."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallwit.inference.generator import Decoding
from smallwit.storage.artifacts import MANIFEST, content_key
from smallwit.storage.paths import read_json_object
from smallwit.tasks.base import Problem
from smallwit.tasks.draw import Order
from smallwit.tasks.prompt import Prompt

if TYPE_CHECKING:
    from smallwit.models.chat import ChatTokenizer

LIBRARIES = (
    "smallwit",
    "torch",
    "transformers",
    "tokenizers",
    "mpmath",
)
VERSION = 2
"""The version of the fields' meaning: a change of meaning raises it."""


@dataclass(frozen=True)
class GeneratorInfo:
    """The generator's part of a protocol.

    `engine` is `local`, a server's protocol, or `responses` for stored ones. `chat_template` is the template's text,
    `chat_template_kwargs` its options, `ends` the ids of the tokens that end a reply. `None` is for what is not known.
    """

    engine: str
    chat_template: str | None = None
    ends: tuple[int, ...] | None = None
    dtype: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None


def number_format(folder: Path, dtype: str) -> str:
    """Return the number format of a model that is computed in `dtype`, for its signature.

    It is `dtype`, or that of the exported file which the folder was read back from (`exported_format`).
    """
    path = folder / MANIFEST
    quant = read_json_object(path).get("number_format") if path.is_file() else None
    return dtype if quant is None else exported_format(str(quant), dtype)


def exported_format(quant: str, dtype: str) -> str:
    """Return the number format of weights that are exported as `quant`, read back, and computed in `dtype`."""
    return quant if dtype == "float32" else f"{quant}-{dtype}"


def local_generator_info(chat: "ChatTokenizer", dtype: str) -> GeneratorInfo:
    """Return the generator's part for a model of this process with this chat tokenizer and number format."""
    return GeneratorInfo("local", chat.template or "", chat.ends.all, dtype, chat.chat_template_kwargs)


@dataclass(frozen=True)
class EvaluationProtocol:
    """All settings of the measurement of one task. Two scores can be compared when their signatures are equal.

    `data` is a checksum over the problems' ids, texts and gold answers, `prompts` one over what was asked, word for
    word: system message, demonstrations and all. `encoded` is one over the token ids that the model is given, with all
    that template and tokenizer write; `None` where a server does that, or responses are stored. `system`, `shots` and
    `decoding` are `None` for stored responses, `seed` where nothing is drawn. `extractor` and `grader` are names that
    `evaluation.protocols` gives them. `order` is how a part of the split was chosen (`tasks.draw`): `None`, and
    left out of the JSON, for a whole split and where every order gives an equally fair part.
    """

    name: str
    task: str
    split: str
    problems: int
    data: str
    prompts: str
    encoded: str | None
    system: str | None
    shots: int | None
    samples: int
    decoding: Decoding | None
    seed: int | None
    overflow: str
    extractor: str
    grader: str
    generator: GeneratorInfo
    libraries: tuple[tuple[str, str], ...]
    version: int = VERSION
    order: Order | None = None

    @property
    def signature(self) -> str:
        """Return readable parts and a hash over all fields.

        An example is `gsm8k|default|test:1319|0-shot|T0|max2048|float32|3f2a9c01`; `test:200-drawn` is a part.
        """
        parts = [self.task, self.name, "-".join(filter(None, (f"{self.split}:{self.problems}", self.order)))]
        if self.shots is not None:
            parts.append(f"{self.shots}-shot")
        if self.samples > 1:
            parts.append(f"{self.samples}x")
        if self.decoding is not None:
            parts += [f"T{self.decoding.temperature:g}", f"max{self.decoding.max_new_tokens}"]
        parts.append(self.generator.dtype or self.generator.engine)
        return "|".join([*parts, content_key(self._fields())[:8]])

    def as_json(self) -> dict[str, Any]:
        """Return all fields and the signature as JSON data."""
        data: dict[str, Any] = json.loads(json.dumps(self._fields()))
        return {"signature": self.signature} | data

    def _fields(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.order is None:
            del fields["order"]
        return fields


def differences(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> dict[str, str]:
    """Return the differences of two protocols in JSON form, by field, as `decoding.temperature: 0.0 -> 0.7`."""
    found: dict[str, str] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        one, other = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= differences(one, other, f"{at}{key}.")
        elif one != other and key != "signature":
            found[f"{at}{key}"] = f"{at}{key}: {_brief(one)} -> {_brief(other)}"
    return found


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def data_checksum(problems: Sequence[Problem]) -> str:
    """Return a short hash over ids, prompts and gold answers."""
    return _checksum([problem.id, problem.prompt, problem.gold] for problem in problems)


def prompt_checksum(prompts: Sequence[Prompt]) -> str:
    """Return a short hash over the prompts, word for word."""
    return _checksum(
        [prompt.messages, prompt.text, prompt.prefix, *([prompt.tools] if prompt.tools else [])] for prompt in prompts
    )


def encoded_checksum(prompts: Sequence[Sequence[int]]) -> str:
    """Return a short hash over the token ids of prompts."""
    return _checksum([*prompt] for prompt in prompts)


def _checksum(rows: Any) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()[:12]


def library_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the libraries that generate and grade."""
    return (("python", platform.python_version()), *((name, version(name)) for name in LIBRARIES))
