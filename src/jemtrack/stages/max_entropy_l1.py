"""The stage MaxEntropyL1."""

import zntrack

from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.stages.trainer import Trainer


class MaxEntropyL1(Trainer):
    """Trains for p~ of maximum entropy over the data, by absolute deviations."""

    objective: MaxEntropyL1Objective = zntrack.deps(default_factory=MaxEntropyL1Objective)
