"""The reference steps do what this project's do, where both must."""

import dataclasses
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most

from benchmarks.reference.evaluation import evaluate
from benchmarks.reference.images import AugmentedImages, augment_image, cycle, loader
from benchmarks.reference.sampled import Chains, PlainSampledStep, sampled_loss
from benchmarks.reference.steps import (
    PlainStep,
    cross_entropy_loss,
    descend,
    max_entropy_loss,
)
from benchmarks.sizes import TINY, Size, two_loaders
from jemtrack.data.augment import shifted_crop
from jemtrack.data.images import to_unit_range
from jemtrack.jem.networks.inference import predict
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.jem.training.batches import Batch
from jemtrack.jem.training.phases import initial_network, network_shape

CPU = torch.device("cpu")
SIZES = [TINY, Size(depth=16, width=2, side=16, channels=3, batch_size=6)]


def both_networks(size, seed=0):
    torch.manual_seed(seed)
    ours = initial_network(network_shape(size.params(), size.random_data()))
    return size.plain_network(ours), ours


def images_of(size, n_images=None):
    train = size.random_data().train
    chosen = slice(n_images or size.batch_size)
    return to_unit_range(train.images_NCHW[chosen]), train.labels_N[chosen]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize(
    ("plain_loss", "objective"),
    [(cross_entropy_loss, CrossEntropy()), (max_entropy_loss, MaxEntropyL2Objective())],
)
def test_losses_and_gradients_are_the_same(size, plain_loss, objective):
    plain, ours = (network.double() for network in both_networks(size))
    x, y = images_of(size)
    loss = plain_loss(plain, x.double(), y)
    loss.backward()
    losses = objective({"network": ours}, Batch(x.double(), y))
    losses["loss"].backward()

    torch.testing.assert_close(loss, losses["loss"], rtol=1e-12, atol=0)
    gradients = {name: weight.grad for name, weight in ours.named_parameters()}
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("size", "pad"), [(SIZES[0], 1), (SIZES[1], 4)])
def test_an_image_is_augmented_as_a_batch_is(size, pad):
    image = size.random_data().train.images_NCHW[:1]
    for row, column, flipped in product(range(2 * pad + 1), range(2 * pad + 1), (False, True)):
        shift = torch.tensor([[row, column]])
        expected = to_unit_range(shifted_crop(image, shift, pad, torch.tensor([flipped])))

        torch.testing.assert_close(
            augment_image(image[0], row, column, flipped, pad), expected[0], rtol=0, atol=1e-6
        )


def test_the_loader_augments_every_image_anew():
    part = SIZES[1].random_data().train
    images = AugmentedImages(part.images_NCHW[:8], part.labels_N[:8], sigma=0.03, pad=4, flip=True)
    batches = cycle(loader(images, 8))
    (first, labels), (second, _) = next(batches), next(batches)

    assert first.shape == (8, 3, 16, 16)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert sorted(labels.tolist()) == sorted(part.labels_N[:8].tolist())


def test_a_step_lowers_the_loss_of_its_batch():
    size = dataclasses.replace(SIZES[0], batch_size=8)
    plain, _ = both_networks(size)
    x, y = images_of(size)
    step = PlainStep(plain, cross_entropy_loss, iter([(x, y)] * 5), iter([(x, y)] * 5), CPU, 1e-3)
    losses = [step() for _ in range(5)]

    assert losses[-1] < losses[0]


def test_a_step_reads_the_second_loader_as_well():
    plain, _ = both_networks(TINY)
    labelled, others = two_loaders(TINY.random_data(), TINY.params())
    read = []
    counted = (read.append(batch) or batch for batch in others)
    PlainStep(plain, max_entropy_loss, labelled, counted, CPU, 1e-4)()

    assert len(read) == 1


def test_a_loss_that_is_too_large_ends_the_reference():
    weight = torch.nn.Parameter(torch.tensor(1e9))
    with pytest.raises(FloatingPointError, match="the loss is 1000000000"):
        descend(torch.optim.Adam([weight]), weight * 1)


@at_most(10)
@given(n_steps=st.integers(1, 3), seed=st.integers(0, 100))
def test_chains_without_noise_are_this_projects(n_steps, seed):
    plain, ours = both_networks(TINY, seed)
    chains = Chains(TINY.image_shape, CPU, n_steps, noise_std=0.0, buffer_size=2, reinit=0.0)
    before = chains.buffer.clone()
    chains(plain, 8)
    sampler = LangevinSampler(n_steps=n_steps, noise_std=0.0)
    expected = sampler(ours.eval().log_density, before, torch.Generator())

    # 8 chains from 2 images: both were chosen, but for one time in 128.
    changed = torch.isclose(chains.buffer, expected, rtol=0, atol=1e-5).flatten(1).all(1)
    kept = (chains.buffer == before).flatten(1).all(1)
    assert (changed | kept).all()
    assert changed.any()
    assert plain.training


def test_a_chain_begins_afresh_where_it_must():
    plain, _ = both_networks(TINY)
    chains = Chains(TINY.image_shape, CPU, n_steps=0, reinit=1.0, buffer_size=100)
    before = chains.buffer.clone()
    ends = chains(plain, 50)

    assert not any(torch.equal(end, kept) for end in ends for kept in before)
    assert ends.min() >= -1
    assert ends.max() <= 1


def test_the_sampled_loss_is_the_formula():
    plain, ours = (network.double() for network in both_networks(TINY))
    x, y = images_of(TINY, 12)
    x_p, x_q, x_labelled = x.double().split(4)
    density = ours.log_density(x_p).mean() - ours.log_density(x_q).mean()
    classes = CrossEntropy()({"network": ours}, Batch(x_labelled, y[:4]))["loss"]

    torch.testing.assert_close(sampled_loss(plain, x_p, x_q, x_labelled, y[:4]), classes - density)


def test_the_sampled_step_trains():
    plain, _ = both_networks(TINY)
    before = plain.trunk.stem.weight.clone()
    chains = Chains(TINY.image_shape, CPU, n_steps=2, buffer_size=10)
    loaders = two_loaders(TINY.random_data(), TINY.params())
    PlainSampledStep(plain, chains, *loaders, CPU, 1e-4)()

    assert not torch.equal(plain.trunk.stem.weight, before)


def test_evaluation_one_by_one_says_what_batches_say():
    plain, ours = both_networks(TINY)
    part = TINY.random_data(5).train
    images = AugmentedImages(part.images_NCHW, part.labels_N, sigma=0.0)
    logits, log_density = evaluate(plain, images, CPU)
    expected = predict(ours, part, sigma=0.0, seed=1)

    torch.testing.assert_close(logits, expected.logits_NC)
    torch.testing.assert_close(log_density, expected.log_density_N)
