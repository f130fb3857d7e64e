"""What is asked of the machine."""

import subprocess
import sys

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


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what is freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident(mode: str) -> int:
        words = [sys.executable, "-c", RESIDENT_AFTER_FREEING, mode]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    # 40 pieces of 8 MB
    assert resident("keep") - resident("return") > 200e6
