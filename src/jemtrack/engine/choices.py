"""The optimizers and schedulers that a recipe can choose, as parameters; free of torch.

Fields, names and defaults are torch's own, unless a docstring says otherwise.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from jemtrack.parameters import parameters

T = TypeVar("T")

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
AtLeastOne = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


def _tuple_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# A file has lists where a frozen object has tuples: Annotated[tuple[str, ...], FROM_LIST].
FROM_LIST = BeforeValidator(_tuple_of)

Betas = Annotated[tuple[Share, Share], FROM_LIST]


@parameters
class OptimizerChoice:
    """What all optimizers share.

    `clip_norm` is the norm of all of the optimizer's gradients together above which they are
    scaled down to it before a step; none: they never are. `warm_up_steps` are the optimization
    steps over which the learning rate rises linearly to `lr`, or to what a scheduler makes of it.
    """

    lr: Positive
    weight_decay: NotNegative = 0.0
    clip_norm: Positive | None = None
    warm_up_steps: Count = 0


@parameters
class Adam(OptimizerChoice):
    """Kingma & Ba 2015; `weight_decay` is an L2 penalty."""

    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8


@parameters
class AdamW(OptimizerChoice):
    """Loshchilov & Hutter 2019; `weight_decay` shrinks the weights apart from the gradient."""

    weight_decay: NotNegative = 0.01
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8


@parameters
class SGD(OptimizerChoice):
    """Stochastic gradient descent, with momentum if asked for."""

    momentum: Share = 0.0
    dampening: NotNegative = 0.0
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        # A field that is itself at fault is not in `data`, and was named already.
        if nesterov and not (info.data.get("momentum", 1) and not info.data.get("dampening", 0)):
            raise ValueError("must be false without momentum, and with dampening")
        return nesterov


@parameters
class RMSprop(OptimizerChoice):
    """Division by a running root mean square of the gradient."""

    alpha: Share = 0.99
    eps: Positive = 1e-8
    momentum: Share = 0.0
    centered: bool = False


@parameters
class SchedulerChoice:
    """What a scheduler has in common with others: it acts at the end of each epoch."""


@parameters
class CosineAnnealingLR(SchedulerChoice):
    """From the initial rate to `eta_min_factor` times it, along half a cosine of `t_max` epochs.

    `t_max` is the phase's number of epochs where none is given.
    """

    t_max: AtLeastOne | None = None
    eta_min_factor: Annotated[float, Field(ge=0, le=1)] = 0.0


@parameters
class StepLR(SchedulerChoice):
    """The rate times `gamma` every `step_size` epochs."""

    step_size: AtLeastOne
    gamma: Positive = 0.1


@parameters
class ExponentialLR(SchedulerChoice):
    """The rate times `gamma` every epoch."""

    gamma: Positive


@parameters
class ReduceLROnPlateau(SchedulerChoice):
    """The rate times `factor` when `metric` did not improve for more than `patience` epochs.

    `metric` is one of an epoch; a change by less than the share `threshold` does not count.
    """

    metric: Annotated[str, Field(min_length=1)] = "train_loss"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Count = 10
    threshold: NotNegative = 1e-4


OPTIMIZERS: dict[str, type[OptimizerChoice]] = {
    cls.__name__: cls for cls in (Adam, AdamW, SGD, RMSprop)
}
SCHEDULERS: dict[str, type[SchedulerChoice]] = {
    cls.__name__: cls for cls in (CosineAnnealingLR, StepLR, ExponentialLR, ReduceLROnPlateau)
}
NO_SCHEDULER = "none"
