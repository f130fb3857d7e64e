"""A protocol and its signature."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from own_task import OWN
from smallwit.errors import UserError
from smallwit.evaluation.protocol import EvaluationProtocol, GeneratorInfo, data_checksum, differences
from smallwit.evaluation.protocols import named_protocol, protocols
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.suite import Choice, make_suite, problems_of
from smallwit.inference.generator import Decoding
from smallwit.tasks import load_task
from smallwit.tasks.draw import Order


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder with a task of the user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


def protocol(**changes: Any) -> EvaluationProtocol:
    task = load_task("own.py:Length")
    generator = GeneratorInfo("local", "template", (3,), "float32")
    made = make_suite(task, problems_of(task, "test", None), DEFAULT, Choice(max_new_tokens=12), generator).protocol
    return replace(made, **changes)


@pytest.mark.parametrize("name", [field.name for field in fields(EvaluationProtocol)])
def test_whatever_is_changed_in_a_protocol_changes_its_signature(name: str) -> None:
    changed = {
        "decoding": Decoding(0.0, 12, stop=("\n",)),
        "generator": GeneratorInfo("local", "other", (3,), "float32"),
    }
    value = changed.get(name, 77 if isinstance(getattr(protocol(), name), int) else "changed")
    assert protocol(**{name: value}).signature != protocol().signature


def test_a_signature_begins_with_what_a_reader_asks_first() -> None:
    assert re.fullmatch(r"length\|default\|test:9\|0-shot\|T0\|max12\|float32\|[0-9a-f]{8}", protocol().signature)


@pytest.mark.parametrize(("order", "shown"), [("drawn", "test:4-drawn"), ("given", "test:4-given")])
def test_the_signature_of_a_part_has_its_order(order: Order, shown: str) -> None:
    task = load_task("own.py:Length")
    choice = Choice(limit=4, order=order, max_new_tokens=12)
    problems = problems_of(task, "test", 4, order)
    made = make_suite(task, problems, DEFAULT, choice, GeneratorInfo("local")).protocol
    assert made.signature.split("|")[2] == shown
    assert made.as_json()["order"] == order


def test_a_limit_that_leaves_the_whole_split_changes_no_signature() -> None:
    task = load_task("own.py:Length")
    made = [
        make_suite(
            task, problems_of(task, "test", limit), DEFAULT, Choice(limit=limit), GeneratorInfo("local")
        ).protocol
        for limit in (None, 9, 100)
    ]
    assert len({one.signature for one in made}) == 1
    assert "order" not in made[0].as_json()


def test_differences_name_the_fields() -> None:
    one, other = protocol().as_json(), protocol(shots=5, decoding=Decoding(0.5, 12)).as_json()
    assert list(differences(one, other).values()) == ["shots: 0 -> 5", "decoding.temperature: 0.0 -> 0.5"]


def test_the_data_s_checksum_follows_every_text() -> None:
    problems = problems_of(load_task("own.py:Length"), "test", None)
    assert data_checksum(problems) != data_checksum([replace(problems[0], gold="7"), *problems[1:]])


def test_every_named_protocol_says_what_it_is() -> None:
    known = protocols()
    assert next(iter(known)) == "default"
    assert all(each.about and each.name == name for name, each in known.items())
    with pytest.raises(UserError, match="unknown protocol 'defalt'; did you mean 'default'"):
        named_protocol("defalt")
    with pytest.raises(UserError, match="unknown protocol 'house'; it is called 'default' now"):
        named_protocol("house")
