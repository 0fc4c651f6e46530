"""Class-conditional chains: what they climb, that looking does not disturb them."""

import pytest
import torch
from torch import nn

from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.sampling.generation import N_RECORDED, class_samples, joint_log_density
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.shared.random_streams import generator

LABELS = torch.arange(6) % 3


def model(uncond=False):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.SiLU(), nn.Dropout(0.5))
    return JointEnergyModel(trunk, 8, 3, uncond)


def start():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("uncond", [False, True])
def test_the_joint_density_is_that_of_the_image_times_that_of_its_class(uncond):
    network = model(uncond).eval()

    found = joint_log_density(network, LABELS)(start())

    logits, log_density = network.logits_and_log_density(start())
    expected = log_density + logits.log_softmax(1)[range(6), LABELS]
    torch.testing.assert_close(found, expected)
    if not uncond:
        torch.testing.assert_close(found, logits[range(6), LABELS])


@pytest.mark.parametrize("n_steps", [1, 7, 60])
def test_looking_at_a_chain_does_not_disturb_it(n_steps):
    network = model()
    sampler = LangevinSampler(n_steps=n_steps, step_size=0.5, noise_std=0.1)

    found = class_samples(network, sampler, LABELS, start(), seed=5)

    assert network.training
    density = joint_log_density(network.eval(), LABELS)
    whole = sampler(density, start(), generator(5, "class samples"))
    torch.testing.assert_close(found.images_NCHW, whole, rtol=0, atol=0)
    steps = found.energies["step"].tolist()
    assert steps == sorted({*steps})
    assert (steps[0], steps[-1]) == (0, n_steps)
    assert len(steps) == min(n_steps, N_RECORDED) + 1


def test_energies_fall_and_are_those_of_the_chains():
    network = model()
    sampler = LangevinSampler(n_steps=40, step_size=0.5, noise_std=0.0)

    found = class_samples(network, sampler, LABELS, start(), seed=5).energies

    assert found["energy"].is_monotonic_decreasing
    assert ((found["low"] <= found["energy"]) & (found["energy"] <= found["high"])).all()
    first = -joint_log_density(network.eval(), LABELS)(start())
    assert found["energy"].iloc[0] == pytest.approx(first.double().quantile(0.5).item())


def test_pixels_are_whole_numbers_and_what_strayed_is_cut():
    start_NCHW = torch.tensor([-1.5, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    drawn = class_samples(model(), LangevinSampler(n_steps=0), LABELS[:3], start_NCHW, 0)

    pixels = drawn.pixels()
    assert pixels.dtype == torch.uint8
    assert pixels[:, 0, 0, 0].tolist() == [0, 128, 255]
