"""The recipes of joint energy models: one network, trained by one objective a step."""

from typing import Annotated

from pydantic import Field

from jemtrack.engine.choices import Adam, AtLeastOne
from jemtrack.engine.family import Family, ObjectiveForm
from jemtrack.jem.network_options import Depth, NormName
from jemtrack.jem.objectives.options import (
    CrossEntropyOptions,
    MaxEntropyOptions,
    SampledJEMOptions,
)
from jemtrack.parameters import parameters

NETWORK = "network"
_PARTS = tuple(f"{NETWORK}.{part}" for part in ("trunk", "class_head", "energy_head"))


@parameters
class NetworkShape:
    """The wide residual network: layers (6n + 4), widening factor, norm, share dropped.

    With `uncond`, log p~(x) is what the energy head gives.
    """

    depth: Depth = 10
    width: AtLeastOne = 2
    norm: NormName = "none"
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    uncond: bool = False


def _max_entropy(penalty: str) -> ObjectiveForm:
    return ObjectiveForm(
        f"jemtrack.jem.objectives.max_entropy_{penalty}.MaxEntropy{penalty.upper()}Objective",
        MaxEntropyOptions,
        ("loss", "cross_entropy", "entropy_penalty"),
    )


FAMILY = Family(
    name="jem",
    models=(NETWORK, *_PARTS),
    optimizers={name: (name,) for name in (NETWORK, *_PARTS)},
    usual_optimizer=Adam(lr=1e-3),
    shape=NetworkShape,
    objectives={
        "cross_entropy": ObjectiveForm(
            "jemtrack.jem.objectives.cross_entropy.CrossEntropy",
            CrossEntropyOptions,
            ("loss", "cross_entropy"),
        ),
        "max_entropy_l1": _max_entropy("l1"),
        "max_entropy_l2": _max_entropy("l2"),
        "sampled_jem": ObjectiveForm(
            "jemtrack.jem.objectives.sampled_jem.SampledJEMObjective",
            SampledJEMOptions,
            ("loss", "cross_entropy", "data_log_density", "sample_log_density"),
        ),
    },
    usually_trained=(NETWORK,),
    epoch_metrics=("valid_accuracy", "valid_nll", "valid_log_density"),
)
