"""Penalties that a user writes."""

from typing import Annotated

import pytest
import torch
from pydantic import Field
from torch import nn

from jemtrack.errors import InputError
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.jem.training.batches import Batch
from jemtrack.parameters import build, parameters

torch.manual_seed(0)
NETWORK = JointEnergyModel(nn.Flatten(), n_features=4, n_classes=3).double()
BATCH = Batch(torch.randn(6, 4, 1, 1, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2]))
LOG_DENSITY_B = NETWORK.log_density(BATCH.images_BCHW).detach()


def losses_of(objective):
    return objective({"network": NETWORK}, BATCH)


@parameters
class PseudoHuber(MaxEntropyObjective):
    """A user's own penalty, with a field of its own."""

    delta: Annotated[float, Field(gt=0)] = 1.0

    def spread(self, deviation_B):
        return self.delta**2 * ((1 + (deviation_B / self.delta).square()).sqrt() - 1)


class Quartic(MaxEntropyObjective):
    def spread(self, deviation_B):
        return deviation_B**4


def test_a_penalty_of_ones_own_is_one_method():
    """Pseudo-Huber of a large delta is half of L2, of a small one delta * L1."""
    l1, l2 = (
        losses_of(penalty())["entropy_penalty"]
        for penalty in (MaxEntropyL1Objective, MaxEntropyL2Objective)
    )
    wide, narrow = (
        losses_of(PseudoHuber(entropy_weight=2.0, delta=delta)) for delta in (1e4, 1e-6)
    )

    torch.testing.assert_close(wide["entropy_penalty"], l2 / 2, rtol=1e-4, atol=0)
    torch.testing.assert_close(narrow["entropy_penalty"], 1e-6 * l1, rtol=1e-4, atol=0)
    torch.testing.assert_close(wide["loss"], wide["cross_entropy"] + 2 * wide["entropy_penalty"])
    torch.testing.assert_close(
        losses_of(Quartic())["entropy_penalty"],
        (LOG_DENSITY_B - LOG_DENSITY_B.mean()).pow(4).mean(),
    )


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (PseudoHuber, "delta", 0.0),
        (PseudoHuber, "entropy_weight", -1.0),
        (MaxEntropyL1Objective, "entropy_weight", float("inf")),
        (MaxEntropyL1Objective, "entropy_reduction", "max"),
        (MaxEntropyL2Objective, "delta", 1.0),
        (CrossEntropy, "entropy_weight", 1.0),
    ],
)
def test_a_bad_parameter_is_refused_by_name(kind, field, value):
    with pytest.raises(InputError, match=f"here.{field}"):
        build(kind, {field: value}, "here")


def test_the_base_asks_for_its_method():
    with pytest.raises(TypeError, match="spread"):
        MaxEntropyObjective()
