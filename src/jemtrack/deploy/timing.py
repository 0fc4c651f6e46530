"""Time a bundle's model in a process that does nothing else; `profiler` starts it.

It imports what the bundle's own `predict.py` does, so that its memory is that of serving.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from jemtrack.deploy.predict import Model

_STATUS = Path("/proc/self/status")


def main(folder: str, file: str, *numbers: str) -> None:
    """Print the seconds of each pass, and the peak memory in MiB, as JSON."""
    threads, batch_size, n_passes, n_warm_up = map(int, numbers)
    model = Model(folder, file, threads=threads)
    stream = np.random.default_rng(0)
    images_NCHW = stream.integers(256, size=(batch_size, *model.shape), dtype=np.uint8)
    seconds = []
    for _ in range(n_warm_up + n_passes):
        started = time.perf_counter()
        model(images_NCHW)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds[n_warm_up:], "peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    # On Linux `ru_maxrss` counts the parent process, too: what it had before this one's exec.
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
