import os
import subprocess
import sys

import pytest

# Takes and frees 84 MiB again and again; gives the pages that it had to get anew.
PAGES = """
import resource
import torch
from jemtrack.shared.hardware import keep_freed_memory

{call}
for _ in range(3):
    torch.ones(2**22), torch.ones(2**20), [torch.ones(2**21) for _ in range(8)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**22), torch.ones(2**20), [torch.ones(2**21) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(call: str) -> int:
    """Count them where glibc gives back whatever is large, which it else does at times."""
    done = subprocess.run(
        [sys.executable, "-c", PAGES.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)},
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is a Linux library")
def test_what_is_freed_is_kept_for_what_is_needed_next():
    # By pages of 4 KiB 430,000, by pages of 2 MiB 840.
    given_back = pages("")
    assert given_back > 800
    assert pages("keep_freed_memory()") < given_back / 10
