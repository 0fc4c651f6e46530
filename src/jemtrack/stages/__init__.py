"""The nodes, which become stages in dvc.yaml."""

import gc
import time

# A stage's code and parameters are read after this moment.
STARTED = time.time()

# ZnTrack and what it imports have made objects that stay. Without them, the passes of the garbage
# collector while torch is imported are shorter: benchmarks/start_up.py measures a stage's start.
gc.freeze()
