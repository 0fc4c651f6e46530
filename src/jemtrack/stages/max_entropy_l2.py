"""The stage MaxEntropyL2: train with the L2 penalty of maximum entropy."""

import zntrack

from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.stages.trainer import Trainer


class MaxEntropyL2(Trainer):
    """Train a classifier whose p~(x) has a high entropy over the data: squared deviations."""

    objective: MaxEntropyL2Objective = zntrack.deps(default_factory=MaxEntropyL2Objective)
