"""Weights in huge pages: the same numbers in other memory."""

import mmap
import re
from pathlib import Path

import pytest
import torch

from smallwit.models import huge_pages
from smallwit.models.huge_pages import use_huge_pages
from smallwit.models.loading import load_model
from tiny import tiny_model, weights

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="Linux alone has them")


@pytest.fixture(autouse=True)
def small_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "LEAST_BYTES", 0)


def flags_at(address: int) -> list[str]:
    """Return the flags of the mapping that has this address."""
    found, inside = "", False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if place := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(place[1], 16) <= address < int(place[2], 16)
        elif inside and line.startswith("VmFlags:"):
            found = line
    return found.split()


def test_weights_are_the_same_bits_where_huge_pages_are_asked_for() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    use_huge_pages(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())
    assert {"hg"} <= set(flags_at(next(model.parameters()).data_ptr()))


def test_a_tied_table_stays_one_tensor() -> None:
    model = tiny_model()
    assert model.config.tie_word_embeddings
    use_huge_pages(model)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_weights_can_be_trained_and_saved_as_before(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model", dtype="float32", device="cpu")
    model(torch.arange(6)[None]).logits.sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    trained = {name: tensor.clone() for name, tensor in weights(model).items()}
    model.save_pretrained(tmp_path / "trained")
    again = load_model(tmp_path / "trained", dtype="float32", device="cpu")
    assert all(torch.equal(tensor, trained[name]) for name, tensor in weights(again).items())


def test_a_small_model_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "LEAST_BYTES", 1 << 26)
    model = tiny_model()
    places = [parameter.data_ptr() for parameter in model.parameters()]
    use_huge_pages(model)
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
