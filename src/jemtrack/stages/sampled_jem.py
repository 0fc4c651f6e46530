"""The stage SampledJEM: train by JEM's own loss."""

import zntrack

from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.stages.trainer import Trainer


class SampledJEM(Trainer):
    """Train by the likelihood of images, whose gradient is estimated with Langevin samples."""

    objective: SampledJEMObjective = zntrack.deps(default_factory=SampledJEMObjective)
