"""All that a training changes."""

from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from jemtrack.engine.events import Position


@dataclass
class TrainState:
    """The models, their optimizers and the place that training has reached."""

    models: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    position: Position = field(default_factory=Position)
