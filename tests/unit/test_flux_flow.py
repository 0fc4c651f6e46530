"""The flow's differential equation, its solvers and guidance, against closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from flux_models import WORDS, networks, noise, sizes_of

from jemtrack.flux.captions import tokenise
from jemtrack.flux.objectives.rectified_flow import FlowPath
from jemtrack.flux.sampling.generate import FlowSampler, guided_velocity
from jemtrack.flux.sampling.ode import SOLVERS, evaluations, integrate

MEAN, STD = 1.5, 0.3


def gaussian_velocity(x, time):
    """The velocity of the flow from N(0, 1) to N(m, s^2), which ends at m + s x_0."""
    variance = (1 - time) ** 2 + time**2 * STD**2
    return MEAN + (time * STD**2 - (1 - time)) / variance * (x - time * MEAN)


@pytest.mark.parametrize(("solver", "order"), [("euler", 0.9), ("heun", 1.8), ("midpoint", 1.9)])
def test_solvers_have_their_order(solver, order):
    start = noise(64).double()

    errors = [
        (integrate(gaussian_velocity, start, solver, n) - (MEAN + STD * start)).abs().max().item()
        for n in (32, 64, 128)
    ]

    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) >= order


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_exact_velocity_of_a_finite_data_set_leads_to_its_points(solver):
    data = torch.tensor([[-2.0, 1], [0, 3], [4, -1]]).double()

    def velocity(x, time):
        # The mean of the data, weighted by how probable x is on the way to each of them.
        squares = (x[:, None] - time * data).square().sum(dim=2)
        rest = max(1 - time, 1e-9)
        weights = (-squares / (2 * rest**2)).softmax(dim=1)
        return (weights @ data - x) / rest

    ends = integrate(velocity, noise(50, 2).double(), solver, 200)

    distances = torch.cdist(ends, data).min(dim=1)
    assert distances.values.max() < 0.02
    assert {*distances.indices.tolist()} == {0, 1, 2}


def test_the_minimiser_of_the_loss_is_the_velocity():
    """At a fixed time, a linear regression on pairs finds the velocity of the Gaussian flow."""
    n, time = 200_000, torch.tensor(0.6).double()
    start, end = noise(n).double(), MEAN + STD * noise(n, seed=2).double()
    points, velocity = FlowPath.between(
        start[:, None, None, None], end[:, None, None, None], time.expand(n)
    )
    x = points.flatten()

    fit = torch.linalg.lstsq(torch.stack([x, torch.ones(n)], dim=1), velocity.flatten()[:, None])

    for at in (-1.0, 0.5, 2.0):
        expected = gaussian_velocity(torch.tensor(at).double(), 0.6)
        found = (fit.solution.squeeze() * torch.tensor([at, 1.0]).double()).sum()
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_guidance_of_one_is_the_caption_and_of_zero_none():
    models = networks()
    z = noise(2, 4, 4, 4)
    tokens = tokenise(["seven", "the digit"], WORDS)

    with torch.no_grad():
        values = {w: guided_velocity(models, tokens, w)(z, 0.3) for w in (0, 1, 0.5, 3)}
        empty = guided_velocity(models, torch.zeros_like(tokens), 1)(z, 0.3)

    torch.testing.assert_close(values[0], empty)
    assert not torch.allclose(values[0], values[1], atol=1e-3)
    torch.testing.assert_close(values[0.5], (values[0] + values[1]) / 2)
    torch.testing.assert_close(values[3], values[0] + 3 * (values[1] - values[0]))


@pytest.mark.parametrize(("solver", "count"), [("euler", 6), ("midpoint", 12), ("heun", 12)])
def test_evaluations_are_counted(solver, count):
    called = []

    integrate(lambda z, time: called.append(time) or z, noise(2), solver, 6)

    assert len(called) == evaluations(solver, 6) == count
    assert min(called) == 0
    assert max(called) <= 1


def test_an_image_depends_on_its_seed_and_number_alone():
    models = networks(sizes_of(height=9))
    captions = ["seven", "the digit", "seven"]
    sampler = FlowSampler(n_steps=2)

    images = sampler(models, captions, WORDS, seed=5)

    assert images.shape == (3, 1, 9, 8)
    assert images.abs().max() <= 1
    torch.testing.assert_close(sampler(models, captions[:1], WORDS, seed=5), images[:1])
    assert not torch.allclose(images[0], images[2])
    assert not torch.allclose(sampler(models, captions, WORDS, seed=6), images)
