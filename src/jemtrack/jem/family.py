"""The recipes of joint energy models: one network, trained by one objective a step."""

from jemtrack.jem.networks.shape import NetworkShape
from jemtrack.jem.objectives.options import (
    CrossEntropyOptions,
    MaxEntropyOptions,
    SampledJEMOptions,
)
from jemtrack.train.optimizers import Adam
from jemtrack.train.recipe import Family, ObjectiveForm

NETWORK = "network"
_PARTS = tuple(f"{NETWORK}.{part}" for part in ("trunk", "class_head", "energy_head"))


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
