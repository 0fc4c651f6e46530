import subprocess
import sys

import pytest

# Takes and frees 16 MiB again and again beside what stays; gives the pages that it had to get anew.
PAGES = """
import resource
import torch
from jemtrack.engine.memory import keep_freed_memory

{call}
for _ in range(3):
    large, small = torch.ones(2**22), torch.ones(2**20)
    del large, small
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**22), torch.ones(2**20), [torch.ones(2**21) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(call: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PAGES.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is a Linux library")
def test_what_is_freed_is_kept_for_what_is_needed_next():
    # 20 rounds of 84 MiB are 430,000 pages of 4 KiB.
    assert pages("") > 100_000
    assert pages("keep_freed_memory()") < 60_000
