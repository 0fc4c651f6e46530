"""The stage MaxEntropyL1: train with the L1 penalty of maximum entropy."""

import zntrack

from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.stages.trainer import Trainer


class MaxEntropyL1(Trainer):
    """Train a classifier whose p~(x) has a high entropy over the data: absolute deviations."""

    objective: MaxEntropyL1Objective = zntrack.deps(default_factory=MaxEntropyL1Objective)
