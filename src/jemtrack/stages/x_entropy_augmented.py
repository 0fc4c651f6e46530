"""The stage XEntropyAugmented: train an ordinary classifier, the baseline."""

import zntrack

from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.stages.trainer import Trainer


class XEntropyAugmented(Trainer):
    """Train a classifier by cross entropy on augmented images."""

    objective: CrossEntropy = zntrack.deps(default_factory=CrossEntropy)
