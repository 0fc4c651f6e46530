"""The nodes, which become stages in dvc.yaml."""

import gc
import os
import signal
import time

from jemtrack.shared.waiting_threads import let_waiting_threads_sleep

# A stage's code and parameters are read after this moment.
STARTED = time.time()

let_waiting_threads_sleep()

if "DVC_STAGE" in os.environ:
    # Ctrl-C while a stage imports its libraries ends it without a traceback; see `Stage.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# ZnTrack and what it imports have made objects that stay. Without them, the passes of the garbage
# collector while torch is imported are shorter: benchmarks/start_up.py measures a stage's start.
gc.freeze()
