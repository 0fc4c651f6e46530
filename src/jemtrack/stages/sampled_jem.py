"""The stage SampledJEM."""

import zntrack

from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.stages.trainer import Trainer


class SampledJEM(Trainer):
    """Trains by JEM's own loss, with samples that Langevin chains give."""

    objective: SampledJEMObjective = zntrack.deps(default_factory=SampledJEMObjective)
