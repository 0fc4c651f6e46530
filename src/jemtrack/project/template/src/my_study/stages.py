"""The stages of this project beside those of jemtrack."""

import zntrack
from jemtrack.stages.trainer import Trainer

from my_study.objectives import PseudoHuber


class MaxEntropyHuber(Trainer):
    """Train a classifier whose p~(x) has a high entropy over the data: pseudo-Huber deviations."""

    objective: PseudoHuber = zntrack.deps(default_factory=PseudoHuber)
