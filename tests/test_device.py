"""What is asked of the machine."""

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


@pytest.mark.slow
@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[madvise]" not in HUGE_PAGES.read_text(), reason="gives no huge pages when asked to"
)
def test_large_tensors_lie_in_huge_pages() -> None:
    def faults(mode: str) -> int:
        words = [sys.executable, "-c", FAULTS_OF_400_MB, mode]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    # A page is 4 KiB, or 2 MiB; some pieces of memory may be too scattered for the latter.
    assert faults("huge") < faults("small") / 4


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what is freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident(mode: str) -> int:
        words = [sys.executable, "-c", RESIDENT_AFTER_FREEING, mode]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    # 40 pieces of 8 MB
    assert resident("keep") - resident("return") > 200e6
