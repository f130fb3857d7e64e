"""What is asked of the machine."""

import subprocess
import sys

import pytest

RESIDENT_AFTER_FREEING = """
import sys
import psutil, torch
from smallwit.device import give_back_freed_memory
del_me = torch.ones(6_000_000)  # teaches malloc to keep pieces of up to 24 MB
del del_me
pieces, pins = [], []
for _ in range(40):
    pieces.append(torch.ones(2_000_000))
    pins.append(torch.ones(100))
pieces.clear()
if sys.argv[1] == "return":
    give_back_freed_memory()
print(psutil.Process().memory_info().rss)
"""


def printed(program: str, mode: str) -> int:
    """The number that a program prints."""
    words = [sys.executable, "-c", program, mode]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what is freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    # 40 pieces of 8 MB
    assert printed(RESIDENT_AFTER_FREEING, "keep") - printed(RESIDENT_AFTER_FREEING, "return") > 200e6
