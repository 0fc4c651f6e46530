"""The stage MaxEntropyL2."""

import zntrack

from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.stages.trainer import Trainer


class MaxEntropyL2(Trainer):
    """Trains for p~ of maximum entropy over the data, by squared deviations."""

    objective: MaxEntropyL2Objective = zntrack.deps(default_factory=MaxEntropyL2Objective)
