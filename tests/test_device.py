"""What is asked of the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RESIDENT_AFTER_FREEING = """
import sys
import psutil, torch
from smallwit.device import return_freed_memory
if sys.argv[1] == "return":
    return_freed_memory()
del_me = torch.ones(6_000_000)  # teaches malloc to keep pieces of up to 24 MB
del del_me
pieces, pins = [], []
for _ in range(40):
    pieces.append(torch.ones(2_000_000))
    pins.append(torch.ones(100))
pieces.clear()
print(psutil.Process().memory_info().rss)
"""

FAULTS_OF_400_MB = """
import resource, sys
import torch
from smallwit.device import use_huge_pages
if sys.argv[1] == "huge":
    use_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(100_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def printed(program: str, mode: str) -> int:
    """The number that a program prints whose memory nobody has settled before."""
    clean = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    words = [sys.executable, "-c", program, mode]
    return int(subprocess.run(words, capture_output=True, text=True, check=True, env=clean).stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[madvise]" not in HUGE_PAGES.read_text(), reason="gives no huge pages when asked to"
)
def test_large_tensors_lie_in_huge_pages() -> None:
    # A page is 4 KiB, or 2 MiB; where memory is scattered the system gives small ones all the same.
    assert printed(FAULTS_OF_400_MB, "huge") < printed(FAULTS_OF_400_MB, "small") / 2


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what is freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    # 40 pieces of 8 MB
    assert printed(RESIDENT_AFTER_FREEING, "keep") - printed(RESIDENT_AFTER_FREEING, "return") > 200e6
