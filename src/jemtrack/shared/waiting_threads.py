"""How the threads of PyTorch wait for each other."""

import os


def let_waiting_threads_sleep() -> None:
    """Let threads sleep that wait longer than some microseconds, unless the user chose otherwise.

    By default they spin, and where other programs use the CPUs, too, a training with two threads is
    many times slower for it; if they sleep at once, it is slower on an idle machine. 1,000 turns
    are what GNU's OpenMP takes itself if an active program has more threads than there are CPUs
    (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). OpenMP reads both variables
    when it is loaded, which is when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        os.environ["OMP_WAIT_POLICY"] = "passive"  # for other OpenMPs, which know no turns
