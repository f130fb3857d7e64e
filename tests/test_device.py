"""What is asked of the machine."""

import subprocess
import sys

import psutil
import pytest
import torch
from transformers import conversion_mapping

from smallwit.device import resolve_dtype
from smallwit.models.cpu_memory import return_freed_memory
from smallwit.pipeline.processes import preloaded_modules
from smallwit.training.distributed import World
from together import together


def returned_bytes(world: World) -> int:
    """What goes back to the system, in a process of its own."""
    del_me = torch.ones(6_000_000)  # teaches malloc to keep pieces of up to 24 MB
    del del_me
    pieces = [torch.ones(2_000_000) for _ in range(80)]
    del pieces[::2]  # 40 holes of 8 MB: none is at the end of the heap, where malloc returns memory by itself
    before = psutil.Process().memory_info().rss
    return_freed_memory()
    return int(before - psutil.Process().memory_info().rss)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what is freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    (returned,) = together(returned_bytes, size=1)
    assert returned > 200e6


@pytest.mark.parametrize(("emulated_alone", "expected"), [(True, "float32"), (False, "bfloat16")])
def test_auto_is_bfloat16_only_where_the_gpu_computes_it_itself(
    monkeypatch: pytest.MonkeyPatch, emulated_alone: bool, expected: str
) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulated_alone

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert resolve_dtype("cuda") == expected


def conversions_are_there(world: World) -> bool:
    return conversion_mapping._checkpoint_conversion_mapping_cache is not None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="stages are no forks there")
def test_what_every_stage_looks_up_was_computed_in_the_fork_server() -> None:
    assert together(conversions_are_there, size=1) == [True]


ASKS_CUDA = """
import importlib, sys
import torch

def refuse(*args, **kwargs):
    raise AssertionError("CUDA was asked for while modules were imported")

for name in ("is_available", "device_count", "_lazy_init", "current_device", "get_device_capability"):
    setattr(torch.cuda, name, refuse)
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


@pytest.mark.slow
def test_what_the_fork_server_imports_asks_nothing_of_cuda() -> None:
    # A process that has done so can fork none that uses a GPU.
    words = [sys.executable, "-c", ASKS_CUDA, *preloaded_modules()]
    assert subprocess.run(words, capture_output=True, text=True).stderr == ""
